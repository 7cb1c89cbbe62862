package apply

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"muster/agent/pull"
	"muster/agent/rootfs"
	"muster/images/chunk"
	"muster/images/tree"
)

// stager makes everything beside its place. Nothing that anybody looks for is
// changed by that.
type stager struct {
	root   *rootfs.Root
	work   *os.File // the package's own directory
	chunks map[chunk.Digest]int
	want   []chunk.Ref
	at     [][]spot // of each wanted chunk
}

// spot is where in which file a chunk belongs.
type spot struct {
	file string
	off  int64
}

func (s *stager) run(ctx context.Context, all []staged, fetch tree.Fetch) error {
	s.chunks = map[chunk.Digest]int{}
	for _, f := range all {
		if err := s.make(f); err != nil {
			return full(f.at, err)
		}
	}
	err := fetch(ctx, s.want, func(i int, content []byte) error {
		if err := s.want[i].Check(content); err != nil {
			return err
		}
		for _, at := range s.at[i] {
			if err := s.write(at, content); err != nil {
				return full(at.file, err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, f := range slices.Backward(all) { // directories last, whose times change until then
		if err := s.settle(f); err != nil {
			return full(f.at, err)
		}
	}
	return nil
}

// full says in words what no room means.
func full(name string, err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("the node has no room for what is to come, with what it replaces still there (/%s): %w", name, err)
	}
	return fmt.Errorf("/%s: %w", name, err)
}

func (s *stager) make(f staged) error {
	dir, name, done, err := s.find(f.at)
	if err != nil {
		return err
	}
	defer done()
	return s.makeAt(f, dir, name)
}

// find gives the directory of something that is staged, until done is called.
// The package's own directory is one that rootfs never goes to.
func (s *stager) find(at string) (dir int, name string, done func(), err error) {
	if base, own := strings.CutPrefix(at, workDir+"/"); own {
		return int(s.work.Fd()), base, func() {}, nil
	}
	p, err := s.root.Place(at, rootfs.Strict)
	if err != nil {
		return -1, "", nil, err
	}
	dir, name = p.At()
	return dir, name, func() { p.Close() }, nil
}

func (s *stager) makeAt(f staged, dir int, name string) error {
	e := f.entry
	switch {
	case f.link != "":
		return s.link(f.link, dir, name)
	case e.Kind == tree.Dir:
		return unix.Mkdirat(dir, name, 0o700)
	case e.Kind == tree.Symlink:
		return unix.Symlinkat(e.Target, dir, name)
	case e.Kind == tree.File:
		return s.file(f, dir, name)
	}
	return unix.Mknodat(dir, name, unixMode(e.Kind)|0o600, int(unix.Mkdev(e.Major, e.Minor)))
}

// link makes another name of a file, and sees that it is one of that file: the
// owner of a directory may move things in it.
func (s *stager) link(of string, dir int, name string) error {
	p, err := s.root.Place(of, rootfs.Strict)
	if err != nil {
		return err
	}
	defer p.Close()
	st, err := p.Stat()
	if err != nil {
		return err
	}
	from, base := p.At()
	if err := unix.Linkat(from, base, dir, name, 0); err != nil {
		return err
	}
	var got unix.Stat_t
	if err := unix.Fstatat(dir, name, &got, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if got.Ino != st.Ino || got.Mode != st.Mode || got.Uid != st.Uid {
		return errMoved
	}
	return nil
}

var errMoved = errors.New("somebody changes it at the same time")

// file makes one of the right size, and notes what it is made of.
func (s *stager) file(f staged, dir int, name string) error {
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, f.entry.Size); err != nil {
		return err
	}
	off := int64(0)
	for _, part := range f.entry.Parts {
		if part.Hole == 0 {
			i, ok := s.chunks[part.Chunk.Digest]
			if !ok {
				i = len(s.want)
				s.chunks[part.Chunk.Digest] = i
				s.want, s.at = append(s.want, part.Chunk), append(s.at, nil)
			}
			if s.want[i].Size != part.Chunk.Size {
				return fmt.Errorf("the chunk %s has two sizes", part.Chunk.Digest)
			}
			s.at[i] = append(s.at[i], spot{f.at, off})
		}
		off += part.Len()
	}
	return nil
}

// open opens what was staged, if it still is: a regular file of ours that has
// one name, so that nobody has put another one there to have it written.
func (s *stager) open(name string, flags int) (int, error) {
	dir, base, done, err := s.find(name)
	if err != nil {
		return -1, err
	}
	defer done()
	fd, err := unix.Openat(dir, base, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && st.Uid != uint32(os.Geteuid()) {
		err = errMoved
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func (s *stager) write(at spot, content []byte) error {
	fd, err := s.open(at.file, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Mode&0o777 != 0o600 {
		return errMoved
	}
	for off := at.off; len(content) > 0; {
		n, err := unix.Pwrite(fd, content, off)
		if err != nil {
			return err
		}
		content, off = content[n:], off+int64(n)
	}
	return nil
}

// settle gives what was made its owner, attributes, mode and time, in this
// order: a change of the owner takes setuid and capabilities away.
func (s *stager) settle(f staged) error {
	m := metaOf(f.entry)
	switch {
	case f.link != "":
		return nil // they are of the file that it is another name of
	case f.entry.Kind == tree.File, f.entry.Kind == tree.Dir:
		fd, err := s.open(f.at, unix.O_RDONLY)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return m.give(fd)
	}
	dir, name, done, err := s.find(f.at)
	if err != nil {
		return err
	}
	defer done()
	return m.giveAt(dir, name, f.entry.Kind == tree.Symlink)
}

// give sets all of it on an open file or directory, and takes away what else
// there is of attributes that an image may have.
func (m *meta) give(fd int) error {
	if err := unix.Fchown(fd, int(m.UID), int(m.GID)); err != nil {
		return err
	}
	at := fmt.Sprintf("/proc/self/fd/%d", fd)
	names, err := listXattrs(at)
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	for _, name := range names {
		if _, stays := m.Xattrs[name]; !stays && ours(name) {
			if err := unix.Fremovexattr(fd, name); err != nil && !errors.Is(err, unix.ENODATA) {
				return fmt.Errorf("attribute %s: %w", name, err)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m.Xattrs)) {
		if err := unix.Fsetxattr(fd, name, m.Xattrs[name], 0); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
			return fmt.Errorf("attribute %s: %w", name, err)
		}
	}
	if err := unix.Fchmod(fd, m.Mode); err != nil {
		return err
	}
	t := unix.Timespec{Sec: m.MTime, Nsec: int64(m.NSec)}
	return unix.UtimesNanoAt(unix.AT_FDCWD, at, []unix.Timespec{t, t}, 0)
}

// giveAt is give for links and devices, which are new.
func (m *meta) giveAt(dir int, name string, link bool) error {
	if err := unix.Fchownat(dir, name, int(m.UID), int(m.GID), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	at := fmt.Sprintf("/proc/self/fd/%d/%s", dir, name)
	for _, x := range slices.Sorted(maps.Keys(m.Xattrs)) {
		if err := unix.Lsetxattr(at, x, m.Xattrs[x], 0); err != nil && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EPERM) {
			return fmt.Errorf("attribute %s: %w", x, err)
		}
	}
	if !link {
		if err := fchmodat(dir, name, m.Mode); err != nil {
			return err
		}
	}
	t := unix.Timespec{Sec: m.MTime, Nsec: int64(m.NSec)}
	return unix.UtimesNanoAt(dir, name, []unix.Timespec{t, t}, unix.AT_SYMLINK_NOFOLLOW)
}

// fchmodat sets the mode of what is certainly no link.
func fchmodat(dir int, name string, mode uint32) error {
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return errMoved
	}
	return unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), mode)
}

// onNode gives chunks that files of the node hold already: those of the version
// that runs, or where that is not known, of the wanted one.
type onNode struct {
	root *rootfs.Root
	at   map[chunk.Digest]spot
}

func newOnNode(root *rootfs.Root, sides ...*tree.Index) *onNode {
	n := &onNode{root, map[chunk.Digest]spot{}}
	for _, side := range sides {
		if side == nil {
			continue
		}
		for _, e := range side.Entries {
			off := int64(0)
			for _, part := range e.Parts {
				if part.Hole == 0 {
					n.at[part.Chunk.Digest] = spot{e.Path, off}
				}
				off += part.Len()
			}
		}
	}
	return n
}

// Fetch implements pull.Chunks.
func (n *onNode) Fetch(ctx context.Context, want []chunk.Ref, take func(int, pull.Got) error) (left []int, err error) {
	var buf []byte
	for i, ref := range want {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		b, err := n.read(ref, &buf)
		if err != nil { // whatever it is, the head has it
			left = append(left, i)
		} else if err := take(i, pull.Got{Content: b, Stored: b, Encoding: chunk.Raw}); err != nil {
			return nil, err
		}
	}
	return left, nil
}

func (n *onNode) read(ref chunk.Ref, buf *[]byte) ([]byte, error) {
	at, ok := n.at[ref.Digest]
	if !ok {
		return nil, fs.ErrNotExist
	}
	p, err := n.root.Place(at.file, rootfs.Strict)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	st, err := p.Stat()
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fs.ErrNotExist
	}
	f, err := p.Open()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if cap(*buf) < int(ref.Size) {
		*buf = make([]byte, ref.Size)
	}
	b := (*buf)[:ref.Size]
	if _, err := f.ReadAt(b, at.off); err != nil {
		return nil, err
	}
	return b, ref.Check(b)
}
