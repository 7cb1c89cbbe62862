package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// Machine is a QEMU machine on a lab's network. It keeps its disk, its MAC and
// its firmware's settings over its starts, as a real one does.
type Machine struct {
	Spec    Spec
	Console *Console
	BMC     *BMC

	network *Network
	files   files
	on      string // a file that is there while the machine has power
	mu      sync.Mutex
	process *process // nil before the first start
	next    choice
	started string // the device of next, at the last start
}

// choice is what a machine boots: a device, once or always.
type choice struct {
	device string
	once   bool
}

// What a machine can be told to boot. Its own order is the network, then the disk.
const (
	bootOwn     = ""
	bootNetwork = "network"
	bootDisk    = "disk"
)

// NewMachine buys a machine and plugs it in. Its files go to dir. accel is what Accelerator returned.
func (n *Network) NewMachine(ctx context.Context, dir, accel string, spec Spec) (*Machine, error) {
	if spec.Card == "" {
		spec.Card = "virtio-net-pci"
	}
	if spec.Memory == 0 {
		spec.Memory = 1024
	}
	spec.CPUs = max(spec.CPUs, 1)
	tap, err := n.Tap(ctx)
	if err != nil {
		return nil, err
	}
	m := &Machine{Spec: spec, network: n}
	if m.files, err = layFiles(dir, spec); err != nil {
		return nil, err
	}
	m.files.tap, m.files.accel = tap, accel
	m.on = filepath.Join(dir, spec.Name+".on")
	if m.Console, err = newConsole(filepath.Join(dir, spec.Name+".console")); err != nil {
		return nil, err
	}
	m.BMC, err = n.newBMC(ctx, m, dir)
	return m, err
}

// layFiles makes what lasts over a machine's starts: its firmware's settings and its disk.
func layFiles(dir string, spec Spec) (files, error) {
	f := files{qmp: filepath.Join(dir, spec.Name+".qmp")}
	if spec.Firmware == UEFI {
		f.vars = filepath.Join(dir, spec.Name+".vars")
		if err := copyFile(ovmfVars, f.vars); err != nil {
			return f, fmt.Errorf("UEFI firmware of the package ovmf: %w", err)
		}
	}
	if spec.Disk > 0 {
		f.disk = filepath.Join(dir, spec.Name+".disk")
		disk, err := os.Create(f.disk)
		if err != nil {
			return f, err
		}
		if err := errors.Join(disk.Truncate(spec.Disk), disk.Close()); err != nil {
			return f, err
		}
	}
	return f, nil
}

func copyFile(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Close())
}

// Start presses the power button of a machine that is off.
func (m *Machine) Start() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.process != nil && m.process.running() {
		return fmt.Errorf("%s is already on", m.Spec.Name)
	}
	f := m.files
	f.diskFirst = m.next.device == bootDisk
	args, err := qemu(m.Spec, f)
	if err != nil {
		return err
	}
	cmd := m.network.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = m.Console, m.Console
	keyboard, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	p, err := start(cmd)
	if err != nil {
		return err
	}
	m.process, m.started = p, m.next.device
	if m.next.once {
		m.next = choice{}
	}
	m.Console.plug(keyboard)
	go func() {
		<-p.done
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.process == p {
			os.Remove(m.on)
		}
	}()
	return os.WriteFile(m.on, nil, 0o644)
}

// Stop pulls the plug. A machine that is off stays off.
func (m *Machine) Stop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.process != nil {
		_ = m.process.stop(syscall.SIGKILL, time.Minute) // killed is what was wanted
	}
}

// Close takes the machine away.
func (m *Machine) Close() error {
	err := m.BMC.close()
	m.Stop()
	return errors.Join(err, m.Console.close())
}

// On says whether the machine has power.
func (m *Machine) On() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.process != nil && m.process.running()
}

// Boot is what the machine boots at its next start or reset, and whether at that
// one alone: network, disk, or nothing for its own order.
func (m *Machine) Boot() (device string, once bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.next.device, m.next.once
}

// SetBoot chooses that.
func (m *Machine) SetBoot(device string, once bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.next = choice{device, once}
}

// Reset presses the reset button.
func (m *Machine) Reset(ctx context.Context) error {
	m.mu.Lock()
	other := m.next.device != m.started
	m.mu.Unlock()
	if !other {
		return m.tell(ctx, "system_reset")
	}
	m.Stop() // QEMU's firmware learns the order from QEMU's command line
	return m.Start()
}

// Press presses the power button of a machine that is on, for its system to see.
func (m *Machine) Press(ctx context.Context) error { return m.tell(ctx, "system_powerdown") }

// tell gives QEMU's monitor a command.
func (m *Machine) tell(ctx context.Context, command string) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", m.files.qmp)
	if err != nil {
		return fmt.Errorf("%s of %s: %w", command, m.Spec.Name, err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	answers := json.NewDecoder(conn)
	var greeting struct{ QMP json.RawMessage }
	if err := answers.Decode(&greeting); err != nil {
		return fmt.Errorf("%s of %s: %w", command, m.Spec.Name, err)
	}
	for _, c := range []string{"qmp_capabilities", command} {
		if _, err := fmt.Fprintf(conn, `{"execute":%q}`+"\n", c); err != nil {
			return fmt.Errorf("%s of %s: %w", command, m.Spec.Name, err)
		}
		if err := answered(answers); err != nil {
			return fmt.Errorf("%s of %s: %w", c, m.Spec.Name, err)
		}
	}
	return nil
}

// answered reads a QMP command's answer; events come in between.
func answered(answers *json.Decoder) error {
	for {
		var answer struct {
			Return json.RawMessage
			Error  *struct{ Desc string }
		}
		if err := answers.Decode(&answer); err != nil {
			return err
		}
		if answer.Error != nil {
			return errors.New(answer.Error.Desc)
		}
		if answer.Return != nil {
			return nil
		}
	}
}
