// Package disk finds the disks and partitions of a machine by the names that
// admins give them, says what is on them, and partitions an empty one.
//
// It runs where there is no udev: names such as LABEL=x are looked up in what
// the kernel lists and in the superblocks themselves. The package must not
// mount anything and never erases what it was not asked to.
package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Device is a block device.
type Device struct {
	Path string // such as /dev/sda1
	name string // of the kernel
}

// sysBlock lists the block devices.
const sysBlock = "/sys/class/block"

// Find finds the device that a name means: its path, LABEL=, UUID=, PARTLABEL=
// with a value, or one of udev's links that say the same.
func Find(name string) (Device, error) {
	key, value, ok := strings.Cut(name, "=")
	if !ok {
		if key, value, ok = byLink(name); !ok {
			return byPath(name)
		}
	}
	match, err := matcher(key, value)
	if err != nil {
		return Device{}, err
	}
	entries, err := os.ReadDir(sysBlock)
	if err != nil {
		return Device{}, err
	}
	var found []Device
	for _, e := range entries {
		d := Device{"/dev/" + strings.ReplaceAll(e.Name(), "!", "/"), e.Name()}
		if match(d) {
			found = append(found, d)
		}
	}
	switch len(found) {
	case 0:
		return Device{}, fmt.Errorf("no disk of this machine has %s: %w", name, os.ErrNotExist)
	case 1:
		return found[0], nil
	}
	return Device{}, fmt.Errorf("%s is not clear: both %s and %s have it", name, found[0].Path, found[1].Path)
}

// byLink reads udev's /dev/disk/by-label/x and its kin.
func byLink(path string) (key, value string, ok bool) {
	rest, ok := strings.CutPrefix(path, "/dev/disk/by-")
	if !ok {
		return "", "", false
	}
	key, value, ok = strings.Cut(rest, "/")
	return strings.ToUpper(key), value, ok
}

func byPath(path string) (Device, error) {
	name, ok := strings.CutPrefix(path, "/dev/")
	if !ok || name != filepath.Clean(name) || strings.HasPrefix(name, "..") {
		return Device{}, fmt.Errorf("%q is no device: give a path such as /dev/sda2, LABEL=x, UUID=x or PARTLABEL=x", path)
	}
	d := Device{path, strings.ReplaceAll(name, "/", "!")}
	if _, err := os.Stat(filepath.Join(sysBlock, d.name)); err != nil {
		return Device{}, fmt.Errorf("this machine has no disk %s: %w", path, os.ErrNotExist)
	}
	return d, nil
}

func matcher(key, value string) (func(Device) bool, error) {
	if value == "" {
		return nil, fmt.Errorf("%s= names no disk", key)
	}
	switch key {
	case "LABEL", "UUID":
		return func(d Device) bool {
			c, err := d.Content()
			return err == nil && (key == "LABEL" && c.Label == value || key == "UUID" && strings.EqualFold(c.UUID, value))
		}, nil
	case "PARTLABEL":
		return func(d Device) bool { return d.partLabel() == value }, nil
	}
	return nil, fmt.Errorf("disks are found by LABEL=, UUID=, PARTLABEL= or their path, not by %s", key)
}

// partLabel is the name in the partition table, as the kernel has read it.
func (d Device) partLabel() string {
	text, _ := os.ReadFile(filepath.Join(sysBlock, d.name, "uevent"))
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, "PARTNAME="); ok {
			return strings.TrimRight(v, "\n")
		}
	}
	return ""
}

// Ready says whether the device can be opened: the kernel lists it a moment
// before.
func (d Device) Ready() error {
	f, err := os.Open(d.Path)
	if err != nil {
		return err
	}
	return f.Close()
}

// Whole says whether it is a disk, not a part of one.
func (d Device) Whole() bool {
	_, err := os.Stat(filepath.Join(sysBlock, d.name, "partition"))
	return err != nil
}

// Partition finds the partition of a disk that has a name in its table.
func (d Device) Partition(label string) (Device, error) {
	parts, err := filepath.Glob(filepath.Join(sysBlock, d.name, "*", "partition"))
	if err != nil {
		return Device{}, err
	}
	for _, file := range parts {
		name := filepath.Base(filepath.Dir(file))
		if p := (Device{"/dev/" + strings.ReplaceAll(name, "!", "/"), name}); p.partLabel() == label {
			return p, nil
		}
	}
	return Device{}, fmt.Errorf("%s has no partition %q: %w", d.Path, label, os.ErrNotExist)
}

// Claim makes an empty disk one partition with this name. What was on the disk
// is lost.
func (d Device) Claim(label string) (Device, error) {
	f, err := os.OpenFile(d.Path, os.O_RDWR|unix.O_EXCL, 0)
	if errors.Is(err, unix.EBUSY) {
		return Device{}, fmt.Errorf("%s is in use: %w", d.Path, err)
	}
	if err != nil {
		return Device{}, err
	}
	defer f.Close()
	size, sector, err := geometry(f)
	if err != nil {
		return Device{}, err
	}
	if err := writeTable(f, size, sector, label); err != nil {
		return Device{}, fmt.Errorf("partitioning %s: %w", d.Path, err)
	}
	if err := f.Sync(); err != nil {
		return Device{}, err
	}
	if err := unix.IoctlSetInt(int(f.Fd()), unix.BLKRRPART, 0); err != nil {
		return Device{}, fmt.Errorf("the kernel does not read the new partition table of %s: %w", d.Path, err)
	}
	return d.Partition(label)
}

// geometry gives the size in bytes and the logical sector size.
func geometry(f *os.File) (size, sector int64, err error) {
	n, err := unix.IoctlGetInt(int(f.Fd()), unix.BLKSSZGET)
	if err != nil {
		return 0, 0, err
	}
	size, err = f.Seek(0, 2)
	return size, int64(n), err
}
