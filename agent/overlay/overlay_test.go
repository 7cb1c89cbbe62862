package overlay_test

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"muster/agent/overlay"
	"muster/shared/wire"
)

// site is a node's root in a temporary directory.
type site struct {
	*testing.T
	dir  string
	k    *overlay.Keeper
	told overlay.Report
	n    int
}

func start(t *testing.T) *site {
	s := &site{T: t, dir: t.TempDir()}
	s.write("etc/passwd", "root:x:0:0::/:/bin/sh\nme:x:"+fmt.Sprint(os.Getuid())+":0::/:/bin/sh\n")
	s.write("etc/group", "root:x:0:\nus:x:"+fmt.Sprint(os.Getgid())+":\n")
	s.k = overlay.New(overlay.Config{Root: s.dir, Log: slog.New(slog.DiscardHandler), Told: func(r overlay.Report) { s.told = r }})
	return s
}

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

func (s *site) write(name, text string) {
	s.Helper()
	if err := os.MkdirAll(filepath.Dir(s.path(name)), 0o755); err != nil {
		s.Fatal(err)
	}
	if err := os.WriteFile(s.path(name), []byte(text), 0o644); err != nil {
		s.Fatal(err)
	}
}

func (s *site) holds(name, want string) {
	s.Helper()
	got, err := os.ReadFile(s.path(name))
	if err != nil || string(got) != want {
		s.Errorf("%s: %q, %v, want %q", name, got, err, want)
	}
}

func (s *site) inode(name string) uint64 {
	s.Helper()
	var st syscall.Stat_t
	if err := syscall.Lstat(s.path(name), &st); err != nil {
		s.Fatal(err)
	}
	return st.Ino
}

func file(path, text string) wire.OverlayFile {
	return wire.OverlayFile{Overlay: "o", Path: path, Owner: "me", Group: "us", Mode: 0o640, Content: []byte(text)}
}

// take gives the files to the node and the problems that it has with them.
func (s *site) take(failed []wire.OverlayFailure, files ...wire.OverlayFile) string {
	s.Helper()
	s.n++
	r, err := s.k.Take(wire.Overlay{Digest: fmt.Sprint(s.n), Files: files, Failed: failed})
	if err != nil {
		s.Fatal(err)
	}
	return strings.Join(r.Problems, "\n")
}

func TestLife(t *testing.T) {
	s := start(t)
	if s.k.Wants("") || !s.k.Wants("x") {
		t.Error("a node without files must want some, and not none")
	}
	if s.take(nil); s.told.Digest != "" {
		t.Error("without any files something is noted")
	}
	if _, err := os.Stat(s.path(overlay.Dir)); err == nil {
		t.Error("a node without files has a directory for them")
	}
	s.write("etc/motd", "of the image\n")
	if err := os.Symlink("../elsewhere", s.path("etc/link")); err != nil {
		t.Fatal(err)
	}
	all := []wire.OverlayFile{file("/etc/motd", "a\n"), file("/etc/link", "b\n"), file("/etc/new/file", "c\n")}
	if p := s.take(nil, all...); p != "" || s.told.Files != 3 || s.k.Wants(s.told.Digest) {
		t.Fatalf("problems %q, %+v", p, s.told)
	}
	s.holds("etc/motd", "a\n")
	s.holds("etc/link", "b\n")
	s.holds("etc/new/file", "c\n")
	if fi, _ := os.Stat(s.path("etc/motd")); fi.Mode() != 0o640 {
		t.Errorf("mode %v", fi.Mode())
	}
	// What is as it should be is not written again.
	before := s.inode("etc/motd")
	s.write("etc/new/file", "somebody's\n")
	all[1].Content = []byte("b2\n")
	if p := s.take(nil, all...); p != "" {
		t.Fatal(p)
	}
	if s.inode("etc/motd") != before {
		t.Error("an unchanged file was written")
	}
	s.holds("etc/link", "b2\n")
	s.holds("etc/new/file", "somebody's\n") // the head's did not change
	// One that cannot be rendered stays; those that nobody wants go, but what
	// was changed here, and what was before comes back.
	if p := s.take([]wire.OverlayFailure{{Overlay: "o", Path: "/etc/motd", Error: "line 3"}}); !strings.Contains(p, "line 3") {
		t.Errorf("problems %q", p)
	}
	s.holds("etc/motd", "a\n")
	s.holds("etc/new/file", "somebody's\n")
	if to, err := os.Readlink(s.path("etc/link")); to != "../elsewhere" {
		t.Errorf("the link is %q, %v", to, err)
	}
	s.take(nil)
	s.holds("etc/motd", "of the image\n")
	if fi, _ := os.Stat(s.path("etc/motd")); fi.Mode() != 0o644 {
		t.Errorf("what came back has mode %v", fi.Mode())
	}
	if left, _ := os.ReadDir(s.path(overlay.Dir)); len(left) != 1 {
		t.Errorf("%v is left", left)
	}
}

