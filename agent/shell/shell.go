// Package shell is what an admin finds in the initramfs, where there is no
// other program: a shell that knows the POSIX language, with line editing, and
// the few tools that one needs to find out why a machine hangs.
//
// Each tool is the agent under another name. The package must stay small: it
// is no busybox, and nothing of the boot depends on it.
package shell

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/term"
	"mvdan.cc/sh/v3/interp"
	"mvdan.cc/sh/v3/syntax"
)

// Names are the names by which the agent is the shell or a tool.
func Names() []string {
	names := []string{"sh"}
	for name := range tools() {
		names = append(names, name)
	}
	names = append(names, builtins...)
	slices.Sort(names)
	return names
}

// builtins are commands of the shell itself that others may want to run.
var builtins = []string{"[", "echo", "false", "printf", "pwd", "test", "true"}

// Main runs the shell or the tool that args[0] names, on the process's own
// streams, and gives the exit status. ok is false when it names neither.
func Main(args []string) (status int, ok bool) {
	return call(env{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}, args)
}

func call(e env, args []string) (status int, ok bool) {
	name := filepath.Base(strings.TrimPrefix(args[0], "-"))
	switch {
	case name == "sh":
		return shell(e, args[1:]), true
	case slices.Contains(builtins, name):
		return script(context.Background(), e, name+` "$@"`, name, args[1:]), true
	}
	tool := tools()[name]
	if tool == nil {
		return 0, false
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	return run(ctx, tool, e, append([]string{name}, args[1:]...)), true
}

// shell is sh [-c COMMAND [NAME [ARG…]] | FILE [ARG…]].
func shell(e env, args []string) int {
	for len(args) > 0 && (args[0] == "-l" || args[0] == "-i" || args[0] == "-e" || args[0] == "--") {
		args = args[1:]
	}
	ctx := context.Background()
	switch {
	case len(args) > 1 && args[0] == "-c":
		name, rest := "sh", []string(nil)
		if len(args) > 2 {
			name, rest = args[2], args[3:]
		}
		return script(ctx, e, args[1], name, rest)
	case len(args) > 0 && strings.HasPrefix(args[0], "-"):
		fmt.Fprintf(e.Stderr, "sh: %s is no option here; there are -c, -i and -l\n", args[0])
		return 2
	case len(args) > 0:
		text, err := os.ReadFile(e.path(args[0]))
		if err != nil {
			fmt.Fprintln(e.Stderr, "sh:", err)
			return 127
		}
		return script(ctx, e, string(text), args[0], args[1:])
	}
	if tty, ok := e.Stdin.(*os.File); ok && term.IsTerminal(int(tty.Fd())) {
		return interactive(e, tty)
	}
	return stream(ctx, e)
}

func newRunner(e env, params []string) (*interp.Runner, error) {
	return interp.New(
		interp.StdIO(e.Stdin, e.Stdout, e.Stderr),
		interp.Dir(e.Dir),
		interp.Params(append([]string{"--"}, params...)...),
		interp.ExecHandlers(handle),
	)
}

// handle runs the tools within the shell's process.
func handle(next interp.ExecHandlerFunc) interp.ExecHandlerFunc {
	return func(ctx context.Context, args []string) error {
		tool := tools()[args[0]]
		if tool == nil || args[0] == "tar" { // which works only in the process's own directory
			return next(ctx, args)
		}
		hc := interp.HandlerCtx(ctx)
		e := env{Stdin: hc.Stdin, Stdout: hc.Stdout, Stderr: hc.Stderr, Dir: hc.Dir}
		if status := run(ctx, tool, e, args); status != 0 {
			return interp.ExitStatus(status)
		}
		return nil
	}
}

// script runs a whole text.
func script(ctx context.Context, e env, text, name string, params []string) int {
	r, err := newRunner(e, params)
	if err != nil {
		return report(e, err)
	}
	prog, err := syntax.NewParser().Parse(strings.NewReader(text), name)
	if err != nil {
		fmt.Fprintln(e.Stderr, err)
		return 2
	}
	return report(e, r.Run(ctx, prog))
}

// stream runs statements as they come from a pipe.
func stream(ctx context.Context, e env) int {
	r, err := newRunner(e, nil)
	if err != nil {
		return report(e, err)
	}
	status := 0
	for stmt, err := range syntax.NewParser().StmtsSeq(e.Stdin) {
		if err != nil {
			fmt.Fprintln(e.Stderr, err)
			return 2
		}
		status = report(e, r.Run(ctx, stmt))
		if r.Exited() {
			break
		}
	}
	return status
}

// report turns what a run gives into a status.
func report(e env, err error) int {
	var status interp.ExitStatus
	switch {
	case err == nil:
		return 0
	case errors.As(err, &status):
		return int(status)
	case errors.Is(err, context.Canceled):
		return 130
	}
	fmt.Fprintln(e.Stderr, "sh:", err)
	return 1
}

// interactive reads lines from a terminal until the end of input or exit.
func interactive(e env, tty *os.File) int {
	fd := int(tty.Fd())
	cooked, err := term.GetState(fd)
	if err != nil {
		return stream(context.Background(), e)
	}
	defer term.Restore(fd, cooked)
	// ^C is for commands, and must not end the shell in the moments between.
	signal.Notify(make(chan os.Signal, 1), os.Interrupt)
	r, err := newRunner(e, nil)
	if err != nil {
		return report(e, err)
	}
	fmt.Fprintln(e.Stdout, "This is the initramfs of muster. `tools` lists what there is, `resume` lets a held-up boot go on.")
	screen := term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{eraser{tty}, e.Stdout}, "")
	status, text := 0, ""
	for {
		screen.SetPrompt(prompt(r.Dir, text != ""))
		line, err := readLine(screen, fd)
		if err != nil {
			fmt.Fprintln(e.Stdout)
			break
		}
		prog, err := syntax.NewParser().Parse(strings.NewReader(text+line+"\n"), "")
		if syntax.IsIncomplete(err) {
			text += line + "\n"
			continue
		}
		text = ""
		if err != nil {
			fmt.Fprintln(e.Stderr, err)
			continue
		}
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
		status = report(e, r.Run(ctx, prog))
		interrupted := ctx.Err() != nil
		stop()
		if r.Exited() && !interrupted { // an interrupt looks like an exit
			break
		}
	}
	return status
}

func prompt(dir string, more bool) string {
	if more {
		return "> "
	}
	host, _ := os.Hostname()
	return fmt.Sprintf("%s:%s# ", host, dir)
}

// readLine reads one line in raw mode and leaves the terminal as it was.
func readLine(screen *term.Terminal, fd int) (string, error) {
	old, err := term.MakeRaw(fd)
	if err != nil {
		return "", err
	}
	defer term.Restore(fd, old)
	if width, height, err := term.GetSize(fd); err == nil && width > 0 && height > 0 {
		screen.SetSize(width, height)
	}
	return screen.ReadLine()
}

// eraser makes ^C erase the line, for which ^U is the terminal's word; to it
// ^C would be the end of input.
type eraser struct{ io.Reader }

func (e eraser) Read(p []byte) (int, error) {
	n, err := e.Reader.Read(p)
	for i, c := range p[:n] {
		if c == 3 {
			p[i] = 21
		}
	}
	return n, err
}
