package images

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
	"golang.org/x/sys/unix"

	"muster/images/squashfs"
)

// capNetRaw is security.capability of a file with cap_net_raw=ep (version 2).
const capNetRaw = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

var when = time.Unix(1_600_000_000, 0)

// rootTree makes a small root with all that an image must carry.
func rootTree(t testing.TB) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("device nodes and capabilities need root")
	}
	dir := filepath.Join(t.TempDir(), "root")
	must := func(errs ...error) {
		t.Helper()
		for _, err := range errs {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, d := range []string{"dev", "etc", "sbin", "usr/bin", "usr/lib/systemd", "empty"} {
		must(os.MkdirAll(filepath.Join(dir, d), 0o755))
	}
	p := func(name string) string { return filepath.Join(dir, name) }
	must(
		os.WriteFile(p("etc/os-release"), []byte("ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME=\"Debian 12\"\n"), 0o644),
		os.WriteFile(p("usr/lib/systemd/systemd"), []byte("ELF"), 0o755),
		os.Symlink("../usr/lib/systemd/systemd", p("sbin/init")),
		os.WriteFile(p("usr/bin/ping"), bytes.Repeat([]byte("ping"), 100_000), 0o755),
		os.Link(p("usr/bin/ping"), p("usr/bin/ping4")),
		os.WriteFile(p("usr/bin/su"), []byte("su"), 0o755),
		os.Chmod(p("usr/bin/su"), 0o755|os.ModeSetuid),
		os.Chown(p("etc/os-release"), 12, 34),
		unix.Mknod(p("dev/null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))),
		os.Chmod(p("dev/null"), 0o666),
		unix.Mkfifo(p("dev/fifo"), 0o600),
		unix.Setxattr(p("usr/bin/ping"), "security.capability", []byte(capNetRaw), 0),
		unix.Setxattr(p("etc/os-release"), "trusted.note", []byte("kept"), 0),
		os.WriteFile(p("etc/"+strings.Repeat("long-name-", 20)+"ü"), nil, 0o600),
		os.Chmod(dir, 0o750),
	)
	must(filepath.WalkDir(dir, func(name string, _ os.DirEntry, err error) error {
		ts := unix.NsecToTimespec(when.UnixNano())
		return errors.Join(err, unix.UtimesNanoAt(unix.AT_FDCWD, name, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW))
	}))
	return dir
}

func gnuTar(t testing.TB, dir string) []byte {
	t.Helper()
	cmd := exec.Command("tar", "--xattrs", "--xattrs-include=*", "--format=pax", "--sort=name", "-C", dir, "-c", ".")
	var said bytes.Buffer
	cmd.Stderr = &said
	b, err := cmd.Output()
	if err != nil {
		t.Fatalf("tar: %v\n%s", err, said.Bytes())
	}
	return b
}

func packed(t testing.TB, kind string, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	var err error
	switch kind {
	case "gz":
		w := gzip.NewWriter(&out)
		_, err = w.Write(b)
		err = errors.Join(err, w.Close())
	case "zst":
		w, _ := zstd.NewWriter(&out)
		_, err = w.Write(b)
		err = errors.Join(err, w.Close())
	case "xz":
		w, _ := xz.NewWriter(&out)
		_, err = w.Write(b)
		err = errors.Join(err, w.Close())
	default:
		return b
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func write(t testing.TB, name string, b []byte) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(p, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return p
}

// imported imports a source, twice, and gives the image's path.
func imported(t *testing.T, source string, form Form) string {
	t.Helper()
	dir := t.TempDir()
	out, again := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	var last, total int64
	info, err := Import(context.Background(), source, out, func(d, n int64) {
		if d < last {
			t.Errorf("progress went back from %d to %d", last, d)
		}
		last, total = d, n
	})
	if err != nil {
		t.Fatal(err)
	}
	if info.Form != form || !info.Superblock.Verified || info.Size == 0 || len(info.Warnings) > 0 {
		t.Errorf("info %+v", info)
	}
	if last == 0 || last != total {
		t.Errorf("progress ended at %d of %d", last, total)
	}
	if _, err := Import(context.Background(), source, again, nil); err != nil {
		t.Fatal(err)
	}
	a, _ := os.ReadFile(out)
	if b, _ := os.ReadFile(again); !bytes.Equal(a, b) {
		t.Error("the same source gave other bytes")
	}
	if left, _ := os.ReadDir(dir); len(left) != 2 {
		t.Errorf("left behind: %v", left)
	}
	return out
}

// extract unpacks an image with the reference implementation.
func extract(t *testing.T, image string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "x")
	if out, err := exec.Command("unsquashfs", "-quiet", "-no-progress", "-d", to, image).CombinedOutput(); err != nil {
		t.Fatalf("unsquashfs: %v\n%s", err, out)
	}
	return to
}

// survived checks all that rootTree made.
func survived(t *testing.T, image string) {
	t.Helper()
	dir := extract(t, image)
	stat := func(name string) (st unix.Stat_t) {
		t.Helper()
		if err := unix.Lstat(filepath.Join(dir, name), &st); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		return st
	}
	if st := stat("."); st.Mode&0o7777 != 0o750 || st.Mtim.Sec != when.Unix() {
		t.Errorf("the root has mode %o and time %d", st.Mode, st.Mtim.Sec)
	}
	if a, b := stat("usr/bin/ping"), stat("usr/bin/ping4"); a.Ino != b.Ino || a.Nlink != 2 || a.Size != 400_000 {
		t.Errorf("hard link: inodes %d and %d, %d links", a.Ino, b.Ino, a.Nlink)
	}
	if st := stat("dev/null"); st.Mode != unix.S_IFCHR|0o666 || st.Rdev != unix.Mkdev(1, 3) {
		t.Errorf("dev/null: mode %o, device %d", st.Mode, st.Rdev)
	}
	if st := stat("dev/fifo"); st.Mode&unix.S_IFMT != unix.S_IFIFO {
		t.Errorf("dev/fifo: mode %o", st.Mode)
	}
	if st := stat("usr/bin/su"); st.Mode&0o7777 != 0o4755 {
		t.Errorf("su: mode %o", st.Mode)
	}
	if st := stat("etc/os-release"); st.Uid != 12 || st.Gid != 34 || st.Mtim.Sec != when.Unix() {
		t.Errorf("os-release: %d:%d, time %d", st.Uid, st.Gid, st.Mtim.Sec)
	}
	stat("etc/" + strings.Repeat("long-name-", 20) + "ü")
	for name, attr := range map[string]string{"usr/bin/ping": "security.capability=" + capNetRaw, "etc/os-release": "trusted.note=kept"} {
		key, want, _ := strings.Cut(attr, "=")
		var b [100]byte
		if n, err := unix.Getxattr(filepath.Join(dir, name), key, b[:]); err != nil || string(b[:n]) != want {
			t.Errorf("%s of %s: %q, %v", key, name, b[:max(n, 0)], err)
		}
	}
}

func TestImportDirectory(t *testing.T) { survived(t, imported(t, rootTree(t), Directory)) }

func TestImportTar(t *testing.T) {
	b := gnuTar(t, rootTree(t))
	for _, kind := range []string{"tar", "gz", "zst", "xz"} {
		t.Run(kind, func(t *testing.T) { survived(t, imported(t, write(t, "any-name", packed(t, kind, b)), Tar)) })
	}
}

func TestImportSquashfs(t *testing.T) {
	image := imported(t, rootTree(t), Directory)
	again := imported(t, image, Squashfs)
	survived(t, again)
	b, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "out")
	_, err = Import(context.Background(), write(t, "cut", b[:500]), out, nil)
	if !errors.Is(err, squashfs.ErrTruncated) {
		t.Errorf("the beginning of a squashfs: %v", err)
	}
}

func TestImportMounts(t *testing.T) {
	dir := rootTree(t)
	at := filepath.Join(dir, "empty")
	if err := unix.Mount("tmpfs", at, "tmpfs", 0, ""); err != nil {
		t.Skipf("cannot mount: %v", err)
	}
	defer func() {
		if err := unix.Unmount(at, 0); err != nil {
			t.Error(err)
		}
	}()
	for _, name := range []string{"secret", ".hidden"} {
		if err := os.WriteFile(filepath.Join(at, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got := extract(t, imported(t, dir, Directory))
	if left, err := os.ReadDir(filepath.Join(got, "empty")); err != nil || len(left) != 0 {
		t.Errorf("of a tmpfs came %v, %v", left, err)
	}
}

// An image that is made inside its source does not contain its own making.
func TestImportIntoSource(t *testing.T) {
	dir := rootTree(t)
	at := filepath.Join(dir, "empty")
	if _, err := Import(context.Background(), dir, filepath.Join(at, "out"), nil); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(filepath.Join(extract(t, filepath.Join(at, "out")), "empty")); err != nil || len(left) != 0 {
		t.Errorf("in the image are %v, %v", left, err)
	}
}

// tarOf makes an archive of entries as they are.
func tarOf(t testing.TB, entries ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		content := h.Uname // the tests' place for a file's content
		h.Uname, h.Size = "", int64(len(content))
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func file(name, content string) tar.Header { return tar.Header{Name: name, Uname: content} }

func TestRefused(t *testing.T) {
	good := tarOf(t, file("a/b", strings.Repeat("x", 5000)), file("c", "d"))
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"text":         {[]byte("hello\n"), "no tar archive"},
		"empty":        {nil, "no tar archive"},
		"cut":          {good[:3000], "truncated"},
		"cut gzip":     {packed(t, "gz", good)[:len(packed(t, "gz", good))-10], "truncated"},
		"escape":       {tarOf(t, file("../etc/passwd", "x")), "not allowed"},
		"twice":        {tarOf(t, file("a", "1"), file("./a", "2")), "twice"},
		"below a file": {tarOf(t, file("a", "1"), file("a/b", "2")), "no directory"},
		"dangling":     {tarOf(t, file("a", "1"), tar.Header{Name: "b", Typeflag: tar.TypeLink, Linkname: "none"}), "hard link"},
		"no manifest":  {tarOf(t, file("oci-layout", "{}"), file("index.json", "{}")), "docker save"},
	} {
		dir := t.TempDir()
		_, err := Import(context.Background(), write(t, "source", c.data), filepath.Join(dir, "out"), nil)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
		if left, _ := os.ReadDir(dir); len(left) > 0 {
			t.Errorf("%s left %v behind", name, left)
		}
	}
	if _, err := Import(context.Background(), filepath.Join(t.TempDir(), "none"), filepath.Join(t.TempDir(), "out"), nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing source: %v", err)
	}
}

func TestMissingTool(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	for _, source := range []string{t.TempDir(), write(t, "tar", tarOf(t, file("a", "b")))} {
		_, err := Import(context.Background(), source, filepath.Join(t.TempDir(), "out"), nil)
		if err == nil || !strings.Contains(err.Error(), "install the package squashfs-tools") {
			t.Errorf("%v", err)
		}
	}
}

// What the archive does not say is filled in the same way each time.
func TestSparseTar(t *testing.T) {
	image := imported(t, write(t, "tar", tarOf(t, file("a/b/c", "x"), tar.Header{Name: "a/", Typeflag: tar.TypeDir, Mode: 0o700})), Tar)
	dir := extract(t, image)
	for name, want := range map[string]os.FileMode{".": 0o755, "a": 0o700, "a/b": 0o755} {
		if st, err := os.Stat(filepath.Join(dir, name)); err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", name, st.Mode(), err)
		}
	}
}

func TestCancel(t *testing.T) {
	big := filepath.Join(t.TempDir(), "tree")
	if err := os.Mkdir(big, 0o755); err != nil {
		t.Fatal(err)
	}
	random, err := os.Open("/dev/urandom")
	if err != nil {
		t.Fatal(err)
	}
	defer random.Close()
	data := make([]byte, 8<<20)
	if _, err := random.Read(data); err != nil {
		t.Fatal(err)
	}
	for _, name := range strings.Split("abcdefgh", "") {
		if err := os.WriteFile(filepath.Join(big, name), append([]byte(name), data...), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, source := range []string{big, write(t, "tar", gnuTar(t, big))} {
		dir := t.TempDir()
		ctx, cancel := context.WithCancel(context.Background())
		_, err := Import(ctx, source, filepath.Join(dir, "out"), func(done, total int64) {
			if done > 0 {
				cancel()
			}
		})
		cancel()
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", source, err)
		}
		if left, _ := os.ReadDir(dir); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}
}
