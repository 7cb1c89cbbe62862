package app

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// What a head allocates seldom lives long. To collect half as often as Go does
// by itself leaves more of the processors to its clients, and costs memory: as
// much again as is in use, and once more. With thousands of links in use that
// would be a lot, so it is bounded.
const (
	mostGarbage  = 64 << 20 // bytes that may wait to be collected, unless a half of what is in use is more
	gcPercentMin = 50
	gcPercentMax = 200
	gcLook       = 5 * time.Second
)

// gcPercent is how much garbage may wait, in percent of what is in use, with
// so many bytes in use.
func gcPercent(used uint64) int {
	return int(min(max(100*mostGarbage/max(used, 1), gcPercentMin), gcPercentMax))
}

// boundGarbage keeps the garbage collector at that until ctx ends.
func boundGarbage(ctx context.Context) {
	used := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}}
	is := gcPercentMax
	debug.SetGCPercent(is)
	tick := time.NewTicker(gcLook)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		metrics.Read(used)
		sum := uint64(0)
		for _, u := range used {
			if u.Value.Kind() == metrics.KindUint64 {
				sum += u.Value.Uint64()
			}
		}
		if want := gcPercent(sum); want < is-10 || want > is+10 {
			is = want
			debug.SetGCPercent(is)
		}
	}
}
