package apply

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"muster/agent/overlay"
	"muster/agent/rootfs"
	"muster/images/tree"
	"muster/shared/wire"
)

// committer puts what was staged where it belongs. Every change is one that
// may be made again, so that a machine that stopped goes on where it was.
type committer struct {
	root *rootfs.Root
	top  *os.Root
	own  *overlay.Held // nil: the node has no files of its own
}

// run makes all changes; what fails is told and stops no other.
func (c *committer) run(ops []op, reached func(string)) (failed []wire.PathNote) {
	for _, o := range ops {
		reached(string(o.Do) + " " + o.Path)
		if err := c.do(o); err != nil {
			failed = append(failed, wire.PathNote{Path: "/" + o.Path, Note: cause(err).Error()})
		}
	}
	return failed
}

func (c *committer) do(o op) error {
	switch o.Do {
	case put:
		return c.put(o)
	case set, touch:
		return c.set(o)
	case below:
		return c.below(o)
	case remove:
		return c.remove(o.Path)
	case rmdir:
		err := c.remove(o.Path)
		if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EBUSY) {
			return nil // there are files of the node's own in it
		}
		return err
	}
	return fmt.Errorf("%q is nothing that this agent does", o.Do)
}

// put brings what is staged to its place. Where nothing is staged any more it
// has come there already.
func (c *committer) put(o op) error {
	from, err := c.root.Place(o.Staged, rootfs.Strict)
	if err != nil {
		return err
	}
	defer from.Close()
	st, err := from.Stat()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	to, err := c.root.Place(o.Path, rootfs.Strict)
	if err != nil {
		return err
	}
	defer to.Close()
	if err := c.clear(o, st.Mode&unix.S_IFMT == unix.S_IFDIR); err != nil {
		return err
	}
	fromDir, fromName := from.At()
	toDir, toName := to.At()
	if err := unix.Renameat(fromDir, fromName, toDir, toName); err != nil {
		return err
	}
	// Of two names of one file rename leaves both.
	if err := unix.Unlinkat(fromDir, fromName, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}

// clear takes away what a rename does not replace: a directory by something
// else, something else by a directory.
func (c *committer) clear(o op, directory bool) error {
	if !o.Clear {
		return nil
	}
	l, err := look(c.root, o.Path)
	if err != nil || l == nil {
		return err
	}
	switch {
	case directory && l.kind() != tree.Dir:
		return c.remove(o.Path)
	case !directory && l.kind() == tree.Dir:
		return removeAll(c.root, o.Path)
	}
	return nil
}

// removeAll removes a directory with what is in it, on the root's own file
// system.
func removeAll(root *rootfs.Root, name string) error {
	one := func(name string) error {
		p, err := root.Place(name, rootfs.Strict)
		if err != nil {
			return err
		}
		defer p.Close()
		return p.Remove()
	}
	if err := each(root, name, func(l *local) error { return one(l.path) }); err != nil {
		return err
	}
	return one(name)
}

func (c *committer) remove(name string) error {
	p, err := c.root.Place(name, rootfs.Strict)
	if err == nil {
		err = p.Remove()
		p.Close()
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// set gives a file or directory owner, attributes, mode and time. A file must
// be the one that was seen: the owner of a directory could put another name of
// a file of root's in the place.
func (c *committer) set(o op) error {
	fd := -1
	if o.Path == "." {
		var err error
		if fd, err = unix.FcntlInt(uintptr(c.root.Fd()), unix.F_DUPFD_CLOEXEC, 0); err != nil {
			return err
		}
	} else {
		p, err := c.root.Place(o.Path, rootfs.Strict)
		if err != nil {
			return err
		}
		defer p.Close()
		dir, name := p.At()
		flags := unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
		if o.Names == 0 {
			flags |= unix.O_DIRECTORY
		}
		if fd, err = unix.Openat(dir, name, flags, 0); err != nil {
			if o.Do == touch {
				return nil // it went with what was in it
			}
			return err
		}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if o.Do == touch {
		t := unix.Timespec{Sec: o.Entry.MTime, Nsec: int64(o.Entry.NSec)}
		return unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), []unix.Timespec{t, t}, 0)
	}
	if o.Names > 0 && (st.Mode&unix.S_IFMT != unix.S_IFREG || uint64(st.Nlink) > o.Names || st.Uid != o.Owner && st.Uid != o.Entry.UID) {
		return errMoved
	}
	return o.Entry.give(fd)
}

// below puts what is staged under the node's own file, for the day when that
// goes. Nothing staged means that nothing is to be there, or that it is.
func (c *committer) below(o op) error {
	if c.own == nil {
		return nil
	}
	if o.Staged == "" {
		return c.own.Below(o.Path, nil)
	}
	l, err := lower(c.top, o.Staged)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = c.own.Below(o.Path, l)
	}
	if err == nil {
		err = c.top.Remove(o.Staged)
	}
	return err
}

// lower reads what was staged to be below a file.
func lower(top *os.Root, name string) (*overlay.Lower, error) {
	info, err := top.Lstat(name)
	if err != nil {
		return nil, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil, errors.ErrUnsupported // not on Linux
	}
	l := &overlay.Lower{Mode: st.Mode & 0o7777, UID: int(st.Uid), GID: int(st.Gid)}
	if info.Mode()&fs.ModeSymlink != 0 {
		l.Link, err = top.Readlink(name)
	} else {
		l.Content, err = top.ReadFile(name)
	}
	return l, err
}
