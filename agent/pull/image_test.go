package pull

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"muster/agent/head"
	"muster/images/chunk"
	"muster/images/delta"
	"muster/images/squash"
	"muster/images/squashfs"
	"muster/images/tree"
	"muster/shared/wire"
)

// chunkHead is a head with versions of one image.
type chunkHead struct {
	*httptest.Server
	mu      sync.Mutex
	chunks  map[chunk.Digest][]byte
	indices map[string][]byte
	images  []wire.Image
	files   [][]byte // the squashfs of each
	asked   atomic.Int64
	spoil   func(n int64, answer []byte) []byte // of the n-th request for chunks
}

func newChunkHead(t *testing.T) *chunkHead {
	h := &chunkHead{chunks: map[chunk.Digest][]byte{}, indices: map[string][]byte{}}
	h.Server = httptest.NewServer(h)
	t.Cleanup(h.Close)
	return h
}

// Put implements tree.Sink.
func (h *chunkHead) Put(ref chunk.Ref, content []byte, _ *squashfs.Block) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.chunks[ref.Digest] = bytes.Clone(content)
	return nil
}

// add makes a version of a directory.
func (h *chunkHead) add(t *testing.T, dir string) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "image")
	if text, err := exec.Command("mksquashfs", dir, out, "-quiet", "-no-progress", "-comp", "zstd", "-no-fragments", "-noI", "-noId", "-mkfs-time", "0").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	b, err := os.ReadFile(out)
	must(t, err)
	r, err := squashfs.Open(bytes.NewReader(b), int64(len(b)))
	must(t, err)
	files, err := tree.FromSquash(t.Context(), r, int64(len(b)), h, nil)
	must(t, err)
	cuts := &squash.Cuts{}
	must(t, r.Nodes(func(n *squashfs.Node) error {
		for _, b := range n.Blocks {
			cuts.Add(b.Pos, b.Stored)
		}
		return nil
	}))
	file, err := squash.Build(t.Context(), squash.File{Content: bytes.NewReader(b), Size: int64(len(b)), SHA256: chunk.Sum(b), Head: squashfs.HeadSize, Tables: int64(r.Superblock().InodeTable), Cuts: cuts},
		func(ref chunk.Ref, _ int64, b []byte) error { return h.Put(ref, b, nil) })
	must(t, err)
	image := wire.Image{Name: "i", SHA256: chunk.Sum(b).String(), Size: int64(len(b)), Version: len(h.images) + 1, Tree: chunk.Sum(files).String(), TreeSize: int64(len(files)), Index: chunk.Sum(file).String(), IndexSize: int64(len(file))}
	image.Digest = wire.VersionDigest(image.Tree, image.Index)
	h.indices[image.Tree], h.indices[image.Index] = files, file
	h.images, h.files = append(h.images, image), append(h.files, b)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (h *chunkHead) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.HasPrefix(r.URL.Path, wire.PathImage):
		var n int
		fmt.Sscan(r.URL.Query().Get(wire.QueryVersion), &n)
		json.NewEncoder(w).Encode(map[string]any{"success": true, "data": h.images[n-1]})
	case strings.HasPrefix(r.URL.Path, wire.PathIndex):
		old, kind := h.indices[r.URL.Query().Get(wire.QueryHave)], byte(wire.IndexWhole)
		if old != nil {
			kind = wire.IndexDelta
		}
		d, _ := delta.Make(old, h.indices[strings.TrimPrefix(r.URL.Path, wire.PathIndex)])
		w.Write(append([]byte{kind}, d...))
	default:
		list, _ := io.ReadAll(r.Body)
		var out []byte
		for ; len(list) > 0; list = list[32:] {
			b, ok := h.chunks[chunk.Digest(list[:32])]
			if !ok {
				out = chunk.PutFrameHead(out, chunk.Absent, 0)
				continue
			}
			out = append(chunk.PutFrameHead(out, chunk.Raw, len(b)), b...)
		}
		if n := h.asked.Add(1); h.spoil != nil {
			out = h.spoil(n, out)
		}
		w.Write(out)
	}
}

func (h *chunkHead) pull(t *testing.T, cache string, version int, form Form, into string) (Stats, error) {
	t.Helper()
	p := &Image{Source: New(h.URL, head.Dialer{Version: "test"})}
	if cache != "" {
		var err error
		p.Cache, err = OpenCache(cache, slog.New(slog.DiscardHandler))
		must(t, err)
	}
	image, err := p.Source.Find(t.Context(), "i", fmt.Sprint(version))
	must(t, err)
	if form == Tree {
		err = p.Tree(t.Context(), image, into)
	} else {
		err = p.Squash(t.Context(), image, into)
	}
	return p.Stats(), err
}

