// Package squashfs says whether a file is a sound squashfs 4.0 image, and
// reads the little that the head wants to know from one: names and small
// files.
//
// Everything it reads may come from a stranger: memory is bounded by a few
// mebibytes plus what a caller allows ReadFile, work is bounded by the size of
// the metadata, and no input makes it panic. It never writes an image; the
// squashfs-tools do that. The format is described in the kernel's
// Documentation/filesystems/squashfs.rst and fs/squashfs/squashfs_fs.h.
package squashfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// ErrNotSquashfs says that a file is something else altogether.
var ErrNotSquashfs = errors.New("not a squashfs")

// ErrTruncated says that a file is the beginning of a squashfs: an upload or
// a copy that broke off.
var ErrTruncated = errors.New("truncated")

const (
	superblockSize = 96
	magic          = 0x73717368
	absent         = ^uint64(0) // a table that the image does not have
	metadataSize   = 8192       // uncompressed size of a metadata block
)

// Compressor is the number by which the superblock names its compressor.
type Compressor uint16

// The compressors of squashfs 4.0.
const (
	Gzip Compressor = 1 + iota
	LZMA
	LZO
	XZ
	LZ4
	Zstd
)

var compressorNames = [...]string{Gzip: "gzip", LZMA: "lzma", LZO: "lzo", XZ: "xz", LZ4: "lz4", Zstd: "zstd"}

// String gives the name that mksquashfs uses.
func (c Compressor) String() string {
	if c >= Gzip && c <= Zstd {
		return compressorNames[c]
	}
	return fmt.Sprintf("compressor %d", uint16(c))
}

// HeadSize is the size of the superblock in bytes; data blocks begin behind it.
const HeadSize = superblockSize

// Superblock is the head of an image, checked against the file's size.
// Offsets and sizes are in bytes.
type Superblock struct {
	Inodes      uint32
	Made        time.Time
	BlockSize   uint32
	Fragments   uint32
	Compressor  Compressor
	Flags       uint16
	IDs         uint16
	RootInode   uint64
	BytesUsed   uint64
	IDTable     uint64
	XattrTable  uint64 // all ones when the image has none, as the next three
	InodeTable  uint64
	DirTable    uint64
	FragTable   uint64
	ExportTable uint64

	// Verified says that the metadata was decompressed and examined by
	// Check. It is false for lzo, and for xz with a processor's filter, for
	// which only the structure could be checked.
	Verified bool
}

// readSuperblock reads and checks the fixed head and the order of the tables.
func readSuperblock(r io.ReaderAt, size int64) (Superblock, error) {
	var b [superblockSize]byte
	n, err := r.ReadAt(b[:min(max(size, 0), superblockSize)], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return Superblock{}, fmt.Errorf("squashfs: read: %w", err)
	}
	if n < 4 || binary.LittleEndian.Uint32(b[:]) != magic {
		return Superblock{}, fmt.Errorf("%w: it does not begin with \"hsqs\"", ErrNotSquashfs)
	}
	if n < superblockSize {
		return Superblock{}, fmt.Errorf("squashfs: %w: the superblock has 96 bytes, the file has %d", ErrTruncated, n)
	}
	sb := decodeSuperblock(b[:])
	if major, minor := u16(b[28:]), u16(b[30:]); major != 4 || minor != 0 {
		return sb, fmt.Errorf("squashfs: version %d.%d, Linux mounts only 4.0", major, minor)
	}
	if err := sb.checkBlocks(u16(b[22:])); err != nil {
		return sb, err
	}
	if sb.BytesUsed > uint64(size) {
		return sb, fmt.Errorf("squashfs: %w: superblock says %s bytes, file has %s",
			ErrTruncated, grouped(sb.BytesUsed), grouped(uint64(size)))
	}
	return sb, sb.checkTables()
}

func decodeSuperblock(b []byte) Superblock {
	return Superblock{
		Inodes:      u32(b[4:]),
		Made:        time.Unix(int64(u32(b[8:])), 0).UTC(),
		BlockSize:   u32(b[12:]),
		Fragments:   u32(b[16:]),
		Compressor:  Compressor(u16(b[20:])),
		Flags:       u16(b[24:]),
		IDs:         u16(b[26:]),
		RootInode:   u64(b[32:]),
		BytesUsed:   u64(b[40:]),
		IDTable:     u64(b[48:]),
		XattrTable:  u64(b[56:]),
		InodeTable:  u64(b[64:]),
		DirTable:    u64(b[72:]),
		FragTable:   u64(b[80:]),
		ExportTable: u64(b[88:]),
	}
}

// checkBlocks refuses what the kernel would refuse at mount.
func (sb *Superblock) checkBlocks(log uint16) error {
	if log < 12 || log > 20 || sb.BlockSize != 1<<log {
		return fmt.Errorf("squashfs: block size %d with block log %d; want 2^log from 4096 to 1048576", sb.BlockSize, log)
	}
	if sb.Compressor < Gzip || sb.Compressor > Zstd {
		return fmt.Errorf("squashfs: unknown %s", sb.Compressor)
	}
	if sb.Compressor == LZMA {
		return fmt.Errorf("squashfs: compressed with lzma, which Linux cannot mount; make it with -comp zstd")
	}
	if sb.Inodes == 0 || sb.IDs == 0 {
		return fmt.Errorf("squashfs: %d inodes and %d owners; every image has at least one of each", sb.Inodes, sb.IDs)
	}
	if sb.BytesUsed < superblockSize {
		return fmt.Errorf("squashfs: superblock says %d bytes, less than its own size", sb.BytesUsed)
	}
	return nil
}

// table is a part of the image behind the data blocks.
type table struct {
	name  string
	start uint64
}

// tables lists those present in the order in which they lie in the file.
func (sb *Superblock) tables() []table {
	all := []table{
		{"inode table", sb.InodeTable},
		{"directory table", sb.DirTable},
		{"fragment table", sb.FragTable},
		{"export table", sb.ExportTable},
		{"owner table", sb.IDTable},
		{"attribute table", sb.XattrTable},
	}
	present := all[:0]
	for _, t := range all {
		if t.start != absent {
			present = append(present, t)
		}
	}
	return present
}

func (sb *Superblock) checkTables() error {
	if sb.InodeTable == absent || sb.DirTable == absent || sb.IDTable == absent {
		return errors.New("squashfs: inode, directory or owner table is missing")
	}
	if sb.Fragments > 0 && sb.FragTable == absent {
		return fmt.Errorf("squashfs: %d fragments, but no fragment table", sb.Fragments)
	}
	before := table{"superblock", superblockSize - 1}
	for _, t := range sb.tables() {
		// Only the fragment table may be empty and so share its offset.
		if t.start < before.start || (t.start == before.start && before.name != "fragment table") {
			return fmt.Errorf("squashfs: %s at %s lies before the end of the %s", t.name, grouped(t.start), before.name)
		}
		if t.start >= sb.BytesUsed {
			return fmt.Errorf("squashfs: %s at %s lies beyond the end at %s", t.name, grouped(t.start), grouped(sb.BytesUsed))
		}
		before = t
	}
	return nil
}

func u16(b []byte) uint16 { return binary.LittleEndian.Uint16(b) }
func u32(b []byte) uint32 { return binary.LittleEndian.Uint32(b) }
func u64(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }

// grouped writes n with commas, so that sizes can be compared by eye.
func grouped(n uint64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
