package app

import "testing"

func TestGarbageIsBounded(t *testing.T) {
	for used, want := range map[uint64]int{0: 200, 10 << 20: 200, 32 << 20: 200, 64 << 20: 100, 100 << 20: 64, 128 << 20: 50, 1 << 30: 50, 1 << 40: 50} {
		if got := gcPercent(used); got != want {
			t.Errorf("with %d bytes in use: %d %%, want %d", used, got, want)
		}
	}
}
