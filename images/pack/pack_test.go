package pack

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"muster/images/chunk"
)

func try(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(dir, Options{Log: slog.New(slog.DiscardHandler)})
	try(t, err)
	return s
}

// content number i is the same every time.
func content(i int) ([]byte, chunk.Ref) {
	b := make([]byte, 4000+i%50)
	rand.NewChaCha8(sha256.Sum256(fmt.Append(nil, i))).Read(b)
	copy(b[2000:], b[:1000]) // it can be packed
	return b, chunk.Ref{Digest: chunk.Sum(b), Size: uint32(len(b))}
}

// put adds contents from up to below to, as an upload does.
func put(t testing.TB, x *Session, from, to int) {
	t.Helper()
	c := chunk.NewCodec()
	for i := from; i < to; i++ {
		b, ref := content(i)
		if need, _ := x.Need(ref.Digest, nil); need {
			stored, enc := c.Encode(nil, b)
			try(t, x.Put(ref.Digest, stored, enc))
		}
	}
}

// holds says that the store has exactly some of the first n contents, whole.
func holds(t testing.TB, s *Store, n int, want func(int) bool) {
	t.Helper()
	c, buf := chunk.NewCodec(), &Buffer{}
	for i := range n {
		b, ref := content(i)
		got, err := s.Content(c, ref, buf)
		if want(i) && (err != nil || !bytes.Equal(got, b)) || !want(i) && !errors.Is(err, ErrAbsent) {
			t.Fatalf("content %d: %d bytes, %v", i, len(got), err)
		}
	}
}

func TestSessions(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	x := s.Begin()
	put(t, x, 0, 100)
	holds(t, s, 100, func(int) bool { return false })
	try(t, x.Commit())
	put(t, x, 50, 200)
	if _, err := os.ReadDir(dir); err != nil {
		t.Fatal(err)
	}
	x.End() // the second part was not committed
	holds(t, s, 200, func(i int) bool { return i < 100 })
	if files, _ := os.ReadDir(dir); len(files) != 2 {
		t.Errorf("left behind: %v", files)
	}
	// A file as it is, with an alias for what a part of it unpacks to.
	b, ref := content(300)
	packed, enc := chunk.NewCodec().Encode(nil, b)
	file := append([]byte("head"), packed...)
	path := filepath.Join(t.TempDir(), "upload")
	try(t, os.WriteFile(path, file, 0o600))
	x = s.Begin()
	raw := chunk.Sum(packed)
	try(t, x.Adopt(path, []Stretch{{raw, 4, uint32(len(packed)), Checksum(packed)}}), x.Alias(ref.Digest, raw, enc), x.Commit())
	x.End()
	for range 2 {
		if got, err := s.Content(chunk.NewCodec(), ref, &Buffer{}); err != nil || !bytes.Equal(got, b) {
			t.Fatal("alias:", err)
		}
		if f, off, ok := s.Raw(raw); !ok || off != 4 || f == nil {
			t.Error("the stretch is not where it is")
		}
		holds(t, s, 200, func(i int) bool { return i < 100 })
		s = open(t, dir)
	}
}

func TestCrash(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	x := s.Begin()
	put(t, x, 0, 10)
	try(t, x.Commit())
	put(t, x, 10, 20)
	// What a crash leaves: a pack under way, one without its index, an index
	// without its pack, one cut off.
	try(t, os.WriteFile(s.path(7, packExt), []byte("x"), 0o600), os.WriteFile(s.path(8, idxExt), encodeIndex(nil), 0o600),
		os.WriteFile(s.path(9, idxExt), []byte("msind"), 0o600), os.WriteFile(s.path(9, packExt), []byte("x"), 0o600))
	s = open(t, dir)
	holds(t, s, 20, func(i int) bool { return i < 10 })
	files, err := os.ReadDir(dir)
	if len(files) != 4 { // two of the pack, two of the one whose index is damaged
		t.Errorf("%v, %v", files, err)
	}
	x = s.Begin()
	put(t, x, 0, 20)
	try(t, x.Commit())
	x.End()
	holds(t, open(t, dir), 20, func(int) bool { return true })
}

