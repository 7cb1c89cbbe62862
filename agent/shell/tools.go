package shell

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/u-root/u-root/pkg/core"
	"github.com/u-root/u-root/pkg/core/cat"
	"github.com/u-root/u-root/pkg/core/chmod"
	"github.com/u-root/u-root/pkg/core/cp"
	"github.com/u-root/u-root/pkg/core/find"
	"github.com/u-root/u-root/pkg/core/ls"
	"github.com/u-root/u-root/pkg/core/mkdir"
	"github.com/u-root/u-root/pkg/core/mv"
	"github.com/u-root/u-root/pkg/core/rm"
	"github.com/u-root/u-root/pkg/core/tar"
	"github.com/u-root/u-root/pkg/core/touch"
)

// env is what a tool sees of the world.
type env struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Dir            string
}

// path is a file name as the tool means it.
func (e env) path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(e.Dir, name)
}

// tool runs with args[0] being its name. An error is printed; a failed one
// that has said why itself gives errSilent.
type tool func(ctx context.Context, e env, args []string) error

var errSilent = errors.New("failed")

func run(ctx context.Context, t tool, e env, args []string) int {
	err := t(ctx, e, args)
	switch {
	case err == nil:
		return 0
	case ctx.Err() != nil:
		return 130
	case !errors.Is(err, errSilent):
		fmt.Fprintf(e.Stderr, "%s: %v\n", args[0], err)
	}
	return 1
}

// tools are all there are. It is a function so that nothing is made for a
// process that needs none.
func tools() map[string]tool {
	return map[string]tool{
		"cat": uroot(cat.New), "chmod": uroot(chmod.New), "cp": uroot(cp.New), "find": uroot(find.New), "ls": uroot(ls.New),
		"mkdir": uroot(mkdir.New), "mv": uroot(mv.New), "rm": uroot(rm.New), "touch": uroot(touch.New),
		"tar":  uroot(func() core.Command { return tar.New() }),
		"date": date, "df": df, "dmesg": dmesg, "env": printEnv, "free": free, "grep": grep, "gzip": compress, "gunzip": decompress, "head": head,
		"hostname": hostname, "ip": ip, "kill": kill, "ln": ln, "lsmod": show("/proc/modules"), "mount": mount,
		"poweroff": poweroff, "ps": ps, "reboot": reboot, "resume": resume, "sleep": sleep, "sync": syncDisks,
		"tail": tail, "tools": list, "umount": umount, "uname": uname, "uptime": show("/proc/uptime"), "wc": wc, "wget": wget, "zcat": decompress,
	}
}

// uroot makes a tool of one of u-root's.
func uroot(make func() core.Command) tool {
	return func(ctx context.Context, e env, args []string) error {
		c := make()
		c.SetIO(e.Stdin, e.Stdout, e.Stderr)
		c.SetWorkingDir(e.Dir)
		c.SetLookupEnv(os.LookupEnv)
		return c.RunContext(ctx, args[1:]...)
	}
}

func list(_ context.Context, e env, _ []string) error {
	_, err := fmt.Fprintln(e.Stdout, strings.Join(Names(), " "))
	return err
}

// show prints a file of the kernel.
func show(file string) tool {
	return func(_ context.Context, e env, _ []string) error {
		text, err := os.ReadFile(file)
		if err == nil {
			_, err = e.Stdout.Write(text)
		}
		return err
	}
}

// inputs calls fn with each named file, or with standard input.
func (e env) inputs(names []string, fn func(name string, r io.Reader) error) error {
	if len(names) == 0 {
		return fn("", e.Stdin)
	}
	for _, name := range names {
		f, err := os.Open(e.path(name))
		if err != nil {
			return err
		}
		err = fn(name, f)
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// lines calls fn with each line, until it says false.
func lines(r io.Reader, fn func(string) bool) error {
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		if !fn(s.Text()) {
			return nil
		}
	}
	return s.Err()
}
