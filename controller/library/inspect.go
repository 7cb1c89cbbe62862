package library

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"muster/images/iso9660"
	"muster/images/liveiso"
	"muster/images/repotree"
	"muster/images/squashfs"
	"muster/shared/fault"
	"muster/shared/object"
)

// The inspections say why a file cannot be used for what it is meant for. Those
// of what boots refuse nothing: any bytes are stored as they come, and the
// reason is shown where the admin looks.

func inspectImage(f *os.File, about *object.File) error {
	if _, err := squashfs.Check(f, about.Size); err != nil {
		about.Problem = err.Error()
	}
	return nil
}

// inspectISO refuses what is none, since a repo has no other use for the file
// and nobody would look for the reason. It looks for package repositories and a
// live system too.
func inspectISO(f *os.File, about *object.File) error {
	img, err := iso9660.Open(f, about.Size)
	if errors.Is(err, iso9660.ErrFormat) {
		return fault.Invalidf("What was sent, %d bytes, cannot be the ISO of a repo: %w. Send the whole .iso file; what was stored before is unchanged.", about.Size, err)
	}
	if err != nil {
		return err
	}
	if found := repotree.Find(img); len(found) > 0 {
		about.Holds = found[0].Packaging
	}
	if live, ok := liveiso.Find(img); ok {
		about.Live = &object.Live{Kernel: live.Kernel, Initrd: live.Initrd, Args: live.Args}
	}
	return nil
}

// inspectKernel knows the x86 boot protocol's header (Documentation/arch/x86/
// boot.rst) and arm64's (Documentation/arch/arm64/booting.rst). Both tell how
// long the file has to be.
func inspectKernel(f *os.File, about *object.File) error {
	head := make([]byte, 0x260)
	n, _ := f.ReadAt(head, 0)
	head = head[:n]
	switch {
	case n >= 0x206 && string(head[0x202:0x206]) == "HdrS":
		setup := int64(head[0x1f1])
		if setup == 0 {
			setup = 4 // as the boot protocol says
		}
		want := (setup+1)*512 + int64(binary.LittleEndian.Uint32(head[0x1f4:]))*16
		if about.Size < want {
			about.Problem = fmt.Sprintf("truncated kernel: its header says %d bytes, the file has %d", want, about.Size)
		}
	case n >= 64 && string(head[56:60]) == "ARM\x64":
		// image_size counts memory, BSS included, and says nothing on the file.
	case n >= 2 && bytes.HasPrefix(head, []byte("MZ")): // EFI application, such as a compressed arm64 kernel
	default:
		about.Problem = "not a kernel: neither an x86 bzImage nor an arm64 or EFI image"
	}
	return nil
}

// archives are the beginnings of what the kernel unpacks as an initramfs.
var archives = [][]byte{
	[]byte("070701"), []byte("070702"), // cpio "newc"
	{0x28, 0xb5, 0x2f, 0xfd},      // zstd
	{0x1f, 0x8b},                  // gzip
	{0xfd, '7', 'z', 'X', 'Z', 0}, // xz
	{0x02, 0x21, 0x4c, 0x18},      // lz4, the legacy frame
	{0x89, 'L', 'Z', 'O'},         // lzo
	[]byte("BZh"),                 // bzip2
	{0x5d, 0, 0},                  // lzma
}

func inspectInitramfs(f *os.File, about *object.File) error {
	head := make([]byte, 8)
	n, _ := f.ReadAt(head, 0)
	for _, magic := range archives {
		if bytes.HasPrefix(head[:n], magic) {
			return nil
		}
	}
	about.Problem = "not an initramfs: neither a cpio archive nor a compressed one"
	return nil
}
