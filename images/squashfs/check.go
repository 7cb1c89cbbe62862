package squashfs

import (
	"errors"
	"fmt"
	"io"
	"slices"
)

// maxMetadataBlocks bounds the inode and the directory table to 2 GiB each
// uncompressed, some 30 million files. Without it a few bytes per block could
// keep the head busy for hours.
const maxMetadataBlocks = 2 << 30 / metadataSize

// Check says whether the size bytes of r are a sound squashfs: that the file
// is complete, that every table lies where it should and decompresses, and
// that every inode and every directory can be read and refers only to what
// exists. File data is not decompressed; the image's digest covers that.
//
// It takes a few seconds for the largest images and at most some 4 MiB of
// memory. The errors wrap ErrNotSquashfs or ErrTruncated where they apply.
func Check(r io.ReaderAt, size int64) (Superblock, error) {
	sb, err := readSuperblock(r, size)
	if err != nil {
		return sb, err
	}
	im, err := newImage(r, sb)
	blind := errors.Is(err, ErrNoDecompressor)
	if err != nil && !blind {
		return sb, err
	}
	c := checker{image: im}
	if err := c.structure(); err != nil {
		return sb, err
	}
	if blind {
		return sb, nil
	}
	switch err := c.contents(); {
	case errors.Is(err, ErrNoDecompressor):
		return sb, nil
	case err != nil:
		return sb, err
	}
	sb.Verified = true
	return sb, nil
}

type checker struct {
	*image
	inodeBlocks []uint32 // where the inode table's blocks begin in it, ascending
	xattrs      uint32
	listed      uint64 // bytes of all listings so far
	dirBytes    uint64 // bytes of the directory table
}

// structure checks what can be checked without decompressing.
func (c *checker) structure() error {
	if err := c.locate(); err != nil {
		return err
	}
	sb := &c.sb
	err := c.chain("inode table", sb.InodeTable, sb.DirTable, func(pos uint64) error {
		c.inodeBlocks = append(c.inodeBlocks, uint32(pos-sb.InodeTable))
		return nil
	})
	if err != nil {
		return err
	}
	if err := c.chain("directory table", sb.DirTable, c.dirEnd, func(uint64) error { return nil }); err != nil {
		return err
	}
	if _, ok := slices.BinarySearch(c.inodeBlocks, uint32(sb.RootInode>>16)); !ok || sb.RootInode>>48 != 0 {
		return fmt.Errorf("squashfs: the root inode %#x is not in the inode table", sb.RootInode)
	}
	return nil
}

// chain walks the metadata blocks that must fill a table exactly.
func (c *checker) chain(name string, start, end uint64, fn func(pos uint64) error) error {
	for pos, n := start, 0; pos < end; n++ {
		if n >= maxMetadataBlocks {
			return fmt.Errorf("squashfs: %s is larger than 2 GiB", name)
		}
		data, _, err := c.stored(pos, end)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		length := uint64(len(data))
		if err := fn(pos); err != nil {
			return err
		}
		pos += 2 + length
	}
	return nil
}

// contents checks all that the metadata says.
func (c *checker) contents() error {
	if err := c.ids(); err != nil {
		return err
	}
	if err := c.fragments(); err != nil {
		return err
	}
	if err := c.xattrTable(); err != nil {
		return err
	}
	err := c.chain("directory table", c.sb.DirTable, c.dirEnd, func(pos uint64) error {
		b, err := c.block(pos, c.dirEnd)
		if err == nil {
			c.dirBytes += uint64(len(b.data))
		}
		return err
	})
	if err != nil {
		return err
	}
	root, err := c.inodeAt(c.sb.RootInode>>16, int(c.sb.RootInode&0xffff), 0)
	if err != nil {
		return fmt.Errorf("root inode: %w", err)
	}
	if root.kind != typeDir {
		return errors.New("squashfs: the root inode is not a directory")
	}
	return c.inodes()
}

// inodes reads the whole inode table in its order and each directory's listing.
func (c *checker) inodes() error {
	cur := c.table(c.sb.InodeTable, c.sb.DirTable)
	for i := range c.sb.Inodes {
		n, err := cur.inode(0)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return fmt.Errorf("squashfs: the inode table ends after %d of %d inodes", i, c.sb.Inodes)
		}
		if err == nil && n.xattr != noFragment && n.xattr >= c.xattrs {
			err = fmt.Errorf("squashfs: it has the attribute set %d, the image has %d sets", n.xattr, c.xattrs)
		}
		if err == nil && n.kind == typeDir {
			err = c.directory(n)
		}
		if err != nil {
			return fmt.Errorf("inode %d: %w", i+1, err)
		}
	}
	return nil
}

func (c *checker) directory(n *inode) error {
	// No two listings overlap in a sound image. That also bounds the work:
	// otherwise millions of directories could share one large listing.
	if c.listed += n.size; c.listed > c.dirBytes {
		return fmt.Errorf("squashfs: listings are longer than the directory table, %s bytes", grouped(c.dirBytes))
	}
	return c.list(n, func(e dirent) error {
		_, found := slices.BinarySearch(c.inodeBlocks, uint32(e.block))
		if !found || e.off >= metadataSize {
			return fmt.Errorf("squashfs: file %q refers to an inode at %s:%d, outside the table", e.name, grouped(e.block), e.off)
		}
		return nil
	})
}

// ids reads the table of owners.
func (c *checker) ids() error {
	return c.pointed("owner table", c.sb.IDTable, c.sb.IDTable, uint64(c.sb.IDs), 4, func([]byte) error { return nil })
}

// fragments reads the table of fragments; each must lie in the data area.
func (c *checker) fragments() error {
	if c.sb.Fragments == 0 {
		return nil
	}
	return c.pointed("fragment table", c.sb.FragTable, c.sb.FragTable, uint64(c.sb.Fragments), 16, func(e []byte) error {
		start, size := u64(e), uint64(u32(e[8:])&^uncompressed)
		if size > uint64(c.sb.BlockSize) || start > c.sb.InodeTable || size > c.sb.InodeTable-start {
			return fmt.Errorf("squashfs: fragment of %d bytes at %s lies outside the data area", size, grouped(start))
		}
		return nil
	})
}

// xattrTable reads the sets of extended attributes and what they refer to.
func (c *checker) xattrTable() error {
	pos := c.sb.XattrTable
	if pos == absent {
		return nil
	}
	var h [16]byte
	if err := c.readAt(h[:], pos); err != nil {
		return err
	}
	values := u64(h[:])
	c.xattrs = u32(h[8:])
	first, err := c.pointer("attribute table", pos+16, pos)
	if c.xattrs == 0 || err != nil {
		return err
	}
	if values < c.dirEnd || values > first {
		return fmt.Errorf("squashfs: attributes at %s lie outside their table", grouped(values))
	}
	err = c.chain("attribute table", values, first, func(at uint64) error {
		_, err := c.block(at, first)
		return err
	})
	if err != nil {
		return err
	}
	return c.pointed("attribute table", pos+16, pos, uint64(c.xattrs), 16, func([]byte) error { return nil })
}
