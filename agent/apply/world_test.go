package apply_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"muster/agent/apply"
	"muster/agent/head"
	"muster/agent/pull"
	"muster/images/chunk"
	"muster/images/squashfs"
	"muster/images/tree"
	"muster/shared/wire"
)

// world is a head that has chunks, and versions of one image.
type world struct {
	testing.TB
	server *httptest.Server
	hold   chan struct{} // chunks are not sent while it is open and not nil

	mu     sync.Mutex
	chunks map[chunk.Digest][]byte
	asked  int
}

// version is one of them.
type version struct {
	image wire.Image
	files *tree.Manifest
	list  string
}

func newWorld(t testing.TB) *world {
	if os.Geteuid() != 0 {
		t.Skip("needs root, for owners and devices")
	}
	w := &world{TB: t, chunks: map[chunk.Digest][]byte{}}
	w.server = httptest.NewServer(w)
	t.Cleanup(w.server.Close)
	return w
}

func (w *world) Put(ref chunk.Ref, content []byte, _ *squashfs.Block) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.chunks[ref.Digest] = []byte(string(content))
	return nil
}

func (w *world) fetch(_ context.Context, want []chunk.Ref, take func(int, []byte) error) error {
	for i, ref := range want {
		if err := take(i, w.chunks[ref.Digest]); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil || r.URL.Path != wire.PathChunks {
		http.NotFound(out, r)
		return
	}
	if w.hold != nil {
		select {
		case <-w.hold:
		case <-r.Context().Done():
			return
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for ; len(body) > 0; body = body[32:] {
		w.asked++
		b, ok := w.chunks[chunk.Digest(body[:32])]
		kind := chunk.Raw
		if !ok {
			kind = chunk.Absent
		}
		out.Write(chunk.PutFrameHead(nil, kind, len(b)))
		out.Write(b)
	}
}

func (w *world) try(errs ...error) {
	w.Helper()
	for _, err := range errs {
		if err != nil {
			w.Fatal(err)
		}
	}
}

// make makes a version of what is in a directory.
func (w *world) make(number int, dir string) *version {
	w.Helper()
	out := filepath.Join(w.TempDir(), "image")
	if msg, err := exec.Command("mksquashfs", dir, out, "-quiet", "-no-progress", "-no-fragments", "-comp", "zstd").CombinedOutput(); err != nil {
		w.Fatalf("mksquashfs: %v\n%s", err, msg)
	}
	f, err := os.Open(out)
	w.try(err)
	defer f.Close()
	info, err := f.Stat()
	w.try(err)
	r, err := squashfs.Open(f, info.Size())
	w.try(err)
	raw, err := tree.FromSquash(context.Background(), r, info.Size(), w, nil)
	w.try(err)
	m, err := tree.Decode(raw)
	w.try(err)
	v := &version{files: m, image: wire.Image{Name: "test", UID: "uid", Version: number, Tree: m.Digest.String(), Digest: fmt.Sprint("digest ", number), SHA256: fmt.Sprint("sha ", number)}}
	v.list = list(w, dir)
	return v
}

// dir is one in RAM, where there is that: a node's root mostly is, and the
// machine's disk need not wait for each.
func (w *world) dir() string {
	w.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "muster-apply-")
	if err != nil {
		return w.TempDir()
	}
	w.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// root writes a version as a node has it after a boot.
func (w *world) root(v *version) string {
	w.Helper()
	dir := w.dir()
	w.try(tree.Write(context.Background(), v.files, dir, w.fetch), apply.Booted(dir, v.image, nil))
	return dir
}

// node is a root and what changes it.
func (w *world) node(root string, reached func(string)) *apply.Applier {
	return apply.New(apply.Config{Root: root, Source: pull.New(w.server.URL, head.Dialer{}), Log: slog.New(slog.DiscardHandler), Reached: reached})
}

// answer is what an agent said.
type answer struct {
	running    wire.Running
	plan, last wire.Applied
	err        error
}

// apply speaks with an agent as the head does.
func (w *world) apply(a *apply.Applier, from, to *version, change func(*wire.Apply)) answer {
	w.Helper()
	before, after, err := tree.Between(from.files, to.files, nil)
	w.try(err)
	return w.send(a, to, before, after, change)
}

func (w *world) send(a *apply.Applier, to *version, before, after []byte, change func(*wire.Apply)) (got answer) {
	want := wire.Apply{Image: to.image}
	if change != nil {
		change(&want)
	}
	here, there := net.Pipe()
	defer here.Close()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer there.Close()
		defer func() { recover() }() // where the machine is switched off
		a.Serve(context.Background(), there, want)
	}()
	defer func() { here.Close(); <-ended }()
	if got.err = wire.ReadValue(here, &got.running); got.err != nil || got.running.Problem != "" {
		return got
	}
	go func() { // a broken tree ends the stream while it is sent
		wire.WriteValue(here, wire.Differing{Before: int64(len(before)), After: int64(len(after))})
		here.Write(before)
		here.Write(after)
	}()
	if got.err = wire.ReadValue(here, &got.plan); got.err == nil {
		got.last = got.plan
		if !got.plan.Done {
			got.last = wire.Applied{}
			got.err = wire.ReadValue(here, &got.last)
		}
	}
	return got
}

// list tells all of a directory but what the agent keeps there.
func list(t testing.TB, dir string) string {
	t.Helper()
	var b strings.Builder
	inodes := map[uint64]int{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := path[len(dir):]
		if name == "" || name == "/var" || name == "/.muster" {
			if name != "" {
				return fs.SkipDir
			}
			return nil
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		if _, ok := inodes[st.Ino]; !ok {
			inodes[st.Ino] = len(inodes)
		}
		at := st.Mtim.Sec
		if d.IsDir() {
			at = 0
		}
		fmt.Fprintf(&b, "%s %o %d:%d %d rdev %d inode %d", name, st.Mode, st.Uid, st.Gid, at, st.Rdev, inodes[st.Ino])
		if d.Type().IsRegular() {
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " %d %x", len(content), sha256.Sum256(content))
		}
		if target, err := os.Readlink(path); err == nil {
			fmt.Fprintf(&b, " -> %s", target)
		}
		value := make([]byte, 2000)
		for _, attribute := range []string{"security.capability", "trusted.of"} {
			if n, err := unix.Lgetxattr(path, attribute, value); err == nil {
				fmt.Fprintf(&b, " %s=%x", attribute, value[:n])
			}
		}
		b.WriteString("\n")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// noise is the same each time and does not compress.
func noise(n int, seed byte) []byte {
	var b []byte
	for i := 0; len(b) < n; i++ {
		sum := sha256.Sum256([]byte{seed, byte(i), byte(i >> 8), byte(i >> 16)})
		b = append(b, sum[:]...)
	}
	return b[:n]
}

const capability = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// two makes two versions between which everything changes that can.
func (w *world) two() (a, b *version) {
	w.Helper()
	dir := w.TempDir()
	p := func(name string) string { return filepath.Join(dir, name) }
	file := func(name string, content []byte, mode fs.FileMode) {
		w.Helper()
		w.try(os.MkdirAll(filepath.Dir(p(name)), 0o755), os.WriteFile(p(name), content, mode))
		w.try(os.Chmod(p(name), mode))
	}
	file("etc/motd", []byte("one\n"), 0o644)
	file("etc/same", []byte("same\n"), 0o600)
	file("usr/large", noise(600_000, 1), 0o644)
	file("usr/su", []byte("#!/bin/sh\n"), 0o755)
	file("usr/capable", []byte("#!/bin/sh\n"), 0o755)
	file("dir-to-file/a/b", []byte("b"), 0o644)
	file("file-to-dir", []byte("file"), 0o644)
	file("dir-to-link/x", []byte("x"), 0o644)
	file("gone/deep/er", []byte("gone"), 0o644)
	file("pair1", []byte("pair"), 0o644)
	file("split1", []byte("split"), 0o644)
	file("join1", []byte("join"), 0o644)
	file("join2", []byte("join"), 0o644)
	file("more1", noise(100_000, 2), 0o644)
	file("owner", []byte("owner"), 0o644)
	w.try(os.Link(p("pair1"), p("pair2")), os.Link(p("split1"), p("split2")), os.Symlink("etc", p("link-to-dir")), os.Symlink("a", p("link")),
		unix.Mknod(p("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))), unix.Mknod(p("pipe"), unix.S_IFIFO|0o644, 0),
		unix.Setxattr(p("usr/capable"), "security.capability", []byte(capability), 0), os.Mkdir(p("attributes"), 0o755))
	a = w.make(1, dir)

	w.try(os.RemoveAll(p("dir-to-file")), os.RemoveAll(p("file-to-dir")), os.RemoveAll(p("dir-to-link")), os.RemoveAll(p("gone")),
		os.Remove(p("link-to-dir")), os.Remove(p("link")), os.Remove(p("split2")), os.Remove(p("join2")), os.Remove(p("null")), os.Remove(p("pipe")))
	file("etc/motd", []byte("two\n"), 0o640)
	file("dir-to-file", []byte("now a file"), 0o644)
	file("file-to-dir/sub/f", []byte("f"), 0o600)
	file("link-to-dir/own", []byte("own"), 0o644)
	file("new/tree/of/files", noise(70_000, 4), 0o644)
	file("pair1", []byte("pair changed"), 0o644)
	file("split2", []byte("split"), 0o644)
	large := noise(600_000, 1)
	copy(large[300_000:], "an edit in the middle")
	file("usr/large", large, 0o644)
	w.try(os.Symlink("etc", p("dir-to-link")), os.Symlink("b", p("link")), os.Link(p("join1"), p("join2")), os.Link(p("more1"), p("new/more2")),
		unix.Mknod(p("null"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 5))), unix.Mknod(p("pipe"), unix.S_IFBLK|0o660, int(unix.Mkdev(7, 9))),
		os.Chmod(p("usr/su"), 0o755|fs.ModeSetuid), unix.Removexattr(p("usr/capable"), "security.capability"),
		unix.Setxattr(p("usr/su"), "security.capability", []byte(capability), 0), os.Chown(p("owner"), 12, 70_000), os.Chmod(p("attributes"), 0o700),
		unix.Setxattr(p("attributes"), "trusted.of", []byte("directory"), 0))
	b = w.make(2, dir)
	return a, b
}

func (w *world) between(a, b *version) (before, after []byte) {
	w.Helper()
	before, after, err := tree.Between(a.files, b.files, nil)
	w.try(err)
	return before, after
}

// giveUp ends the stream when the plan is there, and returns when the agent has
// ended.
func (w *world) giveUp(a *apply.Applier, want wire.Apply, from, to *version) {
	w.Helper()
	here, there := net.Pipe()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		a.Serve(context.Background(), there, want)
	}()
	before, after := w.between(from, to)
	var running wire.Running
	var plan wire.Applied
	w.try(wire.ReadValue(here, &running), wire.WriteValue(here, wire.Differing{Before: int64(len(before)), After: int64(len(after))}))
	for _, part := range [][]byte{before, after} {
		_, err := here.Write(part)
		w.try(err)
	}
	w.try(wire.ReadValue(here, &plan), here.Close())
	<-ended
}
