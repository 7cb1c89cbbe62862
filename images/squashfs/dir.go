package squashfs

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// dirent is one name in a directory.
type dirent struct {
	name  string
	kind  int    // a basic type
	block uint64 // of its inode, from the beginning of the inode table
	off   int    // in that block
}

// list calls fn for each name of a directory, in the order of the image,
// which is that of the names' bytes.
func (im *image) list(n *inode, fn func(dirent) error) error {
	if n.size == 0 {
		return nil
	}
	c := im.table(im.sb.DirTable, im.dirEnd)
	if err := c.seek(n.start, int(n.offset)); err != nil {
		return fmt.Errorf("directory listing: %w", err)
	}
	last := ""
	for left := n.size; left > 0; {
		used, err := c.entries(left, &last, fn)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return errors.New("squashfs: a directory listing reaches beyond the directory table")
		}
		if err != nil {
			return err
		}
		left -= used
	}
	return nil
}

// entries reads one header and the names below it, at most left bytes.
func (c *cursor) entries(left uint64, last *string, fn func(dirent) error) (used uint64, err error) {
	var h [12]byte
	if err := c.read(h[:]); err != nil {
		return 0, err
	}
	count, start := u32(h[:]), uint64(u32(h[4:]))
	if count >= maxDirEntries {
		return 0, fmt.Errorf("squashfs: directory header counts %d names, at most %d are allowed", uint64(count)+1, maxDirEntries)
	}
	used = uint64(len(h))
	var b [8]byte
	var name [maxName]byte
	for range count + 1 {
		if err := c.read(b[:]); err != nil {
			return 0, err
		}
		size := int(u16(b[6:])) + 1
		if size > maxName {
			return 0, fmt.Errorf("squashfs: name of %d bytes, at most %d are allowed", size, maxName)
		}
		if err := c.read(name[:size]); err != nil {
			return 0, err
		}
		used += uint64(len(b) + size)
		if used > left {
			return 0, errors.New("squashfs: a directory's names reach beyond its listing")
		}
		e := dirent{name: string(name[:size]), kind: int(u16(b[4:])), block: start, off: int(u16(b[:]))}
		if err := e.check(*last); err != nil {
			return 0, err
		}
		*last = e.name
		if err := fn(e); err != nil {
			return 0, err
		}
	}
	return used, nil
}

// check refuses names that could not be in a directory or that stand in the
// wrong place; Linux looks names up by their order.
func (e dirent) check(last string) error {
	if e.name == "." || e.name == ".." || strings.ContainsAny(e.name, "/\x00") {
		return fmt.Errorf("squashfs: file name %q is not allowed", e.name)
	}
	if e.name <= last {
		return fmt.Errorf("squashfs: file name %q stands after %q", e.name, last)
	}
	if e.kind < typeDir || e.kind > typeSocket {
		return fmt.Errorf("squashfs: file %q has the unknown type %d", e.name, e.kind)
	}
	return nil
}
