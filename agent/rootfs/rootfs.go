// Package rootfs changes files below a root directory, each by a rename: a
// reader, and a machine that is switched off, finds the old file or the new one
// whole.
//
// Paths are walked one directory after the other. A symbolic link on the way
// leads inside the root only, and only where root made it: a user must not be
// able to send what is written elsewhere by a link of his own. Some places
// are never written, whatever the path looked like. The package must not decide
// what is written.
package rootfs

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"muster/shared/wire"
)

// maxLinks is how many symbolic links one path may lead through.
const maxLinks = 40

// ErrProtected is in the error for such a path.
var ErrProtected = errors.New("it is one of the places that are never changed")

// Root is a root directory.
type Root struct {
	dir     *os.File
	trusted []uint32 // whose links and directories lead on
}

// Open opens one. Links of root lead on, and those of who runs the program.
func Open(dir string) (*Root, error) {
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return &Root{f, []uint32{0, uint32(os.Geteuid())}}, nil
}

// Close closes it.
func (r *Root) Close() error { return r.dir.Close() }

// Fd is the root directory's own descriptor, while it is open.
func (r *Root) Fd() int { return int(r.dir.Fd()) }

// Place is a name in a directory.
type Place struct {
	Path string // as the walk came there: from the root, through no link
	dir  *os.File
	base string
}

// How a walk is made.
type Walk int

// The ways: Follow goes through links, Strict takes none; with Make missing
// directories are made, with mode 0755.
const (
	Follow Walk = 0
	Strict Walk = 1 << iota
	Make
)

// Place walks to a path's directory. What the path itself names is not
// followed, and need not be there.
func (r *Root) Place(name string, how Walk) (*Place, error) {
	clean := path.Clean("/" + name)
	if clean == "/" || strings.ContainsRune(clean, 0) {
		return nil, &fs.PathError{Op: "find", Path: name, Err: fs.ErrInvalid}
	}
	w := &walk{root: r, how: how, left: strings.Split(clean[1:], "/")}
	if err := w.run(); err != nil {
		return nil, &fs.PathError{Op: "find", Path: name, Err: err}
	}
	p := &Place{Path: "/" + strings.Join(append(w.at, w.left[0]), "/"), dir: w.dir(), base: w.left[0]}
	if wire.Protected(p.Path) {
		p.Close()
		return nil, &fs.PathError{Op: "change", Path: name, Err: ErrProtected}
	}
	return p, nil
}

// walk is a path that is being walked: what is open up to now, what is left.
type walk struct {
	root  *Root
	how   Walk
	open  []*os.File // one for each of at
	at    []string
	left  []string
	links int
}

// run goes on until only the last name is left.
func (w *walk) run() error {
	for len(w.left) > 1 {
		name := w.left[0]
		w.left = w.left[1:]
		switch {
		case name == "..":
			w.close(max(len(w.at)-1, 0))
		case name != "." && name != "":
			if err := w.down(name); err != nil {
				w.close(0)
				return err
			}
		}
	}
	return nil
}

func (w *walk) here() *os.File {
	if len(w.open) == 0 {
		return w.root.dir
	}
	return w.open[len(w.open)-1]
}

// dir gives the directory that the walk has come to and closes the others.
func (w *walk) dir() *os.File {
	if len(w.open) == 0 {
		fd, err := unix.FcntlInt(w.root.dir.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return w.root.dir
		}
		return os.NewFile(uintptr(fd), "/")
	}
	last := w.open[len(w.open)-1]
	w.open = w.open[:len(w.open)-1]
	w.close(0)
	return last
}

// close goes back to where the walk had come n directories far.
func (w *walk) close(n int) {
	for _, f := range w.open[min(n, len(w.open)):] {
		f.Close()
	}
	w.open, w.at = w.open[:min(n, len(w.open))], w.at[:min(n, len(w.at))]
}

