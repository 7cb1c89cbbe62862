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

	network *Network
	files   files
	mu      sync.Mutex
	process *process // nil before the first start
}

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
	m.Console, err = newConsole(filepath.Join(dir, spec.Name+".console"))
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
	args, err := qemu(m.Spec, m.files)
	if err != nil {
		return err
	}
	cmd := m.network.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = m.Console, m.Console
	m.process, err = start(cmd)
	return err
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
	m.Stop()
	return m.Console.close()
}

// On says whether the machine has power.
func (m *Machine) On() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.process != nil && m.process.running()
}

// Reset presses the reset button.
func (m *Machine) Reset(ctx context.Context) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", m.files.qmp)
	if err != nil {
		return fmt.Errorf("resetting %s: %w", m.Spec.Name, err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	answers := json.NewDecoder(conn)
	var greeting struct{ QMP json.RawMessage }
	if err := answers.Decode(&greeting); err != nil {
		return fmt.Errorf("resetting %s: %w", m.Spec.Name, err)
	}
	for _, command := range []string{"qmp_capabilities", "system_reset"} {
		if _, err := fmt.Fprintf(conn, `{"execute":%q}`+"\n", command); err != nil {
			return fmt.Errorf("resetting %s: %w", m.Spec.Name, err)
		}
		if err := answered(answers); err != nil {
			return fmt.Errorf("resetting %s: %s: %w", m.Spec.Name, command, err)
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
