// Package pack keeps chunks in few files: a million chunks are not a million
// files, and what is written together is made durable together.
//
// A pack is a file of chunks as they are stored; beside it lies its index, the
// list of what is where, which appears last and makes the pack count. Chunks
// are written in a Session, and are there for others from its Commit on. What
// nobody needs any more is found by asking who needs what (Sweep), so that a
// crash can neither lose what was committed nor leave something behind for good.
// The package must not know what chunks are for.
package pack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"muster/images/chunk"
)

// ErrAbsent says that a chunk is not in the store.
var ErrAbsent = errors.New("the chunk is not in the store")

// Store is a directory of packs. Its methods may be called by many at once;
// only one process may have it open.
type Store struct {
	dir  string
	log  *slog.Logger
	sync bool

	mu       sync.RWMutex
	packs    map[uint32]*os.File
	places   map[chunk.Digest]place
	next     uint32
	sizes    map[*os.File]int64 // of the packs, when Stamp was last asked for
	changes  uint64
	sessions map[*Session]struct{}
	ended    map[chunk.Digest]struct{} // needed by sessions that ended during a sweep; nil without one
}

// place is where a chunk is.
type place struct {
	off    int64
	pack   uint32
	stored uint32 // bytes
	crc    uint32 // of these, Castagnoli
	enc    chunk.Encoding
}

// Options are how a store is kept.
type Options struct {
	Log *slog.Logger
	// Volatile spares the disk: a crash may then lose chunks, which is noticed
	// when they are read. For caches.
	Volatile bool
}

// Open opens a store, which is empty when the directory is new, and removes
// what an interrupted session left.
func Open(dir string, o Options) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	s := &Store{dir: dir, log: o.Log, sync: !o.Volatile, packs: map[uint32]*os.File{}, places: map[chunk.Digest]place{}, sessions: map[*Session]struct{}{}, sizes: map[*os.File]int64{}}
	entries, err := os.ReadDir(dir) // sorted, so that of two copies of a chunk the newer counts
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		num, ext, ok := parseName(e.Name())
		switch {
		case strings.HasPrefix(e.Name(), tmpPrefix):
			err = os.Remove(filepath.Join(dir, e.Name()))
		case ok && ext == idxExt:
			err = s.load(num)
		case ok && ext == packExt:
			if _, serr := os.Stat(s.path(num, idxExt)); errors.Is(serr, fs.ErrNotExist) {
				err = os.Remove(s.path(num, packExt))
			}
		}
		if err != nil {
			return nil, err
		}
		if ok {
			s.next = max(s.next, num+1)
		}
	}
	return s, nil
}

const (
	tmpPrefix = "new-"
	packExt   = ".pack"
	idxExt    = ".idx"
	entrySize = 32 + 8 + 4 + 4 + 1
	idxMagic  = "msindex1"
)

func (s *Store) path(num uint32, ext string) string {
	return filepath.Join(s.dir, fmt.Sprintf("%08d%s", num, ext))
}

func parseName(name string) (num uint32, ext string, ok bool) {
	base, ext, _ := strings.Cut(name, ".")
	n, err := strconv.ParseUint(base, 10, 32)
	return uint32(n), "." + ext, err == nil && len(base) >= 8
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// load reads a pack's index. One that is damaged makes its chunks absent, which
// is told, and found again by whoever needs them.
func (s *Store) load(num uint32) error {
	raw, err := os.ReadFile(s.path(num, idxExt))
	if err != nil {
		return err
	}
	f, err := os.OpenFile(s.path(num, packExt), os.O_RDWR, 0)
	if err != nil {
		s.log.Error("chunks are lost: their pack is missing", "index", s.path(num, idxExt), "error", err)
		if errors.Is(err, fs.ErrNotExist) {
			return os.Remove(s.path(num, idxExt))
		}
		return nil
	}
	entries, err := decodeIndex(raw)
	if err != nil {
		f.Close()
		s.log.Error("chunks are lost: their index is damaged", "index", s.path(num, idxExt), "error", err)
		return nil
	}
	s.packs[num] = f
	for d, p := range entries {
		p.pack = num
		s.places[d] = p
	}
	return nil
}

func encodeIndex(entries map[chunk.Digest]place) []byte {
	digests := make([]chunk.Digest, 0, len(entries))
	for d := range entries {
		digests = append(digests, d)
	}
	slices.SortFunc(digests, func(a, b chunk.Digest) int { return slices.Compare(a[:], b[:]) })
	out := make([]byte, 0, len(idxMagic)+len(digests)*entrySize+4)
	out = append(out, idxMagic...)
	for _, d := range digests {
		p := entries[d]
		out = append(out, d[:]...)
		out = binary.LittleEndian.AppendUint64(out, uint64(p.off))
		out = binary.LittleEndian.AppendUint32(out, p.stored)
		out = binary.LittleEndian.AppendUint32(out, p.crc)
		out = append(out, byte(p.enc))
	}
	return binary.LittleEndian.AppendUint32(out, crc32.Checksum(out, castagnoli))
}

func decodeIndex(raw []byte) (map[chunk.Digest]place, error) {
	n := len(raw) - len(idxMagic) - 4
	if n < 0 || n%entrySize != 0 || string(raw[:len(idxMagic)]) != idxMagic {
		return nil, errors.New("it is no index of chunks, or not all of one")
	}
	end := len(raw) - 4
	if crc32.Checksum(raw[:end], castagnoli) != binary.LittleEndian.Uint32(raw[end:]) {
		return nil, errors.New("its checksum is wrong")
	}
	out := make(map[chunk.Digest]place, n/entrySize)
	for b := raw[len(idxMagic):end]; len(b) > 0; b = b[entrySize:] {
		p := place{off: int64(binary.LittleEndian.Uint64(b[32:])), stored: binary.LittleEndian.Uint32(b[40:]),
			crc: binary.LittleEndian.Uint32(b[44:]), enc: chunk.Encoding(b[48])}
		if p.stored > chunk.MaxSize || p.off < 0 || p.enc >= chunk.Absent {
			return nil, errors.New("it has an impossible entry")
		}
		out[chunk.Digest(b[:32])] = p
	}
	return out, nil
}

// Has says whether the store has a chunk; it may be damaged.
func (s *Store) Has(d chunk.Digest) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	_, ok := s.places[d]
	return ok
}

