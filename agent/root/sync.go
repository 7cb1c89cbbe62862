package root

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Changes says what Sync did.
type Changes struct {
	Files   int // entries of the tree, directories aside
	Written int // of them, those made or made anew
	Removed int // entries that the tree does not have
}

// Sync makes the directory to what the tree from is, and touches only what
// differs: by content, not by times, since builds of images set those alike. A
// file that differs gets a new inode, so that another name of the old one keeps
// its content. What keep names in to's own directory is left alone.
func Sync(from, to string, keep ...string) (Changes, error) {
	s := &syncer{copier: copier{from: from, to: to, xattrs: true, links: map[uint64]string{}, todo: make(chan file, 256)}, keep: keep}
	var workers sync.WaitGroup
	for range min(max(2*runtime.NumCPU(), minWorkers), maxWorkers) {
		workers.Go(s.work)
	}
	err := s.walk()
	close(s.todo)
	workers.Wait()
	err = errors.Join(err, s.failed)
	for i := len(s.dirs) - 1; i >= 0 && err == nil; i-- {
		err = s.settle(s.dirs[i])
	}
	done := Changes{s.files, int(s.written.Load()), s.removed}
	if errors.Is(err, unix.ENOSPC) {
		return done, fmt.Errorf("the image does not fit onto the disk: %w", err)
	}
	return done, err
}

// syncer is a copier that finds some of its work done.
type syncer struct {
	copier
	keep    []string
	files   int
	removed int
	written atomic.Int64
}

func (s *syncer) walk() error {
	return filepath.WalkDir(s.from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !s.ok() {
			return fs.SkipAll
		}
		f := file{path: path[len(s.from):]}
		if err := unix.Lstat(path, &f.st); err != nil {
			return &fs.PathError{Op: "lstat", Path: path, Err: err}
		}
		if d.IsDir() {
			if err := s.directory(f); err != nil {
				return &fs.PathError{Op: "sync", Path: s.to + f.path, Err: err}
			}
			return nil
		}
		s.files++
		if f.st.Mode&unix.S_IFMT == unix.S_IFREG && f.st.Nlink == 1 {
			s.todo <- f
			return nil
		}
		if err := s.entry(f); err != nil {
			return &fs.PathError{Op: "sync", Path: s.to + f.path, Err: err}
		}
		return nil
	})
}

// directory makes one, and removes from it what the tree's does not have.
func (s *syncer) directory(f file) error {
	dst := s.to + f.path
	s.dirs = append(s.dirs, f)
	var st unix.Stat_t
	if err := unix.Lstat(dst, &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		if err := os.Remove(dst); err != nil {
			return err
		}
	} else if err == nil {
		return s.prune(f)
	}
	return unix.Mkdir(dst, 0o700)
}

