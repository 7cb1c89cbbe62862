package root

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// spell makes a tree: lines of "path kind argument".
func spell(t *testing.T, dir, text string) {
	t.Helper()
	for line := range strings.Lines(text) {
		w := append(strings.Fields(line), "", "")
		path, err := filepath.Join(dir, w[0]), error(nil)
		os.MkdirAll(filepath.Dir(path), 0o755)
		switch w[1] {
		case "file":
			err = os.WriteFile(path, []byte(w[2]), 0o644)
		case "setuid":
			if err = os.WriteFile(path, []byte(w[2]), 0o755); err == nil {
				err = unix.Chmod(path, 0o4755)
			}
		case "link":
			err = os.Symlink(w[2], path)
		case "hard":
			err = os.Link(filepath.Join(dir, w[2]), path)
		case "dir":
			err = os.MkdirAll(path, 0o755)
		case "fifo":
			err = unix.Mkfifo(path, 0o600)
		case "xattr":
			err = unix.Setxattr(path, "trusted.x", []byte(w[2]), 0)
		}
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
	}
	// As builds of images do it: all times are the same.
	filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		at := unix.NsecToTimespec(time.Unix(1700000000, 0).UnixNano())
		return unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW)
	})
}

const versionA = `
etc/passwd file root
etc/motd file hello
bin/a file program
bin/b hard bin/a
bin/c hard bin/a
bin/su setuid su
lib link usr/lib
gone/x file 1
was-dir/x file 1
was-file file 1
pipe fifo
big file 0123456789`

const versionB = `
etc/passwd file root
etc/motd file howdy
bin/a file program
bin/b hard bin/a
bin/c file program
bin/su setuid su
lib link usr/lib64
was-dir file 1
was-file/x file 1
pipe fifo
big file 0123456789
big xattr value`

func TestSync(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("owners and trusted attributes need root")
	}
	a, b, disk := t.TempDir(), t.TempDir(), t.TempDir()
	spell(t, a, strings.TrimSpace(versionA))
	spell(t, b, strings.TrimSpace(versionB))
	keep := filepath.Join(disk, ".muster")
	os.MkdirAll(keep, 0o700)
	step := func(from string, written, removed int) {
		t.Helper()
		c, err := Sync(from, disk, ".muster")
		if err != nil || c.Written != written || c.Removed != removed {
			t.Errorf("%+v, %v; wanted %d written, %d removed", c, err, written, removed)
		}
		alike(t, from, disk)
	}
	step(a, 12, 0)
	ino := inode(t, filepath.Join(disk, "etc/passwd"))
	step(a, 0, 0)
	// motd; c, no name of a's file any more; b is; lib; was-dir; was-file/x; big, for its attribute. gone goes.
	os.WriteFile(filepath.Join(disk, "etc/local"), nil, 0o600)
	step(b, 7, 2)
	if inode(t, filepath.Join(disk, "etc/passwd")) != ino {
		t.Error("a file that did not change has a new inode")
	}
	step(b, 0, 0)
	// What somebody changed in place, with size and time as they were, is put right.
	spell(t, disk, "etc/motd file HOWDY")
	step(b, 1, 0)
	step(a, 7, 0)
	if _, err := os.Stat(keep); err != nil {
		t.Error(err)
	}
}

func inode(t *testing.T, path string) uint64 {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

// alike compares two trees.
func alike(t *testing.T, a, b string) {
	t.Helper()
	n := 0
	filepath.WalkDir(b, func(path string, _ os.DirEntry, err error) error {
		if !strings.Contains(path, ".muster") {
			n--
		}
		return nil
	})
	filepath.WalkDir(a, func(path string, _ os.DirEntry, err error) error {
		n++
		var sa, sb unix.Stat_t
		unix.Lstat(path, &sa)
		other := b + path[len(a):]
		if unix.Lstat(other, &sb) != nil || !sameMeta(sa, sb) || sa.Nlink != sb.Nlink && sa.Mode&unix.S_IFMT != unix.S_IFDIR || !sameXattrs(path, other) {
			t.Errorf("%s: %+v and %+v", path, sa, sb)
		}
		if sa.Mode&unix.S_IFMT == unix.S_IFREG {
			if ok, err := sameContent(path, other, sa.Size, make([]byte, 1024)); !ok {
				t.Errorf("%s differs, %v", path, err)
			}
		} else if !sameNode(path, other, sa, sb) {
			t.Errorf("%s leads elsewhere", path)
		}
		return nil
	})
	if n != 0 {
		t.Errorf("the copy has %d entries more or less", n)
	}
}
