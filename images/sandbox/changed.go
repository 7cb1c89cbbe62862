package sandbox

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// errChanged ends the search.
var errChanged = errors.New("changed")

// Changed says whether anything in the root differs from what it began as.
// Access times do not count, nor does what was touched and put back.
func (l *Layer) Changed() (bool, error) {
	err := filepath.WalkDir(l.upper, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(l.upper, name)
		if err != nil {
			return err
		}
		same, err := sameFile(name, filepath.Join(l.lower, rel))
		if err == nil && !same {
			err = errChanged
		}
		return err
	})
	if errors.Is(err, errChanged) {
		return true, nil
	}
	return false, err
}

// Forget removes from a directory of the root what was not in it before, and
// gives it its times back.
func (l *Layer) Forget(dir string) error {
	r, err := os.OpenRoot(l.Root)
	if err != nil {
		return err
	}
	defer r.Close()
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(l.lower, dir), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil // it was none
	}
	all, err := os.ReadDir(filepath.Join(l.upper, dir))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil // nothing has changed in it
	}
	if err != nil {
		return err
	}
	for _, e := range all {
		if _, err := os.Lstat(filepath.Join(l.lower, dir, e.Name())); errors.Is(err, fs.ErrNotExist) {
			if err := r.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return r.Chtimes(dir, time.Unix(st.Atim.Unix()), time.Unix(st.Mtim.Unix()))
}

// sameFile compares a file of the upper layer with the one that it covers. The
// mark of a removed file is a device, which differs from all that it covers.
func sameFile(upper, lower string) (bool, error) {
	var a, b unix.Stat_t
	if err := unix.Lstat(upper, &a); err != nil {
		return false, &os.PathError{Op: "lstat", Path: upper, Err: err}
	}
	err := unix.Lstat(lower, &b)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return false, nil
	}
	if err != nil {
		return false, &os.PathError{Op: "lstat", Path: lower, Err: err}
	}
	dir := a.Mode&unix.S_IFMT == unix.S_IFDIR
	if a.Mode != b.Mode || a.Uid != b.Uid || a.Gid != b.Gid || a.Rdev != b.Rdev || a.Mtim != b.Mtim || (!dir && (a.Size != b.Size || b.Nlink > 1)) {
		return false, nil
	}
	if same, err := sameAttributes(upper, lower); err != nil || !same {
		return false, err
	}
	switch a.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		x, err := os.Readlink(upper)
		if err != nil {
			return false, err
		}
		y, err := os.Readlink(lower)
		return x == y, err
	case unix.S_IFDIR:
		return plain(upper)
	case unix.S_IFREG:
		return sameContent(upper, lower)
	}
	return true, nil
}

// plain says whether a directory of the upper layer only adds to the one that
// it covers: it is neither in its place nor that of another name.
func plain(dir string) (bool, error) {
	for _, name := range []string{"trusted.overlay.opaque", "trusted.overlay.redirect"} {
		b, err := sized(func(b []byte) (int, error) { return unix.Lgetxattr(dir, name, b) })
		switch {
		case errors.Is(err, unix.ENODATA):
		case err != nil:
			return false, &os.PathError{Op: "getxattr", Path: dir, Err: err}
		case name != "trusted.overlay.opaque" || string(b) == "y":
			return false, nil
		}
	}
	return true, nil
}

func sameAttributes(a, b string) (bool, error) {
	x, err := attributes(a)
	if err != nil {
		return false, err
	}
	y, err := attributes(b)
	return maps.EqualFunc(x, y, bytes.Equal), err
}

func sameContent(a, b string) (bool, error) {
	f, err := os.Open(a)
	if err != nil {
		return false, err
	}
	defer f.Close()
	g, err := os.Open(b)
	if err != nil {
		return false, err
	}
	defer g.Close()
	x, y := make([]byte, 1<<20), make([]byte, 1<<20)
	for {
		n, err := io.ReadFull(f, x)
		m, err2 := io.ReadFull(g, y)
		if !bytes.Equal(x[:n], y[:m]) {
			return false, nil
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return true, nil
		}
		if err := errors.Join(err, err2); err != nil {
			return false, err
		}
	}
}
