package squash

import (
	"bytes"
	"context"
	"math/rand/v2"
	"sync"
	"testing"

	"muster/images/chunk"
)

// file is content, and where it says that it can be cut.
func file(seed uint64) (File, []byte) {
	r := rand.New(rand.NewPCG(seed, 9))
	b := make([]byte, 3<<20)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	cuts := &Cuts{}
	for at := int64(96); at < 2<<20; {
		n := uint32(r.IntN(128<<10) + 1)
		cuts.Add(at, n)
		at += int64(n)
	}
	return File{Content: bytes.NewReader(b), Size: int64(len(b)), SHA256: chunk.Sum(b), Head: 96, Tables: 2 << 20, Cuts: cuts}, b
}

func build(t testing.TB, f File) ([]byte, map[chunk.Digest][]byte) {
	t.Helper()
	var mu sync.Mutex
	chunks := map[chunk.Digest][]byte{}
	raw, err := Build(context.Background(), f, func(ref chunk.Ref, _ int64, b []byte) error {
		mu.Lock()
		defer mu.Unlock()
		chunks[ref.Digest] = bytes.Clone(b)
		return ref.Check(b)
	})
	if err != nil {
		t.Fatal(err)
	}
	return raw, chunks
}

func TestBuild(t *testing.T) {
	plain, content := file(1)
	plain.Head, plain.Tables, plain.Cuts = 0, 0, nil
	cut, _ := file(1)
	large, _ := file(1)
	large.Cuts = &Cuts{tooMany: true}
	for name, f := range map[string]File{"squashfs": cut, "anything": plain, "too many cuts": large, "nothing": {Content: bytes.NewReader(nil)}} {
		t.Run(name, func(t *testing.T) {
			raw, chunks := build(t, f)
			again, _ := build(t, f)
			if !bytes.Equal(raw, again) {
				t.Error("it is not the same every time")
			}
			x, err := Decode(raw)
			if err != nil {
				t.Fatal(err)
			}
			if x.Size != f.Size || x.SHA256 != f.SHA256 || x.Digest != chunk.Sum(raw) {
				t.Errorf("%+v", x)
			}
			var got []byte
			for at, s := range x.Segments() {
				if at != int64(len(got)) {
					t.Fatalf("a segment at %d instead of %d", at, len(got))
				}
				got = append(append(got, s.Inline...), chunks[s.Chunk.Digest]...)
			}
			if !bytes.Equal(got, content[:f.Size]) {
				t.Error("its segments are not the file")
			}
		})
	}
	raw, chunks := build(t, cut)
	if len(chunks) < 10 || len(raw) < 1<<20 {
		t.Errorf("%d chunks, index of %d bytes", len(chunks), len(raw))
	}
}

func FuzzDecode(f *testing.F) {
	small := File{Content: bytes.NewReader(make([]byte, 400)), Size: 400, Head: 96, Tables: 300, Cuts: &Cuts{}}
	small.Cuts.Add(96, 100)
	raw, _ := build(f, small)
	f.Add(raw)
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := Decode(b)
		if err != nil {
			return
		}
		total := int64(0)
		var all []Segment
		for _, s := range x.Segments() {
			total += int64(s.Len())
			all = append(all, s)
		}
		if total != x.Size {
			t.Fatalf("%d of %d bytes", total, x.Size)
		}
		if again, err := encode(x.Size, x.SHA256, all); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("another encoding of the same: %v", err)
		}
	})
}
