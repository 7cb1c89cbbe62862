// Package tree is an image as files: a manifest of everything that a file
// system knows of them, with the chunks that their contents are made of.
//
// The same files give the same manifest. A manifest may come from a stranger
// until it is compared with a digest; decoding checks every bound, and what is
// decoded can be written below a directory without leaving it. Where chunks
// come from is the caller's concern.
package tree

import (
	"errors"
	"fmt"
	"strings"

	"muster/images/chunk"
)

// Kind is the type of a file.
type Kind byte

// The kinds. A Link is another name of a file that stands before it; it has
// a path and a target, and all else from there.
const (
	Dir Kind = 1 + iota
	File
	Symlink
	Block
	Char
	Fifo
	Socket
	Link
)

// Entry is one name in a tree.
type Entry struct {
	Path   string // from the root, without a leading slash; "." is the root
	Kind   Kind
	Mode   uint32 // permissions with setuid, setgid and sticky
	UID    uint32
	GID    uint32
	MTime  int64  // seconds since 1970
	NSec   uint32 // of the time
	Target string // of a Symlink; of a Link, the path of the first name
	Major  uint32 // of a device
	Minor  uint32
	Size   int64 // of a File, in bytes
	Xattrs []Xattr
	Parts  []Part // of a File, in order
	Group  int    // from 1 on for a file of several names, shared by them; 0 for all others
}

// Xattr is an extended attribute.
type Xattr struct {
	Name  string
	Value string
}

// Part is a chunk of a file, or a hole.
type Part struct {
	Chunk chunk.Ref // its Size is 0 for a hole
	Hole  int64     // bytes
}

// Len is the part's length in bytes.
func (p Part) Len() int64 { return int64(p.Chunk.Size) + p.Hole }

// Bounds of what is encoded or decoded.
const (
	MaxEncoded = 1 << 30 // bytes
	maxEntries = 20_000_000
	maxName    = 255
	maxTarget  = 4096
	maxDepth   = 1024
	maxXattrs  = 4096    // of one file
	maxValue   = 1 << 20 // bytes of one attribute
	maxBytes   = 1 << 60 // of one file, and of all
)

// check says why an entry cannot be in a tree. Its path is checked elsewhere.
func (e *Entry) check() error {
	switch {
	case e.Kind < Dir || e.Kind > Link:
		return fmt.Errorf("unknown type %d", e.Kind)
	case e.Kind != Link && e.Mode > 0o7777:
		return fmt.Errorf("mode %o", e.Mode)
	case e.NSec >= 1e9:
		return fmt.Errorf("%d nanoseconds", e.NSec)
	case e.Kind == Symlink && (e.Target == "" || len(e.Target) > maxTarget || strings.Contains(e.Target, "\x00")):
		return errors.New("a symbolic link has a target of 1 to 4096 bytes without NUL")
	case e.Kind == Dir && e.Group != 0:
		return errors.New("a directory has one name")
	case len(e.Xattrs) > maxXattrs:
		return fmt.Errorf("%d attributes, at most %d are taken", len(e.Xattrs), maxXattrs)
	case e.Size < 0 || e.Size > maxBytes:
		return fmt.Errorf("size %d", e.Size)
	case e.Kind != File && (e.Size != 0 || len(e.Parts) > 0):
		return errors.New("only a file has content")
	}
	for _, x := range e.Xattrs {
		if x.Name == "" || len(x.Name) > maxName || strings.Contains(x.Name, "\x00") || len(x.Value) > maxValue {
			return fmt.Errorf("attribute %.20q with %d bytes", x.Name, len(x.Value))
		}
	}
	return e.checkParts()
}

func (e *Entry) checkParts() error {
	sum := int64(0)
	for _, p := range e.Parts {
		if p.Hole < 0 || p.Chunk.Size > chunk.MaxSize || (p.Hole == 0) == (p.Chunk.Size == 0) || p.Len() > e.Size-sum {
			return fmt.Errorf("its parts do not make up its %d bytes", e.Size)
		}
		sum += p.Len()
	}
	if sum != e.Size {
		return fmt.Errorf("its parts have %d of its %d bytes", sum, e.Size)
	}
	return nil
}

// checkName refuses what is no name of a file in a directory.
func checkName(name string) error {
	if name == "" || name == "." || name == ".." || len(name) > maxName || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("%.300q is no file name", name)
	}
	return nil
}