func TestPlaces(t *testing.T) {
	s := start(t)
	for _, dir := range []string{"usr/real", "var", "a/dir"} {
		if err := os.MkdirAll(s.path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	outside := t.TempDir()
	for name, to := range map[string]string{"abs": "/usr/real", "up": "../../../../../../usr/real", "out": outside, "loop": "loop", "kernel": "proc"} {
		if err := os.Symlink(to, s.path(name)); err != nil {
			t.Fatal(err)
		}
	}
	theirs := file("/x", "x")
	theirs.Owner = "nobody-here"
	p := s.take(nil, file("/abs/a", "1"), file("/up/b", "2"), file("/etc/../../../etc/c", "3"),
		file("/loop/x", "x"), file("/out/x", "x"), file("/kernel/x", "x"), file("/proc/x", "x"), file("/etc/machine-id", "x"), file("/var/lib/muster/overlay/files.json", "x"),
		file("/a/dir", "x"), file("/", "x"), theirs)
	s.holds("usr/real/a", "1")
	s.holds("usr/real/b", "2")
	s.holds("etc/c", "3")
	s.holds(filepath.Join(outside, "x"), "x") // in the root, as the node itself would find it
	for _, word := range []string{"/loop/x", "/kernel/x", "/proc/x", "machine-id", "files.json", "/a/dir is a directory", "nobody-here"} {
		if !strings.Contains(p, word) {
			t.Errorf("no problem with %s in\n%s", word, p)
		}
	}
	if left, _ := os.ReadDir(outside); len(left) > 0 {
		t.Errorf("%v was written outside of the root", left)
	}
	if os.Getuid() != 0 {
		t.Skip("links of others need root to be made")
	}
	if err := os.Symlink("/usr/real", s.path("theirs")); err != nil {
		t.Fatal(err)
	}
	if err := os.Lchown(s.path("theirs"), 4711, 4711); err != nil {
		t.Fatal(err)
	}
	if p := s.take(nil, file("/theirs/x", "x")); !strings.Contains(p, "user 4711") {
		t.Errorf("a user's link was followed: %q", p)
	}
}

// A machine that is switched off after the note and before the file finds the
// old file, and makes the new one later.
func TestSwitchedOff(t *testing.T) {
	s := start(t)
	s.write("etc/motd", "of the image\n")
	s.take(nil, file("/etc/motd", "a\n"))
	notes := s.path(overlay.Dir + "/files.json")
	raw, err := os.ReadFile(notes)
	if err != nil {
		t.Fatal(err)
	}
	s.write("etc/motd", "of the image\n")
	if err := os.WriteFile(notes, []byte(strings.Replace(string(raw), `"mode"`, `"pending":true,"mode"`, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	s.take(nil, file("/etc/motd", "a\n"))
	s.holds("etc/motd", "a\n")
	if err := os.WriteFile(notes, []byte("{\x00"), 0o600); err != nil {
		t.Fatal(err)
	}
	if p := s.take(nil, file("/etc/motd", "b\n")); p != "" {
		t.Error(p)
	}
	s.holds("etc/motd", "b\n")
}
