package cli

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestPrintable(t *testing.T) {
	if got := printable("a\x1b[31m\nb\u009bc\u202ed\t"); got != "a [31m b c d" {
		t.Errorf("got %q", got)
	}
}

func TestClip(t *testing.T) {
	for _, c := range []struct {
		in   string
		most int
		want string
	}{{"abc", 3, "abc"}, {"abcd", 3, "ab…"}, {"日本語", 6, "日本語"}, {"日本語", 5, "日本…"}, {"日本語", 4, "日…"}, {"e\u0301e\u0301", 2, "e\u0301e\u0301"}} {
		if got := clip(c.in, c.most); got != c.want || cells(got) > c.most {
			t.Errorf("clip(%q, %d) = %q", c.in, c.most, got)
		}
	}
}

func TestBytesText(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1<<20 - 1: "1.0 MiB", 1 << 20: "1.0 MiB", 178 << 20: "178.0 MiB", 5 << 40: "5.0 TiB", 1 << 60: "1048576.0 TiB"} {
		if got := bytesText(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

func TestFit(t *testing.T) {
	for _, c := range []struct {
		in    []int
		total int
		want  []int
	}{
		{[]int{4, 50, 20}, 60, []int{4, 32, 20}},
		{[]int{4, 50, 40}, 60, []int{4, 26, 26}},
		{[]int{4, 6}, 5, []int{4, 6}},
		{[]int{100, 100}, 10, []int{8, 8}},
	} {
		got := slices.Clone(c.in)
		fit(got, c.total)
		slices.Sort(got)
		want := slices.Sorted(slices.Values(c.want))
		if !slices.Equal(got, want) {
			t.Errorf("%v in %d: %v, want %v", c.in, c.total, got, want)
		}
	}
}

// TestPrefixed: whatever pieces a node writes in, lines stay whole, each with
// its prefix, and none grows without end.
func TestPrefixed(t *testing.T) {
	long := strings.Repeat("x", 3*maxOutLine)
	for _, step := range []int{1, 3, 7, 1 << 20} {
		var out bytes.Buffer
		p := &prefixed{w: &out, prefix: "n0: "}
		text := "a\n\nbc\nd"
		for i := 0; i < len(text); i += step {
			if _, err := p.Write([]byte(text[i:min(i+step, len(text))])); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.flush(); err != nil {
			t.Fatal(err)
		}
		if want := "n0: a\nn0: \nn0: bc\nn0: d\n"; out.String() != want {
			t.Errorf("in pieces of %d: %q", step, out.String())
		}
	}
	var out bytes.Buffer
	p := &prefixed{w: &out, prefix: "n: "}
	for part := range slices.Chunk([]byte(long), 1000) {
		p.Write(part)
		if len(p.rest) > maxOutLine {
			t.Fatalf("%d bytes of a line are held back", len(p.rest))
		}
	}
	p.flush()
	if got := strings.ReplaceAll(strings.ReplaceAll(out.String(), "n: ", ""), "\n", ""); got != long {
		t.Errorf("%d bytes came out of %d", len(got), len(long))
	}
}

func TestBarLine(t *testing.T) {
	b := &bar{what: "upload", tty: true, done: 50 << 20, total: 100 << 20}
	if got, want := b.line(10*time.Second), "upload  [############............]  50 %  50.0 MiB  5.0 MiB/s"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	b = &bar{what: "read", done: 10, total: 0}
	if got, want := b.line(0), "read  10 B"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "abc", 3}, {"head", "heda", 2}, {"mac", "mac", 0}, {"index", "indx", 1}} {
		if got := distance(c.a, c.b); got != c.want || distance(c.b, c.a) != got {
			t.Errorf("%q to %q: %d", c.a, c.b, got)
		}
	}
}