// down goes into a directory, or where a link leads.
func (w *walk) down(name string) error {
	here := int(w.here().Fd())
	fd, err := unix.Openat(here, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) && w.how&Make != 0 && !wire.Protected("/"+strings.Join(append(slices.Clone(w.at), name), "/")) {
		if err := unix.Mkdirat(here, name, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
		fd, err = unix.Openat(here, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	}
	if err == nil {
		w.open, w.at = append(w.open, os.NewFile(uintptr(fd), name)), append(w.at, name)
		return nil
	}
	if !errors.Is(err, unix.ELOOP) && !errors.Is(err, unix.ENOTDIR) {
		return err
	}
	return w.link(here, name, err)
}

func (w *walk) link(here int, name string, otherwise error) error {
	var st unix.Stat_t
	if err := unix.Fstatat(here, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return otherwise
	}
	if w.links++; w.links > maxLinks {
		return unix.ELOOP
	}
	if w.how&Strict != 0 {
		return fmt.Errorf("%s is a symbolic link", name)
	}
	if !slices.Contains(w.root.trusted, st.Uid) {
		return fmt.Errorf("%s is a symbolic link of user %d, which is not followed", name, st.Uid)
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(here, name, buf)
	if err != nil {
		return err
	}
	target := string(buf[:n])
	if strings.HasPrefix(target, "/") {
		w.close(0)
	}
	w.left = append(strings.Split(strings.Trim(target, "/"), "/"), w.left...)
	return nil
}

// Close closes the place.
func (p *Place) Close() error { return p.dir.Close() }

func (p *Place) fd() int { return int(p.dir.Fd()) }

func (p *Place) failed(op string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: p.Path, Err: err}
}

// At gives the directory, as a descriptor that Close closes, and the name in it.
func (p *Place) At() (dir int, name string) { return p.fd(), p.base }

// Stat says what is there; fs.ErrNotExist is in the error where nothing is.
func (p *Place) Stat() (unix.Stat_t, error) {
	var st unix.Stat_t
	return st, p.failed("stat", unix.Fstatat(p.fd(), p.base, &st, unix.AT_SYMLINK_NOFOLLOW))
}

// Open opens a regular file to be read.
func (p *Place) Open() (*os.File, error) {
	fd, err := unix.Openat(p.fd(), p.base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, p.failed("open", err)
	}
	f := os.NewFile(uintptr(fd), p.Path)
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		f.Close()
		return nil, p.failed("open", errors.Join(err, errors.New("is no regular file")))
	}
	return f, nil
}

// ReadLink gives where a symbolic link leads.
func (p *Place) ReadLink() (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(p.fd(), p.base, buf)
	if err != nil {
		return "", p.failed("readlink", err)
	}
	return string(buf[:n]), nil
}

// Remove removes what is not a directory, or an empty one.
func (p *Place) Remove() error {
	err := unix.Unlinkat(p.fd(), p.base, 0)
	if errors.Is(err, unix.EISDIR) {
		err = unix.Unlinkat(p.fd(), p.base, unix.AT_REMOVEDIR)
	}
	return p.failed("remove", err)
}

// beside is the name under which the new is made: the same each time, so that
// one that a crash left is found.
func (p *Place) beside() string {
	sum := sha256.Sum256([]byte(p.base))
	return ".muster-new-" + hex.EncodeToString(sum[:8])
}

// Replace puts in the place what make makes under another name in the same
// directory; what is there before, if no directory, is gone then.
func (p *Place) Replace(make func(dir int, name string) error) error {
	name := p.beside()
	if err := unix.Unlinkat(p.fd(), name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return p.failed("clear", err)
	}
	err := make(p.fd(), name)
	if err == nil {
		err = unix.Renameat(p.fd(), name, p.fd(), p.base)
	}
	if err != nil {
		unix.Unlinkat(p.fd(), name, 0)
	}
	return p.failed("write", err)
}

// Meta is what a file has beside its content.
type Meta struct {
	Mode     uint32 // permissions with setuid, setgid and sticky
	UID, GID int
	// Finish, where it is not nil, does what else the new file needs.
	Finish func(f *os.File) error
}

// Write puts a regular file in the place. It is on disk before it is seen.
func (p *Place) Write(m Meta, content func(f *os.File) error) error {
	return p.Replace(func(dir int, name string) error {
		fd, err := unix.Openat(dir, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), p.Path)
		defer f.Close()
		if err := content(f); err != nil {
			return err
		}
		// The owner first: giving a file away takes setuid from its mode.
		if err := unix.Fchown(fd, m.UID, m.GID); err != nil {
			return err
		}
		if err := unix.Fchmod(fd, m.Mode); err != nil {
			return err
		}
		if m.Finish != nil {
			if err := m.Finish(f); err != nil {
				return err
			}
		}
		return f.Sync()
	})
}

// Sync makes what was changed in the directory last.
func (p *Place) Sync() error { return p.failed("sync", p.dir.Sync()) }

// ReadFile reads a regular file of at most limit bytes, through links.
func (r *Root) ReadFile(name string, limit int64) ([]byte, error) {
	p, err := r.Place(name, Follow)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	f, err := p.Open()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, limit+1))
	if int64(len(raw)) > limit {
		return nil, fmt.Errorf("%s has more than %d bytes", name, limit)
	}
	return raw, err
}
