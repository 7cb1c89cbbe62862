package squashfs

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// tree makes a small root file system with every kind of content that the
// reader treats in its own way.
func tree(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	write := func(name string, data []byte) {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("usr/lib/os-release", []byte("ID=debian\nVERSION_ID=12\n"))
	write("big", noise(300_000))
	write("empty", nil)
	write("hole", append(make([]byte, 200_000), "end"...))
	for i := range 700 { // more than one directory header and metadata block
		write(fmt.Sprintf("many/file-%04d-with-a-rather-long-name", i), []byte(fmt.Sprint(i)))
	}
	for link, target := range map[string]string{
		"etc": "usr/lib", "loop": "loop", "usr/lib/up": "../../usr/./lib/os-release", "abs": "/usr/lib/os-release", "out": "../../../big",
	} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// noise does not compress, and is the same each time.
func noise(n int) []byte {
	var b []byte
	for i := 0; len(b) < n; i++ {
		s := sha256.Sum256([]byte{byte(i), byte(i >> 8)})
		b = append(b, s[:]...)
	}
	return b[:n]
}

func mksquashfs(t testing.TB, dir string, args ...string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "image")
	args = append([]string{dir, out, "-quiet", "-no-progress", "-mkfs-time", "0"}, args...)
	if msg, err := exec.Command("mksquashfs", args...).CombinedOutput(); err != nil {
		t.Fatalf("mksquashfs: %v\n%s", err, msg)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func check(b []byte) (Superblock, error) { return Check(bytes.NewReader(b), int64(len(b))) }

func TestSoundImages(t *testing.T) {
	dir := tree(t)
	for _, args := range []string{
		"-comp zstd", "-comp gzip", "-comp xz", "-comp lz4", "-comp zstd -no-fragments -no-exports", "-comp gzip -b 4096",
		"-comp zstd -noI -noD -noF", "-comp xz -b 1M", "-comp zstd -no-xattrs -always-use-fragments",
	} {
		t.Run(args, func(t *testing.T) {
			b := mksquashfs(t, dir, strings.Fields(args)...)
			sb, err := check(b)
			if err != nil || !sb.Verified {
				t.Fatalf("verified %v, %v", sb.Verified, err)
			}
			readTree(t, b)
		})
	}
}

func readTree(t *testing.T, b []byte) {
	r, err := Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"usr/lib/os-release": "ID=debian\nVERSION_ID=12\n", "big": string(noise(300_000)), "empty": "",
		"hole": string(make([]byte, 200_000)) + "end", "many/file-0699-with-a-rather-long-name": "699",
		"etc": "-> usr/lib", "out": "-> ../../../big",
	}
	got := map[string]string{}
	add := func(name string, part []byte) error {
		got[name] += string(part)
		return nil
	}
	if err := contents(r, add); err != nil {
		t.Fatal(err)
	}
	for name, text := range want {
		if got[name] != text {
			t.Errorf("%s: %d bytes, want %d", name, len(got[name]), len(text))
		}
	}
	if root, err := r.Root(); err != nil || !root.Mode.IsDir() || root.Path != "." {
		t.Errorf("root %+v, %v", root, err)
	}
	count := 0
	if err := r.Walk(func(Entry) error { count++; return nil }); err != nil || count != 713 {
		t.Errorf("walk: %d files, %v", count, err)
	}
}

// contents reads all of an image as chunks are made of it: each regular file
// block by block, and where symbolic links point to.
func contents(r *Reader, fn func(name string, part []byte) error) error {
	data, err := r.Data()
	if err != nil {
		return err
	}
	return r.Nodes(func(n *Node) error {
		if n.Kind == Symlink {
			return fn(n.Path, []byte("-> "+n.Target))
		}
		for _, b := range n.Blocks {
			part := make([]byte, b.Size)
			if b.Stored > 0 {
				if part, err = data.Content(b); err != nil {
					return err
				}
			}
			if err := fn(n.Path, part); err != nil {
				return err
			}
		}
		return nil
	})
}

// lzo has no decompressor here: only the structure can be judged.
func TestStructureOnly(t *testing.T) {
	b := mksquashfs(t, tree(t), "-comp", "lzo")
	if sb, err := check(b); err != nil || sb.Verified {
		t.Fatalf("verified %v, %v", sb.Verified, err)
	}
	if _, err := check(b[:len(b)/2]); !errors.Is(err, ErrTruncated) {
		t.Fatalf("truncated: %v", err)
	}
}

func TestRefused(t *testing.T) {
	good := mksquashfs(t, tree(t), "-comp", "zstd")
	change := func(off int, b ...byte) []byte {
		bad := bytes.Clone(good)
		copy(bad[off:], b)
		return bad
	}
	sb, err := check(good)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"empty", nil, "not a squashfs"},
		{"text", []byte("#!/bin/sh\n"), "not a squashfs"},
		{"only a beginning", good[:50], "truncated"},
		{"cut", good[:200_000], fmt.Sprintf("truncated: superblock says %s bytes, file has 200,000", grouped(sb.BytesUsed))},
		{"version", change(28, 3), "version 3.0"},
		{"compressor", change(20, 9), "unknown compressor 9"},
		{"lzma", change(20, 2), "lzma"},
		{"another compressor", change(20, 1), "metadata block"},
		{"block log", change(22, 12), "block log"},
		{"more inodes", change(4, 0xff, 0xff), "inodes"},
		{"no owners", change(26, 0, 0), "owners"},
		{"root inode", change(32, 0xff, 0xff, 0xff, 0xff), "root inode"},
		{"tables swapped", change(64, good[72:80]...), "directory table"},
		{"inode table zeroed", change(int(sb.InodeTable), make([]byte, 100)...), "inode table"},
		{"inode table garbled", change(int(sb.InodeTable)+20, noise(64)...), "inode"},
		{"directory table garbled", change(int(sb.DirTable)+20, noise(64)...), "metadata block"},
	} {
		_, err := check(c.data)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}

// use does all that the head does with an uploaded image.
func use(b []byte) {
	_, _ = check(b)
	r, err := Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return
	}
	n := 0
	_ = r.Walk(func(e Entry) error {
		if n++; n > 2000 {
			return fs.SkipAll
		}
		return nil
	})
	n = 0
	_ = contents(r, func(string, []byte) error {
		if n++; n > 2000 {
			return fs.SkipAll
		}
		return nil
	})
}

