// Package sandbox changes a root file system on this machine without leaving
// anything behind: mounts that nobody else sees and that end with the program,
// commands that are killed with all that they started, and work directories
// that the next run clears away should this one be killed.
//
// It needs root. It keeps accidents in, not attackers: what runs in it is root
// with the host's network. It knows nothing of images or where they come from.
package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrRoot is for those who are not root.
var ErrRoot = errors.New("changing a root file system needs root: run it as root, or with sudo")

// Private runs fn with a mount namespace of its own: what fn mounts is seen by
// fn and by the programs that it starts, and is gone when both have ended,
// even if this program is killed. fn must do its work in the goroutine that it
// is called in. The result is fn's.
func Private(fn func() error) error {
	if os.Geteuid() != 0 {
		return ErrRoot
	}
	done := make(chan error, 1)
	go onOwnThread(func() {
		err := unix.Unshare(unix.CLONE_NEWNS)
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		}
		if err != nil {
			done <- fmt.Errorf("a mount namespace is needed, which this system refuses (in a container it must be privileged): %w", err)
			return
		}
		done <- fn()
	})
	return <-done
}

// onOwnThread runs fn in a thread that ends with the goroutine, and with it
// what belongs to the thread alone. The program's first thread never ends: if
// this is it, it is held until another has been taken.
func onOwnThread(fn func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		fn() // the lock stays
		return
	}
	defer runtime.UnlockOSThread()
	done := make(chan struct{})
	go func() {
		defer close(done)
		onOwnThread(fn)
	}()
	<-done
}

// Overlay mounts at "root" in dir, inside of Private, a writable file system
// that begins as lower and keeps what changes in dir, and returns its path.
func Overlay(dir, lower string) (*Layer, error) {
	l := &Layer{lower: lower, upper: filepath.Join(dir, "upper"), Root: filepath.Join(dir, "root")}
	work := filepath.Join(dir, "work")
	for _, d := range []string{l.upper, work, l.Root} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return nil, err
		}
	}
	// The root directory itself is of the upper layer, whatever lies below.
	if err := sameDirectory(lower, l.upper); err != nil {
		return nil, err
	}
	for _, d := range []string{lower, dir} {
		if strings.ContainsAny(d, `,:\`) {
			return nil, fmt.Errorf("the path %q has a comma, colon or backslash, which overlayfs cannot take; set TMPDIR to another", d)
		}
	}
	// Directories can be renamed as on any file system; files are copied as a
	// whole, so that upper alone tells what has changed.
	opts := "redirect_dir=on,metacopy=off,lowerdir=" + lower + ",upperdir=" + l.upper + ",workdir=" + work
	if err := unix.Mount("overlay", l.Root, "overlay", 0, opts); err != nil {
		return nil, fmt.Errorf("overlay in %s: %w; if that is itself an overlay (as in a container) set TMPDIR to a directory on a disk", dir, err)
	}
	return l, nil
}

// Layer is an overlay.
type Layer struct {
	Root         string // where it is mounted
	lower, upper string
}

// Unmount ends the overlay; what changed stays in its directory.
func (l *Layer) Unmount() error { return unix.Unmount(l.Root, 0) }

// sameDirectory gives a directory the owner, mode, times and attributes of
// another.
func sameDirectory(from, to string) error {
	var st unix.Stat_t
	if err := unix.Stat(from, &st); err != nil {
		return &os.PathError{Op: "stat", Path: from, Err: err}
	}
	attrs, err := attributes(from)
	if err != nil {
		return err
	}
	for name, value := range attrs {
		if err := unix.Setxattr(to, name, value, 0); err != nil && !errors.Is(err, unix.ENOTSUP) {
			return &os.PathError{Op: "setxattr " + name, Path: to, Err: err}
		}
	}
	return errors.Join(os.Chown(to, int(st.Uid), int(st.Gid)), unix.Chmod(to, st.Mode&0o7777),
		unix.UtimesNanoAt(unix.AT_FDCWD, to, []unix.Timespec{st.Mtim, st.Mtim}, 0))
}

// Squashfs mounts an image read-only at dir, inside of Private. Where loop
// devices are missing the image can only be unpacked: see ErrLoop.
func Squashfs(image, dir string) error {
	loop, err := attachLoop(image)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrLoop, err)
	}
	defer loop.Close() // the mount holds it; it detaches itself afterwards
	if err := unix.Mount(loop.Name(), dir, "squashfs", unix.MS_RDONLY|unix.MS_NODEV, ""); err != nil {
		return fmt.Errorf("%w: mount %s: %w", ErrLoop, image, err)
	}
	return nil
}

// ErrLoop says that this system cannot mount a squashfs.
var ErrLoop = errors.New("no squashfs can be mounted here")

func attachLoop(image string) (*os.File, error) {
	f, err := os.Open(image)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	for range 64 { // others may take a free one first
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, os.NewSyscallError("LOOP_CTL_GET_FREE", err)
		}
		loop, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDONLY, 0)
		if err != nil {
			return nil, err
		}
		conf := unix.LoopConfig{Fd: uint32(f.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_READ_ONLY | unix.LO_FLAGS_AUTOCLEAR}}
		err = unix.IoctlLoopConfigure(int(loop.Fd()), &conf)
		if err == nil {
			return loop, nil
		}
		loop.Close()
		if !errors.Is(err, unix.EBUSY) {
			return nil, os.NewSyscallError("LOOP_CONFIGURE", err)
		}
	}
	return nil, syscall.EBUSY
}
