// Package program runs executables of the node's admins with bounds on time and
// output: plugins of reports, init scripts. Whatever they do, they end, and what
// they started ends with them.
//
// They have the agent's rights, so only those run that nobody else may have
// written. The package must not know what their output means; commands that an
// admin asks for are agent/command's.
package program

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Runner runs a program of the agent's own until it has ended.
type Runner interface {
	Run(cmd *exec.Cmd) error
}

// Limits bound a program. One that is over them is killed.
type Limits struct {
	Time   time.Duration
	Output int // bytes of standard output; 0 to let it print and keep nothing
}

// maxComplaint is how much of standard error is kept.
const maxComplaint = 1 << 10

// Result is what came out of a program.
type Result struct {
	Out, Complaint []byte // standard output and the beginning of standard error
	Err            error  // why it is of no use: it did not start, failed, or was cut off
}

// Trusted says why a file must not be run by the agent: it has the agent's
// rights, so nobody else may have written it.
func Trusted(fi os.FileInfo) error {
	st, ok := fi.Sys().(*syscall.Stat_t)
	switch {
	case !fi.Mode().IsRegular() || fi.Mode()&0o111 == 0:
		return errors.New("it is not an executable file")
	case fi.Mode()&0o022 != 0:
		return errors.New("others may write it; chmod go-w")
	case ok && st.Uid != 0 && int(st.Uid) != os.Geteuid():
		return fmt.Errorf("it belongs to user %d, not to root", st.Uid)
	}
	return nil
}

// Run runs a program, with these variables in its environment and few others.
func Run(ctx context.Context, r Runner, l Limits, env []string, path string, args ...string) Result {
	ctx, cancel := context.WithTimeoutCause(ctx, l.Time, fmt.Errorf("cut off after %s", l.Time))
	defer cancel()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C"}, env...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second // for children that keep the pipes
	out, complaint := &bounded{max: l.Output}, &bounded{max: maxComplaint}
	if l.Output > 0 {
		out.full = func() { stop(fmt.Errorf("cut off after %d KiB of output", l.Output>>10)) }
	}
	cmd.Stdout, cmd.Stderr = out, complaint
	err := r.Run(cmd)
	if cmd.Process != nil {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what it left behind
	}
	switch {
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case errors.Is(err, exec.ErrWaitDelay): // it ended well, and left a child that kept its output open
		err = nil
	}
	return Result{out.kept, complaint.kept, err}
}

// bounded keeps the first bytes of what is written, and tells when more comes.
type bounded struct {
	kept []byte
	max  int
	full func() // nil for nobody
}

func (b *bounded) Write(p []byte) (int, error) {
	room := b.max - len(b.kept)
	b.kept = append(b.kept, p[:min(room, len(p))]...)
	if len(p) > room && b.full != nil {
		b.full()
	}
	return len(p), nil
}

// Problem words the error of a program with the first line that it complained
// with; "" where there is none.
func (r Result) Problem() string {
	if r.Err == nil {
		return ""
	}
	for _, text := range [][]byte{r.Complaint, r.Out} {
		if said := FirstLine(text); said != "" {
			return r.Err.Error() + ": " + said
		}
	}
	return r.Err.Error()
}

// FirstLine is that of a text, as far as it fits an error.
func FirstLine(text []byte) string {
	line, _, _ := bytes.Cut(bytes.TrimSpace(text), []byte{'\n'})
	return strings.ToValidUTF8(fmt.Sprintf("%.200s", line), "?")
}
