package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// process is a started program whose end can be waited for by many.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // valid once done is closed
}

// start runs cmd in a process group of its own, so that a Ctrl-C in the
// terminal reaches only us and the order of the teardown stays ours, and lets
// the kernel kill it when this program dies without a teardown.
func start(cmd *exec.Cmd) (*process, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// stop sends sig and waits; after grace it kills.
func (p *process) stop(sig syscall.Signal, grace time.Duration) error {
	if !p.running() {
		return p.err
	}
	_ = p.cmd.Process.Signal(sig) // it may have ended since
	select {
	case <-p.done:
		return p.err
	case <-time.After(grace):
		_ = p.cmd.Process.Kill()
		<-p.done
		return fmt.Errorf("%s did not end within %s of %s and was killed", p.cmd.Path, grace, sig)
	}
}

// Run runs a command to its end. When ctx ends the command is asked to stop
// (SIGTERM to its process group) before it is killed.
func Run(ctx context.Context, cmd *exec.Cmd) error {
	p, err := start(cmd)
	if err != nil {
		return err
	}
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
	}
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-p.done
	}
	return fmt.Errorf("%s: %w", strings.Join(cmd.Args, " "), context.Cause(ctx))
}

// output runs a short command and returns its standard output. An error
// carries the command and what it wrote to standard error.
func output(ctx context.Context, cmd *exec.Cmd) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := Run(ctx, cmd)
	if _, failed := errors.AsType[*exec.ExitError](err); failed {
		err = &CommandError{Args: cmd.Args, Stderr: lastBytes(strings.TrimSpace(stderr.String()), 4<<10), Err: err}
	}
	return stdout.String(), err
}

// lastBytes bounds what an error carries: the reason is at the end.
func lastBytes(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return "… " + s[len(s)-n:]
}

// run is output for a command whose output nobody needs.
func run(ctx context.Context, name string, args ...string) error {
	_, err := output(ctx, exec.Command(name, args...))
	return err
}

// CommandError is a command that ended with another status than 0.
type CommandError struct {
	Args   []string
	Stderr string
	Err    error
}

func (e *CommandError) Error() string {
	return fmt.Sprintf("%s: %v: %s", strings.Join(e.Args, " "), e.Err, e.Stderr)
}

func (e *CommandError) Unwrap() error { return e.Err }

// Status is the exit status, or -1 when a signal ended the command.
func (e *CommandError) Status() int {
	if exit, ok := errors.AsType[*exec.ExitError](e.Err); ok {
		return exit.ExitCode()
	}
	return -1
}
