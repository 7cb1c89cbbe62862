package tree

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"muster/images/chunk"
	"muster/images/squashfs"
)

// store is a Sink that remembers.
type store struct {
	mu     sync.Mutex
	chunks map[chunk.Digest][]byte
	whole  int // put with the block that they come from
}

func (s *store) Put(ref chunk.Ref, content []byte, from *squashfs.Block) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.chunks[ref.Digest] = bytes.Clone(content); from != nil {
		s.whole++
	}
	return ref.Check(content)
}

func (s *store) fetch(_ context.Context, want []chunk.Ref, take func(int, []byte) error) error {
	for i, ref := range want {
		if err := take(i, s.chunks[ref.Digest]); err != nil {
			return err
		}
	}
	return nil
}

func try(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// noise is the same each time and compresses a little.
func noise(n int, seed byte) []byte {
	var b []byte
	for i := 0; len(b) < n; i++ {
		b = fmt.Appendf(b, "%x", sha256.Sum256([]byte{seed, byte(i), byte(i >> 8), byte(i >> 16)}))
	}
	return b[:n]
}

// sample is a directory with all that a tree can have.
func sample(t testing.TB) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, for owners and devices")
	}
	dir := t.TempDir()
	p := func(name string) string { return filepath.Join(dir, name) }
	try(t, os.MkdirAll(p("usr/lib/deep/er"), 0o755), os.Mkdir(p("tmp"), 0o755), os.Chmod(p("tmp"), 0o777|fs.ModeSticky),
		os.WriteFile(p("usr/lib/large"), noise(900_000, 1), 0o644), os.WriteFile(p("usr/lib/small"), []byte("small\n"), 0o640),
		os.WriteFile(p("usr/lib/middle"), noise(100_000, 2), 0o644), os.WriteFile(p("empty"), nil, 0o600),
		os.WriteFile(p("copy"), noise(900_000, 1), 0o644), os.WriteFile(p("su"), []byte("#!/bin/sh\n"), 0o755),
		os.Chmod(p("su"), 0o755|fs.ModeSetuid), os.Lchown(p("usr/lib/small"), 12, 70_000),
		os.Link(p("usr/lib/large"), p("another")), os.Link(p("another"), p("usr/lib/deep/er/third")),
		os.Symlink("../usr/./lib", p("usr/link")), os.Symlink("/nowhere", p("dangling")), os.Lchown(p("dangling"), 5, 6),
		unix.Mknod(p("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))), unix.Mknod(p("disk"), unix.S_IFBLK|0o660, int(unix.Mkdev(259, 70_000))),
		unix.Mknod(p("pipe"), unix.S_IFIFO|0o644, 0),
		unix.Setxattr(p("su"), "security.capability", []byte("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0),
		unix.Setxattr(p("usr"), "trusted.of", bytes.Repeat([]byte("v"), 1000), 0))
	hole, err := os.Create(p("hole"))
	try(t, err)
	_, err = hole.WriteAt([]byte("end"), 6<<20)
	_, err2 := hole.WriteAt(noise(300_000, 3), 1<<20)
	try(t, err, err2, hole.Close())
	for i := range 300 {
		try(t, os.WriteFile(p(fmt.Sprintf("usr/lib/deep/file-%03d", i)), []byte(fmt.Sprint(i)), 0o644))
	}
	return dir
}

func squash(t testing.TB, dir string, args ...string) (*squashfs.Reader, int64) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "image")
	args = append([]string{dir, out, "-quiet", "-no-progress", "-mkfs-time", "0"}, args...)
	if msg, err := exec.Command("mksquashfs", args...).CombinedOutput(); err != nil {
		t.Fatalf("mksquashfs: %v\n%s", err, msg)
	}
	f, err := os.Open(out)
	try(t, err)
	t.Cleanup(func() { f.Close() })
	st, err := f.Stat()
	try(t, err)
	_, err = squashfs.Check(f, st.Size())
	try(t, err)
	r, err := squashfs.Open(f, st.Size())
	try(t, err)
	return r, st.Size()
}

// list tells all of a directory, for comparisons.
func list(t testing.TB, dir string) string {
	t.Helper()
	var b strings.Builder
	inodes := map[uint64]int{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		try(t, err)
		var st unix.Stat_t
		try(t, unix.Lstat(path, &st))
		if _, ok := inodes[st.Ino]; !ok {
			inodes[st.Ino] = len(inodes)
		}
		fmt.Fprintf(&b, "%s %o %d:%d %d rdev %d inode %d", path[len(dir):], st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Rdev, inodes[st.Ino])
		if st.Mode&unix.S_IFMT == unix.S_IFREG {
			content, err := os.ReadFile(path)
			try(t, err)
			fmt.Fprintf(&b, " %x", sha256.Sum256(content))
			if st.Size > 5<<20 && st.Blocks*512 > st.Size/2 {
				t.Errorf("%s is not sparse", path)
			}
		}
		if target, err := os.Readlink(path); err == nil {
			fmt.Fprintf(&b, " -> %s", target)
		}
		value := make([]byte, 2000)
		for _, name := range []string{"security.capability", "trusted.of"} {
			if n, err := unix.Lgetxattr(path, name, value); err == nil {
				fmt.Fprintf(&b, " %s=%x", name, value[:n])
			}
		}
		b.WriteString("\n")
		return nil
	})
	try(t, err)
	return b.String()
}

