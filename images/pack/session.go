package pack

import (
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"os"
	"path/filepath"
	"sync"

	"muster/images/chunk"
)

// Session adds chunks. What it was given, or was told that it has already,
// stays in the store until End, whether somebody else needs it or not. Its
// methods but Commit and End may be called by many at once.
type Session struct {
	store *Store
	puts  sync.RWMutex // held for writing while what was put is made to count

	mu      sync.Mutex
	writing *writing
	adopted []*writing
	broken  error // what was put is not whole

	needs  sync.Mutex // taken last of all
	needed map[chunk.Digest]struct{}
}

func (x *Session) need(d chunk.Digest) {
	x.needs.Lock()
	defer x.needs.Unlock()
	x.needed[d] = struct{}{}
}

// writing is a pack that does not count yet.
type writing struct {
	file    *os.File
	name    string
	end     int64
	entries map[chunk.Digest]place
}

// Begin begins one. End must be called.
func (s *Store) Begin() *Session {
	x := &Session{store: s, needed: map[chunk.Digest]struct{}{}}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sessions[x] = struct{}{}
	return x
}

// Need says whether a chunk has to be put: it is not there, or was damaged. In
// any case the session needs it.
func (x *Session) Need(d chunk.Digest, buf []byte) (bool, []byte) {
	x.need(d) // before it is looked for, so that no sweep comes between
	x.mu.Lock()
	known := x.here(d)
	x.mu.Unlock()
	if known {
		return false, buf
	}
	stored, _, err := x.store.Stored(d, buf)
	if err == nil {
		return false, stored
	}
	if !errors.Is(err, ErrAbsent) {
		x.store.log.Warn("a damaged chunk is replaced", "chunk", d.String(), "error", err)
	}
	return true, buf
}

// here says whether this session has put a chunk. x.mu is held.
func (x *Session) here(d chunk.Digest) bool {
	for _, w := range x.all() {
		if _, ok := w.entries[d]; ok {
			return true
		}
	}
	return false
}

func (x *Session) all() []*writing {
	if x.writing == nil {
		return x.adopted
	}
	return append(x.adopted[:len(x.adopted):len(x.adopted)], x.writing)
}

// Put adds a chunk as it shall be stored; its digest is of what it unpacks to.
func (x *Session) Put(d chunk.Digest, stored []byte, enc chunk.Encoding) error {
	x.puts.RLock()
	defer x.puts.RUnlock()
	w, p, err := x.reserve(d, len(stored))
	if err != nil || w == nil {
		return err
	}
	p.enc, p.crc = enc, crc32.Checksum(stored, castagnoli)
	_, err = w.file.WriteAt(stored, p.off)
	x.mu.Lock()
	defer x.mu.Unlock()
	if err != nil {
		x.broken = err
		return err
	}
	w.entries[d] = p
	return nil
}

// reserve finds room. The pack is nil when the session has the chunk, or
// somebody else is putting it.
func (x *Session) reserve(d chunk.Digest, n int) (*writing, place, error) {
	x.need(d)
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.here(d) {
		return nil, place{}, nil
	}
	if x.writing == nil {
		f, err := os.CreateTemp(x.store.dir, tmpPrefix)
		if err != nil {
			return nil, place{}, err
		}
		x.writing = &writing{file: f, name: f.Name(), entries: map[chunk.Digest]place{}}
	}
	w := x.writing
	p := place{off: w.end, stored: uint32(n)}
	w.end += int64(n)
	w.entries[d] = p
	return w, p, nil
}

// Stored gives a chunk that this session has put, committed or not, or that the
// store has, as it is stored; see Store.Stored.
func (x *Session) Stored(d chunk.Digest, buf []byte) ([]byte, chunk.Encoding, error) {
	if p, f, ok := x.find(d); ok {
		b, err := p.read(f, buf) // an error where the session ended meanwhile
		return b, p.enc, err
	}
	return x.store.Stored(d, buf)
}

func (x *Session) find(d chunk.Digest) (place, *os.File, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, w := range x.all() {
		if p, ok := w.entries[d]; ok {
			return p, w.file, true
		}
	}
	return place{}, nil, false
}

