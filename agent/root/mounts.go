package root

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Mounts are the kernel's file systems that the first process needs, in order.
// /run may run programs: the agent lives there when the image has none.
var mounts = []struct {
	kind, dir string
	flags     uintptr
	options   string
}{
	{"devtmpfs", "/dev", unix.MS_NOSUID, "mode=0755"},
	{"proc", "/proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
	{"sysfs", "/sys", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
	{"tmpfs", "/run", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755"},
	{"tmpfs", "/tmp", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
	{"devpts", "/dev/pts", unix.MS_NOSUID | unix.MS_NOEXEC, "gid=5,mode=0620,ptmxmode=0666"},
}

// Mount mounts what the first process needs, and makes the usual links in
// /dev. What cannot be mounted is told and does not stop the rest.
func Mount() []error {
	var errs []error
	for _, m := range mounts {
		os.MkdirAll(m.dir, 0o755)
		if err := unix.Mount(m.kind, m.dir, m.kind, m.flags, m.options); err != nil && err != unix.EBUSY {
			errs = append(errs, fmt.Errorf("mounting %s: %w", m.dir, err))
		}
	}
	for name, target := range map[string]string{
		"/dev/fd": "/proc/self/fd", "/dev/stdin": "/proc/self/fd/0",
		"/dev/stdout": "/proc/self/fd/1", "/dev/stderr": "/proc/self/fd/2",
	} {
		os.Symlink(target, name)
	}
	return errs
}
