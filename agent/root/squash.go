package root

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// superblock is the size of squashfs's, in bytes.
const superblock = 96

var compressors = map[uint16]string{1: "gzip", 2: "lzma", 3: "lzo", 4: "xz", 5: "lz4", 6: "zstd"}

// mountSquash mounts an image read-only: a device, or a file through a loop
// device that goes away with the mount.
func mountSquash(image *os.File, dir string) error {
	what, err := inspect(image)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	device := image
	if fi, err := image.Stat(); err != nil {
		return err
	} else if fi.Mode().IsRegular() {
		if device, err = Attach(image); err != nil {
			return err
		}
		defer device.Close() // which frees it if the mount fails
	}
	if err := unix.Mount(device.Name(), dir, "squashfs", unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("mounting the image (%s): %w", what, explain(err))
	}
	return nil
}

func explain(err error) error {
	switch {
	case errors.Is(err, unix.ENODEV):
		return fmt.Errorf("%w: the kernel has no squashfs, and the boot archive no module for it", err)
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%w: damaged, or compressed in a way that this kernel does not know", err)
	}
	return err
}

// inspect looks at the superblock, for an error that says more than EINVAL.
func inspect(image *os.File) (string, error) {
	var b [superblock]byte
	if _, err := image.ReadAt(b[:], 0); err != nil || string(b[:4]) != "hsqs" {
		return "", errors.New("the image is not a squashfs: it does not begin with one")
	}
	size, err := image.Seek(0, io.SeekEnd) // of a device too
	if err != nil {
		return "", err
	}
	if used := binary.LittleEndian.Uint64(b[40:]); used > uint64(size) {
		return "", fmt.Errorf("the image is truncated: its squashfs has %d bytes, the file %d", used, size)
	}
	name := compressors[binary.LittleEndian.Uint16(b[20:])]
	if name == "" {
		name = "unknown compression"
	}
	return "squashfs, " + name, nil
}

// hasXattrs says whether any file of the image has extended attributes, which
// saves asking each.
func hasXattrs(image *os.File) bool {
	var b [8]byte
	_, err := image.ReadAt(b[:], 56)
	return err != nil || binary.LittleEndian.Uint64(b[:]) != ^uint64(0)
}
