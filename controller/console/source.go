package console

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/creack/pty"
	"golang.org/x/term"
)

// Sources are the ways to a console, by the scheme of its URI.
//
//	ipmi://USER:PASSWORD@HOST[:PORT]/?cipher=3     serial-over-LAN, by ipmitool
//	qemu:///PATH/OF/THE/SOCKET                     a Unix socket that is a serial line
//	ssh://USER@HOST[:PORT]/NAME                    `muster-console NAME` there; the option command names another program
func Sources() map[string]Source {
	return map[string]Source{"ipmi": serialOverLAN, "qemu": socket, "ssh": relay}
}

// socket opens the serial line of a QEMU process: -serial unix:PATH,server=on,wait=off.
func socket(ctx context.Context, t Target) (io.ReadWriteCloser, error) {
	if t.Host != "" || t.User != "" || len(t.Options) > 0 || t.Path == "" || strings.ContainsRune(t.Path, 0) {
		return nil, errors.New("it has to be like qemu:///run/n0.serial, the socket of a QEMU process's serial line")
	}
	var d net.Dialer
	return d.DialContext(ctx, "unix", "/"+t.Path)
}

// word is what becomes an argument of a program that runs elsewhere.
var (
	word    = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.:-]*$`)
	program = regexp.MustCompile(`^[A-Za-z0-9_./][A-Za-z0-9_./-]*$`)
)

// relay runs a command on another machine.
func relay(_ context.Context, t Target) (io.ReadWriteCloser, error) {
	command := t.Options.Get("command")
	if command == "" {
		command = "muster-console"
	}
	switch {
	case t.Password != "":
		return nil, errors.New("ssh:// takes no password: give the head's root user a key")
	case !word.MatchString(t.Host) || t.User != "" && !word.MatchString(t.User) || !word.MatchString(t.Path) || !program.MatchString(command):
		return nil, errors.New("it has to be like ssh://USER@HOST/NAME, with a name of letters, digits, dots and dashes")
	}
	where := t.Host
	if t.User != "" {
		where = t.User + "@" + where
	}
	args := []string{"-tt", "-e", "none", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=20", "-o", "ClearAllForwardings=yes"}
	if t.Port != "" {
		args = append(args, "-p", t.Port)
	}
	return spawn(exec.Command("ssh", append(args, "--", where, command+" "+t.Path)...))
}

// child is a program on a terminal of its own, which hangs up when the head
// ends, however it ends.
type child struct {
	tty  *os.File
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	once sync.Once
}

func spawn(cmd *exec.Cmd) (*child, error) {
	tty, err := pty.Start(cmd)
	if errors.Is(err, exec.ErrNotFound) {
		return nil, fmt.Errorf("the head has no program %s: install it there", cmd.Args[0])
	}
	if err != nil {
		return nil, err
	}
	c := &child{tty: tty, cmd: cmd, done: make(chan struct{})}
	go func() {
		cmd.Wait()
		close(c.done)
	}()
	if err := raw(tty); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// raw makes a terminal pass everything on as it is, and give nothing of what
// is typed back. It must not make the file blocking, as Fd would: Close could
// not end a read then.
func raw(tty *os.File) error {
	conn, err := tty.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = conn.Control(func(fd uintptr) { _, failed = term.MakeRaw(int(fd)) })
	return errors.Join(err, failed)
}

// Read gives what the program prints. A terminal says EIO when it has ended.
func (c *child) Read(p []byte) (int, error) {
	n, err := c.tty.Read(p)
	if errors.Is(err, syscall.EIO) || errors.Is(err, os.ErrClosed) {
		err = io.EOF
	}
	return n, err
}

// Write types.
func (c *child) Write(p []byte) (int, error) { return c.tty.Write(p) }

// endTime is how long a program may take to end when its terminal hangs up.
const endTime = 2 * time.Second

// Close hangs up, and waits for the end.
func (c *child) Close() (err error) {
	c.once.Do(func() {
		err = c.tty.Close()
		select {
		case <-c.done:
		case <-time.After(endTime):
			c.cmd.Process.Kill()
			<-c.done
		}
	})
	return err
}

// serialOverLAN has ipmitool carry the console, which knows the faults of BMCs'
// firmware best. The password is in its environment, which only root can read.
func serialOverLAN(ctx context.Context, t Target) (io.ReadWriteCloser, error) {
	args, err := ipmitoolArgs(t)
	if err != nil {
		return nil, err
	}
	// ctx bounds the opening alone; the session outlives it.
	c, err := spawn(ipmitool(context.WithoutCancel(ctx), t, append(args, "-e", string([]byte{escapeByte}), "sol", "activate")))
	if err != nil {
		return nil, err
	}
	s := &sol{child: c, fresh: true}
	stop := context.AfterFunc(ctx, func() { c.Close() })
	err = s.await()
	if !stop() && ctx.Err() != nil {
		err = ctx.Err()
	}
	if err == nil {
		return s, nil
	}
	c.Close()
	if errors.Is(err, errTaken) {
		if out, bad := ipmitool(ctx, t, append(args, "sol", "deactivate")).CombinedOutput(); bad != nil {
			return nil, fmt.Errorf("%w, and could not be ended: %s", err, plainText(string(out)))
		}
	}
	return nil, err
}

var errTaken = errors.New("another session had the console; it was ended")

// ipmitoolArgs checks a target and gives what names it.
func ipmitoolArgs(t Target) ([]string, error) {
	if t.Host == "" || t.Options.Get("interface") == "lan" {
		return nil, errors.New("serial-over-LAN needs IPMI 2.0: ipmi://USER:PASSWORD@ADDRESS/")
	}
	args := []string{"-I", "lanplus", "-H", t.Host, "-U", t.User, "-E"}
	if t.Port != "" {
		args = append(args, "-p", t.Port)
	}
	for option, flag := range map[string]string{"cipher": "-C", "privilege": "-L"} {
		if v := t.Options.Get(option); v != "" {
			if !word.MatchString(v) {
				return nil, fmt.Errorf("%s: %q is no value for it", option, v)
			}
			args = append(args, flag, strings.ToUpper(v))
		}
	}
	return args, nil
}

func ipmitool(ctx context.Context, t Target, args []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "ipmitool", args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "IPMI_PASSWORD="+t.Password)
	return cmd
}

// escapeByte is what ipmitool takes for its escape character, at the beginning
// of a line: a byte that no keyboard sends, and that never passes.
const escapeByte = 0xff

// sol is a session of ipmitool's.
type sol struct {
	*child
	mu    sync.Mutex
	fresh bool // whether what is typed next begins a line
	rest  *bufio.Reader
}

// What ipmitool says before the console's own words.
const (
	solOpen  = "SOL Session operational"
	solTaken = "SOL payload already active"
	maxWords = 4096
)

// await returns when the session stands.
func (s *sol) await() error {
	s.rest = bufio.NewReaderSize(s.child, maxWords)
	var said []string
	for range 64 {
		text, err := s.rest.ReadSlice('\n')
		line := plainText(string(text))
		switch {
		case strings.Contains(line, solOpen):
			return nil
		case strings.Contains(line, solTaken):
			return errTaken
		}
		if line != "" {
			said = append(said, line)
		}
		if err != nil {
			return fmt.Errorf("ipmitool: %s", strings.Join(said, "; "))
		}
	}
	return errors.New("ipmitool says too much and opens nothing")
}

// Read implements io.Reader.
func (s *sol) Read(p []byte) (int, error) { return s.rest.Read(p) }

// Write types.
func (s *sol) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := bytes.ReplaceAll(p, []byte{escapeByte}, nil)
	if len(out) > 0 {
		last := out[len(out)-1]
		s.fresh = last == '\r' || last == '\n'
	}
	if _, err := s.child.Write(out); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Close has ipmitool end the session, where what was typed last lets it hear;
// else the BMC finds out by itself, or the next session does.
func (s *sol) Close() error {
	if s.mu.TryLock() { // else it hangs, and somebody in Write with it
		if s.fresh {
			s.fresh = false
			s.child.Write([]byte{escapeByte, '.'})
			select {
			case <-s.done:
			case <-time.After(endTime):
			}
		}
		s.mu.Unlock()
	}
	return s.child.Close()
}