func TestSweep(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	first := s.Begin()
	put(t, first, 0, 1500)
	try(t, first.Commit())
	first.End()
	keep := func(i int) bool { return i%10 == 0 }
	live := func(mark func(chunk.Digest)) error {
		for i := range 1500 {
			if _, ref := content(i); keep(i) {
				mark(ref.Digest)
			}
		}
		return nil
	}
	// A session that found something there keeps it, and so does one that
	// ends, acknowledged or not, while the living are asked for.
	second, third := s.Begin(), s.Begin()
	put(t, second, 1, 3)
	freed, err := s.Sweep(context.Background(), func(mark func(chunk.Digest)) error {
		put(t, third, 3, 4)
		third.End()
		return live(mark)
	})
	try(t, err)
	if freed < 1<<20 {
		t.Errorf("%d bytes were freed", freed)
	}
	want := func(i int) bool { return keep(i) || i == 1 || i == 2 || i == 3 }
	holds(t, s, 1500, want)
	holds(t, open(t, dir), 1500, want)
	second.End()
	if _, err := s.Sweep(context.Background(), func(func(chunk.Digest)) error { return errors.New("not known") }); err == nil {
		t.Error("it goes on without knowing who lives")
	}
	holds(t, s, 1500, want)
	_, err = s.Sweep(context.Background(), func(func(chunk.Digest)) error { return nil })
	try(t, err)
	if files, _ := os.ReadDir(dir); len(files) != 0 {
		t.Errorf("left: %v", files)
	}
}

// TestAtOnce has uploads and sweeps of the same store at the same time.
func TestAtOnce(t *testing.T) {
	s := open(t, t.TempDir())
	var all sync.WaitGroup
	var mu sync.Mutex
	acknowledged := map[int]bool{}
	for w := range 4 {
		all.Go(func() {
			for round := range 10 {
				from := (w*3 + round*7) % 80
				x := s.Begin()
				put(t, x, from, from+20)
				if err := x.Commit(); err != nil {
					t.Error(err)
				}
				mu.Lock()
				for i := from; i < from+20; i++ {
					acknowledged[i] = true
				}
				mu.Unlock()
				x.End()
			}
		})
	}
	all.Go(func() {
		for range 10 {
			_, err := s.Sweep(context.Background(), func(mark func(chunk.Digest)) error {
				mu.Lock()
				defer mu.Unlock()
				for i := range acknowledged {
					_, ref := content(i)
					mark(ref.Digest)
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		}
	})
	all.Wait()
	holds(t, s, 100, func(i int) bool { return acknowledged[i] })
	if damaged, err := s.Check(context.Background(), func(int64) {}); err != nil || len(damaged) > 0 {
		t.Error(damaged, err)
	}
}

func TestBitRot(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	x := s.Begin()
	put(t, x, 0, 50)
	try(t, x.Commit())
	x.End()
	_, ref := content(20)
	p, f, _ := s.find(ref.Digest)
	_, err := f.WriteAt([]byte{0xff, 0xfe}, p.off+5)
	try(t, err)
	if _, err := s.Content(chunk.NewCodec(), ref, &Buffer{}); !errors.Is(err, chunk.ErrDamaged) {
		t.Errorf("a damaged chunk: %v", err)
	}
	damaged, err := s.Check(context.Background(), func(int64) {})
	if err != nil || len(damaged) != 1 || damaged[0] != ref.Digest {
		t.Errorf("%v, %v", damaged, err)
	}
	x = s.Begin()
	put(t, x, 0, 50) // the same content again repairs it
	try(t, x.Commit())
	x.End()
	for range 2 {
		holds(t, s, 50, func(int) bool { return true })
		s = open(t, dir)
	}
}

func FuzzIndex(f *testing.F) {
	f.Add(encodeIndex(map[chunk.Digest]place{{1}: {off: 5, stored: 6, crc: 7, enc: chunk.Zstd}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if entries, err := decodeIndex(b); err == nil && len(entries)*entrySize > len(b) {
			t.Fatal("more entries than bytes")
		}
	})
}
