package root

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	minWorkers = 8
	maxWorkers = 64
)

// Copy copies a tree with everything that a file system knows of it: owners,
// modes, times, hard links, device nodes, holes, and with xattrs set the
// extended attributes. The target must be an empty directory. File contents
// are copied while one goroutine walks, by more workers than there are cores:
// each waits most of the time for the loop device.
func Copy(from, to string, xattrs bool) error {
	c := &copier{from: from, to: to, xattrs: xattrs, links: map[uint64]string{}, todo: make(chan file, 256)}
	var workers sync.WaitGroup
	for range min(max(4*runtime.NumCPU(), minWorkers), maxWorkers) {
		workers.Go(c.work)
	}
	err := c.walk()
	close(c.todo)
	workers.Wait()
	if err = errors.Join(err, c.failed); err != nil {
		return fmt.Errorf("copying the image: %w", err)
	}
	// Last, since making files in a directory changes its times.
	for i := len(c.dirs) - 1; i >= 0; i-- {
		if err := c.finish(c.dirs[i]); err != nil {
			return fmt.Errorf("copying the image: %w", err)
		}
	}
	return nil
}

type copier struct {
	from, to string
	xattrs   bool
	links    map[uint64]string // inode → where it was copied to
	dirs     []file
	todo     chan file

	mu     sync.Mutex
	failed error
}

// file is one entry, path relative to the tree.
type file struct {
	path string
	st   unix.Stat_t
	out  *os.File // for content
}

func (c *copier) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failed == nil {
		c.failed = err
	}
}

func (c *copier) ok() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failed == nil
}

func (c *copier) walk() error {
	return filepath.WalkDir(c.from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !c.ok() {
			return fs.SkipAll
		}
		rel := path[len(c.from):]
		f := file{path: rel}
		if err := unix.Lstat(path, &f.st); err != nil {
			return &fs.PathError{Op: "lstat", Path: path, Err: err}
		}
		if err := c.make(f); err != nil {
			return &fs.PathError{Op: "copy", Path: path, Err: err}
		}
		return nil
	})
}

// make makes an entry; the content of a regular file follows in a worker.
func (c *copier) make(f file) error {
	dst := c.to + f.path
	kind := f.st.Mode & unix.S_IFMT
	if kind != unix.S_IFDIR && f.st.Nlink > 1 {
		if first, ok := c.links[f.st.Ino]; ok {
			return unix.Link(first, dst)
		}
		c.links[f.st.Ino] = dst
	}
	switch kind {
	case unix.S_IFDIR:
		if f.path != "" {
			if err := unix.Mkdir(dst, 0o700); err != nil {
				return err
			}
		}
		c.dirs = append(c.dirs, f)
		return nil
	case unix.S_IFREG:
		fd, err := unix.Open(dst, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return err
		}
		f.out = os.NewFile(uintptr(fd), dst)
		c.todo <- f
		return nil
	case unix.S_IFLNK:
		target, err := os.Readlink(c.from + f.path)
		if err != nil {
			return err
		}
		if err := unix.Symlink(target, dst); err != nil {
			return err
		}
	default:
		if err := unix.Mknod(dst, f.st.Mode, int(f.st.Rdev)); err != nil {
			return err
		}
	}
	return c.finish(f)
}

func (c *copier) work() {
	buf := make([]byte, 128<<10)
	for f := range c.todo {
		err := c.content(f, buf)
		if cerr := f.out.Close(); err == nil {
			err = cerr
		}
		if err == nil {
			err = c.finish(f)
		}
		if err != nil {
			c.fail(&fs.PathError{Op: "copy", Path: f.path, Err: err})
		}
	}
}

