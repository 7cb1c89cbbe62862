// Package qemu switches a QEMU process of the head's own machine through its
// monitor (QMP): qemu:///PATH/OF/THE/SOCKET. A process that is gone is a
// machine without power; starting one is not the monitor's to do.
package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"

	"muster/controller/power/bmc"
)

// maxMessage bounds a line of the monitor in bytes, maxEvents how many may come
// before an answer.
const (
	maxMessage = 256 << 10
	maxEvents  = 1000
)

// Scheme is qemu://.
type Scheme struct{}

// Open implements bmc.Scheme. A socket that is not there is no error: the
// machine is off.
func (Scheme) Open(_ context.Context, t bmc.Target) (bmc.Machine, error) {
	if t.Host != "" || t.User != "" || (t.Transport != "" && t.Transport != "unix") {
		return nil, errors.New("it has to be like qemu:///run/n0.qmp; for libvirt write qemu+ssh://USER@HOST/DOMAIN")
	}
	if err := t.Only(); err != nil {
		return nil, err
	}
	if t.Path == "" || strings.ContainsRune(t.Path, 0) {
		return nil, errors.New("it names no socket: qemu:///run/n0.qmp")
	}
	return machine("/" + t.Path), nil
}

// machine is the path of a socket.
type machine string

var errGone = errors.New("the QEMU process is not running")

// ask runs one command and decodes what it returns.
func (m machine) ask(ctx context.Context, command string, out any) error {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", string(m))
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, os.ErrNotExist) {
		return errGone
	}
	if err != nil {
		return err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	err = talk(c, command, out)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

func talk(c io.ReadWriter, command string, out any) error {
	in := bufio.NewScanner(c)
	in.Buffer(nil, maxMessage)
	var hello struct{ QMP json.RawMessage }
	if !in.Scan() || json.Unmarshal(in.Bytes(), &hello) != nil || hello.QMP == nil {
		return errors.New("what listens there is no QEMU monitor in its JSON mode")
	}
	for _, name := range []string{"qmp_capabilities", command} {
		if _, err := fmt.Fprintf(c, `{"execute":%q}`+"\n", name); err != nil {
			return err
		}
		answer, err := next(in)
		if err != nil {
			return err
		}
		if name == command && out != nil {
			return json.Unmarshal(answer, out)
		}
	}
	return nil
}

// next gives the next answer, past the events between.
func next(in *bufio.Scanner) (json.RawMessage, error) {
	for range maxEvents {
		if !in.Scan() {
			return nil, errors.New("the QEMU monitor closed the connection")
		}
		var a struct {
			Return json.RawMessage `json:"return"`
			Error  *struct {
				Desc string `json:"desc"`
			} `json:"error"`
		}
		if err := json.Unmarshal(in.Bytes(), &a); err != nil {
			return nil, errors.New("the QEMU monitor does not speak JSON")
		}
		if a.Error != nil {
			return nil, errors.New(bmc.Clean(a.Error.Desc))
		}
		if a.Return != nil {
			return a.Return, nil
		}
	}
	return nil, errors.New("the QEMU monitor tells events without end")
}

// State implements bmc.Machine.
func (m machine) State(ctx context.Context) (bmc.State, error) {
	var s struct{ Status string }
	switch err := m.ask(ctx, "query-status", &s); {
	case errors.Is(err, errGone):
		return bmc.Off, nil
	case err != nil:
		return bmc.Unknown, err
	}
	switch s.Status {
	case "shutdown", "prelaunch", "inmigrate", "postmigrate":
		return bmc.Off, nil
	}
	return bmc.On, nil
}

// Do implements bmc.Machine.
func (m machine) Do(ctx context.Context, a bmc.Action) error {
	var commands []string
	switch a {
	case bmc.PowerOn:
		commands = []string{"system_reset", "cont"} // of one that stays after its shutdown, or waits to begin
	case bmc.SoftOff:
		commands = []string{"system_powerdown"}
	case bmc.HardOff:
		commands = []string{"quit"}
	case bmc.Reset, bmc.Cycle:
		commands = []string{"system_reset"}
	}
	for _, command := range commands {
		err := m.ask(ctx, command, nil)
		if errors.Is(err, errGone) && a == bmc.PowerOn {
			return fmt.Errorf("%w: %w, and a monitor cannot start it", bmc.ErrUnsupported, errGone)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Close implements bmc.Machine.
func (machine) Close() {}
