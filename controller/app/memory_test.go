package app

import "testing"

func TestGarbageIsBounded(t *testing.T) {
	for used, want := range map[uint64]int{0: 200, 10 << 20: 200, 64 << 20: 200, 128 << 20: 100, 200 << 20: 64, 1 << 30: 50, 1 << 40: 50} {
		if got := gcPercent(used); got != want {
			t.Errorf("with %d bytes in use: %d %%, want %d", used, got, want)
		}
	}
}
