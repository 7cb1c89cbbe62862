package command

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"muster/shared/wire"
)

// The statuses that a shell gives for a command that it could not start.
const (
	statusCannot   = 126
	statusNotFound = 127
)

// cookie names the environment variable by which everything that a command
// started is found again, daemons with a session of their own included.
const cookie = "MUSTER_EXEC"

// maxArgument is the kernel's limit on one argument (MAX_ARG_STRLEN), with the
// terminating zero: a longer shell command is handed over as a file.
const maxArgument = 128<<10 - 1

// process is a started command with the agent's ends of its streams.
type process struct {
	cmd    *exec.Cmd
	pid    int
	cookie string // NAME=value

	stdin  *os.File // the pty itself when there is one
	stdout *os.File
	stderr *os.File // nil on a pty
	tty    bool

	ended  chan struct{} // closed when the status is there
	status int
}

// start starts the command. The error says why it could not be.
func (r *Runner) start(e wire.Exec) (*process, error) {
	cmd, err := prepare(e)
	if err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, cookie: cookie + "=" + rand.Text(), ended: make(chan struct{}), tty: e.TTY}
	cmd.Env = append(cmd.Env, p.cookie)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	theirs, err := p.connect(e)
	if err == nil {
		r.starting.Lock()
		if err = cmd.Start(); err == nil {
			p.pid = cmd.Process.Pid
			r.own[p.pid] = true
		}
		r.starting.Unlock()
	}
	for _, f := range append(theirs, cmd.ExtraFiles...) {
		f.Close()
	}
	if err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// connect makes pty or pipes, and gives the ends that only the child needs.
func (p *process) connect(e wire.Exec) (theirs []*os.File, err error) {
	if e.TTY {
		master, slave, err := openPTY()
		if err != nil {
			return nil, fmt.Errorf("no pty: %w", err)
		}
		p.stdin, p.stdout = master, master
		p.resize(e.Rows, e.Cols)
		p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = slave, slave, slave
		p.cmd.SysProcAttr.Setctty = true
		return []*os.File{slave}, nil
	}
	var pipes [3][2]*os.File
	for i := range pipes {
		r, w, err := os.Pipe()
		if err != nil {
			return theirs, fmt.Errorf("no pipe: %w", err)
		}
		pipes[i] = [2]*os.File{r, w}
		switch i {
		case 0:
			p.stdin, theirs = w, append(theirs, r)
		case 1:
			p.stdout, theirs = r, append(theirs, w)
		case 2:
			p.stderr, theirs = r, append(theirs, w)
		}
	}
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = pipes[0][0], pipes[1][1], pipes[2][1]
	return theirs, nil
}

// wait waits for the process and notes its status as $? has it.
func (r *Runner) wait(p *process) {
	err := p.cmd.Wait()
	r.starting.Lock()
	delete(r.own, p.pid)
	r.starting.Unlock()
	p.status = 0
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		ws := exit.Sys().(syscall.WaitStatus)
		p.status = ws.ExitStatus()
		if ws.Signaled() {
			p.status = 128 + int(ws.Signal())
		}
	} else if err != nil {
		p.status = statusCannot
	}
	close(p.ended)
}

func (p *process) outputs() map[wire.FrameKind]*os.File {
	m := map[wire.FrameKind]*os.File{wire.FrameStdout: p.stdout}
	if p.stderr != nil {
		m[wire.FrameStderr] = p.stderr
	}
	return m
}

// finishOutput lets readers go that wait for a child left behind.
func (p *process) finishOutput() {
	for _, f := range p.outputs() {
		f.SetReadDeadline(time.Now().Add(leftover))
	}
}

func (p *process) close() {
	for _, f := range []*os.File{p.stdin, p.stdout, p.stderr} {
		if f != nil {
			f.Close()
		}
	}
}

// closeInput tells the command that no input follows: on a pty by typing ^D.
func (p *process) closeInput() {
	if p.tty {
		p.stdin.Write([]byte{4})
		return
	}
	p.stdin.Close()
}

func (p *process) resize(rows, cols uint16) {
	if !p.tty || rows == 0 || cols == 0 {
		return
	}
	if conn, err := p.stdin.SyscallConn(); err == nil {
		conn.Control(func(fd uintptr) {
			unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
		})
	}
}

// openPTY gives a pty whose master can be read with a deadline: a daemon may
// keep the other end open for good.
func openPTY() (master, slave *os.File, err error) {
	blocking, slave, err := pty.Open()
	if err != nil {
		return nil, nil, err
	}
	defer blocking.Close()
	fd, err := unix.FcntlInt(blocking.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		slave.Close()
		return nil, nil, err
	}
	return os.NewFile(uintptr(fd), "ptmx"), slave, nil
}

// prepare makes the command line, the environment and the directory.
func prepare(e wire.Exec) (*exec.Cmd, error) {
	env := environment(e)
	if i := slices.IndexFunc(e.Env, func(s string) bool { return strings.IndexByte(s, '=') < 1 || strings.IndexByte(s, 0) >= 0 }); i >= 0 {
		return nil, fmt.Errorf("environment entry %q is not NAME=value", e.Env[i])
	}
	cmd := &exec.Cmd{Env: env, Dir: home()}
	switch {
	case e.Shell != "" && len(e.Argv) > 0:
		return nil, errors.New("both a shell command and an argument list were given, exactly one is needed")
	case len(e.Shell) > maxArgument:
		script, err := inMemory(e.Shell)
		if err != nil {
			return nil, err
		}
		cmd.Args, cmd.ExtraFiles = []string{"/bin/sh", "/proc/self/fd/3"}, []*os.File{script}
	case e.Shell != "":
		cmd.Args = []string{"/bin/sh", "-c", e.Shell}
	case len(e.Argv) > 0:
		cmd.Args = slices.Clone(e.Argv)
	case e.Login:
		shell := loginShell()
		cmd.Path, cmd.Args = shell, []string{"-" + shell[strings.LastIndexByte(shell, '/')+1:]}
		return cmd, nil
	default:
		return nil, errors.New("no command was given")
	}
	var err error
	cmd.Path, err = lookup(cmd.Args[0], env)
	return cmd, err
}

// inMemory gives text as a file that only descriptors name.
func inMemory(text string) (*os.File, error) {
	fd, err := unix.MemfdCreate("command", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("no memory file for a command of %d bytes: %w", len(text), err)
	}
	f := os.NewFile(uintptr(fd), "command")
	if _, err := io.WriteString(f, text); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// statusOf is what a shell would give for an error of start.
func statusOf(err error) int {
	if errors.Is(err, fs.ErrNotExist) {
		return statusNotFound
	}
	return statusCannot
}