func (s *syncer) prune(f file) error {
	wanted, err := os.ReadDir(s.from + f.path)
	if err != nil {
		return err
	}
	have, err := os.ReadDir(s.to + f.path)
	if err != nil {
		return err
	}
	i := 0 // both are sorted
	for _, e := range have {
		for i < len(wanted) && wanted[i].Name() < e.Name() {
			i++
		}
		if i < len(wanted) && wanted[i].Name() == e.Name() || f.path == "" && slices.Contains(s.keep, e.Name()) {
			continue
		}
		s.removed++
		if err := os.RemoveAll(filepath.Join(s.to+f.path, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// settle sets what a directory has beside its entries, last.
func (s *syncer) settle(f file) error {
	var st unix.Stat_t
	if err := unix.Lstat(s.to+f.path, &st); err != nil {
		return &fs.PathError{Op: "lstat", Path: s.to + f.path, Err: err}
	}
	if !sameMeta(f.st, st) || !sameXattrs(s.from+f.path, s.to+f.path) {
		if err := dropXattrs(s.to + f.path); err != nil {
			return err
		}
		return s.finish(f)
	}
	return nil
}

func (s *syncer) work() {
	buf := make([]byte, 256<<10)
	for f := range s.todo {
		if !s.ok() {
			continue
		}
		if err := s.regular(f, buf); err != nil {
			s.fail(&fs.PathError{Op: "sync", Path: s.to + f.path, Err: err})
		}
	}
}

// regular makes a file what it has to be.
func (s *syncer) regular(f file, buf []byte) error {
	dst := s.to + f.path
	var st unix.Stat_t
	err := unix.Lstat(dst, &st)
	if err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size == f.st.Size && st.Nlink <= f.st.Nlink && sameXattrs(s.from+f.path, dst) {
		same, err := sameContent(s.from+f.path, dst, f.st.Size, buf)
		if err != nil {
			return err
		}
		if same && sameMeta(f.st, st) {
			return nil
		}
		if same {
			return s.finish(f)
		}
	}
	if err := s.clear(dst, st, err); err != nil {
		return err
	}
	fd, err := unix.Open(dst, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f.out = os.NewFile(uintptr(fd), dst)
	err = s.content(f, buf)
	if cerr := f.out.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	s.written.Add(1)
	return s.finish(f)
}

// clear removes what is in the place of an entry; missing is Lstat's error.
func (s *syncer) clear(dst string, st unix.Stat_t, missing error) error {
	switch {
	case errors.Is(missing, unix.ENOENT):
		return nil
	case missing != nil:
		return missing
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return os.RemoveAll(dst)
	}
	return unix.Unlink(dst)
}

// entry makes what is neither a directory nor a file with one name.
func (s *syncer) entry(f file) error {
	dst, kind := s.to+f.path, f.st.Mode&unix.S_IFMT
	var st unix.Stat_t
	missing := unix.Lstat(dst, &st)
	if first, ok := s.links[f.st.Ino]; ok && f.st.Nlink > 1 {
		var of unix.Stat_t
		if err := unix.Lstat(first, &of); err != nil {
			return err
		}
		if missing == nil && st.Ino == of.Ino {
			return nil
		}
		if err := s.clear(dst, st, missing); err != nil {
			return err
		}
		s.written.Add(1)
		return unix.Link(first, dst)
	}
	s.links[f.st.Ino] = dst
	if kind == unix.S_IFREG {
		return s.regular(f, make([]byte, 256<<10))
	}
	if missing == nil && st.Mode&unix.S_IFMT == kind && st.Nlink <= f.st.Nlink && sameNode(s.from+f.path, dst, f.st, st) {
		if sameMeta(f.st, st) && sameXattrs(s.from+f.path, dst) {
			return nil
		}
	}
	if err := s.clear(dst, st, missing); err != nil {
		return err
	}
	s.written.Add(1)
	delete(s.links, f.st.Ino) // make notes it itself
	return s.make(f)
}

// sameNode compares links by where they lead and devices by their number.
func sameNode(a, b string, sa, sb unix.Stat_t) bool {
	if sa.Mode&unix.S_IFMT != unix.S_IFLNK {
		return sa.Rdev == sb.Rdev
	}
	ta, err := os.Readlink(a)
	tb, other := os.Readlink(b)
	return err == nil && other == nil && ta == tb
}

// sameMeta compares owner, mode and time, as finish sets them.
func sameMeta(a, b unix.Stat_t) bool {
	return a.Uid == b.Uid && a.Gid == b.Gid && a.Mode == b.Mode && a.Mtim == b.Mtim
}

func sameContent(a, b string, size int64, buf []byte) (bool, error) {
	fa, err := os.Open(a)
	if err != nil {
		return false, err
	}
	defer fa.Close()
	fb, err := os.Open(b)
	if err != nil {
		return false, err
	}
	defer fb.Close()
	half := len(buf) / 2
	for at := int64(0); at < size; {
		n := int(min(int64(half), size-at))
		if _, err := io.ReadFull(fa, buf[:n]); err != nil {
			return false, err
		}
		if _, err := io.ReadFull(fb, buf[half:half+n]); err != nil || !bytes.Equal(buf[:n], buf[half:half+n]) {
			return false, nil // one that cannot be read is to be written anew
		}
		at += int64(n)
	}
	return true, nil
}

// sameXattrs compares extended attributes; on what cannot be read they differ.
func sameXattrs(a, b string) bool {
	na, err := xattrNames(a)
	nb, other := xattrNames(b)
	if err != nil || other != nil || !slices.Equal(na, nb) {
		return false
	}
	for _, name := range na {
		va, vb := make([]byte, 64<<10), make([]byte, 64<<10) // the kernel's limit
		la, err := unix.Lgetxattr(a, name, va)
		lb, other := unix.Lgetxattr(b, name, vb)
		if err != nil || other != nil || !bytes.Equal(va[:la], vb[:lb]) {
			return false
		}
	}
	return true
}

// dropXattrs removes all extended attributes of a directory; finish sets those
// that it shall have.
func dropXattrs(path string) error {
	names, err := xattrNames(path)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := unix.Lremovexattr(path, name); err != nil && !errors.Is(err, unix.ENODATA) {
			return &fs.PathError{Op: "removexattr " + name, Path: path, Err: err}
		}
	}
	return nil
}
