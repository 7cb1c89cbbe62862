package peer

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"muster/agent/head"
	"muster/agent/pull"
	"muster/images/chunk"
	"muster/images/delta"
	"muster/images/squash"
	"muster/shared/wire"
)

// imageHead is a head with one image, which introduces to each other all who
// announce themselves.
type imageHead struct {
	*httptest.Server
	image   wire.Image
	content []byte
	index   []byte
	chunks  shelf
	lost    atomic.Bool  // it has the image no more
	chunked atomic.Int64 // bytes given in chunks
	whole   atomic.Int64 // bytes given of the file

	mu    sync.Mutex
	peers []wire.Peer
}

func newImageHead(t *testing.T, n int) *imageHead {
	h := &imageHead{content: make([]byte, n), chunks: shelf{}}
	rand.NewChaCha8([32]byte{3}).Read(h.content)
	sum := chunk.Sum(h.content)
	var mu sync.Mutex
	var err error
	h.index, err = squash.Build(t.Context(), squash.File{Content: bytes.NewReader(h.content), Size: int64(n), SHA256: sum}, func(r chunk.Ref, _ int64, b []byte) error {
		mu.Lock()
		defer mu.Unlock()
		h.chunks[r.Digest] = bytes.Clone(b)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	h.image = wire.Image{Name: "i", SHA256: sum.String(), Size: int64(n), Pieces: chunk.Sum(h.sums()).String(), Index: chunk.Sum(h.index).String(), IndexSize: int64(len(h.index))}
	h.Server = httptest.NewServer(h)
	t.Cleanup(h.Close)
	return h
}

// sums is the list of the pieces.
func (h *imageHead) sums() (list []byte) {
	for b := h.content; len(b) > 0; {
		n := min(len(b), wire.PieceSize)
		sum := sha256.Sum256(b[:n])
		list, b = append(list, sum[:]...), b[n:]
	}
	return list
}

func (h *imageHead) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	data := func(v any) { json.NewEncoder(w).Encode(map[string]any{"success": true, "data": v}) }
	switch {
	case r.URL.Path == wire.PathPeers:
		var a wire.Announce
		json.NewDecoder(r.Body).Decode(&a)
		h.mu.Lock()
		defer h.mu.Unlock()
		in := wire.Introduction{Every: 1, Keys: [][]byte{key}, Peers: []wire.Peer{}}
		for _, p := range h.peers {
			if !strings.HasSuffix(p.Addr, fmt.Sprint(":", a.Port)) {
				in.Peers = append(in.Peers, p)
			}
		}
		data(in)
	case r.URL.Path == wire.PathSpare && !h.lost.Load():
		var in wire.Spare
		json.NewDecoder(r.Body).Decode(&in)
		places := []uint32{}
		for i := range min(len(in.Chunks)/32, in.Most) {
			places = append(places, uint32(i))
		}
		data(places)
	case r.URL.Path == wire.PathChunks && !h.lost.Load():
		raw, _ := io.ReadAll(r.Body)
		for ; len(raw) > 0; raw = raw[32:] {
			b := h.chunks[chunk.Digest(raw[:32])]
			h.chunked.Add(int64(len(b)))
			w.Write(append(chunk.PutFrameHead(nil, chunk.Raw, len(b)), b...))
		}
	case strings.HasPrefix(r.URL.Path, wire.PathIndex):
		d, _ := delta.Make(nil, h.index)
		w.Write(append([]byte{wire.IndexWhole}, d...))
	case strings.HasPrefix(r.URL.Path, wire.PathFile+h.image.Pieces):
		w.Write(h.sums())
	case strings.HasPrefix(r.URL.Path, wire.PathFile+h.image.SHA256) && !h.lost.Load():
		start := int64(0)
		fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &start)
		h.whole.Add(int64(len(h.content)) - start)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(h.content))
	default:
		w.WriteHeader(http.StatusServiceUnavailable)
	}
}

// node is one that pulls from this head.
type node struct {
	*pull.Image
	fellows *Fellows
	file    *os.File
}

