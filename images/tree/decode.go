package tree

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"muster/images/chunk"
)

// Manifest is a decoded tree. It refers to the bytes that it was decoded from
// and may be used by many at once.
type Manifest struct {
	Digest chunk.Digest // of its encoding
	Count  int          // entries
	Bytes  int64        // in all files, holes included, each once
	Groups int          // files of several names

	sets    [][]Xattr
	entries []byte
	digests []byte
}

// errEnd says that the encoding is too short.
var errEnd = errors.New("it ends too early")

// Is says whether raw looks like one that Decode reads.
func Is(raw []byte) bool { return len(raw) >= len(magic) && string(raw[:len(magic)]) == magic }

// Decode reads a manifest and checks all of it.
func Decode(raw []byte) (*Manifest, error) {
	m, err := decode(raw)
	if err != nil {
		return nil, fmt.Errorf("broken manifest of a tree: %w", err)
	}
	return m, nil
}

func decode(raw []byte) (*Manifest, error) {
	if len(raw) > MaxEncoded {
		return nil, fmt.Errorf("%d bytes, at most %d are taken", len(raw), MaxEncoded)
	}
	rest, ok := strings.CutPrefix(string(raw[:min(len(raw), len(magic))]), magic)
	if !ok || rest != "" {
		return nil, errors.New("it does not begin with one")
	}
	m := &Manifest{Digest: chunk.Sum(raw)}
	d := &decoder{b: raw[len(magic):]}
	count, chunks, sets := d.uint(maxEntries), d.uint(MaxEncoded/len(chunk.Digest{})), d.uint(maxEntries)
	xattrs := &decoder{b: d.bytes(d.uint(MaxEncoded))}
	m.entries = d.bytes(d.uint(MaxEncoded))
	m.digests = d.b
	if d.failed {
		return nil, errEnd
	}
	if len(m.digests) != chunks*len(chunk.Digest{}) {
		return nil, fmt.Errorf("%d bytes of digests for %d chunks", len(m.digests), chunks)
	}
	if err := m.readSets(xattrs, sets); err != nil {
		return nil, err
	}
	m.Count = count
	err := m.Walk(func(e *Entry) error {
		if e.Kind == File {
			m.Bytes += e.Size
		}
		if e.Kind != Link && e.Group > 0 {
			m.Groups++
		}
		if m.Bytes > maxBytes {
			return errors.New("all files together are too large")
		}
		return nil
	})
	return m, err
}

func (m *Manifest) readSets(d *decoder, n int) error {
	for range n {
		var set []Xattr
		for range d.uint(maxXattrs) {
			set = append(set, Xattr{d.text(maxName), d.text(maxValue)})
		}
		if d.failed {
			return errEnd
		}
		m.sets = append(m.sets, set)
	}
	if len(d.b) > 0 {
		return errors.New("more attributes than it counts")
	}
	return nil
}

// Walk calls fn for every entry, in order. The entry is only valid during the
// call. It stops at fn's first error.
func (m *Manifest) Walk(fn func(*Entry) error) error {
	w := walker{m: m, d: decoder{b: m.entries}, digests: m.digests}
	for i := range m.Count {
		if err := w.next(i == 0); err != nil {
			return fmt.Errorf("entry %d, %q: %w", i+1, w.e.Path, err)
		}
		if err := fn(&w.e); err != nil {
			return err
		}
	}
	if len(w.d.b) > 0 || len(w.digests) > 0 {
		return errors.New("it has more than it counts")
	}
	return nil
}

// walker is one way through the entries.
type walker struct {
	m       *Manifest
	d       decoder
	digests []byte
	e       Entry
	dirs    []string // full paths of the directories that contain the entry
	last    []string // the last name in each
	groups  []string // path of the first name of each
}

func (w *walker) next(root bool) error {
	w.e = Entry{Kind: Kind(w.d.byte()), Parts: w.e.Parts[:0]}
	up, name := w.d.uint(maxDepth), w.d.text(maxName)
	if w.d.failed {
		return errEnd
	}
	if err := w.place(root, up, name); err != nil {
		return err
	}
	if w.e.Kind == Link {
		if w.e.Group = w.d.uint(maxEntries); w.d.failed || w.e.Group < 1 || w.e.Group > len(w.groups) {
			return errors.New("a link to nothing before it")
		}
		w.e.Target = w.groups[w.e.Group-1]
		return nil
	}
	if err := w.attributes(); err != nil {
		return err
	}
	if err := w.rest(); err != nil {
		return err
	}
	return w.e.check()
}