// find gives a chunk's place, and its pack. A pack that is removed meanwhile
// stays readable: its file is closed when nobody refers to it any more.
func (s *Store) find(d chunk.Digest) (place, *os.File, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	p, ok := s.places[d]
	return p, s.packs[p.pack], ok
}

// Stored gives a chunk as it is stored, in buf where there is room. It is
// checked for what storage does to bytes; the content is not.
func (s *Store) Stored(d chunk.Digest, buf []byte) ([]byte, chunk.Encoding, error) {
	p, f, ok := s.find(d)
	if !ok {
		return nil, 0, ErrAbsent
	}
	b, err := p.read(f, buf)
	return b, p.enc, err
}

func (p place) read(f *os.File, buf []byte) ([]byte, error) {
	if cap(buf) < int(p.stored) {
		buf = make([]byte, p.stored)
	}
	buf = buf[:p.stored]
	if _, err := f.ReadAt(buf, p.off); err != nil {
		return nil, fmt.Errorf("%w: %w", chunk.ErrDamaged, err)
	}
	if crc32.Checksum(buf, castagnoli) != p.crc {
		return nil, fmt.Errorf("%w in %s at byte %d", chunk.ErrDamaged, f.Name(), p.off)
	}
	return buf, nil
}

// Content gives what a chunk holds, verified. buf and the codec are for one
// caller at a time; the result is valid until buf is used again.
func (s *Store) Content(c *chunk.Codec, ref chunk.Ref, buf *Buffer) ([]byte, error) {
	stored, enc, err := s.Stored(ref.Digest, buf.stored)
	if err != nil {
		return nil, err
	}
	buf.stored = stored
	out, err := c.Decode(buf.content, stored, enc, ref)
	if enc == chunk.Zstd && err == nil {
		buf.content = out
	}
	return out, err
}

// Buffer is memory that Content uses again.
type Buffer struct{ stored, content []byte }

// Raw says where in which file a chunk lies that is stored as it is.
func (s *Store) Raw(d chunk.Digest) (f *os.File, off int64, ok bool) {
	p, f, ok := s.find(d)
	return f, p.off, ok && p.enc == chunk.Raw
}

// Reaches says whether a chunk is in the store, and its pack as long as it must be.
func (s *Store) Reaches(d chunk.Digest) bool {
	p, f, ok := s.find(d)
	if !ok {
		return false
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.sizes[f] >= p.off+int64(p.stored)
}

// Stamp changes when chunks come or go, or a pack is written to.
func (s *Store) Stamp() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	sum := s.changes * 31
	for num, f := range s.packs {
		if st, err := f.Stat(); err == nil {
			s.sizes[f] = st.Size()
			sum += uint64(num+1) * uint64(st.ModTime().UnixNano()) * 0x9e3779b97f4a7c15
			sum ^= uint64(st.Size()) * 0xff51afd7ed558ccd
		}
	}
	return fmt.Sprint(len(s.packs), sum)
}

// Bytes gives the size of all packs together.
func (s *Store) Bytes() int64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	total := int64(0)
	for _, f := range s.packs {
		if st, err := f.Stat(); err == nil {
			total += st.Size()
		}
	}
	return total
}
