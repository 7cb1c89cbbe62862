package squashfs

import (
	"errors"
	"fmt"
	"io"
)

// cachedBlocks bounds the metadata blocks kept in memory: 8 KiB each, 2 MiB.
const cachedBlocks = 256

// image reads metadata blocks. It is not safe for concurrent use.
type image struct {
	r          io.ReaderAt
	sb         Superblock
	decompress decompressor
	dirEnd     uint64 // where the directory table ends
	cache      map[uint64]*block
	order      []uint64 // keys of cache, oldest first
	raw        [metadataSize]byte
}

// block is one decompressed metadata block.
type block struct {
	data []byte
	next uint64 // where in the file the next one begins
}

func newImage(r io.ReaderAt, sb Superblock) (*image, error) {
	d, err := newDecompressor(sb.Compressor)
	return &image{r: r, sb: sb, decompress: d, cache: map[uint64]*block{}}, err
}

// block gives the metadata block at pos, which must end at or before end.
func (im *image) block(pos, end uint64) (*block, error) {
	if b := im.cache[pos]; b != nil && b.next <= end {
		return b, nil
	}
	src, compressed, err := im.stored(pos, end)
	if err != nil {
		return nil, err
	}
	b := &block{data: make([]byte, 0, metadataSize), next: pos + 2 + uint64(len(src))}
	if !compressed {
		b.data = append(b.data, src...)
	} else if b.data, err = im.decompress(b.data, src); err != nil {
		return nil, fmt.Errorf("squashfs: metadata block at %s: %w", grouped(pos), err)
	}
	if len(b.data) == 0 {
		return nil, fmt.Errorf("squashfs: metadata block at %s is empty", grouped(pos))
	}
	if len(im.order) >= cachedBlocks {
		delete(im.cache, im.order[0])
		im.order = im.order[1:]
	}
	if im.cache[pos] == nil {
		im.order = append(im.order, pos)
	}
	im.cache[pos] = b
	return b, nil
}

// stored reads a block as it lies in the file: a length whose top bit says
// that the data is not compressed, and the data. The result is valid until
// the next call.
func (im *image) stored(pos, end uint64) (data []byte, compressed bool, err error) {
	if end > im.sb.BytesUsed || pos > end || end-pos < 2 {
		return nil, false, fmt.Errorf("squashfs: metadata block at %s lies outside its table", grouped(pos))
	}
	if err := im.readAt(im.raw[:2], pos); err != nil {
		return nil, false, err
	}
	header := u16(im.raw[:])
	length := uint64(header &^ 0x8000)
	if length == 0 || length > metadataSize || length > end-pos-2 {
		return nil, false, fmt.Errorf("squashfs: metadata block at %s claims %d bytes", grouped(pos), length)
	}
	data = im.raw[:length]
	return data, header&0x8000 == 0, im.readAt(data, pos+2)
}

func (im *image) readAt(p []byte, pos uint64) error {
	n, err := im.r.ReadAt(p, int64(pos))
	if n == len(p) {
		return nil
	}
	if !errors.Is(err, io.EOF) {
		return fmt.Errorf("squashfs: read at %s: %w", grouped(pos), err)
	}
	// The superblock was checked against the size that was given.
	return fmt.Errorf("squashfs: %w: the file ends before %s", ErrTruncated, grouped(pos+uint64(len(p))))
}

// cursor reads on through consecutive metadata blocks.
type cursor struct {
	im         *image
	start, end uint64 // of the table
	at         uint64 // where the current block begins
	next       uint64 // where the block after it begins
	data       []byte // of the current block, from off
	off        int
}

// table gives a cursor at the beginning of the table that lies from start to end.
func (im *image) table(start, end uint64) *cursor {
	return &cursor{im: im, start: start, end: end, next: start}
}

// seek goes to byte off of the block that begins at start+rel.
func (c *cursor) seek(rel uint64, off int) error {
	if rel > c.end-c.start {
		return fmt.Errorf("squashfs: reference to %s lies outside its table", grouped(rel))
	}
	c.next, c.data = c.start+rel, nil
	if err := c.fill(); err != nil {
		return err
	}
	if off >= len(c.data) {
		return fmt.Errorf("squashfs: reference to byte %d of a block of %d", off, len(c.data))
	}
	c.off = off
	return nil
}

// fill makes sure that there is a byte to read; io.EOF at the table's end.
func (c *cursor) fill() error {
	if c.off < len(c.data) {
		return nil
	}
	if c.next >= c.end {
		return io.EOF
	}
	b, err := c.im.block(c.next, c.end)
	if err != nil {
		return err
	}
	c.at, c.next, c.data, c.off = c.next, b.next, b.data, 0
	return nil
}

// read fills p or fails; io.EOF only when there was nothing to begin with.
func (c *cursor) read(p []byte) error {
	for n := 0; n < len(p); {
		if err := c.fill(); err != nil {
			if n > 0 && errors.Is(err, io.EOF) {
				return io.ErrUnexpectedEOF
			}
			return err
		}
		m := copy(p[n:], c.data[c.off:])
		n, c.off = n+m, c.off+m
	}
	return nil
}

// skip passes over n bytes.
func (c *cursor) skip(n uint64) error {
	for n > 0 {
		if err := c.fill(); err != nil {
			return err
		}
		m := min(n, uint64(len(c.data)-c.off))
		n, c.off = n-m, c.off+int(m)
	}
	return nil
}
