package build

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"muster/images"
	"muster/images/recipe"
)

// put makes one file of the recipe. No symbolic link in the root leads it out.
func (b *build) put(f *recipe.File) error {
	r, err := os.OpenRoot(b.root)
	if err != nil {
		return err
	}
	defer r.Close()
	name := path.Clean(f.Path)[1:]
	if err := r.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	uid, gid, err := owner(r, f.Owner)
	if err != nil {
		return err
	}
	bits, err := f.Bits()
	if err != nil {
		return err
	}
	if f.Link != "" {
		if err := r.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return errors.Join(r.Symlink(f.Link, name), r.Lchown(name, uid, gid))
	}
	if f.Dir() {
		err = r.MkdirAll(name, 0o755)
	} else {
		err = b.write(r, name, f)
	}
	if err != nil {
		return err
	}
	return errors.Join(r.Chown(name, uid, gid), r.Chmod(name, fileMode(bits)))
}

func (b *build) write(r *os.Root, name string, f *recipe.File) error {
	content := []byte(nil)
	if f.Content != nil {
		content = []byte(*f.Content)
	} else {
		var err error
		if content, err = b.beside(f.Source); err != nil {
			return err
		}
	}
	// A link or a file with other names is replaced, not written through.
	if st, err := r.Lstat(name); err == nil && !st.IsDir() {
		if err := r.Remove(name); err != nil {
			return err
		}
	}
	return r.WriteFile(name, content, 0o600)
}

func fileMode(bits uint32) fs.FileMode {
	m := fs.FileMode(bits & 0o777)
	for bit, mode := range map[uint32]fs.FileMode{unix.S_ISUID: fs.ModeSetuid, unix.S_ISGID: fs.ModeSetgid, unix.S_ISVTX: fs.ModeSticky} {
		if bits&bit != 0 {
			m |= mode
		}
	}
	return m
}

// owner finds a user and a group by name in the root's own files.
func owner(r *os.Root, text string) (uid, gid int, err error) {
	if text == "" {
		return 0, 0, nil
	}
	user, group, both := strings.Cut(text, ":")
	if uid, err = idOf(r, "etc/passwd", user, "user"); err != nil || !both {
		return uid, 0, err
	}
	gid, err = idOf(r, "etc/group", group, "group")
	return uid, gid, err
}

func idOf(r *os.Root, file, name, what string) (int, error) {
	if n, err := strconv.ParseUint(name, 10, 32); err == nil {
		return int(n), nil
	}
	if name == "root" {
		return 0, nil
	}
	raw, err := r.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	for s := bufio.NewScanner(bytes.NewReader(raw)); s.Scan(); {
		if f := strings.Split(s.Text(), ":"); len(f) > 2 && f[0] == name {
			return strconv.Atoi(f[2])
		}
	}
	return 0, fmt.Errorf("the image has no %s %q; make it in a package or a script, and give the file its owner there", what, name)
}

// leftovers are what building leaves in a root, and what differs each time.
func leftovers() []string {
	return []string{
		"tmp/*", "tmp/.[!.]*", "var/tmp/*", "var/tmp/.[!.]*", "run/*",
		"var/cache/apt/*.bin", "var/cache/apt/archives/*.deb", "var/cache/apt/archives/partial/*", "var/lib/apt/lists/*_*", "var/lib/apt/lists/partial/*",
		"var/cache/dnf/*", "var/cache/yum/*", "var/cache/apk/*", "var/cache/ldconfig/aux-cache", "var/cache/debconf/*-old",
		"var/lib/dpkg/*-old", "var/lib/rpm/.rpm.lock", "var/lib/rpm/*-shm", "var/lib/rpm/*-wal", "var/lib/dnf/history.sqlite*",
		"var/log/apt/*", "var/log/dpkg.log", "var/log/alternatives.log", "var/log/bootstrap.log", "var/log/dnf*.log", "var/log/hawkey.log", "var/log/yum.log",
		"etc/passwd-", "etc/group-", "etc/shadow-", "etc/gshadow-", "etc/subuid-", "etc/subgid-", "etc/.pwd.lock",
	}
}

const machineID = "etc/machine-id"

// clean removes what does not belong into an image.
func clean(root string, credentials bool) error {
	r, err := os.OpenRoot(root)
	if err != nil {
		return err
	}
	defer r.Close()
	// Without the file a system takes itself for new, and sets its services to
	// what is their default; an empty one gets an id at each boot.
	hadID := false
	if st, err := r.Lstat(machineID); err == nil && st.Mode().IsRegular() {
		hadID = true
	}
	patterns := leftovers()
	if !credentials {
		patterns = append(patterns, images.Identity()...)
	}
	for _, p := range patterns {
		found, err := fs.Glob(r.FS(), p)
		if err != nil {
			return err
		}
		for _, name := range found {
			if err := r.RemoveAll(name); err != nil {
				return err
			}
		}
	}
	if hadID && !credentials {
		return r.WriteFile(machineID, nil, 0o444)
	}
	return nil
}

// clamp gives no file a later time than epoch.
func clamp(root string, epoch int64) error {
	if epoch == 0 {
		return nil
	}
	at := time.Unix(epoch, 0)
	ts := []unix.Timespec{{Sec: epoch}, {Sec: epoch}}
	return filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := d.Info()
		if err != nil || !st.ModTime().After(at) {
			return err
		}
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, name, ts, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return &os.PathError{Op: "utimensat", Path: name, Err: err}
		}
		return nil
	})
}

// accessed is when a file was read, as far as the file system keeps that.
func accessed(name string) (time.Time, error) {
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		return time.Time{}, err
	}
	return time.Unix(st.Atim.Sec, st.Atim.Nsec), nil
}
