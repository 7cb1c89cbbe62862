package root

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Switch makes newroot the root, gives back the memory of the initramfs, and
// starts init in the place of this process, after calling last in the new
// root. It returns only with an error; one after the move cannot be repaired.
func Switch(newroot string, init Init, env []string, last func() error) error {
	for _, dir := range []string{"/dev", "/proc", "/sys", "/run"} {
		target := filepath.Join(newroot, dir)
		if err := os.MkdirAll(target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(dir, target, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("moving %s: %w", dir, err)
		}
	}
	if err := os.MkdirAll(filepath.Join(newroot, "tmp"), 0o1777); err != nil {
		return err
	}
	old, err := os.Open("/")
	if err != nil {
		return err
	}
	if err := unix.Chdir(newroot); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("moving the new root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	if err := unix.Chdir("/"); err != nil {
		return err
	}
	empty(old)
	old.Close()
	if err := last(); err != nil {
		fmt.Fprintln(os.Stderr, "muster:", err) // the image comes up without an agent, better than not at all
	}
	err = unix.Exec(init.Path, []string{init.Path}, env)
	return fmt.Errorf("starting the image's %s: %w", init.Path, err)
}

// empty removes what a directory holds on its own file system, which must be
// one in RAM.
func empty(dir *os.File) {
	var fs unix.Statfs_t
	if unix.Fstatfs(int(dir.Fd()), &fs) != nil || fs.Type != unix.RAMFS_MAGIC && fs.Type != unix.TMPFS_MAGIC {
		return
	}
	var here unix.Stat_t
	if unix.Fstat(int(dir.Fd()), &here) == nil {
		emptyAt(dir, here.Dev)
	}
}

func emptyAt(dir *os.File, dev uint64) {
	names, _ := dir.Readdirnames(-1)
	for _, name := range names {
		var st unix.Stat_t
		fd := int(dir.Fd())
		if unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil || st.Dev != dev {
			continue
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			unix.Unlinkat(fd, name, 0)
			continue
		}
		sub, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		f := os.NewFile(uintptr(sub), name)
		emptyAt(f, dev)
		f.Close()
		unix.Unlinkat(fd, name, unix.AT_REMOVEDIR)
	}
}
