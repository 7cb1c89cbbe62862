package tree

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"muster/images/chunk"
)

// The format, in this order; numbers are varints as encoding/binary has them:
//
//	magic
//	number of entries, of chunks, of attribute sets
//	length of the sets; the sets: number, then name and value with their lengths
//	length of the entries; the entries
//	the digests of all chunks, in order
//
// An entry is its kind, how many directories to leave, its name with its
// length, and for a Link the number of its group. All others have mode, owner,
// group, time and nanoseconds, the number of the attribute set from 1 on or 0,
// and the number of the link group or 0; a file its size and parts
// (length × 2, + 1 for a hole); a symbolic link its target; a device its
// numbers. Digests lie apart because they cannot be compressed, and sizes
// and names can.
const magic = "mstree1\n"

// Builder encodes a tree.
type Builder struct {
	dirs    []string // where the last entry was, its own name too if it is a directory
	last    []string // the last name in each of these
	sets    map[string]int
	xattrs  []byte
	entries []byte
	digests []byte
	count   int
	groups  int
}

// NewBuilder makes one for a tree whose first entry is the root, ".".
func NewBuilder() *Builder { return &Builder{sets: map[string]int{}} }

// Add adds an entry: parents before what is in them, the names in a directory
// by their bytes, the first name of a group before its links, and groups
// numbered as they come.
func (b *Builder) Add(e *Entry) error {
	if err := b.add(e); err != nil {
		return fmt.Errorf("%s: %w", e.Path, err)
	}
	return nil
}

func (b *Builder) add(e *Entry) error {
	if err := e.check(); err != nil {
		return err
	}
	up, name, err := b.place(e)
	if err != nil {
		return err
	}
	switch {
	case e.Kind == Link && (e.Group < 1 || e.Group > b.groups):
		return fmt.Errorf("a link to the unknown group %d", e.Group)
	case e.Kind != Link && e.Group != 0 && e.Group != b.groups+1:
		return fmt.Errorf("group %d after %d", e.Group, b.groups)
	case b.count >= maxEntries:
		return fmt.Errorf("more than %d files", maxEntries)
	}
	b.count++
	out := append(b.entries, byte(e.Kind))
	out = binary.AppendUvarint(out, uint64(up))
	out = text(out, name)
	if e.Kind == Link {
		b.entries = binary.AppendUvarint(out, uint64(e.Group))
		return nil
	}
	b.groups = max(b.groups, e.Group)
	for _, v := range []uint64{uint64(e.Mode), uint64(e.UID), uint64(e.GID)} {
		out = binary.AppendUvarint(out, v)
	}
	out = binary.AppendVarint(out, e.MTime)
	for _, v := range []uint64{uint64(e.NSec), uint64(b.set(e.Xattrs)), uint64(e.Group)} {
		out = binary.AppendUvarint(out, v)
	}
	b.entries = b.rest(out, e)
	return nil
}

// rest adds what only some kinds have.
func (b *Builder) rest(out []byte, e *Entry) []byte {
	switch e.Kind {
	case File:
		out = binary.AppendUvarint(out, uint64(e.Size))
		for _, p := range e.Parts {
			if p.Hole > 0 {
				out = binary.AppendUvarint(out, uint64(p.Hole)<<1|1)
				continue
			}
			out = binary.AppendUvarint(out, uint64(p.Chunk.Size)<<1)
			b.digests = append(b.digests, p.Chunk.Digest[:]...)
		}
	case Symlink:
		out = text(out, e.Target)
	case Block, Char:
		out = binary.AppendUvarint(out, uint64(e.Major))
		out = binary.AppendUvarint(out, uint64(e.Minor))
	}
	return out
}

// place says how to get from the last entry to e.
func (b *Builder) place(e *Entry) (up int, name string, err error) {
	if b.count == 0 {
		if e.Path != "." || e.Kind != Dir {
			return 0, "", fmt.Errorf("a tree begins with its root")
		}
		b.dirs, b.last = []string{}, []string{""}
		return 0, "", nil
	}
	parts := strings.Split(e.Path, "/")
	name = parts[len(parts)-1]
	parent := parts[:len(parts)-1]
	if len(parent) > len(b.dirs) || !slices.Equal(parent, b.dirs[:len(parent)]) {
		return 0, "", fmt.Errorf("it does not stand behind its directory")
	}
	if err := checkName(name); err != nil {
		return 0, "", err
	}
	up = len(b.dirs) - len(parent)
	b.dirs, b.last = b.dirs[:len(parent)], b.last[:len(parent)+1]
	if at := &b.last[len(parent)]; name <= *at {
		return 0, "", fmt.Errorf("it stands behind %q", *at)
	} else {
		*at = name
	}
	if e.Kind == Dir {
		if len(b.dirs) >= maxDepth {
			return 0, "", fmt.Errorf("more than %d directories below each other", maxDepth)
		}
		b.dirs, b.last = append(b.dirs, name), append(b.last, "")
	}
	return up, name, nil
}

// set gives the number of a set of attributes.
func (b *Builder) set(xattrs []Xattr) int {
	if len(xattrs) == 0 {
		return 0
	}
	sorted := slices.SortedFunc(slices.Values(xattrs), func(x, y Xattr) int { return strings.Compare(x.Name, y.Name) })
	out := binary.AppendUvarint(nil, uint64(len(sorted)))
	for _, x := range sorted {
		out = text(text(out, x.Name), x.Value)
	}
	n, ok := b.sets[string(out)]
	if !ok {
		n = len(b.sets) + 1
		b.sets[string(out)] = n
		b.xattrs = append(b.xattrs, out...)
	}
	return n
}

func text(out []byte, s string) []byte {
	return append(binary.AppendUvarint(out, uint64(len(s))), s...)
}

// Encode gives the manifest.
func (b *Builder) Encode() ([]byte, error) {
	if b.count == 0 {
		return nil, fmt.Errorf("a tree without a root")
	}
	out := []byte(magic)
	for _, v := range []int{b.count, len(b.digests) / len(chunk.Digest{}), len(b.sets), len(b.xattrs)} {
		out = binary.AppendUvarint(out, uint64(v))
	}
	out = append(out, b.xattrs...)
	out = binary.AppendUvarint(out, uint64(len(b.entries)))
	out = append(append(out, b.entries...), b.digests...)
	if len(out) > MaxEncoded {
		return nil, fmt.Errorf("the manifest of the image has %d bytes, at most %d are kept", len(out), MaxEncoded)
	}
	return out, nil
}
