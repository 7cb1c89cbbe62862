package pull

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"sync"

	"golang.org/x/sys/unix"

	"muster/images/chunk"
	"muster/images/pack"
	"muster/images/squash"
	"muster/images/tree"
)

// Files is an image that was written, or is being written, as what can be given
// to others: chunks are read back from the files where they belong, so that
// nothing is kept twice. Files may have been changed since, so everything is
// verified before it is given.
type Files struct {
	*arrivals

	open  func(file int32) (f *os.File, done func(), err error)
	pack  *chunk.Packer // nil where what lies there is packed already
	spots []spot        // by digest

	mu   sync.Mutex
	here []bool // of each spot; nil when all are
}

// spot is where a chunk lies. The beginning of a digest tells chunks apart
// well enough, as what is read is compared with all of it.
type spot struct {
	short uint64
	size  uint32
	file  int32
	off   int64
}

func short(d chunk.Digest) uint64 { return binary.BigEndian.Uint64(d[:]) }

// TreeFiles are those below dir that a manifest tells of.
func TreeFiles(m *tree.Manifest, dir string) (*Files, error) {
	f := &Files{arrivals: &arrivals{}, pack: chunk.NewPacker()}
	var paths []string
	err := m.Walk(func(e *tree.Entry) error {
		if len(e.Parts) == 0 {
			return nil
		}
		off := int64(0)
		for _, p := range e.Parts {
			if p.Hole == 0 {
				f.spots = append(f.spots, spot{short(p.Chunk.Digest), p.Chunk.Size, int32(len(paths)), off})
			}
			off += p.Len()
		}
		paths = append(paths, e.Path)
		return nil
	})
	f.open = func(i int32) (*os.File, func(), error) {
		file, err := openBelow(dir, paths[i])
		return file, func() { file.Close() }, err
	}
	f.sort()
	return f, err
}

// openBelow opens a file of an image; whoever is root in it may have put a
// link in the place of any of its directories.
func openBelow(dir, path string) (*os.File, error) {
	at, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(at)
	fd, err := unix.Openat2(at, path, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOATIME,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), filepath.Join(dir, path)), nil
}

// SquashFile is an image as one file, or a device, which must stay open.
func SquashFile(x *squash.Index, file *os.File) *Files {
	f := &Files{arrivals: &arrivals{}, open: func(int32) (*os.File, func(), error) { return file, func() {}, nil }}
	for at, s := range x.Segments() {
		if s.Chunk.Size > 0 {
			f.spots = append(f.spots, spot{short(s.Chunk.Digest), s.Chunk.Size, 0, at})
		}
	}
	f.sort()
	return f
}

func (f *Files) sort() {
	slices.SortFunc(f.spots, func(a, b spot) int {
		return cmp.Or(cmp.Compare(a.short, b.short), cmp.Compare(a.file, b.file), cmp.Compare(a.off, b.off))
	})
	f.spots = slices.CompactFunc(f.spots, func(a, b spot) bool { return a.short == b.short && a.size == b.size })
	f.spots = slices.Clip(f.spots)
}

// empty says that nothing was written yet; came tells of what is.
func (f *Files) empty(a *arrivals) *Files {
	f.here, f.arrivals = make([]bool, len(f.spots)), a
	return f
}

func (f *Files) find(d chunk.Digest) (spot, int, bool) {
	key := short(d)
	i := sort.Search(len(f.spots), func(i int) bool { return f.spots[i].short >= key })
	if i == len(f.spots) || f.spots[i].short != key {
		return spot{}, 0, false
	}
	return f.spots[i], i, true
}

func (f *Files) came(d chunk.Digest) {
	if _, i, ok := f.find(d); ok {
		f.mu.Lock()
		f.here[i] = true
		f.mu.Unlock()
		f.add(d)
	}
}

// Has says whether a chunk was written.
func (f *Files) Has(d chunk.Digest) bool {
	_, i, ok := f.find(d)
	f.mu.Lock()
	defer f.mu.Unlock()
	return ok && (f.here == nil || f.here[i])
}

// Stored gives a chunk, in buf where there is room.
func (f *Files) Stored(d chunk.Digest, buf []byte) ([]byte, chunk.Encoding, error) {
	if !f.Has(d) {
		return nil, 0, pack.ErrAbsent
	}
	s, _, _ := f.find(d)
	from, done, err := f.open(s.file)
	if err != nil {
		return nil, 0, err
	}
	defer done()
	if cap(buf) < int(s.size) {
		buf = make([]byte, s.size)
	}
	buf = buf[:s.size]
	if _, err := from.ReadAt(buf, s.off); err != nil {
		return nil, 0, fmt.Errorf("%w: %w", chunk.ErrDamaged, err)
	}
	if err := (chunk.Ref{Digest: d, Size: s.size}).Check(buf); err != nil || f.pack == nil {
		return buf, chunk.Raw, err
	}
	out, e := f.pack.Pack(buf)
	return out, e, nil
}