func TestFromSquashAndWrite(t *testing.T) {
	dir := sample(t)
	want := list(t, dir)
	var first []byte
	for _, args := range []string{"-comp zstd -no-fragments -noI -noId", "-comp gzip", "-comp xz -b 1M -always-use-fragments", "-comp zstd -noD"} {
		t.Run(args, func(t *testing.T) {
			r, size := squash(t, dir, strings.Fields(args)...)
			s := &store{chunks: map[chunk.Digest][]byte{}}
			raw, err := FromSquash(context.Background(), r, size, s, nil)
			try(t, err)
			if first == nil {
				if first = raw; s.whole < 300 {
					t.Errorf("%d small files are known to be blocks of the squashfs", s.whole)
				}
			}
			// Where squashfs has holes depends on its blocks.
			if !strings.Contains(args, "-b") && !bytes.Equal(raw, first) {
				t.Error("how the squashfs was made shows in the tree")
			}
			m, err := Decode(raw)
			try(t, err)
			if m.Groups != 1 {
				t.Errorf("%d files of several names", m.Groups)
			}
			out := t.TempDir()
			try(t, Write(context.Background(), m, out, s.fetch))
			if got := list(t, out); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func TestDiff(t *testing.T) {
	dir := sample(t)
	s := &store{chunks: map[chunk.Digest][]byte{}}
	make := func() *Manifest {
		r, size := squash(t, dir, "-comp", "zstd", "-no-fragments")
		raw, err := FromSquash(context.Background(), r, size, s, nil)
		try(t, err)
		m, err := Decode(raw)
		try(t, err)
		return m
	}
	old := make()
	p := func(name string) string { return filepath.Join(dir, name) }
	try(t, os.WriteFile(p("empty"), []byte("x"), 0o600), os.Remove(p("pipe")), os.WriteFile(p("usr/new"), []byte("new"), 0o644), os.Chmod(p("su"), 0o700),
		os.Remove(p("dangling")), os.Symlink("/elsewhere", p("dangling")))
	now := make()
	got, more, err := Diff(old, now, 100)
	try(t, err)
	want := []Change{{"dangling", Changed, 0}, {"empty", Changed, 1}, {"pipe", Removed, 0}, {"su", Attributes, 10}, {"usr/new", Added, 3}}
	if fmt.Sprint(got) != fmt.Sprint(want) || more {
		t.Errorf("got %v, %v, want %v", got, more, want)
	}
	if got, more, _ := Diff(old, now, 2); len(got) != 2 || !more {
		t.Errorf("with a limit: %v, %v", got, more)
	}
	if e, ok, err := now.Find("/usr/new"); !ok || err != nil || e.Size != 3 || len(e.Parts) != 1 {
		t.Errorf("%+v, %v, %v", e, ok, err)
	}
}

func TestBuilderRefuses(t *testing.T) {
	root := Entry{Path: ".", Kind: Dir, Mode: 0o755}
	for name, entries := range map[string][]Entry{
		"no root":         {{Path: "a", Kind: Dir}},
		"escape":          {root, {Path: "..", Kind: File}},
		"absolute":        {root, {Path: "/a", Kind: File}},
		"below a link":    {root, {Path: "a", Kind: Symlink, Target: "/etc"}, {Path: "a/b", Kind: File}},
		"twice":           {root, {Path: "a", Kind: File}, {Path: "a", Kind: File}},
		"out of order":    {root, {Path: "b", Kind: File}, {Path: "a", Kind: File}},
		"link to nothing": {root, {Path: "a", Kind: Link, Group: 1}},
		"no target":       {root, {Path: "a", Kind: Symlink}},
		"short of parts":  {root, {Path: "a", Kind: File, Size: 5, Parts: []Part{{Hole: 4}}}},
		"too many parts":  {root, {Path: "a", Kind: File, Size: 5, Parts: []Part{{Hole: 4}, {Hole: 4}}}},
		"NUL":             {root, {Path: "a\x00b", Kind: File}},
		"long name":       {root, {Path: strings.Repeat("n", 256), Kind: File}},
	} {
		b := NewBuilder()
		var err error
		for i := range entries {
			if err = b.Add(&entries[i]); err != nil {
				break
			}
		}
		if err == nil {
			t.Errorf("%s: it is taken", name)
		}
	}
}

func TestFromSquashEnds(t *testing.T) {
	r, size := squash(t, sample(t))
	broken := errors.New("no room")
	_, err := FromSquash(context.Background(), r, size, sinkFunc(func() error { return broken }), nil)
	if !errors.Is(err, broken) {
		t.Errorf("a full disk: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	_, err = FromSquash(ctx, r, size, sinkFunc(func() error { cancel(); return nil }), nil)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

type sinkFunc func() error

func (f sinkFunc) Put(chunk.Ref, []byte, *squashfs.Block) error { return f() }

func FuzzDecode(f *testing.F) {
	b := NewBuilder()
	for _, e := range []Entry{
		{Path: ".", Kind: Dir, Mode: 0o755}, {Path: "d", Kind: Dir, Xattrs: []Xattr{{"user.a", "b"}}},
		{Path: "d/f", Kind: File, Size: 9, MTime: -5, NSec: 7, Group: 1, Parts: []Part{{Hole: 4}, {Chunk: chunk.Ref{Size: 5}}}},
		{Path: "l", Kind: Link, Group: 1}, {Path: "n", Kind: Char, Major: 1, Minor: 3}, {Path: "s", Kind: Symlink, Target: "d"},
	} {
		if err := b.Add(&e); err != nil {
			f.Fatal(err)
		}
	}
	raw, err := b.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := Decode(raw)
		if err != nil {
			return
		}
		b := NewBuilder()
		err = m.Walk(func(e *Entry) error {
			if e.Path != "." && !filepath.IsLocal(e.Path) {
				t.Fatalf("%q leaves the tree", e.Path)
			}
			return b.Add(e)
		})
		if err != nil {
			t.Fatalf("what was decoded is refused: %v", err)
		}
	})
}
