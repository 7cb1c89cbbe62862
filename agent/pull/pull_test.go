package pull

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"muster/agent/head"
	"muster/agent/headtest"
	"muster/shared/wire"
)

func content(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(b)
	return b
}

func target(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func check(t *testing.T, f *os.File, want []byte) {
	t.Helper()
	got, err := os.ReadFile(f.Name())
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %d bytes (%v), want %d, or they differ", len(got), err, len(want))
	}
}

func TestFile(t *testing.T) {
	h := headtest.New(t)
	for _, n := range []int{1, block, 3*block + 17, 8 << 20} {
		want := content(n)
		image := h.AddFile(want)
		image.Name = "a name/with ?odd#characters"
		s := New(h.HTTP, head.Dialer{})
		last := int64(0)
		s.Progress = func(done int64) { last = done }
		f := target(t)
		if err := s.File(context.Background(), *image, f); err != nil {
			t.Fatal(err)
		}
		check(t, f, want)
		if last != int64(n) {
			t.Errorf("progress ended at %d of %d", last, n)
		}
	}
}

// proxy lets connections die after some bytes, as a head does that restarts.
type proxy struct {
	http.Handler
	broken atomic.Int32
	after  int
}

type cut struct {
	http.ResponseWriter
	left int
}

func (c *cut) Write(p []byte) (int, error) {
	if c.left -= len(p); c.left < 0 {
		conn, _, err := c.ResponseWriter.(http.Hijacker).Hijack()
		if err == nil {
			conn.(*net.TCPConn).SetLinger(0)
			conn.Close()
		}
		return 0, errors.New("cut")
	}
	n, err := c.ResponseWriter.Write(p)
	c.ResponseWriter.(http.Flusher).Flush()
	return n, err
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if p.broken.Add(-1) >= 0 {
		p.Handler.ServeHTTP(&cut{w, p.after}, r)
		return
	}
	p.Handler.ServeHTTP(w, r)
}

func TestResume(t *testing.T) {
	h := headtest.New(t)
	want := content(4 << 20)
	image := h.AddFile(want)
	p := &proxy{Handler: h, after: 1 << 20}
	p.broken.Store(3)
	var ranges []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ranges = append(ranges, r.Header.Get("Range"))
		p.ServeHTTP(w, r)
	}))
	defer srv.Close()
	s := New(srv.URL, head.Dialer{})
	var troubles []string
	s.Trouble = func(err error) { troubles = append(troubles, err.Error()) }
	f := target(t)
	if err := s.File(context.Background(), *image, f); err != nil {
		t.Fatal(err)
	}
	check(t, f, want)
	if len(ranges) != 4 || ranges[0] != "" || !strings.HasPrefix(ranges[3], "bytes=") {
		t.Errorf("asked for %q", ranges)
	}
	if len(troubles) == 0 || !strings.Contains(troubles[0], "of 4194304") {
		t.Errorf("told of %q", troubles)
	}
}

func TestServerWithoutRanges(t *testing.T) {
	want := content(2 << 20)
	image := headtest.New(t).AddFile(want)
	p := &proxy{after: 1 << 20, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for b := want; len(b) > 0; b = b[64<<10:] {
			if _, err := w.Write(b[:64<<10]); err != nil {
				return
			}
		}
	})}
	p.broken.Store(1)
	srv := httptest.NewServer(p)
	defer srv.Close()
	f := target(t)
	if err := New(srv.URL, head.Dialer{}).File(context.Background(), *image, f); err != nil {
		t.Fatal(err)
	}
	check(t, f, want)
}

func TestHeadAwayAtFirst(t *testing.T) {
	h := headtest.New(t)
	want := content(100)
	image := h.AddFile(want)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	s := New("http://"+addr, head.Dialer{})
	srv := &http.Server{Handler: h}
	defer srv.Close()
	s.Trouble = func(err error) { // refused: now it comes back
		if l, err := net.Listen("tcp", addr); err == nil {
			go srv.Serve(l)
		}
	}
	f := target(t)
	if err := s.File(context.Background(), *image, f); err != nil {
		t.Fatal(err)
	}
	check(t, f, want)
}

func TestWrongContent(t *testing.T) {
	h := headtest.New(t)
	good := content(1 << 20)
	image := h.AddFile(good)
	good[500000] ^= 1 // the head's file rots
	err := New(h.HTTP, head.Dialer{}).File(context.Background(), *image, target(t))
	var m *Mismatch
	if !errors.As(err, &m) || m.Want != image.SHA256 || len(m.Got) != 64 || !strings.Contains(err.Error(), m.Got) || !strings.Contains(err.Error(), m.Want) {
		t.Errorf("got %v", err)
	}
}

func TestTruncatedOnTheHead(t *testing.T) {
	h := headtest.New(t)
	image := h.AddFile(content(1 << 20))
	image.Size += 1000
	s := New(h.HTTP, head.Dialer{})
	err := s.File(context.Background(), *image, target(t))
	if err == nil || !strings.Contains(err.Error(), "truncated") {
		t.Errorf("got %v", err)
	}
}

func TestMissing(t *testing.T) {
	h := headtest.New(t)
	image := wire.Image{Name: "gone", SHA256: strings.Repeat("0", 64), Size: 10}
	err := New(h.HTTP, head.Dialer{}).File(context.Background(), image, target(t))
	var refused *head.Refused
	if !errors.As(err, &refused) || !strings.Contains(err.Error(), "gone") {
		t.Errorf("got %v", err)
	}
}

func TestNoRoom(t *testing.T) {
	h := headtest.New(t)
	image := h.AddFile(content(1 << 20))
	f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer f.Close()
	err = New(h.HTTP, head.Dialer{}).File(context.Background(), *image, f)
	if err == nil || !strings.Contains(err.Error(), "does not fit") {
		t.Errorf("got %v", err)
	}
}

func TestCancel(t *testing.T) {
	reached := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte("a"))
		w.(http.Flusher).Flush()
		close(reached)
		<-r.Context().Done()
	}))
	defer srv.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	go func() { <-reached; cancel() }()
	err := New(srv.URL, head.Dialer{}).File(ctx, wire.Image{Size: 10}, target(t))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func BenchmarkFile(b *testing.B) {
	h := headtest.New(b)
	want := content(64 << 20)
	image := h.AddFile(want)
	b.SetBytes(int64(len(want)))
	for b.Loop() {
		f, err := os.CreateTemp("/dev/shm", "pull")
		if err != nil {
			b.Fatal(err)
		}
		if err := New(h.HTTP, head.Dialer{}).File(context.Background(), *image, f); err != nil {
			b.Fatal(err)
		}
		f.Close()
		os.Remove(f.Name())
	}
}
