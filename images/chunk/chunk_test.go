package chunk

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"
)

// noise is the same every time, and compresses where packable is set.
func noise(n int, seed uint64, packable bool) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, n)
	for i := range b {
		if b[i] = byte(r.Uint32()); packable {
			b[i] &= 0x0f
		}
	}
	return b
}

func cut(b []byte) []Digest {
	var out []Digest
	for len(b) > 0 {
		n := Cut(b[:min(len(b), MaxCut)])
		out = append(out, Sum(b[:n]))
		b = b[n:]
	}
	return out
}

const firstCut = 85436

func TestCut(t *testing.T) {
	b := noise(16<<20, 1, false)
	whole := cut(b)
	if n := len(whole); n < 160 || n > 400 {
		t.Errorf("16 MiB in %d chunks, want some 256", n)
	}
	// What is stored depends on where cuts are: they must never move.
	if got := Cut(b); got != firstCut {
		t.Errorf("the first cut is at %d, it was at %d when images were stored", got, firstCut)
	}
	for rest := b; len(rest) > 0; {
		n := Cut(rest[:min(len(rest), MaxCut)])
		if n > MaxCut || n < MinSize && n < len(rest) {
			t.Fatalf("a chunk of %d bytes", n)
		}
		if Cut(rest) != n {
			t.Fatal("a cut depends on what lies far behind it")
		}
		rest = rest[n:]
	}
	if n := len(cut(b[:Whole])); n != 1 {
		t.Errorf("a small file in %d chunks", n)
	}
	if n := len(cut(make([]byte, 1<<20))); n != 4 {
		t.Errorf("a MiB of zeros in %d chunks", n)
	}
	// An insertion in the middle changes the chunks around it.
	changed := cut(append(append(bytes.Clone(b[:8<<20]), "inserted"...), b[8<<20:]...))
	had, fresh := map[Digest]bool{}, 0
	for _, d := range whole {
		had[d] = true
	}
	for _, d := range changed {
		if !had[d] {
			fresh++
		}
	}
	if fresh == 0 || fresh > 3 {
		t.Errorf("an insertion changes %d of %d chunks", fresh, len(changed))
	}
}

func TestCodec(t *testing.T) {
	c := NewCodec()
	for _, packable := range []bool{true, false} {
		content := noise(100_000, 2, packable)
		ref := Ref{Sum(content), uint32(len(content))}
		stored, e := c.Encode(nil, content)
		if (e == Zstd) != packable || packable && len(stored) > 60_000 {
			t.Errorf("packable %v: encoding %d, %d bytes", packable, e, len(stored))
		}
		got, err := c.Decode(nil, stored, e, ref)
		if err != nil || !bytes.Equal(got, content) {
			t.Fatal("it does not come back", err)
		}
		damaged := bytes.Clone(stored)
		damaged[len(damaged)/2] ^= 1
		if _, err := c.Decode(nil, damaged, e, ref); !errors.Is(err, ErrDamaged) {
			t.Errorf("a flipped bit: %v", err)
		}
		if _, err := c.Decode(nil, stored, e, Ref{ref.Digest, ref.Size - 1}); !errors.Is(err, ErrDamaged) {
			t.Errorf("too long: %v", err)
		}
	}
	bomb, _ := c.Encode(nil, make([]byte, MaxSize))
	if _, err := c.Decode(nil, bytes.Repeat(bomb, 100), Zstd, Ref{Size: 1000}); !errors.Is(err, ErrDamaged) {
		t.Errorf("a bomb: %v", err)
	}
}

func TestFrames(t *testing.T) {
	content := noise(1000, 3, true)
	sent := append(PutFrameHead(nil, Zstd, len(content)), content...)
	sent = PutFrameHead(sent, Absent, 0)
	r := bytes.NewReader(sent)
	if got, e, err := ReadFrame(r, nil); err != nil || e != Zstd || !bytes.Equal(got, content) {
		t.Error(e, err)
	}
	if _, e, err := ReadFrame(r, nil); err != nil || e != Absent {
		t.Error(e, err)
	}
	for _, bad := range [][]byte{{0, 0xff, 0, 0, 0}, {9, 0, 0, 0, 0}, {2, 0, 0, 0, 1, 0}, sent[:100]} {
		if _, _, err := ReadFrame(bytes.NewReader(bad), nil); err == nil {
			t.Errorf("%v is taken", bad[:5])
		}
	}
}

func FuzzFrames(f *testing.F) {
	c := NewCodec()
	stored, e := c.Encode(nil, noise(3000, 4, true))
	f.Add(append(PutFrameHead(nil, e, len(stored)), stored...))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		for {
			stored, e, err := ReadFrame(r, nil)
			if err != nil {
				return
			}
			if out, err := c.Unpack(nil, stored, 4096); e == Zstd && err == nil && len(out) > 4096 {
				t.Fatalf("%d bytes", len(out))
			}
		}
	})
}
