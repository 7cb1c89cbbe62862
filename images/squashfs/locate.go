package squashfs

import (
	"errors"
	"fmt"
	"io"
)

// locate finds where the directory table ends: the tables after it are lists
// of pointers behind the metadata blocks that they point to, so the first
// block of the first such table ends it.
func (im *image) locate() error {
	sb := &im.sb
	pos, name := sb.IDTable, "owner table"
	switch {
	case sb.Fragments > 0:
		pos, name = sb.FragTable, "fragment table"
	case sb.ExportTable != absent:
		pos, name = sb.ExportTable, "export table"
	}
	first, err := im.pointer(name, pos, pos)
	if err != nil {
		return err
	}
	if first < sb.DirTable {
		return fmt.Errorf("squashfs: %s begins at %s, within the tables before it", name, grouped(first))
	}
	im.dirEnd = first
	return nil
}

// pointer reads one pointer at pos, to a block that lies before end.
func (im *image) pointer(name string, pos, end uint64) (uint64, error) {
	if pos > im.sb.BytesUsed || im.sb.BytesUsed-pos < 8 {
		return 0, fmt.Errorf("squashfs: %s reaches beyond the end", name)
	}
	var b [8]byte
	if err := im.readAt(b[:], pos); err != nil {
		return 0, err
	}
	if p := u64(b[:]); p < end && p >= im.sb.DirTable {
		return p, nil
	}
	return 0, fmt.Errorf("squashfs: %s points to %s, outside itself", name, grouped(u64(b[:])))
}

// pointed reads count entries through the pointers at pos; the blocks end at
// or before end. Each block but the last is full.
func (im *image) pointed(name string, pos, end, count, size uint64, fn func([]byte) error) error {
	per := metadataSize / size
	for i := uint64(0); i < count; i += per {
		start, err := im.pointer(name, pos+i/per*8, end)
		if err != nil {
			return err
		}
		b, err := im.block(start, end)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		want := min(per, count-i) * size
		if uint64(len(b.data)) < want {
			return fmt.Errorf("squashfs: %s: block at %s has %d of %d bytes", name, grouped(start), len(b.data), want)
		}
		for off := uint64(0); off < want; off += size {
			if err := fn(b.data[off : off+size]); err != nil {
				return err
			}
		}
	}
	return nil
}

// inodeAt reads the inode at byte off of the block at rel of the inode table.
func (im *image) inodeAt(rel uint64, off, keep int) (*inode, error) {
	c := im.table(im.sb.InodeTable, im.sb.DirTable)
	if err := c.seek(rel, off); err != nil {
		return nil, err
	}
	n, err := c.inode(keep)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, errors.New("squashfs: an inode reaches beyond the inode table")
	}
	return n, err
}
