package squashfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
)

// The basic types of inodes; each has an extended form, seven higher, that
// adds extended attributes and larger fields.
const (
	typeDir = 1 + iota
	typeFile
	typeSymlink
	typeBlock
	typeChar
	typeFifo
	typeSocket
	extended = 7
)

const (
	noFragment    = ^uint32(0)
	uncompressed  = 1 << 24 // in a data block's size
	maxSymlink    = 4096    // the kernel refuses longer ones
	maxName       = 256
	maxDirEntries = 256 // below one directory header
)

// inode is what the index says of one file.
type inode struct {
	kind     int // a basic type
	mode     uint16
	uid, gid uint16 // indices into the owner table
	mtime    uint32
	links    uint32
	size     uint64 // of a file, or of a directory's listing
	start    uint64 // first data block, or the listing's block in the directory table
	offset   uint32 // in the fragment, or in the listing's block
	fragment uint32
	xattr    uint32
	rdev     uint32
	target   string
	sizes    []uint32 // of the data blocks, only when asked for
}

// inode reads the inode at the cursor. The sizes of a file's data blocks are
// examined, and kept when there are at most keep of them.
func (c *cursor) inode(keep int) (*inode, error) {
	var h [16]byte
	if err := c.read(h[:]); err != nil {
		return nil, err
	}
	kind := int(u16(h[:]))
	n := &inode{kind: kind, mode: u16(h[2:]), uid: u16(h[4:]), gid: u16(h[6:]), mtime: u32(h[8:]), xattr: noFragment}
	if n.kind > typeSocket {
		n.kind -= extended
	}
	if n.kind < typeDir || n.kind > typeSocket {
		return nil, fmt.Errorf("squashfs: inode of unknown type %d", kind)
	}
	if n.uid >= c.im.sb.IDs || n.gid >= c.im.sb.IDs {
		return nil, fmt.Errorf("squashfs: inode with owners %d and %d, the image has %d", n.uid, n.gid, c.im.sb.IDs)
	}
	err := c.body(n, kind > typeSocket, keep)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (c *cursor) body(n *inode, ext bool, keep int) error {
	switch n.kind {
	case typeDir:
		return c.dirInode(n, ext)
	case typeFile:
		return c.fileInode(n, ext, keep)
	case typeSymlink:
		return c.symlinkInode(n, ext)
	case typeBlock, typeChar:
		return c.fields(func(b []byte) {
			n.links, n.rdev = u32(b), u32(b[4:])
			if ext {
				n.xattr = u32(b[8:])
			}
		}, 8, 12, ext)
	default:
		return c.fields(func(b []byte) {
			n.links = u32(b)
			if ext {
				n.xattr = u32(b[4:])
			}
		}, 4, 8, ext)
	}
}

// fields reads an inode's fixed part, of basic or of extended size.
func (c *cursor) fields(set func([]byte), basicSize, extSize int, ext bool) error {
	var b [40]byte
	p := b[:basicSize]
	if ext {
		p = b[:extSize]
	}
	if err := c.read(p); err != nil {
		return err
	}
	set(p)
	return nil
}

func (c *cursor) dirInode(n *inode, ext bool) error {
	var indices int
	err := c.fields(func(b []byte) {
		if ext {
			n.links, n.size, n.start = u32(b), uint64(u32(b[4:])), uint64(u32(b[8:]))
			indices, n.offset, n.xattr = int(u16(b[16:])), uint32(u16(b[18:])), u32(b[20:])
			return
		}
		n.start, n.links, n.size, n.offset = uint64(u32(b)), u32(b[4:]), uint64(u16(b[8:])), uint32(u16(b[10:]))
	}, 16, 24, ext)
	if err != nil {
		return err
	}
	for range indices { // a shortcut into large directories, not needed here
		var b [12]byte
		if err := c.read(b[:]); err != nil {
			return err
		}
		if u32(b[8:]) >= maxName {
			return fmt.Errorf("squashfs: directory index names %d bytes", u32(b[8:]))
		}
		if err := c.skip(uint64(u32(b[8:])) + 1); err != nil {
			return err
		}
	}
	// The listing counts three bytes more, for "." and ".." that it has not.
	n.size = max(n.size, 3) - 3
	return nil
}

func (c *cursor) fileInode(n *inode, ext bool, keep int) error {
	err := c.fields(func(b []byte) {
		if ext {
			n.start, n.size, n.links = u64(b), u64(b[8:]), u32(b[24:])
			n.fragment, n.offset, n.xattr = u32(b[28:]), u32(b[32:]), u32(b[36:])
			return
		}
		n.start, n.fragment, n.offset, n.size = uint64(u32(b)), u32(b[4:]), u32(b[8:]), uint64(u32(b[12:]))
		n.links = 1
	}, 16, 40, ext)
	if err != nil {
		return err
	}
	bs := uint64(c.im.sb.BlockSize)
	blocks := n.size / bs
	if n.fragment == noFragment && n.size%bs != 0 {
		blocks++
	}
	if n.fragment != noFragment && (n.fragment >= c.im.sb.Fragments || uint64(n.offset)+n.size%bs > bs) {
		return fmt.Errorf("squashfs: file ends in fragment %d at %d, the image has %d fragments", n.fragment, n.offset, c.im.sb.Fragments)
	}
	return c.blockSizes(n, blocks, keep)
}

// blockSizes reads a file's list of data blocks, which must lie before the
// inode table.
func (c *cursor) blockSizes(n *inode, blocks uint64, keep int) error {
	var b [4]byte
	end, limit := n.start, c.im.sb.InodeTable
	for range blocks {
		if err := c.read(b[:]); err != nil {
			return err
		}
		size := u32(b[:])
		stored := size &^ uncompressed
		if stored > c.im.sb.BlockSize {
			return fmt.Errorf("squashfs: data block of %d bytes, the block size is %d", stored, c.im.sb.BlockSize)
		}
		if end += uint64(stored); stored > 0 && (end > limit || n.start > limit) {
			return fmt.Errorf("squashfs: data of a file reaches to %s, beyond the data area's end at %s", grouped(end), grouped(limit))
		}
		if blocks <= uint64(keep) {
			n.sizes = append(n.sizes, size)
		}
	}
	return nil
}

func (c *cursor) symlinkInode(n *inode, ext bool) error {
	if err := c.fields(func(b []byte) { n.links, n.size = u32(b), uint64(u32(b[4:])) }, 8, 8, ext); err != nil {
		return err
	}
	if n.size == 0 || n.size > maxSymlink {
		return fmt.Errorf("squashfs: symbolic link of %s bytes, Linux takes 1 to %d", grouped(n.size), maxSymlink)
	}
	target := make([]byte, n.size)
	if err := c.read(target); err != nil {
		return err
	}
	n.target = string(target)
	if !ext {
		return nil
	}
	return c.fields(func(b []byte) { n.xattr = u32(b) }, 4, 4, ext)
}

// fileMode gives type and permissions as io/fs has them.
func (n *inode) fileMode() fs.FileMode {
	m := fs.FileMode(n.mode & 0o777)
	for bit, flag := range map[uint16]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if n.mode&bit != 0 {
			m |= flag
		}
	}
	switch n.kind {
	case typeDir:
		m |= fs.ModeDir
	case typeSymlink:
		m |= fs.ModeSymlink
	case typeBlock:
		m |= fs.ModeDevice
	case typeChar:
		m |= fs.ModeDevice | fs.ModeCharDevice
	case typeFifo:
		m |= fs.ModeNamedPipe
	case typeSocket:
		m |= fs.ModeSocket
	}
	return m
}
