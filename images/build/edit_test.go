package build

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"muster/images"
)

// rich adds to a root all that an image can carry.
func rich(t testing.TB, root string) {
	t.Helper()
	at := func(name string) string { return filepath.Join(root, name) }
	sparse, err := os.Create(at("usr/sparse"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = sparse.WriteAt([]byte("end"), 5<<20)
	capability := "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	err = errors.Join(err, sparse.Close(),
		os.Mkdir(at("usr/dev"), 0o755),
		unix.Mknod(at("usr/dev/null"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))),
		unix.Mknod(at("usr/dev/disk"), unix.S_IFBLK|0o640, int(unix.Mkdev(259, 70000))),
		unix.Mkfifo(at("usr/dev/fifo"), 0o622),
		os.WriteFile(at("usr/bin/ping"), bytes.Repeat([]byte("ping"), 50_000), 0o755),
		os.Link(at("usr/bin/ping"), at("usr/bin/ping4")),
		unix.Setxattr(at("usr/bin/ping"), "security.capability", []byte(capability), 0),
		unix.Setxattr(at("etc/passwd"), "user.note", []byte("a\x00\nb"), 0),
		unix.Setxattr(at("etc"), "trusted.note", []byte("dir"), 0),
		os.Chown(at("etc/group"), 70000, 1<<31),
		unix.Chmod(at("usr/bin/stat"), 0o4711),
		os.WriteFile(at("usr/"+strings.Repeat("ü", 120)), nil, 0o600),
		os.Symlink("/absolute/"+strings.Repeat("x", 150), at("usr/link")),
		unix.Chmod(root, 0o751))
	if err != nil {
		t.Fatal(err)
	}
}

func packed(t testing.TB, source string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "image.squashfs")
	if info, err := images.Import(t.Context(), source, out, nil); err != nil || len(info.Warnings) > 0 {
		t.Fatal(err, info.Warnings)
	}
	return out
}

// difference gives the lines that only one of two texts has.
func difference(a, b string) string {
	out := ""
	for row := range strings.Lines(a) {
		if !strings.Contains(b, row) {
			out += "\n- " + strings.TrimSpace(row)
		}
	}
	for row := range strings.Lines(b) {
		if !strings.Contains(a, row) {
			out += "\n+ " + strings.TrimSpace(row)
		}
	}
	return out
}

// What is exported and imported again is the same image.
func TestExport(t *testing.T) {
	root := tinyRoot(t)
	rich(t, root)
	image := packed(t, root)
	want := listing(t, extracted(t, image))
	temp := t.TempDir()
	for name, form := range map[string]images.Form{
		"x.tar": images.Tar, "x.tar.gz": images.Tar, "x.tar.zst": images.Tar, "x.oci": images.OCI, "x": images.Directory,
	} {
		dir := t.TempDir()
		target := filepath.Join(dir, name)
		if got := images.FormOf(target); got != form {
			t.Errorf("%s is taken for %s", name, got)
		}
		if err := Export(t.Context(), image, target, form, temp, &watcher{t: t}); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := listing(t, extracted(t, packed(t, target))); got != want {
			t.Errorf("%s: another image came of it:\n%s", name, difference(want, got))
		}
		if left, _ := os.ReadDir(dir); len(left) != 1 {
			t.Errorf("%s: beside it are %v", name, left)
		}
		if form != images.Tar {
			if err := Export(t.Context(), image, target, form, temp, &watcher{t: t}); err == nil || !strings.Contains(err.Error(), "is not empty") {
				t.Errorf("%s over another: %v", name, err)
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Export(ctx, image, filepath.Join(temp, "y.tar"), images.Tar, temp, &watcher{t: t}); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	quietAfter(t, temp)
}

func TestEdit(t *testing.T) {
	root := tinyRoot(t)
	rich(t, root)
	image, temp := packed(t, root), t.TempDir()
	before := listing(t, extracted(t, image))
	edit := func(keep bool, script string) (out string, changed bool, err error) {
		out = filepath.Join(t.TempDir(), "out")
		s := Session{Image: image, Temp: temp, Argv: []string{"sh", "-ec", script}, Keep: func(err error) bool { return keep && err == nil }, Watcher: &watcher{t: t}}
		_, changed, err = Edit(t.Context(), s, out)
		if _, statErr := os.Stat(out); (statErr == nil) != changed {
			t.Errorf("%s: changed %v, and the image: %v", script, changed, statErr)
		}
		quietAfter(t, temp)
		return out, changed, err
	}
	// What leaves the image as it was makes no version of it.
	for _, script := range []string{
		"true", "cat /etc/passwd", "echo x >/tmp/x; rm /tmp/x", "echo x >/tmp/left; echo x >/run/left", "echo x >/etc/new; rm /etc/new; touch -d @1600000000 /etc",
		"mv /etc/passwd /etc/p; mv /etc/p /etc/passwd; touch -d @1600000000 /etc",
	} {
		if strings.Contains(script, "touch") {
			script = strings.ReplaceAll(script, "touch -d @1600000000 /etc", "touch -r /etc/version /etc")
		}
		if _, changed, err := edit(true, script); err != nil || (changed && !strings.Contains(script, "touch")) {
			t.Errorf("%s: changed %v, %v", script, changed, err)
		}
	}
	out, changed, err := edit(true, "echo 2 >/etc/version; rm /usr/bin/ping4; mv /usr/dev /usr/devices; test -c /dev/null; tty >/dev/null || test $? = 1")
	if err != nil || !changed {
		t.Fatalf("changed %v, %v", changed, err)
	}
	after := listing(t, extracted(t, out))
	for name, in := range map[string]bool{"usr/bin/ping4": false, "usr/dev ": false, "usr/devices/null": true, "usr/devices/disk": true, "usr/bin/ping ": true} {
		if strings.Contains(after, "\n"+name) != in {
			t.Errorf("%q in the image: %v, wanted %v", name, !in, in)
		}
	}
	// Besides those: etc and version, usr and bin, ping, which had two names, and dev with three.
	if d := difference(before, after); strings.Count(d, "\n-") > 10 {
		t.Errorf("other than what was changed:%s", d)
	}
	if _, changed, err := edit(false, "echo 2 >/etc/version"); err != nil || changed {
		t.Errorf("discarded: changed %v, %v", changed, err)
	}
	var exit *exec.ExitError
	if _, changed, err := edit(true, "echo 2 >/etc/version; exit 7"); changed || !errors.As(err, &exit) || exit.ExitCode() != 7 {
		t.Errorf("failed: changed %v, %v", changed, err)
	}
}
