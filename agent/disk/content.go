package disk

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"io"
	"os"
)

// Content is what is on a device, as its first and last bytes tell.
type Content struct {
	Kind  string // ext4, xfs, …; "" when it is blank
	Label string // of the file system
	UUID  string
}

// FileSystem says whether it is one that muster makes.
func (c Content) FileSystem() bool { return c.Kind == "ext4" || c.Kind == "xfs" }

// Unknown is the kind of what is not recognised.
const Unknown = "unknown data"

// edge is how much must be zero at either end for a device to count as blank:
// more than any partition table, RAID superblock or file system leaves free.
const edge = 1 << 20

// Content looks at what is on the device.
func (d Device) Content() (Content, error) {
	f, err := os.Open(d.Path)
	if err != nil {
		return Content{}, err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return Content{}, err
	}
	return inspect(f, size)
}

// signatures are the beginnings by which others are told apart, for messages.
var signatures = []struct {
	at   int
	what string
	kind string
}{
	{512, "EFI PART", "a GPT partition table"}, {4096, "EFI PART", "a GPT partition table"},
	{0, "LUKS\xba\xbe", "a LUKS volume"}, {512, "LABELONE", "an LVM volume"}, {0x10040, "_BHRfS_M", "btrfs"},
	{4086, "SWAPSPACE2", "swap"}, {0, "hsqs", "squashfs"}, {82, "FAT32   ", "a FAT file system"}, {54, "FAT1", "a FAT file system"},
	{3, "NTFS    ", "NTFS"}, {0x8001, "CD001", "an ISO file system"}, {510, "\x55\xaa", "a partition table"},
}

func inspect(r io.ReaderAt, size int64) (Content, error) {
	head := make([]byte, min(size, edge))
	if _, err := r.ReadAt(head, 0); err != nil && err != io.EOF {
		return Content{}, err
	}
	tail := make([]byte, len(head))
	if _, err := r.ReadAt(tail, size-int64(len(tail))); err != nil && err != io.EOF {
		return Content{}, err
	}
	switch {
	case len(head) >= 2048 && binary.LittleEndian.Uint16(head[1024+56:]) == 0xef53:
		return Content{"ext4", text(head[1024+120 : 1024+136]), uuid(head[1024+104:])}, nil
	case bytes.HasPrefix(head, []byte("XFSB")) && len(head) >= 512:
		return Content{"xfs", text(head[108:120]), uuid(head[32:])}, nil
	}
	for _, s := range signatures {
		if len(head) > s.at && bytes.HasPrefix(head[s.at:], []byte(s.what)) {
			return Content{Kind: s.kind}, nil
		}
	}
	if bytes.Count(head, []byte{0}) == len(head) && bytes.Count(tail, []byte{0}) == len(tail) {
		return Content{}, nil
	}
	return Content{Kind: Unknown}, nil
}

func text(b []byte) string {
	b, _, _ = bytes.Cut(b, []byte{0})
	return string(b)
}

func uuid(b []byte) string {
	h := hex.EncodeToString(b[:16])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}
