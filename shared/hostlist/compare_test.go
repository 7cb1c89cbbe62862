package hostlist

import (
	"slices"
	"testing"
)

func TestCompare(t *testing.T) {
	want := []string{"", "1", "2", "10", "a", "n0", "n2", "n02x", "n10", "n10a2", "n10a10", "o1"}
	got := slices.Clone(want)
	slices.Reverse(got)
	slices.SortFunc(got, Compare)
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
