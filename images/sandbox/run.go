package sandbox

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

//go:embed inside.sh
var inside string

// Command is what Run starts.
type Command struct {
	Argv []string
	Env  []string // all of it
	// Outside keeps the program outside of the root, as bootstrapping tools
	// need it; the mounts are made all the same.
	Outside bool
	// Bare leaves the root as it is, without any mounts: of the tool itself.
	Bare bool
	// Terminal is the program's controlling terminal, nil for none.
	Terminal       *os.File
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// Run runs a program in the root, inside of Private, with its own /proc, /dev,
// /run and names of processes, and the host's network and resolvers. When it
// ends, or ctx does, everything that it started is killed, and the mounts are
// gone. Nothing of them stays in the root. The error is an *exec.ExitError
// where the program ended with a status of its own.
func Run(ctx context.Context, root string, c Command) error {
	sh, err := exec.LookPath("sh")
	if err != nil {
		return err
	}
	mode, resolver, undo := "bare", "", func() error { return nil }
	if !c.Bare {
		mode = "chroot"
		if c.Outside {
			mode = "outside"
		}
		if resolver, undo, err = prepare(root); err != nil {
			return err
		}
	}
	cmd := exec.CommandContext(ctx, sh, append([]string{"-c", inside, "muster", mode, root, resolver}, c.Argv...)...)
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Dir = c.Env, c.Stdin, c.Stdout, c.Stderr, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		// The first process of its namespace: the kernel kills the others after it.
		Pdeathsig: syscall.SIGKILL,
	}
	if c.Terminal != nil {
		cmd.Stdin, cmd.Stdout, cmd.Stderr = c.Terminal, c.Terminal, c.Terminal
		cmd.SysProcAttr.Setsid, cmd.SysProcAttr.Setctty = true, true
	}
	// A daemon that holds the pipes is dead by then; this is for what the
	// kernel takes its time over.
	cmd.WaitDelay = 10 * time.Second
	err = cmd.Run()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return errors.Join(err, undo())
}

// Points are the directories of a root that Run mounts something at. What a
// root has there of its own is not seen inside.
func Points() []string { return []string{"proc", "sys", "dev", "run"} }

const resolvers = "etc/resolv.conf"

// prepare makes what is missing to mount at, and says how the resolvers of the
// host get in: the path inside of the root, which is below run or is a file
// to mount at. undo takes away what was made.
func prepare(root string) (resolver string, undo func() error, err error) {
	r, err := os.OpenRoot(root)
	if err != nil {
		return "", nil, err
	}
	defer r.Close()
	m := &made{root: root}
	for _, p := range Points() {
		st, err := r.Lstat(p)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			err = m.make(p, func(name string) error { return os.Mkdir(name, 0o755) })
		case err == nil && !st.IsDir():
			err = fmt.Errorf("the root's /%s is no directory", p)
		}
		if err != nil {
			return "", nil, errors.Join(err, m.undo())
		}
	}
	resolver, err = resolverPath(r, m)
	if err != nil {
		return "", nil, errors.Join(err, m.undo())
	}
	return resolver, m.undo, nil
}

func resolverPath(r *os.Root, m *made) (string, error) {
	if st, err := r.Lstat("etc"); err != nil || !st.IsDir() {
		return "", nil // nothing in it looks for resolvers
	}
	if _, err := os.Stat("/" + resolvers); err != nil {
		return "", nil // the host has none either
	}
	st, err := r.Lstat(resolvers)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return resolvers, m.make(resolvers, func(name string) error { return os.WriteFile(name, nil, 0o644) })
	case err != nil:
		return "", err
	case st.Mode().IsRegular():
		return resolvers, nil
	case st.Mode()&fs.ModeSymlink == 0:
		return "", nil
	}
	target, err := r.Readlink(resolvers)
	if err != nil {
		return "", err
	}
	if !path.IsAbs(target) {
		target = path.Join("/etc", target)
	}
	target = path.Clean(target)[1:]
	if strings.HasPrefix(target, "run/") { // which is empty, so that nothing in it leads elsewhere
		return target, nil
	}
	return "", nil
}

// made are names that were not in a root before.
type made struct {
	root  string
	names []string
	dirs  map[string]unix.Stat_t // their directories as they were
}

func (m *made) make(name string, fn func(string) error) error {
	full := filepath.Join(m.root, name)
	dir := filepath.Dir(full)
	if m.dirs == nil {
		m.dirs = map[string]unix.Stat_t{}
	}
	if _, ok := m.dirs[dir]; !ok {
		var st unix.Stat_t
		if err := unix.Stat(dir, &st); err != nil {
			return &os.PathError{Op: "stat", Path: dir, Err: err}
		}
		m.dirs[dir] = st
	}
	m.names = append(m.names, full)
	return fn(full)
}

// undo removes what was made, if it is still empty, and gives the directories
// their times back.
func (m *made) undo() error {
	var first error
	for _, name := range m.names {
		if st, err := os.Lstat(name); err == nil && (st.IsDir() || st.Size() == 0) {
			if err := os.Remove(name); err != nil && !errors.Is(err, unix.ENOTEMPTY) && first == nil {
				first = err
			}
		}
	}
	for dir, st := range m.dirs {
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, dir, []unix.Timespec{st.Atim, st.Mtim}, 0); err != nil && first == nil {
			first = err
		}
	}
	return first
}
