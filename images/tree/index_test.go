package tree

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"muster/images/chunk"
)

func TestBetween(t *testing.T) {
	dir := sample(t)
	s := &store{chunks: map[chunk.Digest][]byte{}}
	make := func() *Manifest {
		r, size := squash(t, dir, "-comp", "zstd", "-no-fragments")
		raw, err := FromSquash(context.Background(), r, size, s, nil)
		try(t, err)
		m, err := Decode(raw)
		try(t, err)
		return m
	}
	p := func(name string) string { return filepath.Join(dir, name) }
	old := make()
	try(t, os.WriteFile(p("another"), noise(900_000, 9), 0o644), os.RemoveAll(p("usr/lib/deep")), os.WriteFile(p("usr/lib/deep"), nil, 0o644), os.Remove(p("pipe")))
	now := make()
	b, a, err := Between(old, now, []string{"/etc", "../..", "none", "su"})
	try(t, err)
	before, err := Decode(b)
	try(t, err)
	after, err := Decode(a)
	try(t, err)
	want, _, err := Diff(old, now, math.MaxInt)
	try(t, err)
	got, _, err := Diff(before, after, math.MaxInt)
	try(t, err)
	if fmt.Sprint(got) != fmt.Sprint(want) || len(want) < 300 {
		t.Errorf("%d changes, want %d", len(got), len(want))
	}
	x, err := after.Index()
	try(t, err)
	// All names of a changed file are in it, what is the same is not, and what
	// was asked for besides is.
	if names := x.Names("another"); fmt.Sprint(names) != "[another usr/lib/large]" {
		t.Errorf("names: %v", names)
	}
	if x.Of("usr/lib/large") != x.Entries["another"] || x.Entries["copy"] != nil || x.Entries["su"] == nil || x.Entries["usr/lib"] == nil || x.Of("none") != nil {
		t.Errorf("%v", x.Order)
	}
	if b, a, err := Between(now, now, nil); err != nil || len(b) > 100 || len(a) > 100 {
		t.Errorf("nothing differs, in %d and %d bytes: %v", len(b), len(a), err)
	}
}
