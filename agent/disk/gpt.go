package disk

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"unicode/utf16"
)

// A GPT as the UEFI specification has it (2.10, section 5): a protective MBR,
// header and entries, and both again at the end of the disk.
const (
	entries    = 128
	entrySize  = 128
	headerSize = 92
	align      = 1 << 20 // bytes; where partitions begin
)

// rootType is the type of a Linux root file system that no firmware mounts:
// 0FC63DAF-8483-4772-8E79-3D69D8477DE4, in the mixed order of the standard.
var rootType = [16]byte{0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47, 0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d, 0xe4}

// minDisk is the least size of a disk in bytes that is worth a table.
const minDisk = 64 << 20

// writeTable writes a table with one partition that takes all there is. The
// copy at the end comes first: a cut power leaves a disk that is no GPT yet, or
// one that is whole.
func writeTable(w io.WriterAt, size, sector int64, label string) error {
	if size < minDisk || sector < 512 || size%sector != 0 {
		return fmt.Errorf("a disk of %d bytes in sectors of %d is too small or odd", size, sector)
	}
	last := uint64(size/sector) - 1
	reserved := uint64((entries*entrySize + sector - 1) / sector) // sectors of the entries
	first, end := uint64(align/sector), last-reserved-1
	end -= (end + 1) % uint64(align/sector)
	list := make([]byte, entries*entrySize)
	copy(list, rootType[:])
	disk, part := guid(), guid()
	copy(list[16:], part[:])
	binary.LittleEndian.PutUint64(list[32:], first)
	binary.LittleEndian.PutUint64(list[40:], end)
	for i, u := range utf16.Encode([]rune(label)) {
		if i < 36 {
			binary.LittleEndian.PutUint16(list[56+2*i:], u)
		}
	}
	head := func(here, there, list0 uint64) []byte {
		h := make([]byte, sector)
		copy(h, "EFI PART")
		le := binary.LittleEndian
		le.PutUint32(h[8:], 0x10000)
		le.PutUint32(h[12:], headerSize)
		le.PutUint64(h[24:], here)
		le.PutUint64(h[32:], there)
		le.PutUint64(h[40:], 2+reserved)
		le.PutUint64(h[48:], last-reserved-1)
		copy(h[56:], disk[:])
		le.PutUint64(h[72:], list0)
		le.PutUint32(h[80:], entries)
		le.PutUint32(h[84:], entrySize)
		le.PutUint32(h[88:], crc32.ChecksumIEEE(list))
		le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:headerSize]))
		return h
	}
	for _, part := range []struct {
		at   uint64
		what []byte
	}{
		{first, make([]byte, edge)}, // whatever was where the partition begins
		{last - reserved, list}, {last, head(last, 1, last-reserved)},
		{2, list}, {0, protective(last)}, {1, head(1, last, 2)},
	} {
		if _, err := w.WriteAt(part.what, int64(part.at)*sector); err != nil {
			return err
		}
	}
	return nil
}

// protective is the MBR that keeps old tools from taking the disk for empty.
func protective(last uint64) []byte {
	mbr := make([]byte, 512)
	e := mbr[446:]
	copy(e, []byte{0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff, 1})
	binary.LittleEndian.PutUint32(e[12:], uint32(min(last, 0xffffffff)))
	mbr[510], mbr[511] = 0x55, 0xaa
	return mbr
}

// guid makes a random one (RFC 9562, version 4) in the order of the standard.
func guid() (g [16]byte) {
	rand.Read(g[:])
	g[7] = g[7]&0x0f | 0x40
	g[8] = g[8]&0x3f | 0x80
	return g
}
