// Package root turns a pulled image into a root file system and makes the
// machine go on in it.
//
// With rwram the files lie in a tmpfs: written there as they are fetched
// (Empty), or copied from an image that is then forgotten. With roram the image stays as it is, mounted, under an overlay
// whose upper half is in RAM; with iscsi that is so too, but it lies with the
// head, which is read whenever the root is. With disked the files are on a disk, which is made
// to what the image is: only what differs is written, what the image does not
// have is removed, and a mark on the disk says whether that has come to its end.
// Before it has, nothing is started from the disk, so that a cut power costs
// another attempt and never gives a mix of two images. A disk that holds the
// image already is used as it is, with what was changed on it since.
//
// The package must not fetch anything, nor decide what a machine becomes. Nothing in it is undone by
// rebooting: every failure leaves a machine in which the step can be repeated.
package root

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"muster/shared/wire"
)

// The boot styles that this package knows.
const (
	StyleRWRAM = "rwram"
	StyleRORAM = "roram"

	StyleDisked = "disked"
	StyleISCSI  = "iscsi"
)

// Layout says where things are while a root is made. All are made as needed.
type Layout struct {
	Store   string // a tmpfs for the pulled image
	Squash  string // the image, mounted
	Overlay string // a tmpfs for what is written with roram
	New     string // the root that is made
}

// Initramfs is the layout in the initramfs.
var Initramfs = Layout{Store: "/image", Squash: "/squash", Overlay: "/overlay", New: "/newroot"}

// ImageFile makes the tmpfs for the image and an empty file in it.
func (l Layout) ImageFile() (*os.File, error) {
	if err := l.tmpfs(l.Store, "size=100%,mode=0700"); err != nil {
		return nil, err
	}
	return os.OpenFile(filepath.Join(l.Store, "image"), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
}

// KeptImage opens the file that ImageFile made in an earlier attempt, if it has
// this size.
func (l Layout) KeptImage(size int64) (*os.File, error) {
	file, err := os.OpenFile(filepath.Join(l.Store, "image"), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	if fi, err := file.Stat(); err != nil || fi.Size() != size {
		file.Close()
		return nil, errors.New("the image is not there as a whole")
	}
	return file, nil
}

// Known says whether a boot style is one that this package makes.
func Known(style string) error {
	switch style {
	case StyleRWRAM, StyleRORAM, StyleDisked, StyleISCSI:
		return nil
	}
	return fmt.Errorf("boot style %q is not one that this agent knows (%s, %s, %s, %s)", style, StyleRWRAM, StyleRORAM, StyleDisked, StyleISCSI)
}

// Build makes a root in RAM from an image that ImageFile's file holds. After an
// error nothing of it is left mounted and it may be called again.
func (l Layout) Build(style string, image *os.File) (err error) {
	defer func() {
		if err != nil {
			l.Drop()
		}
	}()
	if err := Known(style); err != nil || style == StyleDisked {
		return errors.Join(err, errors.ErrUnsupported)
	}
	if err := mountSquash(image, l.Squash); err != nil {
		return err
	}
	if style == StyleRORAM || style == StyleISCSI {
		return l.overlay()
	}
	return l.copy(image)
}

// overlay puts a writable layer in RAM over the image.
func (l Layout) overlay() error {
	if err := l.tmpfs(l.Overlay, "mode=0755"); err != nil {
		return err
	}
	upper, work := filepath.Join(l.Overlay, "upper"), filepath.Join(l.Overlay, "work")
	for _, dir := range []string{upper, work, l.New} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	// The root directory itself is the upper one's.
	var st unix.Stat_t
	if err := unix.Lstat(l.Squash, &st); err != nil {
		return err
	}
	c := copier{from: l.Squash, to: upper, xattrs: true}
	if err := c.finish(file{st: st}); err != nil {
		return err
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", l.Squash, upper, work)
	if err := unix.Mount("overlay", l.New, "overlay", 0, options); err != nil {
		return fmt.Errorf("overlay over the image: %w", err)
	}
	return nil
}

// Empty makes an empty root in RAM, for who writes the files himself.
func (l Layout) Empty() error {
	l.Drop()
	return l.ram()
}

func (l Layout) ram() error { return l.tmpfs(l.New, "size=100%,nr_inodes=0,mode=0755") }

// copy puts all files of the image into a tmpfs and forgets the image.
func (l Layout) copy(image *os.File) error {
	if err := l.ram(); err != nil {
		return err
	}
	if err := Copy(l.Squash, l.New, hasXattrs(image)); err != nil {
		if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.ENOMEM) {
			return fmt.Errorf("the image's files do not fit into the RAM of this machine; boot style roram needs less: %w", err)
		}
		return err
	}
	if err := unix.Unmount(l.Squash, 0); err != nil {
		return fmt.Errorf("unmounting the image: %w", err)
	}
	if err := image.Truncate(0); err != nil {
		return fmt.Errorf("freeing the image: %w", err)
	}
	return nil
}

// Drop unmounts what Build made, so that it can be made anew.
func (l Layout) Drop() {
	for _, dir := range []string{l.New, l.Overlay, l.Squash} {
		for unix.Unmount(dir, unix.MNT_DETACH) == nil {
		}
	}
}

// tmpfs mounts one unless there is one already.
func (l Layout) tmpfs(dir, options string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if mounted(dir) {
		return nil
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		return fmt.Errorf("tmpfs on %s: %w", dir, err)
	}
	return nil
}

// mounted says whether dir is on another file system than its parent.
func mounted(dir string) bool {
	var here, above unix.Stat_t
	if unix.Stat(dir, &here) != nil || unix.Stat(filepath.Dir(dir), &above) != nil {
		return false
	}
	return here.Dev != above.Dev
}

// Needs names the kernel modules for a style.
func Needs(style string) []string {
	switch style {
	case StyleRORAM, StyleISCSI:
		return []string{"loop", "squashfs", "overlay"}
	case StyleDisked:
		return []string{"loop", "squashfs"} // those of the disk's file system when it is known
	}
	return []string{"loop", "squashfs"}
}

// Of gives the style that a head's answer means.
func Of(b wire.Boot) string {
	if b.Style == "" {
		return StyleRWRAM
	}
	return b.Style
}