func (w *walker) place(root bool, up int, name string) error {
	if root {
		if w.e.Path = "."; name != "" || up != 0 || w.e.Kind != Dir {
			return errors.New("it does not begin with a root")
		}
		w.dirs, w.last = []string{""}, []string{""}
		return nil
	}
	if err := checkName(name); err != nil {
		return err
	}
	if up >= len(w.dirs) {
		return errors.New("it lies above the root")
	}
	depth := len(w.dirs) - up
	w.dirs, w.last = w.dirs[:depth], w.last[:depth]
	w.e.Path = w.dirs[depth-1] + name
	if name <= w.last[depth-1] {
		return fmt.Errorf("it stands behind %q", w.last[depth-1])
	}
	w.last[depth-1] = name
	if w.e.Kind == Dir {
		if depth > maxDepth {
			return errors.New("too many directories below each other")
		}
		w.dirs, w.last = append(w.dirs, w.e.Path+"/"), append(w.last, "")
	}
	return nil
}

func (w *walker) attributes() error {
	e, d := &w.e, &w.d
	e.Mode, e.UID, e.GID = uint32(d.uint(0o7777)), uint32(d.uint(1<<32-1)), uint32(d.uint(1<<32-1))
	e.MTime, e.NSec = d.int(), uint32(d.uint(1e9-1))
	set := d.uint(len(w.m.sets))
	e.Group = d.uint(maxEntries)
	if d.failed {
		return errEnd
	}
	if set > 0 {
		e.Xattrs = w.m.sets[set-1]
	}
	if e.Group > 0 {
		if e.Group != len(w.groups)+1 || e.Kind == Dir {
			return fmt.Errorf("group %d after %d", e.Group, len(w.groups))
		}
		w.groups = append(w.groups, e.Path)
	}
	return nil
}

func (w *walker) rest() error {
	e, d := &w.e, &w.d
	switch e.Kind {
	case File:
		e.Size = int64(d.uint(maxBytes))
		for left := e.Size; left > 0 && !d.failed; {
			p, err := w.part(left)
			if err != nil {
				return err
			}
			e.Parts = append(e.Parts, p)
			left -= p.Len()
		}
	case Symlink:
		e.Target = d.text(maxTarget)
	case Block, Char:
		e.Major, e.Minor = uint32(d.uint(1<<32-1)), uint32(d.uint(1<<32-1))
	}
	if d.failed {
		return errEnd
	}
	return nil
}

func (w *walker) part(left int64) (Part, error) {
	v := w.d.uint(maxBytes<<1 | 1)
	n := int64(v >> 1)
	if w.d.failed || n == 0 || n > left {
		return Part{}, errors.New("its parts do not make up its size")
	}
	if v&1 == 1 {
		return Part{Hole: n}, nil
	}
	p := Part{}
	if n > chunk.MaxSize || len(w.digests) < len(p.Chunk.Digest) {
		return p, errors.New("a part without its chunk")
	}
	p.Chunk.Size = uint32(n)
	w.digests = w.digests[copy(p.Chunk.Digest[:], w.digests):]
	return p, nil
}

// decoder reads numbers and texts. After the first that is not there or is
// over its bound it has failed, and gives nothing any more.
type decoder struct {
	b      []byte
	failed bool
}

func (d *decoder) fail() {
	d.b, d.failed = nil, true
}

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.fail()
		return 0
	}
	v := d.b[0]
	d.b = d.b[1:]
	return v
}

func (d *decoder) uint(most int) int {
	v, n := binary.Uvarint(d.b)
	// One number has one encoding, so that one tree has one.
	if n <= 0 || v > uint64(most) || n > 1 && d.b[n-1] == 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return int(v)
}

func (d *decoder) int() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) bytes(n int) []byte {
	if n > len(d.b) {
		d.fail()
		return nil
	}
	v := d.b[:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) text(most int) string { return string(d.bytes(d.uint(most))) }