// content copies a file's bytes. A file with fewer blocks than its size needs
// has holes, which squashfs does not tell apart from zeros: it is read and what
// is zero is left out. Any other goes from page cache to page cache.
func (c *copier) content(f file, buf []byte) error {
	if f.st.Size == 0 || !c.ok() {
		return nil
	}
	in, err := os.Open(c.from + f.path)
	if err != nil {
		return err
	}
	defer in.Close()
	if f.st.Blocks*512 < f.st.Size {
		return sparse(f.out, in, f.st.Size, buf)
	}
	for left := f.st.Size; left > 0; {
		n, err := unix.Sendfile(int(f.out.Fd()), int(in.Fd()), nil, int(min(left, 1<<30)))
		if err != nil {
			return err
		}
		if n == 0 {
			return io.ErrUnexpectedEOF
		}
		left -= int64(n)
	}
	return nil
}

// sparse copies all but pages of zeros.
func sparse(out, in *os.File, size int64, buf []byte) error {
	const page = 4096
	for at := int64(0); at < size; {
		n, err := io.ReadFull(in, buf)
		if n == 0 {
			return fmt.Errorf("it ends at byte %d of %d: %w", at, size, err)
		}
		for b := buf[:n]; len(b) > 0; {
			part := b[:min(page, len(b))]
			if !zero(part) {
				if _, err := out.WriteAt(part, at); err != nil {
					return err
				}
			}
			at += int64(len(part))
			b = b[len(part):]
		}
	}
	return out.Truncate(size)
}

func zero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// finish sets what creating an entry did not. The mode comes after the owner,
// whose change takes setuid away, and the times come last.
func (c *copier) finish(f file) error {
	dst := c.to + f.path
	link := f.st.Mode&unix.S_IFMT == unix.S_IFLNK
	if err := unix.Lchown(dst, int(f.st.Uid), int(f.st.Gid)); err != nil {
		return &fs.PathError{Op: "chown", Path: dst, Err: err}
	}
	if c.xattrs {
		if err := copyXattrs(c.from+f.path, dst); err != nil {
			return err
		}
	}
	if !link {
		if err := unix.Chmod(dst, f.st.Mode&0o7777); err != nil {
			return &fs.PathError{Op: "chmod", Path: dst, Err: err}
		}
	}
	times := []unix.Timespec{f.st.Mtim, f.st.Mtim}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, dst, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &fs.PathError{Op: "utimes", Path: dst, Err: err}
	}
	return nil
}

// copyXattrs copies the extended attributes. One of a name space that tmpfs
// does not take (user.* before Linux 6.6) is left out: the image boots without.
func copyXattrs(from, to string) error {
	names, err := xattrNames(from)
	if err != nil {
		return err
	}
	for _, name := range names {
		n, err := unix.Lgetxattr(from, name, nil)
		if err != nil {
			return &fs.PathError{Op: "getxattr " + name, Path: from, Err: err}
		}
		value := make([]byte, n)
		if n, err = unix.Lgetxattr(from, name, value); err != nil {
			return &fs.PathError{Op: "getxattr " + name, Path: from, Err: err}
		}
		if err := unix.Lsetxattr(to, name, value[:n], 0); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
			return &fs.PathError{Op: "setxattr " + name, Path: to, Err: err}
		}
	}
	return nil
}

// xattrNames lists the extended attributes of a file, sorted; where there
// can be none, as on links in a squashfs, there are none.
func xattrNames(path string) ([]string, error) {
	n, err := unix.Llistxattr(path, nil)
	if errors.Is(err, unix.EOPNOTSUPP) || err == nil && n == 0 {
		return nil, nil
	}
	var buf []byte
	if err == nil {
		buf = make([]byte, n)
		n, err = unix.Llistxattr(path, buf)
	}
	if err != nil {
		return nil, &fs.PathError{Op: "listxattr", Path: path, Err: err}
	}
	names := splitZero(buf[:n])
	slices.Sort(names)
	return names, nil
}

func splitZero(b []byte) []string {
	var out []string
	start := 0
	for i, c := range b {
		if c == 0 {
			out = append(out, string(b[start:i]))
			start = i + 1
		}
	}
	return out
}