// small is an image whose metadata is not compressed, so that a changed byte
// reaches the parser.
func small(t testing.TB, args ...string) []byte {
	dir := t.TempDir()
	for _, err := range []error{
		os.MkdirAll(filepath.Join(dir, "usr/lib"), 0o755),
		os.WriteFile(filepath.Join(dir, "usr/lib/os-release"), []byte("ID=x\n"), 0o644),
		os.WriteFile(filepath.Join(dir, "big"), noise(10_000), 0o644),
		os.Symlink("usr/lib", filepath.Join(dir, "etc")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	_ = exec.Command("setfattr", "-n", "user.a", "-v", "b", filepath.Join(dir, "big")).Run() // where it exists
	return mksquashfs(t, dir, append([]string{"-comp", "zstd", "-b", "4096", "-nopad"}, args...)...)
}

// Any one byte of the metadata changed to any of a few values must neither
// panic nor hang.
func TestEveryByteChanged(t *testing.T) {
	b := small(t, "-noI", "-noX")
	sb, err := check(b)
	if err != nil {
		t.Fatal(err)
	}
	for i := range b {
		if i >= superblockSize && i < int(sb.InodeTable) {
			continue
		}
		was := b[i]
		for _, v := range []byte{0, 1, 0x7f, 0x80, 0xff, was + 1, was - 1} {
			b[i] = v
			use(b)
		}
		b[i] = was
	}
	for n := range b {
		use(b[:n])
	}
}

func FuzzCheck(f *testing.F) {
	if _, err := exec.LookPath("mksquashfs"); err == nil {
		f.Add(small(f, "-noI", "-noX", "-noD"))
		f.Add(small(f, "-noI", "-no-fragments", "-no-exports"))
		f.Add(small(f))
	}
	f.Add([]byte("hsqs"))
	f.Fuzz(func(t *testing.T, b []byte) { use(b) })
}
