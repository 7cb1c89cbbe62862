package root

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// superblock is the size of squashfs's, in bytes.
const superblock = 96

var compressors = map[uint16]string{1: "gzip", 2: "lzma", 3: "lzo", 4: "xz", 5: "lz4", 6: "zstd"}

// mountSquash mounts an image file read-only through a loop device that goes
// away with the mount.
func mountSquash(image *os.File, dir string) error {
	what, err := inspect(image)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	device, err := attach(image)
	if err != nil {
		return fmt.Errorf("no loop device for the image: %w", err)
	}
	defer device.Close() // autoclear frees it if the mount fails
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
	fi, err := image.Stat()
	if err != nil {
		return "", err
	}
	if used := binary.LittleEndian.Uint64(b[40:]); int64(used) > fi.Size() {
		return "", fmt.Errorf("the image is truncated: its squashfs has %d bytes, the file %d", used, fi.Size())
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

// attach gives a free loop device to the image. Another process may take the
// same number between asking and using it; then the next one is asked for.
func attach(image *os.File) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	for range 100 {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, err
		}
		device, err := os.OpenFile("/dev/loop"+strconv.Itoa(n), os.O_RDONLY, 0)
		if err != nil {
			return nil, err
		}
		if err = configure(int(device.Fd()), int(image.Fd())); err == nil {
			return device, nil
		}
		device.Close()
		if !errors.Is(err, unix.EBUSY) {
			return nil, err
		}
	}
	return nil, errors.New("all are taken")
}

// configure sets up a loop device, in two steps where the kernel is older than
// 5.8.
func configure(device, image int) error {
	config := unix.LoopConfig{Fd: uint32(image)}
	config.Info.Flags = unix.LO_FLAGS_READ_ONLY | unix.LO_FLAGS_AUTOCLEAR
	err := unix.IoctlLoopConfigure(device, &config)
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOTTY) {
		return err
	}
	if err := unix.IoctlSetInt(device, unix.LOOP_SET_FD, image); err != nil {
		return err
	}
	return unix.IoctlLoopSetStatus64(device, &config.Info)
}
