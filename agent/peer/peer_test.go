package peer

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"muster/agent/head"
	"muster/agent/pull"
	"muster/images/chunk"
	"muster/shared/wire"
)

// shelf is chunks in memory.
type shelf map[chunk.Digest][]byte

func (s shelf) Has(d chunk.Digest) bool { return s[d] != nil }

func (s shelf) Stored(d chunk.Digest, _ []byte) ([]byte, chunk.Encoding, error) {
	if s[d] == nil {
		return nil, 0, io.EOF
	}
	return s[d], chunk.Raw, nil
}

func (s shelf) Follow(int) ([]chunk.Digest, <-chan struct{}) { return nil, nil }

func chunks(n int) (shelf, []chunk.Ref) {
	s, r, refs := shelf{}, rand.NewChaCha8([32]byte{1}), []chunk.Ref(nil)
	for range n {
		b := make([]byte, 2000)
		r.Read(b)
		s[chunk.Sum(b)] = b
		refs = append(refs, chunk.Ref{Digest: chunk.Sum(b), Size: uint32(len(b))})
	}
	return s, refs
}

var (
	key  = []byte("a key that the head made for this test")
	here = netip.MustParseAddr("127.0.0.1")
)

// introducer is a head that introduces one peer, and gives chunks itself only
// where it was told to.
type introducer struct {
	shelf shelf
	peer  string

	mu    sync.Mutex
	given int
	blame []wire.Blame
	first chan struct{} // closed when somebody is blamed
}

func (h *introducer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch r.URL.Path {
	case wire.PathPeers:
		var a wire.Announce
		json.NewDecoder(r.Body).Decode(&a)
		if h.blame = append(h.blame, a.Blame...); len(a.Blame) > 0 && h.first != nil {
			close(h.first)
			h.first = nil
		}
		json.NewEncoder(w).Encode(map[string]any{"success": true, "data": wire.Introduction{Every: 1, Keys: [][]byte{key},
			Peers: []wire.Peer{{Name: "n1", Addr: h.peer, Ticket: wire.Ticket(key, here)}}}})
	case wire.PathSpare:
		var in wire.Spare
		json.NewDecoder(r.Body).Decode(&in)
		places := []uint32{}
		for i := range len(in.Chunks) / 32 {
			if h.shelf[chunk.Digest(in.Chunks[i*32:])] != nil && len(places) < in.Most {
				places = append(places, uint32(i))
			}
		}
		json.NewEncoder(w).Encode(map[string]any{"success": true, "data": places})
	case wire.PathChunks:
		raw, _ := io.ReadAll(r.Body)
		for ; len(raw) > 0; raw = raw[32:] {
			b := h.shelf[chunk.Digest(raw[:32])]
			if b == nil {
				w.Write(chunk.PutFrameHead(nil, chunk.Absent, 0))
				continue
			}
			h.given++
			w.Write(append(chunk.PutFrameHead(nil, chunk.Raw, len(b)), b...))
		}
	}
}

var quiet = slog.New(slog.DiscardHandler)

