package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// ipmi is the half of a BMC that speaks IPMI: OpenIPMI's simulator, in a
// process of its own. It runs a script to look at its machine's power and to
// turn it; what the script says comes through a fifo.
type ipmi struct {
	simulator *process
	stdin     *os.File // of the simulator, which ends when that does
	orders    *os.File
}

// chassisScript is that script.
const chassisScript = `#!/bin/sh
case $1 in
get)
	shift
	for what; do
		value=0
		[ $what = boot ] && value=none
		[ $what = power ] && [ -e %[1]q ] && value=1
		echo $what:$value
	done ;;
set) shift; echo "$*" >%[2]q ;;
esac
`

// The simulator's configuration: its network and users, and what it has inside.
const (
	simulatorLAN = `name "bmc"
set_working_mc 0x20
  startlan 1
    addr %[1]s 623
    priv_limit admin
    allowed_auths_admin none md2 md5 straight
    guid a123456789abcdefa123456789abcdef
  endlan
  chassis_control %[2]q
  sol "tcp:%[1]s:%[3]d" 115200
  user 2 true %[4]q %[5]q admin 10 none md2 md5 straight
`
	simulatorInside = `mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr
sel_enable 0x20 1000 0x0a
mc_enable 0x20
`
)

// simulate starts a machine's BMC at an address, and returns when it answers.
// Its files go to dir.
func simulate(ctx context.Context, n *Network, m *Machine, addr netip.Addr, dir string) (*ipmi, error) {
	if _, err := exec.LookPath("ipmi_sim"); err != nil {
		return nil, errors.New("there is no ipmi_sim; install openipmi (scripts/deps demo does)")
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	file := func(name string) string { return filepath.Join(dir, name) }
	for name, text := range map[string]string{
		"chassis": fmt.Sprintf(chassisScript, m.on, file("orders")),
		"lan":     fmt.Sprintf(simulatorLAN, addr, file("chassis"), serialPort, BMCUser, BMCPassword),
		"inside":  simulatorInside,
	} {
		if err := os.WriteFile(file(name), []byte(text), 0o700); err != nil {
			return nil, err
		}
	}
	if err := syscall.Mkfifo(file("orders"), 0o600); err != nil {
		return nil, err
	}
	i := &ipmi{}
	var err error
	// Also for writing: the simulator's script comes and goes.
	if i.orders, err = os.OpenFile(file("orders"), os.O_RDWR, 0); err != nil {
		return nil, err
	}
	go obey(m, i.orders)
	in, out, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, i.close())
	}
	defer in.Close()
	i.stdin = out
	cmd := n.Command("ipmi_sim", "-c", file("lan"), "-f", file("inside"), "-s", dir, "-n")
	cmd.Stdin = in
	if i.simulator, err = start(cmd); err == nil {
		err = i.ready(ctx, n, netip.AddrPortFrom(addr, 623))
	}
	if err != nil {
		return nil, errors.Join(err, i.close())
	}
	return i, nil
}

// bmcReady is how long a simulator may take to answer.
const bmcReady = time.Minute

// ready waits for the answer to a ping of ASF, which every BMC gives
// (ASF 2.0, §3.2.3.2).
func (i *ipmi) ready(ctx context.Context, n *Network, to netip.AddrPort) error {
	conn, err := n.DialContext(ctx, "udp", to.String())
	if err != nil {
		return err
	}
	defer conn.Close()
	ping := []byte{6, 0, 0xff, 6, 0, 0, 0x11, 0xbe, 0x80, 0, 0, 0}
	for end := time.Now().Add(bmcReady); time.Now().Before(end) && ctx.Err() == nil; {
		if !i.simulator.running() {
			return fmt.Errorf("ipmi_sim ended: %v", i.simulator.err)
		}
		_ = conn.SetDeadline(time.Now().Add(100 * time.Millisecond))
		if _, err = conn.Write(ping); err == nil {
			if _, err = conn.Read(make([]byte, 64)); err == nil {
				return nil
			}
		}
		if errors.Is(err, syscall.ECONNREFUSED) {
			time.Sleep(10 * time.Millisecond) // nothing tells when it listens
		}
	}
	return errors.Join(fmt.Errorf("ipmi_sim does not answer: %w", err), context.Cause(ctx))
}

// obey does what the simulator's script passes on, until the fifo is closed.
// What cannot be done shows in the machine's state, as with a real one.
func obey(m *Machine, orders *os.File) {
	for in := bufio.NewScanner(orders); in.Scan(); {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		switch in.Text() {
		case "power 1":
			_ = m.Start()
		case "power 0":
			m.Stop()
		case "reset 1":
			_ = m.Reset(ctx)
		case "shutdown 1":
			_ = m.Press(ctx)
		case "boot default": // which is the disk
			m.SetBoot(bootDisk, true)
		case "boot pxe":
			m.SetBoot(bootNetwork, true)
		case "boot none":
			m.SetBoot(bootOwn, true)
		}
		cancel()
	}
}

func (i *ipmi) close() error {
	var err error
	if i.stdin != nil {
		err = i.stdin.Close()
	}
	if i.simulator != nil {
		_ = i.simulator.stop(syscall.SIGKILL, time.Minute) // killed is what was wanted
	}
	return errors.Join(err, i.orders.Close())
}
