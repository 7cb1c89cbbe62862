package build

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// programs are what the scripts of the tests use.
var programs = []string{"sh", "cat", "mkdir", "rm", "ln", "chmod", "sleep", "touch", "stat", "readlink", "grep", "mv", "cp", "ls", "id", "hostname", "tty", "setfattr"}

// needRoot skips where no mount namespace can be had.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

// tinyRoot is a root with a shell and a few programs of this machine.
func tinyRoot(t testing.TB) string {
	t.Helper()
	needRoot(t)
	root := filepath.Join(t.TempDir(), "root")
	for _, dir := range []string{"usr/bin", "usr/lib", "etc/ssh", "proc", "sys", "dev", "run", "tmp", "root", "var/log/apt", "var/lib/apt/lists"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, link := range []string{"bin", "lib", "lib64", "sbin"} {
		target := "usr/bin"
		if strings.HasPrefix(link, "lib") {
			target = "usr/" + link
			if err := os.MkdirAll(filepath.Join(root, target), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink(target, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range programs {
		path, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		copyFile(t, path, filepath.Join(root, "usr/bin", name))
		out, err := exec.Command("ldd", path).Output()
		if err != nil {
			continue // static
		}
		for word := range strings.FieldsSeq(string(out)) {
			if strings.HasPrefix(word, "/") {
				copyFile(t, word, filepath.Join(root, word))
			}
		}
	}
	for name, text := range map[string]string{
		"etc/passwd": "root:x:0:0::/root:/bin/sh\ndaemon:x:1:1::/:/bin/sh\n", "etc/group": "root:x:0:\nadm:x:4:\n", "etc/os-release": "ID=tiny\n",
		"etc/ssh/ssh_host_rsa_key": "secret", "etc/machine-id": "0123456789abcdef0123456789abcdef\n", "var/log/apt/history.log": "now\n", "etc/version": "1\n",
	} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	raw, err := os.ReadFile(from)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(to), 0o755)
	}
	if err == nil {
		err = os.WriteFile(to, raw, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// watcher keeps what it is told.
type watcher struct {
	t    testing.TB
	said bytes.Buffer
	hook func(line string)
}

func (w *watcher) Step(name string) { w.said.WriteString("* " + name + "\n") }
func (w *watcher) At(_, _ int64)    {}
func (w *watcher) Said(line string) {
	w.said.WriteString(line + "\n")
	if w.hook != nil {
		w.hook(line)
	}
}

// extracted unpacks an image.
func extracted(t testing.TB, image string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "out")
	if out, err := exec.Command("unsquashfs", "-no-progress", "-q", "-strict-errors", "-d", dir, image).CombinedOutput(); err != nil {
		t.Fatalf("unsquashfs: %v %s", err, out)
	}
	return dir
}

// listing describes all that a tree holds.
func listing(t testing.TB, dir string) string {
	t.Helper()
	var out strings.Builder
	inodes := map[uint64]string{}
	err := filepath.WalkDir(dir, func(name string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, name)
		var st unix.Stat_t
		if err := unix.Lstat(name, &st); err != nil {
			return err
		}
		row := []any{rel, st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Rdev}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			raw, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			first, seen := inodes[st.Ino]
			if !seen {
				inodes[st.Ino] = rel
			}
			row = append(row, sum(raw), st.Nlink, first, st.Blocks*512 < st.Size)
		case unix.S_IFLNK:
			target, err := os.Readlink(name)
			if err != nil {
				return err
			}
			row = append(row, target)
		}
		for _, attr := range []string{"security.capability", "user.note", "trusted.note"} {
			b := make([]byte, 256)
			if n, err := unix.Lgetxattr(name, attr, b); err == nil {
				row = append(row, attr, sum(b[:n]))
			}
		}
		out.WriteString(line(row))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}