// fetchAll takes all chunks, and returns what the swarm left.
func fetchAll(t *testing.T, h *introducer, refs []chunk.Ref, all shelf) []int {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	g := NewGroup(head.New(srv.URL, head.Dialer{}, nil), nil, quiet)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { g.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	source := pull.New(srv.URL, head.Dialer{})
	var mu sync.Mutex
	got := map[int]int{}
	left, err := NewSwarm(g, source, head.Dialer{}).Fetch(ctx, refs, func(i int, g pull.Got) error {
		mu.Lock()
		defer mu.Unlock()
		if got[i]++; !bytes.Equal(g.Content, all[refs[i].Digest]) {
			t.Errorf("chunk %d is another one", i)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, n := range got {
		if n != 1 {
			t.Errorf("chunk %d came %d times", i, n)
		}
	}
	if len(got)+len(left) != len(refs) {
		t.Errorf("%d came and %d are left of %d", len(got), len(left), len(refs))
	}
	return left
}

func serve(t *testing.T, s Shelf) *Server {
	t.Helper()
	srv, err := Listen(netip.MustParseAddr("127.0.0.1"), s, quiet)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { srv.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	return srv
}

func TestPeerGivesAll(t *testing.T) {
	all, refs := chunks(300)
	s := serve(t, all)
	s.allow([][]byte{key}, 0)
	h := &introducer{shelf: shelf{}, peer: s.listener.Addr().String()}
	if left := fetchAll(t, h, refs, all); len(left) > 0 || h.given > 0 {
		t.Errorf("%d are left, the head gave %d", len(left), h.given)
	}
}

func TestStrangersGetNothing(t *testing.T) {
	all, refs := chunks(1)
	s := serve(t, all)
	ask := func(path, ticket string) int {
		req, _ := http.NewRequest("POST", "http://"+s.listener.Addr().String()+path, bytes.NewReader(refs[0].Digest[:]))
		req.Header.Set(wire.HeaderTicket, ticket)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		if resp.StatusCode != http.StatusOK && len(b) > 0 {
			t.Errorf("a stranger is told %q", b)
		}
		return resp.StatusCode
	}
	good := wire.Ticket(key, here)
	if got := ask(wire.PeerGive, good); got != http.StatusForbidden {
		t.Errorf("without keys: %d", got)
	}
	s.allow([][]byte{key}, 0)
	for name, ticket := range map[string]string{"none": "", "of another address": wire.Ticket(key, netip.MustParseAddr("127.0.0.2")), "by another key": wire.Ticket([]byte("x"), here), "more": good + "A"} {
		for _, path := range []string{wire.PeerGive, wire.PeerHave} {
			if got := ask(path, ticket); got != http.StatusForbidden {
				t.Errorf("ticket %s: %d", name, got)
			}
		}
	}
	if got := ask(wire.PeerGive, good); got != http.StatusOK {
		t.Errorf("a fellow: %d", got)
	}
	s.allow([][]byte{[]byte("the next one")}, 0) // the head started anew
	if got := ask(wire.PeerGive, good); got != http.StatusOK {
		t.Errorf("with a ticket of before: %d", got)
	}
	s.allow(nil, wire.NoUpload)
	if got := ask(wire.PeerGive, good); got != http.StatusForbidden {
		t.Errorf("while a job runs: %d", got)
	}
}

// says answers as a peer that has every chunk that is asked for.
func says(w http.ResponseWriter, r *http.Request) {
	raw, _ := io.ReadAll(r.Body)
	var out []byte
	for i := range len(raw) / 32 {
		out = binary.BigEndian.AppendUint32(out, uint32(i))
	}
	w.Write(out)
}

func TestHostilePeers(t *testing.T) {
	all, refs := chunks(40)
	frame := func(b []byte) []byte { return append(chunk.PutFrameHead(nil, chunk.Raw, len(b)), b...) }
	give := func(f func(w http.ResponseWriter, digests []byte)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == wire.PeerHave {
				says(w, r)
				return
			}
			raw, _ := io.ReadAll(r.Body)
			f(w, raw)
		}
	}
	for name, peer := range map[string]http.HandlerFunc{
		"garbage": give(func(w http.ResponseWriter, _ []byte) { io.WriteString(w, strings.Repeat("garbage", 1000)) }),
		"a flipped bit": give(func(w http.ResponseWriter, raw []byte) {
			for ; len(raw) > 0; raw = raw[32:] {
				b := bytes.Clone(all[chunk.Digest(raw[:32])])
				b[7] ^= 4
				w.Write(frame(b))
			}
		}),
		"truncated": give(func(w http.ResponseWriter, raw []byte) { w.Write(frame(all[chunk.Digest(raw[:32])])[:100]) }),
		"claims": give(func(w http.ResponseWriter, raw []byte) {
			w.Write(bytes.Repeat(chunk.PutFrameHead(nil, chunk.Absent, 0), len(raw)/32))
		}),
		"refusing":  func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) },
		"vanishing": give(func(http.ResponseWriter, []byte) { panic(http.ErrAbortHandler) }),
		"endless": func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				w.Write(make([]byte, 4000))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := httptest.NewServer(peer)
			defer srv.Close()
			h := &introducer{shelf: all, peer: srv.Listener.Addr().String()}
			if left := fetchAll(t, h, refs, all); len(left) > 0 {
				t.Errorf("%d are left", len(left))
			}
		})
	}
}

func TestPeerThatStalls(t *testing.T) {
	all, refs := chunks(20)
	l, err := net.Listen("tcp", "127.0.0.1:0") // takes connections, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	h := &introducer{shelf: all, peer: l.Addr().String()}
	if left := fetchAll(t, h, refs, all); len(left) > 0 {
		t.Errorf("%d are left", len(left))
	}
}

// TestLiarIsBlamed lets the head give nothing, so that the liar is asked.
func TestLiarIsBlamed(t *testing.T) {
	all, refs := chunks(40)
	bad := shelf{}
	for d, b := range all {
		bad[d] = append(bytes.Clone(b[1:]), 0)
	}
	s := serve(t, bad)
	s.allow([][]byte{key}, 0)
	blamed := make(chan struct{})
	h := &introducer{shelf: shelf{}, peer: s.listener.Addr().String(), first: blamed}
	done := make(chan []int)
	go func() { done <- fetchAll(t, h, refs, all) }()
	select {
	case <-blamed:
		h.mu.Lock()
		if h.blame[0].Peer != h.peer || !strings.Contains(h.blame[0].Reason, "damaged") {
			t.Errorf("blamed %+v", h.blame)
		}
		h.shelf = all // the head gives what nobody else does
		h.mu.Unlock()
	case <-time.After(time.Minute):
		t.Error("nobody is blamed")
	}
	if left := <-done; len(left) > 0 {
		t.Errorf("%d are left", len(left))
	}
}

// TestLeavingWhileAsking ends while the head has not answered yet.
func TestLeavingWhileAsking(t *testing.T) {
	asked := make(chan struct{}, 2)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		asked <- struct{}{}
		<-r.Context().Done()
	}))
	defer srv.Close()
	g := NewGroup(head.New(srv.URL, head.Dialer{}, nil), nil, quiet)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); g.Run(ctx) }()
	<-asked
	cancel()
	<-ended
}
