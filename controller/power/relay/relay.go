// Package relay switches machines through a program of the head: virsh for
// libvirt's domains, ssh for a command on another machine.
//
//	qemu+ssh://USER@HOST/[system/]DOMAIN, qemu+tls://, xen+ssh:// …: virsh -c qemu+ssh://USER@HOST/system
//	virsh:///DOMAIN, libvirt:///DOMAIN: virsh on the head, qemu:///system
//	ssh://USER@HOST[:PORT]/NAME: ssh runs `muster-power ACTION NAME` there, with ACTION one of
//	status (which prints on or off), on, soft, off, cycle, reset; the option command names another program
//
// Every part of a URI that becomes an argument is checked against a list of
// allowed characters, so that none is taken for an option or by a shell.
// Passwords are refused: keys are what these programs take.
package relay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"time"

	"muster/controller/power/bmc"
)

// word is what a user, host, domain or name may look like.
var word = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.:-]*$`)

var program = regexp.MustCompile(`^[A-Za-z0-9_./][A-Za-z0-9_./-]*$`)

// maxOutput bounds what a program may print, in bytes; endTime is how long one
// may take to end when told to.
const (
	maxOutput = 16 << 10
	endTime   = 500 * time.Millisecond
)

// place checks what is common, and gives [user@]host.
func place(t bmc.Target) (string, error) {
	if t.Password != "" {
		return "", fmt.Errorf("%s:// takes no password: give the head's root user a key", t.Scheme)
	}
	for what, s := range map[string]string{"user": t.User, "host": t.Host, "port": t.Port} {
		if s != "" && !word.MatchString(s) {
			return "", fmt.Errorf("its %s has characters that are not allowed there", what)
		}
	}
	if t.User != "" {
		return t.User + "@" + t.Host, nil
	}
	return t.Host, nil
}

// Virsh is libvirt's URIs.
type Virsh struct{}

// Open implements bmc.Scheme; nothing is run yet.
func (Virsh) Open(_ context.Context, t bmc.Target) (bmc.Machine, error) {
	where, err := place(t)
	if err != nil {
		return nil, err
	}
	if err := t.Only(); err != nil {
		return nil, err
	}
	driver := t.Scheme
	if driver == "virsh" || driver == "libvirt" {
		driver = "qemu"
	}
	transport := t.Transport
	switch transport {
	case "", "ssh", "tls", "tcp", "unix":
	default:
		return nil, fmt.Errorf("libvirt has no transport %q here, only ssh, tls, tcp and unix", transport)
	}
	if transport == "" && t.Host != "" {
		transport = "tls" // as libvirt reads it
	}
	if transport != "" {
		driver += "+" + transport
	}
	if t.Port != "" {
		where += ":" + t.Port
	}
	daemon, domain, ok := strings.Cut(t.Path, "/")
	if !ok {
		daemon, domain = "system", t.Path
	}
	if (daemon != "system" && daemon != "session") || !word.MatchString(domain) {
		return nil, errors.New("it names no domain: qemu+ssh://USER@HOST/DOMAIN")
	}
	return &machine{
		name: "virsh", args: []string{"-q", "-c", driver + "://" + where + "/" + daemon},
		act: func(a string) []string {
			verb := map[string]string{"status": "domstate", "on": "start", "soft": "shutdown", "off": "destroy", "reset": "reset"}[a]
			if verb == "" {
				return nil
			}
			return []string{verb, domain}
		},
		states: map[string]bmc.State{"running": bmc.On, "idle": bmc.On, "paused": bmc.On, "in shutdown": bmc.On, "pmsuspended": bmc.On, "shut off": bmc.Off, "crashed": bmc.Off},
	}, nil
}

// SSH is ssh://.
type SSH struct{}

// Open implements bmc.Scheme; nothing is run yet.
func (SSH) Open(_ context.Context, t bmc.Target) (bmc.Machine, error) {
	where, err := place(t)
	if err != nil {
		return nil, err
	}
	if err := t.Only("command"); err != nil {
		return nil, err
	}
	command := t.Option("command", "muster-power")
	if t.Transport != "" || t.Host == "" || !word.MatchString(t.Path) || !program.MatchString(command) {
		return nil, errors.New("it has to be like ssh://USER@HOST/NAME, with a name of letters, digits, dots and dashes")
	}
	args := []string{"-o", "BatchMode=yes", "-o", "ConnectTimeout=5", "-o", "ClearAllForwardings=yes"}
	if t.Port != "" {
		args = append(args, "-p", t.Port)
	}
	return &machine{
		name: "ssh", args: append(args, "--", where),
		act:    func(a string) []string { return []string{command + " " + a + " " + t.Path} },
		states: map[string]bmc.State{"on": bmc.On, "off": bmc.Off},
	}, nil
}

// machine runs a program for each action.
type machine struct {
	name   string
	args   []string
	act    func(action string) []string // nil: it has none
	states map[string]bmc.State         // by what the program prints
}

func (m *machine) run(ctx context.Context, action string) (string, error) {
	words := m.act(action)
	if words == nil {
		return "", fmt.Errorf("%w by %s: %s", bmc.ErrUnsupported, m.name, action)
	}
	cmd := exec.CommandContext(ctx, m.name, append(m.args[:len(m.args):len(m.args)], words...)...)
	cmd.WaitDelay = endTime
	var out, said clipped
	cmd.Stdout, cmd.Stderr = &out, &said
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case errors.Is(err, exec.ErrNotFound):
		return "", fmt.Errorf("the head has no program %s: install it there", m.name)
	case err != nil:
		return "", fmt.Errorf("%s: %v: %s", m.name, err, bmc.Clean(said.String()))
	}
	return strings.TrimSpace(out.String()), nil
}

// State implements bmc.Machine.
func (m *machine) State(ctx context.Context) (bmc.State, error) {
	text, err := m.run(ctx, "status")
	if err != nil {
		return bmc.Unknown, err
	}
	if s, ok := m.states[text]; ok {
		return s, nil
	}
	return bmc.Unknown, fmt.Errorf("%s says %q, which is no state", m.name, bmc.Clean(text))
}

// Do implements bmc.Machine.
func (m *machine) Do(ctx context.Context, a bmc.Action) error {
	_, err := m.run(ctx, string(a))
	return err
}

// Close implements bmc.Machine.
func (m *machine) Close() {}

// clipped keeps the first bytes of an output.
type clipped struct{ bytes.Buffer }

func (c *clipped) Write(p []byte) (int, error) {
	if room := maxOutput - c.Len(); room > 0 {
		c.Buffer.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}
