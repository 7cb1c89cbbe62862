package root

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Attach gives a free loop device to a file or to another device, read-only.
// It goes away with its last user. Another process may take the same number
// between asking and using it; then the next one is asked for.
func Attach(backing *os.File) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("no loop device for the image: %w", err)
	}
	defer control.Close()
	for range 100 {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("no loop device for the image: %w", err)
		}
		device, err := os.OpenFile("/dev/loop"+strconv.Itoa(n), os.O_RDONLY, 0)
		if err != nil {
			return nil, err
		}
		if err = configure(int(device.Fd()), int(backing.Fd())); err == nil {
			return device, nil
		}
		device.Close()
		if !errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("%s for the image: %w", device.Name(), err)
		}
	}
	return nil, errors.New("no loop device for the image: all are taken")
}

// configure sets up a loop device, in two steps where the kernel is older than
// 5.8.
func configure(device, backing int) error {
	config := unix.LoopConfig{Fd: uint32(backing)}
	config.Info.Flags = unix.LO_FLAGS_READ_ONLY | unix.LO_FLAGS_AUTOCLEAR
	err := unix.IoctlLoopConfigure(device, &config)
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOTTY) {
		return err
	}
	if err := unix.IoctlSetInt(device, unix.LOOP_SET_FD, backing); err != nil {
		return err
	}
	return unix.IoctlLoopSetStatus64(device, &config.Info)
}

// loopChangeFD is LOOP_CHANGE_FD of linux/loop.h.
const loopChangeFD = 0x4C06

// ChangeBacking puts another file of the same size in the place of what a loop
// device of Attach reads from, while it is in use.
func ChangeBacking(device, backing *os.File) error {
	if err := unix.IoctlSetInt(int(device.Fd()), loopChangeFD, int(backing.Fd())); err != nil {
		return fmt.Errorf("another file behind %s: %w", device.Name(), err)
	}
	return nil
}