// Written gives the bytes that were put and are not committed yet.
func (x *Session) Written() int64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.writing == nil {
		return 0
	}
	return x.writing.end
}

// Alias gives what the chunk of holds, unpacked, a name of its own. of must
// have been put or adopted by the session.
func (x *Session) Alias(d, of chunk.Digest, enc chunk.Encoding) error {
	x.need(d)
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.here(d) {
		return nil
	}
	for _, w := range x.all() {
		if p, ok := w.entries[of]; ok {
			p.enc = enc
			w.entries[d] = p
			return nil
		}
	}
	return fmt.Errorf("alias of %s: %w", of, ErrAbsent)
}

// Here says whether the session has put a chunk itself.
func (x *Session) Here(d chunk.Digest) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.here(d)
}

// Stretch is a chunk in a file that is adopted, stored as it is.
type Stretch struct {
	Digest chunk.Digest
	Off    int64
	Size   uint32
	CRC    uint32 // as Checksum gives it
}

// Checksum is by which a store notices what storage does to bytes.
func Checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// Adopt makes a whole file a pack, of which the stretches are chunks, without
// copying it. The file must be on the store's file system, is gone from its
// old place afterwards, and is not to be written any more.
func (x *Session) Adopt(path string, stretches []Stretch) error {
	name := filepath.Join(x.store.dir, tmpPrefix+filepath.Base(path))
	if err := os.Rename(path, name); err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return errors.Join(err, os.Remove(name))
	}
	w := &writing{file: f, name: name, entries: make(map[chunk.Digest]place, len(stretches))}
	for _, s := range stretches {
		w.entries[s.Digest] = place{off: s.Off, stored: s.Size, crc: s.CRC}
	}
	for d := range w.entries {
		x.need(d)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.adopted = append(x.adopted, w)
	return nil
}

// Commit makes all that was put durable and gives it to everybody. The
// session can go on afterwards.
func (x *Session) Commit() error {
	x.puts.Lock()
	defer x.puts.Unlock()
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.broken != nil {
		return x.broken
	}
	for len(x.adopted) > 0 {
		if err := x.store.settle(x.adopted[0]); err != nil {
			return err
		}
		x.adopted = x.adopted[1:]
	}
	if x.writing != nil {
		if err := x.store.settle(x.writing); err != nil {
			return err
		}
		x.writing = nil
	}
	return nil
}

// End gives up what was not committed, and no longer keeps what was.
func (x *Session) End() {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, w := range x.all() {
		w.file.Close()
		os.Remove(w.name)
	}
	x.writing, x.adopted = nil, nil
	s := x.store
	s.mu.Lock()
	defer s.mu.Unlock()
	x.needs.Lock()
	defer x.needs.Unlock()
	if _, ok := s.sessions[x]; ok && s.ended != nil {
		maps.Copy(s.ended, x.needed)
	}
	delete(s.sessions, x)
}

// settle makes a pack count: first its bytes are on disk, then its index.
func (s *Store) settle(w *writing) error {
	s.mu.Lock()
	num := s.next
	s.next++
	s.mu.Unlock()
	index := encodeIndex(w.entries)
	tmp := w.name + idxExt
	if err := errors.Join(s.flush(w.file), s.writeFile(tmp, index)); err != nil {
		os.Remove(tmp)
		return err
	}
	if err := os.Rename(w.name, s.path(num, packExt)); err != nil {
		return err
	}
	w.name = s.path(num, packExt) // what End removes should the rest fail
	if err := os.Rename(tmp, s.path(num, idxExt)); err != nil {
		return err
	}
	if err := s.flushDir(); err != nil {
		os.Remove(s.path(num, idxExt))
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.packs[num] = w.file
	s.changes++
	for d, p := range w.entries {
		p.pack = num
		s.places[d] = p
	}
	return nil
}

func (s *Store) flush(f *os.File) error {
	if !s.sync {
		return nil
	}
	return f.Sync()
}

func (s *Store) writeFile(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, s.flush(f), f.Close())
}

func (s *Store) flushDir() error {
	d, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	return errors.Join(s.flush(d), d.Close())
}