func (h *imageHead) node(t *testing.T) *node {
	t.Helper()
	d := head.Dialer{}
	n := &node{Image: &pull.Image{Source: pull.New(h.URL, d)}}
	client := head.New(h.URL, d, nil)
	var err error
	if n.file, err = os.Create(filepath.Join(t.TempDir(), "image")); err != nil {
		t.Fatal(err)
	}
	pulling := n.Expect()
	if n.fellows, err = Join(t.Context(), client, n, head.Dialer{Bind: here}, quiet); err != nil {
		t.Fatal(err)
	}
	n.Peers = NewSwarm(n.fellows.Group, n.Source, d)
	t.Cleanup(func() {
		pulling()
		n.fellows.Leave(t.Context(), 0)
		client.Close()
		n.file.Close()
	})
	h.mu.Lock()
	defer h.mu.Unlock()
	h.peers = append(h.peers, wire.Peer{Name: fmt.Sprint("n", len(h.peers)), Addr: n.fellows.Server.listener.Addr().String(), Ticket: wire.Ticket(key, here)})
	return n
}

func (h *imageHead) check(t *testing.T, n *node) {
	t.Helper()
	if got, err := os.ReadFile(n.file.Name()); err != nil || !bytes.Equal(got, h.content) {
		t.Errorf("%d bytes of %d, or other ones; %v", len(got), len(h.content), err)
	}
}

// fill reads the image while it comes, as a machine that boots does.
func (h *imageHead) fill(t *testing.T, n *node) {
	t.Helper()
	p, err := n.Source.Pieces(t.Context(), h.image, n.file)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() {
		for range 40 {
			off := rand.Int64N(h.image.Size - 5000)
			b := make([]byte, 5000)
			if err := p.Ensure(t.Context(), off, 5000); err != nil {
				t.Error(err)
			}
			if _, err := n.file.ReadAt(b, off); err != nil || !bytes.Equal(b, h.content[off:off+5000]) {
				t.Errorf("what is read at %d is not the image: %v", off, err)
			}
		}
	})
	if err := n.Fill(t.Context(), h.image, p); err != nil {
		t.Log("the chunks end:", err)
	}
	if err := p.Run(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestBootFromAnother has a node fetch an image that only another one has still:
// what that one wrote is given to the next, and read back from its file.
func TestBootFromAnother(t *testing.T) {
	h := newImageHead(t, 9<<20+12345)
	first := h.node(t)
	if err := first.File(t.Context(), h.image, first.file); err != nil {
		t.Fatal(err)
	}
	h.check(t, first)
	h.lost.Store(true)
	second := h.node(t)
	h.fill(t, second)
	h.check(t, second)
	if s := second.Stats(); s.Head != 0 || s.Peers < h.image.Size || h.whole.Load() != 0 {
		t.Errorf("%+v, and %d bytes of the file", s, h.whole.Load())
	}
	// A file that changed since is not given.
	if _, err := first.file.WriteAt([]byte("edited"), h.image.Size/2); err != nil {
		t.Fatal(err)
	}
	h.lost.Store(false)
	h.mu.Lock()
	h.peers = h.peers[:1]
	h.mu.Unlock()
	third := h.node(t)
	h.fill(t, third)
	h.check(t, third)
	if s := third.Stats(); s.Peers < h.image.Size/2 || s.Head == 0 && h.whole.Load() == 0 {
		t.Errorf("with an edited file: %+v", s)
	}
}

// TestBootFromHead has nobody give anything in chunks: the file as a whole is
// always there.
func TestBootFromHead(t *testing.T) {
	h := newImageHead(t, 3<<20)
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, wire.PathIndex) || r.URL.Path == wire.PathPeers {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		h.ServeHTTP(w, r)
	}))
	defer broken.Close()
	n := h.node(t)
	n.Source = pull.New(broken.URL, head.Dialer{})
	h.fill(t, n)
	h.check(t, n)
	if h.whole.Load() < h.image.Size {
		t.Errorf("%d bytes of the file", h.whole.Load())
	}
}
