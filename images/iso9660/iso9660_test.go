package iso9660_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"muster/images/iso9660"
)

// tree is what the images of the tests hold: names that none of the standards
// alone can write, deep paths, links, files of no and of some size.
func tree(t testing.TB) string {
	dir := t.TempDir()
	write := func(name string, size int) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, bytes.Repeat([]byte(name+"\n"), size/(len(name)+1)+min(size, 1)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("README", 10)
	write("empty", 0)
	write("pool/main/m/muster/muster_1.0~rc1+deb12_all.deb", 100_000)
	write("Packages/"+strings.Repeat("long", 40)+".rpm", 3000)
	write("1/2/3/4/5/6/7/8/9/10/11/deep", 20)
	for n := range 480 { // more than one read of a directory
		write(fmt.Sprintf("many/a file with the number %03d", n), 5)
	}
	return dir
}

// pack makes an image with the program and its arguments; the image's name and
// the directory follow them.
func pack(t testing.TB, dir string, command ...string) []byte {
	t.Helper()
	if _, err := exec.LookPath(command[0]); err != nil {
		t.Fatal(command[0] + " is not installed: scripts/deps test")
	}
	out := filepath.Join(t.TempDir(), "x.iso")
	cmd := exec.Command(command[0], append(command[1:], "-o", out, dir)...)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s", command, err, text)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func open(t testing.TB, b []byte) *iso9660.Image {
	t.Helper()
	img, err := iso9660.Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func read(t testing.TB, img *iso9660.Image, name string) []byte {
	t.Helper()
	e, err := img.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	r, err := img.Content(e)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil || int64(len(b)) != e.Size {
		t.Fatalf("%s: %d bytes of %d: %v", name, len(b), e.Size, err)
	}
	return b
}

// Every file is found under its name, and every directory lists what it has,
// whoever made the image.
func TestWholeTree(t *testing.T) {
	for name, command := range map[string][]string{
		"xorriso":        {"xorriso", "-as", "mkisofs", "-quiet", "-R", "-J", "-joliet-long"},
		"genisoimage":    {"genisoimage", "-quiet", "-R", "-J", "-joliet-long", "-allow-limited-size"},
		"deep moved":     {"genisoimage", "-quiet", "-R"},
		"rock ridge":     {"xorriso", "-as", "mkisofs", "-quiet", "-R"},
		"joliet":         {"xorriso", "-as", "mkisofs", "-quiet", "-J", "-joliet-long"},
		"padded at once": {"genisoimage", "-quiet", "-r", "-D", "-J"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := tree(t)
			if name == "joliet" { // 103 characters at most
				os.RemoveAll(filepath.Join(dir, "Packages"))
			}
			img := open(t, pack(t, dir, command...))
			files := 0
			err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
				rel, _ := filepath.Rel(dir, path)
				if err != nil || rel == "." {
					return err
				}
				e, err := img.Lookup(rel)
				if err != nil || e.Dir != d.IsDir() {
					t.Errorf("%s: directory %v, %v", rel, e.Dir, err)
					return nil
				}
				if d.IsDir() {
					want, _ := os.ReadDir(path)
					got, err := img.List(e)
					if len(got) != len(want) || err != nil {
						t.Errorf("%s lists %d entries of %d: %v", rel, len(got), len(want), err)
					}
					for i := range min(len(got), len(want)) {
						if got[i].Name != want[i].Name() {
							t.Errorf("%s: entry %d is %q, not %q", rel, i, got[i].Name, want[i].Name())
						}
					}
					return nil
				}
				files++
				want, _ := os.ReadFile(path)
				if !bytes.Equal(read(t, img, rel), want) {
					t.Errorf("%s has other bytes", rel)
				}
				if info, _ := d.Info(); e.Time.Unix() != info.ModTime().Unix() {
					t.Errorf("%s: time %v, want %v", rel, e.Time, info.ModTime())
				}
				return nil
			})
			if err != nil || files < 480 {
				t.Fatal(files, err)
			}
		})
	}
}

func TestPlainNames(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "Readme.txt"), []byte("hello"), 0o644); err != nil {
		t.Fatal(err)
	}
	img := open(t, pack(t, dir, "genisoimage", "-quiet"))
	if got := read(t, img, "readme.txt"); string(got) != "hello" {
		t.Errorf("got %q", got)
	}
}

func TestLinks(t *testing.T) {
	dir := tree(t)
	for name, target := range map[string]string{
		"debian": ".", "stable": "pool/main", "m": "./pool/../stable/m", "loop": "loop", "a": "b", "b": "a",
		"out": "../../etc/passwd", "absolute": "/etc/passwd", "nowhere": "gone", "long": strings.Repeat("pool/../", 60) + "README",
	} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	img := open(t, pack(t, dir, "xorriso", "-as", "mkisofs", "-quiet", "-R"))
	for _, name := range []string{"debian/README", "debian/debian/stable/../../README", "m/muster/muster_1.0~rc1+deb12_all.deb", "README"} {
		if len(read(t, img, name)) == 0 {
			t.Errorf("%s is empty", name)
		}
	}
	for _, name := range []string{"loop", "a", "out", "absolute", "nowhere", "../README", "..", "README/x", "pool/..//../README", "gone", "README/.."} {
		if e, err := img.Lookup(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %+v, %v", name, e, err)
		}
	}
}

func TestDamaged(t *testing.T) {
	whole := pack(t, tree(t), "xorriso", "-as", "mkisofs", "-quiet", "-R", "-J")
	for name, b := range map[string][]byte{
		"nothing": {}, "text": []byte(strings.Repeat("no image", 10_000)), "only the descriptors": whole[:40<<10],
		"half": whole[:len(whole)/2],
	} {
		if _, err := iso9660.Open(bytes.NewReader(b), int64(len(b))); !errors.Is(err, iso9660.ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