func same(t *testing.T, a, b string) {
	t.Helper()
	if out, err := exec.Command("diff", "-r", "--no-dereference", a, b).CombinedOutput(); err != nil {
		t.Errorf("%s", out)
	}
}

// noisy makes files that do not compress.
func noisy(t *testing.T, dir string) {
	r := rand.NewChaCha8([32]byte{1})
	for i := range 100 {
		b := make([]byte, 2000*(i%20)+100*i)
		r.Read(b)
		must(t, os.WriteFile(filepath.Join(dir, fmt.Sprint("file-", i)), b, 0o644))
	}
	must(t, os.Symlink("file-3", filepath.Join(dir, "link")))
}

func TestImage(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, for owners")
	}
	h, dir := newChunkHead(t), t.TempDir()
	noisy(t, dir)
	h.add(t, dir)
	old := t.TempDir()
	must(t, exec.Command("cp", "-a", dir+"/.", old).Run())
	must(t, os.WriteFile(filepath.Join(dir, "file-50"), []byte("edited"), 0o644))
	h.add(t, dir)

	cache, into, file := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "image")
	first, err := h.pull(t, cache, 1, Tree, into)
	must(t, err)
	same(t, old, into)
	second, err := h.pull(t, cache, 2, Tree, into) // over the old one
	must(t, err)
	same(t, dir, into)
	if second.Head > first.Head/100 || second.Index > first.Index/4 || second.Reused < first.Head*9/10 {
		t.Errorf("first %+v, second %+v", first, second)
	}
	again, err := h.pull(t, cache, 1, Tree, into)
	must(t, err)
	if same(t, old, into); again.Head != 0 || again.Index != 0 {
		t.Errorf("back again: %+v", again)
	}
	_, err = h.pull(t, "", 2, Squash, file)
	must(t, err)
	if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, h.files[1]) {
		t.Errorf("squash: %d bytes, %v", len(got), err)
	}
	// What somebody else made is not taken for an old tree.
	if _, err := h.pull(t, cache, 1, Tree, dir); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("a foreign directory: %v", err)
	}
	// A cache that rots is a cache that lacks something.
	packs, _ := filepath.Glob(filepath.Join(cache, "chunks", "*.pack"))
	for _, p := range packs {
		b, err := os.ReadFile(p)
		must(t, err)
		b[len(b)/2] ^= 1
		must(t, os.WriteFile(p, b, 0o600))
	}
	rotten, err := h.pull(t, cache, 1, Tree, into)
	must(t, err)
	if same(t, old, into); rotten.Head == 0 {
		t.Errorf("with a damaged cache: %+v", rotten)
	}
}

func TestImageFromBadHead(t *testing.T) {
	h, dir := newChunkHead(t), t.TempDir()
	noisy(t, dir)
	h.add(t, dir)
	for name, spoil := range map[string]func(int64, []byte) []byte{
		"a flipped bit": func(n int64, b []byte) []byte { b[len(b)/2] ^= byte(n % 2); return b },
		"broken off":    func(n int64, b []byte) []byte { return b[:len(b)-int(n%2)*len(b)/2] },
		"garbage": func(n int64, b []byte) []byte {
			return map[bool][]byte{true: bytes.Repeat([]byte{7}, 99), false: b}[n%2 == 1]
		},
		"nothing":        func(n int64, b []byte) []byte { return b[:len(b)*int((n+1)%2)] },
		"more than that": func(n int64, b []byte) []byte { return append(b, b...) },
	} {
		t.Run(name, func(t *testing.T) {
			h.spoil = spoil
			h.asked.Store(0)
			file := filepath.Join(t.TempDir(), "image")
			_, err := h.pull(t, t.TempDir(), 1, Squash, file)
			must(t, err)
			if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, h.files[0]) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
	h.spoil = nil
	for d := range h.chunks {
		delete(h.chunks, d)
	}
	file := filepath.Join(t.TempDir(), "image")
	if _, err := h.pull(t, "", 1, Squash, file); err == nil || !strings.Contains(err.Error(), "importing the image again") {
		t.Errorf("a head without its chunks: %v", err)
	}
	if left, _ := filepath.Glob(file + "*"); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	p := &Image{Source: New(h.URL, head.Dialer{})}
	if err := p.Squash(ctx, h.images[0], file); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
