package root

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"muster/shared/wire"
)

// The tests mount, so they run in a mount namespace of their own.
func TestMain(m *testing.M) {
	if os.Getenv("MUSTER_PRIVATE") != "" || os.Getuid() != 0 {
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), "MUSTER_PRIVATE=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	cmd.Run()
	os.Exit(cmd.ProcessState.ExitCode())
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounts as root")
	}
}

func try(t testing.TB, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// tree makes a source tree with one of everything.
func tree(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	p := func(name string) string { return filepath.Join(dir, name) }
	try(t,
		os.MkdirAll(p("etc"), 0o755), os.MkdirAll(p("a/deep/er"), 0o750), os.Mkdir(p("sticky"), 0o1777),
		os.Chmod(p("sticky"), 0o777|os.ModeSticky),
		os.WriteFile(p("empty"), nil, 0o600),
		os.WriteFile(p("small"), []byte("content"), 0o644),
		os.WriteFile(p("big"), bytes.Repeat([]byte("0123456789abcdef"), 200_000), 0o640),
		os.WriteFile(p("a/setuid"), []byte("#!/bin/sh\n"), 0o755),
		os.Chown(p("a/setuid"), 12, 34), os.Chmod(p("a/setuid"), 0o755|os.ModeSetuid|os.ModeSetgid),
		os.Link(p("small"), p("a/hardlink")),
		os.Symlink("/etc/absolute", p("absolute")), os.Symlink("small", p("relative")), os.Symlink("nowhere", p("dangling")),
		unix.Mknod(p("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))),
		unix.Mknod(p("block"), unix.S_IFBLK|0o660, int(unix.Mkdev(7, 99))),
		unix.Mkfifo(p("fifo"), 0o622),
		os.WriteFile(p("bin"), []byte("x"), 0o755),
		unix.Setxattr(p("bin"), "security.capability", []byte("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0),
		unix.Setxattr(p("a"), "trusted.note", []byte("of a directory"), 0),
		os.Lchown(p("relative"), 56, 78),
	)
	holes, err := os.Create(p("holes"))
	try(t, err)
	_, err = holes.WriteAt([]byte("end"), 3<<20)
	try(t, err, holes.Truncate(5<<20), holes.Close())
	when := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
	for _, name := range []string{"small", "a/deep", "null", "a"} {
		try(t, os.Chtimes(p(name), when, when))
	}
	for i := range 500 {
		try(t, os.WriteFile(p(fmt.Sprintf("a/deep/er/%d", i)), bytes.Repeat([]byte{byte(i)}, i*37), 0o644))
	}
	return dir
}

// squash packs a tree and gives a layout with the image in its place.
func squash(t testing.TB, dir string, args ...string) (Layout, *os.File) {
	t.Helper()
	work := t.TempDir()
	packed := filepath.Join(work, "packed")
	out, err := exec.Command("mksquashfs", append([]string{dir, packed, "-quiet", "-no-progress", "-comp", "zstd"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("mksquashfs: %v\n%s", err, out)
	}
	l := Layout{Store: work + "/store", Squash: work + "/squash", Overlay: work + "/overlay", New: work + "/new"}
	t.Cleanup(func() {
		l.Drop()
		unix.Unmount(l.Store, unix.MNT_DETACH)
	})
	image, err := l.ImageFile()
	try(t, err)
	t.Cleanup(func() { image.Close() })
	content, err := os.ReadFile(packed)
	try(t, err)
	_, err = image.Write(content)
	try(t, err)
	return l, image
}

// same compares two trees in all that Copy promises.
func same(t *testing.T, want, got string) {
	t.Helper()
	n := 0
	inodes := map[uint64]uint64{}
	filepath.WalkDir(want, func(path string, _ fs.DirEntry, err error) error {
		try(t, err)
		n++
		rel := path[len(want):]
		var a, b unix.Stat_t
		try(t, unix.Lstat(path, &a))
		if err := unix.Lstat(got+rel, &b); err != nil {
			t.Errorf("%s: %v", rel, err)
			return nil
		}
		if a.Mode != b.Mode || a.Uid != b.Uid || a.Gid != b.Gid || a.Rdev != b.Rdev || a.Mtim.Sec != b.Mtim.Sec {
			t.Errorf("%s: mode %o, owner %d:%d, device %x, mtime %d; want %o, %d:%d, %x, %d", rel, b.Mode, b.Uid, b.Gid, b.Rdev, b.Mtim.Sec, a.Mode, a.Uid, a.Gid, a.Rdev, a.Mtim.Sec)
		}
		if a.Mode&unix.S_IFMT != unix.S_IFDIR && (a.Nlink != b.Nlink || a.Size != b.Size) {
			t.Errorf("%s: %d links, %d bytes; want %d, %d", rel, b.Nlink, b.Size, a.Nlink, a.Size)
		}
		if first, ok := inodes[a.Ino]; ok && first != b.Ino {
			t.Errorf("%s is no hard link any more", rel)
		}
		inodes[a.Ino] = b.Ino
		switch a.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			x, _ := os.ReadFile(path)
			y, err := os.ReadFile(got + rel)
			if !bytes.Equal(x, y) || err != nil {
				t.Errorf("%s: the content differs (%v)", rel, err)
			}
		case unix.S_IFLNK:
			x, _ := os.Readlink(path)
			if y, _ := os.Readlink(got + rel); x != y {
				t.Errorf("%s leads to %q, want %q", rel, y, x)
			}
		}
		if x, y := attributes(path), attributes(got+rel); x != y {
			t.Errorf("%s: attributes %q, want %q", rel, y, x)
		}
		return nil
	})
	m := 0
	filepath.WalkDir(got, func(string, fs.DirEntry, error) error { m++; return nil })
	if n != m {
		t.Errorf("%d entries, want %d", m, n)
	}
}

func attributes(path string) string {
	names := make([]byte, 4096)
	n, err := unix.Llistxattr(path, names)
	if err != nil {
		return ""
	}
	out := ""
	for _, name := range splitZero(names[:n]) {
		value := make([]byte, 4096)
		k, _ := unix.Lgetxattr(path, name, value)
		out += fmt.Sprintf("%s=%q ", name, value[:max(k, 0)])
	}
	return out
}

func TestRWRAM(t *testing.T) {
	needRoot(t)
	src := tree(t)
	l, image := squash(t, src)
	try(t, l.Build(StyleRWRAM, image))
	same(t, src, l.New)
	var st unix.Stat_t
	try(t, unix.Stat(l.New+"/holes", &st))
	if st.Blocks*512 > 64<<10 {
		t.Errorf("a file of holes takes %d bytes", st.Blocks*512)
	}
	if mounted(l.Squash) {
		t.Error("the image is still mounted")
	}
	if fi, _ := image.Stat(); fi.Size() != 0 {
		t.Errorf("the image still takes %d bytes", fi.Size())
	}
	try(t, os.WriteFile(l.New+"/etc/new", []byte("x"), 0o644))
}

func TestRWRAMWithoutXattrs(t *testing.T) {
	needRoot(t)
	src := tree(t)
	l, image := squash(t, src, "-no-xattrs")
	if hasXattrs(image) {
		t.Error("says that there are attributes")
	}
	try(t, l.Build(StyleRWRAM, image))
	if got := attributes(l.New + "/bin"); got != "" {
		t.Errorf("attributes %q", got)
	}
}

func TestRORAM(t *testing.T) {
	needRoot(t)
	src := tree(t)
	l, image := squash(t, src)
	try(t, l.Build(StyleRORAM, image))
	same(t, src, l.New)
	try(t, os.WriteFile(l.New+"/small", []byte("changed"), 0o644), os.Remove(l.New+"/big"))
	if got, err := os.ReadFile(l.Squash + "/small"); string(got) != "content" {
		t.Errorf("the image itself has %q, %v", got, err)
	}
	if _, err := os.Stat(l.Squash + "/big"); err != nil {
		t.Error(err)
	}
}

func TestBuildFailsCleanly(t *testing.T) {
	needRoot(t)
	src := t.TempDir()
	try(t, os.WriteFile(src+"/noise", noise(300<<10), 0o644))
	for name, tc := range map[string]struct {
		style  string
		damage func(image *os.File)
		want   string
	}{
		"style":        {"floppy", func(*os.File) {}, `"floppy"`},
		"no squashfs":  {StyleRORAM, func(f *os.File) { f.WriteAt([]byte("PK"), 0) }, "not a squashfs"},
		"truncated":    {StyleRORAM, func(f *os.File) { f.Truncate(100 << 10) }, "truncated"},
		"compression":  {StyleRORAM, func(f *os.File) { f.WriteAt([]byte{99}, 20) }, "unknown compression"},
		"rotten table": {StyleRORAM, func(f *os.File) { f.WriteAt(bytes.Repeat([]byte{0xff}, 8), 64) }, "mounting the image"},
		"rotten data":  {StyleRWRAM, func(f *os.File) { f.WriteAt(bytes.Repeat([]byte{0xff}, 1000), superblock) }, "noise"},
	} {
		t.Run(name, func(t *testing.T) {
			l, image := squash(t, src)
			tc.damage(image)
			err := l.Build(tc.style, image)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want something about %q", err, tc.want)
			}
			if mounted(l.New) || mounted(l.Squash) || mounted(l.Overlay) {
				t.Error("something stayed mounted")
			}
		})
	}
}

func noise(n int) []byte {
	b := make([]byte, n)
	f, _ := os.Open("/dev/urandom")
	defer f.Close()
	f.Read(b)
	for i := range b { // compressible, so that damage shows
		b[i] = "0123456789abcdef"[b[i]%16]
	}
	return b
}

func TestNoRoom(t *testing.T) {
	needRoot(t)
	src := t.TempDir()
	try(t, os.WriteFile(src+"/noise", noise(3<<20), 0o644))
	l, image := squash(t, src)
	try(t, os.MkdirAll(l.New, 0o755), unix.Mount("tmpfs", l.New, "tmpfs", 0, "size=1m"))
	if err := l.Build(StyleRWRAM, image); err == nil || !strings.Contains(err.Error(), "do not fit") {
		t.Errorf("got %v", err)
	}
}

func TestFindInit(t *testing.T) {
	self, err := os.ReadFile("/proc/self/exe")
	try(t, err)
	root := t.TempDir()
	p := func(name string) string { return filepath.Join(root, name) }
	want := func(what string, init Init, text string) {
		t.Helper()
		got, err := FindInit(root)
		if text == "" && (err != nil || got != init) || text != "" && (err == nil || !strings.Contains(err.Error(), text)) {
			t.Errorf("%s: %+v, %v; want %+v %s", what, got, err, init, text)
		}
	}
	want("empty", Init{}, "no init")
	try(t, os.MkdirAll(p("usr/lib/systemd"), 0o755), os.MkdirAll(p("usr/sbin"), 0o755), os.Symlink("usr/sbin", p("sbin")))
	other := bytes.Clone(self)
	binary.LittleEndian.PutUint16(other[18:], 8) // MIPS
	try(t, os.WriteFile(p("usr/lib/systemd/systemd"), other, 0o755), os.Symlink("/usr/lib/systemd/systemd", p("usr/sbin/init")))
	want("wrong machine", Init{}, "EM_MIPS")
	try(t, os.WriteFile(p("usr/lib/systemd/systemd"), self, 0), os.Chmod(p("usr/lib/systemd/systemd"), 0o644))
	want("mode", Init{}, "not executable")
	try(t, os.Chmod(p("usr/lib/systemd/systemd"), 0o755))
	if interp := "/lib64/ld-linux-x86-64.so.2"; bytes.Contains(self[:4096], []byte(interp)) {
		want("interpreter", Init{}, interp)
		try(t, os.MkdirAll(p("lib64"), 0o755), os.WriteFile(p(interp), nil, 0o755))
	}
	want("systemd", Init{"/sbin/init", true}, "")
	try(t, os.Remove(p("usr/sbin/init")), os.WriteFile(p("usr/sbin/init"), []byte("#!/bin/sh\n"), 0o755))
	want("script", Init{"/sbin/init", false}, "")
	// A link out of the image is followed inside it.
	try(t, os.Remove(p("usr/sbin/init")), os.Symlink("../../../../../bin/true", p("usr/sbin/init")), os.RemoveAll(p("usr/lib")))
	want("escape", Init{}, "no init")
}

func TestPrepare(t *testing.T) {
	root, run := t.TempDir(), t.TempDir()
	outside := filepath.Join(t.TempDir(), "victim")
	try(t, os.WriteFile(outside, []byte("untouched"), 0o644), os.MkdirAll(root+"/etc", 0o755),
		os.Symlink(outside, root+"/etc/hostname"),
		os.WriteFile(root+"/etc/hosts", []byte("127.0.0.1 localhost"), 0o644))
	b := wire.Boot{Name: "n0", Domain: "cluster.local", Hosts: []string{"10.1.0.1 head.cluster.local head", "10.0.0.9 evil\n1.2.3.4 x"}}
	n := Network{Interface: "eth0", MAC: "52:54:00:00:00:01", Address: net.IPNet{IP: net.IPv4(10, 1, 0, 7), Mask: net.CIDRMask(24, 32)}, DNS: []net.IP{net.IPv4(10, 1, 0, 1)}}
	try(t, Prepare(root, run, b, n))
	for file, want := range map[string]string{
		root + "/etc/hostname":    "n0\n",
		root + "/etc/hosts":       "127.0.0.1 localhost\n" + hostsMark + "\n10.1.0.7 n0.cluster.local n0\n10.1.0.1 head.cluster.local head\n",
		root + "/etc/resolv.conf": "search cluster.local\nnameserver 10.1.0.1\n",
		outside:                   "untouched",
	} {
		if got, err := os.ReadFile(file); string(got) != want {
			t.Errorf("%s: %q, %v; want %q", file, got, err, want)
		}
	}
	if got, _ := os.ReadFile(run + "/systemd/network/00-muster.network"); !strings.Contains(string(got), "PermanentMACAddress=52:54:00:00:00:01\n") {
		t.Errorf("networkd is told %q", got)
	}
	// An image that leaves the resolver to systemd keeps its link.
	root = t.TempDir()
	try(t, os.MkdirAll(root+"/etc", 0o755), os.Symlink("/run/systemd/resolve/stub-resolv.conf", root+"/etc/resolv.conf"))
	try(t, Prepare(root, run, b, n))
	if got, err := os.Readlink(root + "/etc/resolv.conf"); err != nil {
		t.Errorf("resolv.conf: %q, %v", got, err)
	}
	if got, _ := os.ReadFile(run + "/systemd/resolved.conf.d/muster.conf"); string(got) != "[Resolve]\nDNS=10.1.0.1\nDomains=cluster.local\n" {
		t.Errorf("resolved is told %q", got)
	}
}

func TestInstallAndUnit(t *testing.T) {
	root, run := t.TempDir(), t.TempDir()
	args := []string{"run", "--head", "https://10.1.0.1:8443/%x", "--state", State}
	a, err := Install(root, run, "/proc/self/exe", args)
	try(t, err)
	if fi, err := os.Stat(run + "/muster/muster-agent"); err != nil || a.Program != "/run/muster/muster-agent" || fi.Mode()&0o111 == 0 {
		t.Errorf("%+v, %v", a, err)
	}
	try(t, a.Unit(run), a.Unit(run)) // again, after a failed attempt
	if out, err := exec.Command("systemd-analyze", "verify", run+"/systemd/system/muster-agent.service").CombinedOutput(); err == nil || strings.Contains(string(out), "muster-agent.service:") {
		t.Logf("systemd-analyze: %v\n%s", err, out)
	}
	got, err := os.ReadFile(run + "/systemd/system/sysinit.target.wants/muster-agent.service")
	if err != nil || !strings.Contains(string(got), `ExecStart=/run/muster/muster-agent "run" "--head" "https://10.1.0.1:8443/%%x"`) {
		t.Errorf("%q, %v", got, err)
	}
	try(t, os.MkdirAll(root+"/usr/bin", 0o755), os.WriteFile(root+"/usr/bin/muster-agent", []byte("#!/bin/sh\n"), 0o755))
	if a, err = Install(root, run, "/proc/self/exe", args); err != nil || a.Program != "/usr/bin/muster-agent" {
		t.Errorf("with an agent in the image: %+v, %v", a, err)
	}
}
