package auth

import (
	"math"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"muster/shared/fault"
)

// limit allows a burst of failed logins and then one more per interval.
type limit struct {
	burst    int
	interval time.Duration
}

// What is counted for an address alone is more than for one user from it, and
// for one user from everywhere more than what one address can use up: whoever
// guesses from one place locks out nobody who comes from another.
var (
	perAddrAndUser = limit{10, 10 * time.Second}
	perAddr        = limit{20, 6 * time.Second}
	perUser        = limit{30, 2 * time.Second}
)

// maxCounted bounds how many addresses and users are remembered, about 300
// bytes each. Whoever is forgotten starts anew.
const maxCounted = 16 << 10

// source is what failures are counted for; one of the two may be empty.
type source struct {
	addr netip.Prefix
	user string
}

type counter struct {
	*rate.Limiter
	limit   limit
	pending int // attempts whose outcome is open; they count as failures until then
}

// limiter slows down the guessing of passwords. Only failures count.
type limiter struct {
	now func() time.Time

	mu       sync.Mutex
	counters *lru[source, *counter]
	proven   *lru[source, bool] // user and address that succeeded together
}

func newLimiter(now func() time.Time) *limiter {
	return &limiter{now: now, counters: newLRU[source, *counter](maxCounted), proven: newLRU[source, bool](maxCounted)}
}

// attempt is one login that may go on; done must be called once.
type attempt struct {
	l        *limiter
	pair     source
	counters []*counter
}

// begin lets an attempt go on, or says how long to wait. An address that the
// user has already logged in from is spared what others do to his name.
// Without a user only the address counts.
func (l *limiter) begin(addr netip.Addr, user string) (*attempt, time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	net := network(addr)
	a := &attempt{l: l, pair: source{net, user}}
	a.counters = append(a.counters, l.counter(source{addr: net}, perAddr))
	if user != "" {
		a.counters = append(a.counters, l.counter(a.pair, perAddrAndUser))
		if _, ok := l.proven.get(a.pair); !ok {
			a.counters = append(a.counters, l.counter(source{user: user}, perUser))
		}
	}
	var wait time.Duration
	now := l.now()
	for _, c := range a.counters {
		if free := c.TokensAt(now) - float64(c.pending); free < 1 {
			wait = max(wait, time.Duration(math.Ceil((1-free)*float64(c.limit.interval))))
		}
	}
	if wait > 0 {
		return nil, wait
	}
	for _, c := range a.counters {
		c.pending++
	}
	return a, 0
}

func (l *limiter) counter(key source, limit limit) *counter {
	c, ok := l.counters.get(key)
	if !ok {
		c = &counter{Limiter: rate.NewLimiter(rate.Every(limit.interval), limit.burst), limit: limit}
		l.counters.put(key, c)
	}
	return c
}

// done ends the attempt. Success forgives nothing that failed before: it may
// be somebody's own account that he logs in to between guesses. That PAM is
// out of order tells a guesser nothing and is not counted.
func (a *attempt) done(err error) {
	a.l.mu.Lock()
	defer a.l.mu.Unlock()
	for _, c := range a.counters {
		c.pending--
		if fault.Is(err, fault.Unauthenticated) {
			c.AllowN(a.l.now(), 1)
		}
	}
	if err == nil {
		a.l.proven.put(a.pair, true)
	}
}

// network is what one subscriber has: an IPv4 address or an IPv6 /64.
func network(a netip.Addr) netip.Prefix {
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits) // the zero Addr gives the zero Prefix
	return p
}
