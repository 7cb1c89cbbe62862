package tree

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"

	"muster/images/chunk"
)

// Fetch gives the content of chunks, in any order and by many goroutines at
// once; content is only valid during the call of take. It returns when every
// chunk was taken once, or with an error.
type Fetch func(ctx context.Context, want []chunk.Ref, take func(i int, content []byte) error) error

// Write writes a tree below dir, an empty directory, which becomes its root.
// Contents are written where they belong as they come; each chunk is fetched
// once however many files have it. An attribute of a name space that the file
// system does not take is left out. It needs the rights of root.
func Write(ctx context.Context, m *Manifest, dir string, fetch Fetch) error {
	w := &writer{dir: dir, chunks: map[chunk.Digest]int{}}
	if err := m.Walk(w.make); err != nil {
		return err
	}
	err := fetch(ctx, w.want, func(i int, content []byte) error {
		if err := w.want[i].Check(content); err != nil {
			return err
		}
		for _, at := range w.at[i] {
			if err := w.put(w.files[at.file], content, at.off); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return w.finish(m)
}

// target is where in which file a chunk belongs.
type target struct {
	file int32
	off  int64
}

type writer struct {
	dir    string
	files  []string
	chunks map[chunk.Digest]int
	want   []chunk.Ref
	at     [][]target // of each wanted chunk
}

func (w *writer) path(name string) string { return filepath.Join(w.dir, name) }

func failed(op, path string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, unix.ENOSPC) {
		return fmt.Errorf("the tree does not fit: %w", &fs.PathError{Op: op, Path: path, Err: err})
	}
	return &fs.PathError{Op: op, Path: path, Err: err}
}

// make makes an entry without its content, and notes what that is made of.
func (w *writer) make(e *Entry) error {
	path := w.path(e.Path)
	switch e.Kind {
	case Dir:
		if e.Path == "." {
			return nil
		}
		return failed("mkdir", path, unix.Mkdir(path, 0o700))
	case Symlink:
		return failed("symlink", path, unix.Symlink(e.Target, path))
	case Link:
		return failed("link", path, unix.Link(w.path(e.Target), path))
	case File:
		return w.file(e, path)
	}
	mode := map[Kind]uint32{Block: unix.S_IFBLK, Char: unix.S_IFCHR, Fifo: unix.S_IFIFO, Socket: unix.S_IFSOCK}[e.Kind]
	return failed("mknod", path, unix.Mknod(path, mode|0o600, int(unix.Mkdev(e.Major, e.Minor))))
}

func (w *writer) file(e *Entry, path string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return failed("create", path, err)
	}
	defer unix.Close(fd)
	if e.Size == 0 {
		return nil
	}
	if err := unix.Ftruncate(fd, e.Size); err != nil {
		return failed("truncate", path, err)
	}
	w.files = append(w.files, e.Path)
	off := int64(0)
	for _, p := range e.Parts {
		if p.Hole == 0 {
			i, ok := w.chunks[p.Chunk.Digest]
			if !ok {
				i = len(w.want)
				w.chunks[p.Chunk.Digest] = i
				w.want, w.at = append(w.want, p.Chunk), append(w.at, nil)
			}
			if w.want[i].Size != p.Chunk.Size {
				return fmt.Errorf("%s: the chunk %s has two sizes", e.Path, p.Chunk.Digest)
			}
			w.at[i] = append(w.at[i], target{int32(len(w.files) - 1), off})
		}
		off += p.Len()
	}
	return nil
}

func (w *writer) put(name string, content []byte, off int64) error {
	path := w.path(name)
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return failed("open", path, err)
	}
	defer unix.Close(fd)
	for len(content) > 0 {
		n, err := unix.Pwrite(fd, content, off)
		if err != nil {
			return failed("write", path, err)
		}
		content, off = content[n:], off+int64(n)
	}
	return nil
}

// finish sets owners, modes and times when nothing is written any more: files
// on all cores, then the directories from below, whose times change when
// something is made in them.
func (w *writer) finish(m *Manifest) error {
	todo := make(chan Entry, 256)
	var workers sync.WaitGroup
	var once sync.Once
	var failure error
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for e := range todo {
				if err := w.settle(&e); err != nil {
					once.Do(func() { failure = err })
				}
			}
		})
	}
	var dirs []Entry
	err := m.Walk(func(e *Entry) error {
		keep := *e
		keep.Parts = nil
		switch e.Kind {
		case Dir:
			dirs = append(dirs, keep)
		case Link:
		default:
			todo <- keep
		}
		return nil
	})
	close(todo)
	workers.Wait()
	for i := len(dirs) - 1; i >= 0 && err == nil && failure == nil; i-- {
		err = w.settle(&dirs[i])
	}
	return errors.Join(err, failure)
}

// settle sets what making an entry did not. The mode comes after the owner,
// whose change takes setuid and capabilities away, and the times come last.
func (w *writer) settle(e *Entry) error {
	path := w.path(e.Path)
	if err := unix.Lchown(path, int(e.UID), int(e.GID)); err != nil {
		return failed("chown", path, err)
	}
	for _, x := range e.Xattrs {
		if err := unix.Lsetxattr(path, x.Name, []byte(x.Value), 0); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
			return failed("set attribute "+x.Name, path, err)
		}
	}
	if e.Kind != Symlink {
		if err := unix.Chmod(path, e.Mode); err != nil {
			return failed("chmod", path, err)
		}
	}
	at := unix.Timespec{Sec: e.MTime, Nsec: int64(e.NSec)}
	return failed("set time", path, unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW))
}
