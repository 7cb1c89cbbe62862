package dns

import (
	"hash/maphash"
	"net/netip"
	"sync/atomic"
	"time"
)

// Bounds on what strangers get: enough for a resolver that asks for this
// zone's names, too little to flood somebody else with in the name of another.
const (
	perStranger = 200     // answers a second for a /24 or a /56
	buckets     = 1 << 14 // counters; networks that share one share its bound
)

// limiter counts answers per network and second, in fixed memory.
type limiter struct {
	seed  maphash.Seed
	count [buckets]atomic.Uint64 // the second, and 24 bits of count
}

func (l *limiter) allow(a netip.Addr, now time.Time) bool {
	bits := 24
	if !a.Is4() {
		bits = 56
	}
	p, _ := a.Prefix(bits)
	c := &l.count[maphash.Comparable(l.seed, p)%buckets]
	second := uint64(now.Unix()) << 24
	for {
		old := c.Load()
		next := old + 1
		if old&^(1<<24-1) != second {
			next = second | 1
		}
		if next-second > perStranger {
			return false
		}
		if c.CompareAndSwap(old, next) {
			return true
		}
	}
}
