package apply

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"muster/agent/rootfs"
	"muster/images/chunk"
	"muster/images/tree"
)

// local is what is in a place now.
type local struct {
	path   string
	st     unix.Stat_t
	target string // of a symbolic link
	root   *rootfs.Root
}

// errMounted is in the error for what is not on the root's own file system.
var errMounted = errors.New("another file system is mounted there")

// look gives what is in a place, nil where nothing is. The error says why the
// place cannot be reached, or must not.
func look(root *rootfs.Root, name string) (*local, error) {
	l := &local{path: name, root: root}
	var top unix.Stat_t
	if err := unix.Fstat(root.Fd(), &top); err != nil {
		return nil, err
	}
	if name == "." {
		l.st = top
		return l, nil
	}
	p, err := root.Place(name, rootfs.Strict)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, cause(err)
	}
	defer p.Close()
	dir, _ := p.At()
	var above unix.Stat_t
	if err := unix.Fstat(dir, &above); err != nil {
		return nil, err
	}
	if l.st, err = p.Stat(); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	// Only directories tell which file system they are on, with overlayfs.
	if above.Dev != top.Dev || l.kind() == tree.Dir && l.st.Dev != top.Dev {
		return nil, errMounted
	}
	if l.kind() == tree.Symlink {
		l.target, err = p.ReadLink()
	}
	return l, err
}

// cause leaves out where an error came up.
func cause(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

func (l *local) kind() tree.Kind {
	switch l.st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return tree.Dir
	case unix.S_IFREG:
		return tree.File
	case unix.S_IFLNK:
		return tree.Symlink
	case unix.S_IFBLK:
		return tree.Block
	case unix.S_IFCHR:
		return tree.Char
	case unix.S_IFIFO:
		return tree.Fifo
	}
	return tree.Socket
}

// holds says whether the content is that of an entry: the bytes, the target,
// the numbers of a device.
func (l *local) holds(e *tree.Entry) (bool, error) {
	if l == nil || e == nil || l.kind() != e.Kind {
		return false, nil
	}
	switch e.Kind {
	case tree.Symlink:
		return l.target == e.Target, nil
	case tree.Block, tree.Char:
		return unix.Major(l.st.Rdev) == e.Major && unix.Minor(l.st.Rdev) == e.Minor, nil
	case tree.File:
		return l.bytes(e)
	}
	return true, nil
}

// bytes compares what is in a file.
func (l *local) bytes(e *tree.Entry) (bool, error) {
	if l.st.Size != e.Size {
		return false, nil
	}
	f, err := l.open()
	if err != nil {
		return false, err
	}
	defer f.Close()
	return sameBytes(f, e)
}

func sameBytes(f io.Reader, e *tree.Entry) (bool, error) {
	var buf []byte
	for _, p := range e.Parts {
		for left := p.Len(); left > 0; {
			n := min(left, chunk.MaxSize)
			if int64(cap(buf)) < n {
				buf = make([]byte, n)
			}
			b := buf[:n]
			if _, err := io.ReadFull(f, b); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return false, nil // it shrinks while it is read
			} else if err != nil {
				return false, err
			}
			if p.Hole == 0 && p.Chunk.Check(b) != nil || p.Hole > 0 && strings.Trim(string(b), "\x00") != "" {
				return false, nil
			}
			left -= n
		}
	}
	return true, nil
}

func (l *local) open() (*os.File, error) {
	p, err := l.root.Place(l.path, rootfs.Strict)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	return p.Open()
}

// hasMeta says whether owner, mode and extended attributes are those of an
// entry. Times say nothing: a tool may set them back.
func (l *local) hasMeta(e *tree.Entry) (bool, error) {
	if l.st.Uid != e.UID || l.st.Gid != e.GID || e.Kind != tree.Symlink && l.st.Mode&0o7777 != e.Mode {
		return false, nil
	}
	var same bool
	err := l.at(func(path string) (err error) {
		same, err = sameXattrs(path, e.Xattrs)
		return err
	})
	return same, err
}

// at gives a path of the file that leads nowhere else, for calls that take no
// descriptor.
func (l *local) at(fn func(path string) error) error {
	if l.path == "." {
		return fn(fmt.Sprintf("/proc/self/fd/%d/.", l.root.Fd()))
	}
	p, err := l.root.Place(l.path, rootfs.Strict)
	if err != nil {
		return err
	}
	defer p.Close()
	dir, name := p.At()
	return fn(fmt.Sprintf("/proc/self/fd/%d/%s", dir, name))
}

// ours says whether an extended attribute is one that an image may have:
// others are the file system's or a security module's own.
func ours(name string) bool {
	return strings.HasPrefix(name, "user.") || name == "security.capability" || strings.HasPrefix(name, "trusted.") && !strings.HasPrefix(name, "trusted.overlay.")
}

// sameXattrs compares a file's extended attributes with those it shall have.
// Those of name spaces that the file system does not take count as the same.
func sameXattrs(path string, want []tree.Xattr) (bool, error) {
	names, err := listXattrsOf(unix.Llistxattr, path)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	found := 0
	for _, x := range want {
		value := make([]byte, len(x.Value)+1)
		n, err := unix.Lgetxattr(path, x.Name, value)
		switch {
		case errors.Is(err, unix.EOPNOTSUPP):
		case errors.Is(err, unix.ENODATA), errors.Is(err, unix.ERANGE):
			return false, nil
		case err != nil:
			return false, err
		case string(value[:n]) != x.Value:
			return false, nil
		case ours(x.Name):
			found++
		}
	}
	for _, name := range names {
		if ours(name) {
			found--
		}
	}
	return found == 0, nil
}

// listXattrs follows a link, which those below /proc/self/fd are.
func listXattrs(path string) ([]string, error) { return listXattrsOf(unix.Listxattr, path) }

func listXattrsOf(list func(string, []byte) (int, error), path string) ([]string, error) {
	buf := make([]byte, 64<<10) // the kernel's bound
	n, err := list(path, buf)
	if err != nil || n == 0 {
		return nil, err
	}
	return strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00"), nil
}

// is says whether the file is as an entry has it, but for its time.
func (l *local) is(e *tree.Entry) (bool, error) {
	if same, err := l.holds(e); err != nil || !same {
		return false, err
	}
	return l.hasMeta(e)
}

// each walks through what is below a directory, in it first what is deepest.
// The walk stays on the root's own file system; fn may remove what it is given.
func each(root *rootfs.Root, name string, fn func(l *local) error) error {
	p, err := root.Place(name, rootfs.Strict)
	if err != nil {
		return err
	}
	dir, base := p.At()
	fd, err := unix.Openat(dir, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	p.Close()
	if err != nil {
		return &fs.PathError{Op: "open", Path: name, Err: err}
	}
	f := os.NewFile(uintptr(fd), name)
	entries, err := f.Readdirnames(-1)
	f.Close()
	if err != nil {
		return err
	}
	for _, entry := range entries {
		l, err := look(root, path.Join(name, entry))
		if err != nil {
			return fmt.Errorf("/%s: %w", path.Join(name, entry), err)
		}
		if l == nil {
			continue
		}
		if l.kind() == tree.Dir {
			if err := each(root, l.path, fn); err != nil {
				return err
			}
		}
		if err := fn(l); err != nil {
			return err
		}
	}
	return nil
}
