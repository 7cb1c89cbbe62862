package pull

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"muster/agent/head"
	"muster/agent/headtest"
	"muster/shared/wire"
)

// offer adds a file and the list of its pieces.
func offer(h *headtest.Head, content []byte) wire.Image {
	var list []byte
	for off := 0; off < len(content); off += wire.PieceSize {
		sum := sha256.Sum256(content[off:min(len(content), off+wire.PieceSize)])
		list = append(list, sum[:]...)
	}
	image := h.AddFile(content)
	image.Pieces = h.AddFile(list).SHA256
	return *image
}

func readAt(p *Pieces, f *os.File, off int64, n int) ([]byte, error) {
	if err := p.Ensure(context.Background(), off, int64(n)); err != nil {
		return nil, err
	}
	buf := make([]byte, n)
	m, err := f.ReadAt(buf, off)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return buf[:m], err
}

func TestPiecesWhileTheyCome(t *testing.T) {
	h := headtest.New(t)
	for _, n := range []int{0, 1, wire.PieceSize, 40*wire.PieceSize + 17} {
		want := content(n)
		image := offer(h, want)
		cut := &proxy{Handler: h, after: 3 * wire.PieceSize}
		srv := httptest.NewServer(cut)
		s := New(srv.URL, head.Dialer{})
		f := target(t)
		p, err := s.Pieces(t.Context(), image, f)
		if err != nil {
			t.Fatal(err)
		}
		cut.broken.Store(5)
		var all sync.WaitGroup
		all.Go(func() {
			if err := p.Run(t.Context()); err != nil {
				t.Error(err)
			}
		})
		for range 8 {
			all.Go(func() {
				for range 10 {
					off := rand.IntN(n + 1)
					size := min(rand.IntN(2*wire.PieceSize), n-off)
					got, err := readAt(p, f, int64(off), size)
					if err != nil || !bytes.Equal(got, want[off:off+size]) {
						t.Errorf("%d bytes at %d of %d: %v, or other bytes", size, off, n, err)
					}
				}
			})
		}
		all.Wait()
		check(t, f, want)
		srv.Close()
	}
}

// What is wanted comes although nothing is fetched in order yet, and is not
// fetched again by Run.
func TestPiecesWantedAtOnce(t *testing.T) {
	h := headtest.New(t)
	want := content(64 * wire.PieceSize)
	image := offer(h, want)
	var ranges []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ranges = append(ranges, r.Header.Get("Range"))
		h.ServeHTTP(w, r)
	}))
	defer srv.Close()
	f := target(t)
	p, err := New(srv.URL, head.Dialer{}).Pieces(t.Context(), image, f)
	if err != nil {
		t.Fatal(err)
	}
	off := int64(40*wire.PieceSize + 5)
	got, err := readAt(p, f, off, 100)
	if err != nil || !bytes.Equal(got, want[off:off+100]) {
		t.Fatalf("%v, or other bytes", err)
	}
	if len(ranges) != 2 || ranges[1] != "bytes=10485760-11534335" {
		t.Errorf("asked for %q", ranges)
	}
	if err := p.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	check(t, f, want)
}

func TestPiecesDamagedAndRepaired(t *testing.T) {
	h := headtest.New(t)
	want := content(6 * wire.PieceSize)
	image := offer(h, want)
	var damaged atomic.Bool
	damaged.Store(true)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !damaged.Load() || !strings.Contains(r.URL.Path, image.SHA256) {
			h.ServeHTTP(w, r)
			return
		}
		bad := bytes.Clone(want)
		bad[3*wire.PieceSize+9] ^= 1
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(bad))
	}))
	defer srv.Close()
	s := New(srv.URL, head.Dialer{})
	var told []string
	s.Trouble = func(err error) {
		told = append(told, err.Error())
		damaged.Store(false) // the admin reads it and imports the image again
	}
	f := target(t)
	p, err := s.Pieces(t.Context(), image, f)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	check(t, f, want)
	if len(told) != 1 || !strings.Contains(told[0], "piece 3 of image test") {
		t.Errorf("told %q", told)
	}
}

func TestPiecesRefusesAnotherList(t *testing.T) {
	h := headtest.New(t)
	image := offer(h, content(3*wire.PieceSize))
	other := offer(h, content(2*wire.PieceSize))
	s := New(h.HTTP, head.Dialer{})
	wrong := image
	wrong.Pieces = other.Pieces
	if _, err := s.Pieces(t.Context(), wrong, target(t)); err == nil || !strings.Contains(err.Error(), "should have 96") {
		t.Errorf("a list for another file: %v", err)
	}
	wrong.Pieces = strings.Repeat("0", 64)
	if _, err := s.Pieces(t.Context(), wrong, target(t)); err == nil {
		t.Error("a list that the head does not have was taken")
	}
	wrong.Size = 1 << 40
	if _, err := s.Pieces(t.Context(), wrong, target(t)); err == nil {
		t.Error("an image without end was taken")
	}
}
