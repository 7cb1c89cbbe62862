package delta

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"
)

// index looks like one: records with an offset that grows, and digests.
func index(records int) []byte {
	r := rand.New(rand.NewPCG(7, 7))
	var b []byte
	for i := range records {
		b = binary.LittleEndian.AppendUint32(b, uint32(0x81a4<<16))
		b = binary.LittleEndian.AppendUint64(b, uint64(1_000_000+i*4711))
		for range 4 {
			b = binary.LittleEndian.AppendUint64(b, r.Uint64())
		}
	}
	return b
}

func both(t *testing.T, old, want []byte) int {
	t.Helper()
	d, err := Make(old, want)
	if err != nil {
		t.Fatal(err)
	}
	again, _ := Make(old, want)
	if !bytes.Equal(d, again) {
		t.Error("it is not the same every time")
	}
	got, err := Apply(old, d, len(want))
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("it does not come back: %v", err)
	}
	if _, err := Apply(old, d, len(want)-1); err == nil && len(want) > 0 {
		t.Error("more than the limit")
	}
	return len(d)
}

func TestDelta(t *testing.T) {
	old := index(10_000)
	if n := both(t, old, old); n > 200 {
		t.Errorf("nothing changed: %d bytes", n)
	}
	if n := both(t, nil, old); n > len(old) {
		t.Errorf("from nothing: %d of %d bytes", n, len(old))
	}
	inserted := slices.Concat(old[:len(old)/2], []byte("something that was not there"), old[len(old)/2:])
	if n := both(t, old, inserted); n > 300 {
		t.Errorf("an insertion: %d bytes", n)
	}
	// All offsets behind a change grow by the same.
	shifted := bytes.Clone(old)
	for at := len(shifted) / 44 / 2 * 44; at < len(shifted); at += 44 {
		binary.LittleEndian.PutUint64(shifted[at+4:], binary.LittleEndian.Uint64(shifted[at+4:])+777)
	}
	if n := both(t, old, shifted); n > 4000 {
		t.Errorf("5000 offsets: %d bytes", n)
	}
	swapped := slices.Concat(old[len(old)/2:], old[:len(old)/2], old[:1000])
	if n := both(t, old, swapped); n > 300 {
		t.Errorf("two halves: %d bytes", n)
	}
	both(t, old, nil)
	both(t, nil, nil)
	both(t, old[:5], old[:7])
}

func FuzzApply(f *testing.F) {
	old := index(20)
	d, _ := Make(old, slices.Concat(old[:100], []byte("xyz"), old[50:]))
	f.Add(old, d)
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, old, d []byte) {
		if out, err := Apply(old, d, 1<<16); err == nil && len(out) > 1<<16 {
			t.Fatalf("%d bytes", len(out))
		}
		// Whatever the files are, a delta of them makes the one of the other.
		made, err := Make(old, d)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := Apply(old, made, len(d)); err != nil || !bytes.Equal(back, d) {
			t.Fatalf("it does not come back: %v", err)
		}
	})
}
