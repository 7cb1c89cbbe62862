package dns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// Bounds on asking others.
const (
	maxForwards        = 2048 // questions under way
	maxForwardsPerPeer = 256
	tryTime            = 1500 * time.Millisecond
	allTime            = 5 * time.Second
)

var errNoUpstream = errors.New("no resolver to ask: none is configured, or none but this server itself")

// forwarder asks other resolvers, each question once at a time.
type forwarder struct {
	upstreams func() []netip.AddrPort
	cache     *cache
	best      atomic.Uint32 // which upstream answered last

	mu      sync.Mutex
	flights map[key]*flight
	all     int
	by      map[netip.Addr]int
	done    sync.WaitGroup
}

// flight is a question under way. Who asks it meanwhile waits for the same
// answer, so that a loop between servers cannot grow.
type flight struct {
	done  chan struct{}
	found *found
	err   error
}

func newForwarder(upstreams func() []netip.AddrPort) *forwarder {
	return &forwarder{upstreams: upstreams, cache: newCache(), flights: map[key]*flight{}, by: map[netip.Addr]int{}}
}

func (f *forwarder) enter(a netip.Addr) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.all >= maxForwards || f.by[a] >= maxForwardsPerPeer {
		return false
	}
	f.all++
	f.by[a]++
	return true
}

func (f *forwarder) leave(a netip.Addr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all--
	if f.by[a]--; f.by[a] == 0 {
		delete(f.by, a)
	}
}

// begin runs fn in the background for an asker, unless there is too much
// under way already.
func (f *forwarder) begin(a netip.Addr, fn func()) bool {
	if !f.enter(a) {
		return false
	}
	f.done.Go(func() {
		defer f.leave(a)
		fn()
	})
	return true
}

// run is begin in the foreground.
func (f *forwarder) run(a netip.Addr, fn func()) bool {
	if !f.enter(a) {
		return false
	}
	defer f.leave(a)
	fn()
	return true
}

func (f *forwarder) wait() { f.done.Wait() }

// resolve gives the answer to a question, from memory or from others.
func (f *forwarder) resolve(ctx context.Context, k key) (*found, error) {
	if known := f.cache.get(k, time.Now()); known != nil {
		return known, nil
	}
	f.mu.Lock()
	same, ok := f.flights[k]
	if !ok {
		same = &flight{done: make(chan struct{})}
		f.flights[k] = same
	}
	f.mu.Unlock()
	if ok {
		select {
		case <-same.done:
			return same.found, same.err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	same.found, same.err = f.ask(ctx, k)
	if same.err == nil {
		f.cache.put(k, same.found)
	}
	f.mu.Lock()
	delete(f.flights, k)
	f.mu.Unlock()
	close(same.done)
	return same.found, same.err
}

// ask tries the upstreams, first the one that answered last, twice each.
func (f *forwarder) ask(ctx context.Context, k key) (*found, error) {
	ctx, cancel := context.WithTimeout(ctx, allTime)
	defer cancel()
	ups := f.upstreams()
	if len(ups) == 0 {
		return nil, errNoUpstream
	}
	first := int(f.best.Load())
	var failed *found // an answer that says that the upstream could not
	var errs []error
	for i := range 2 * len(ups) {
		at := (first + i) % len(ups)
		got, err := exchange(ctx, ups[at], k)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("%s: %w", ups[at], err))
			if ctx.Err() != nil {
				return failed, errors.Join(errs...)
			}
		case got.rcode == dns.RcodeServerFailure || got.rcode == dns.RcodeRefused || got.rcode == dns.RcodeNotImplemented:
			failed = got
			if i >= len(ups)-1 {
				return failed, nil
			}
		default:
			f.best.Store(uint32(at))
			return got, nil
		}
	}
	if failed != nil {
		return failed, nil
	}
	return nil, errors.Join(errs...)
}

// exchange asks one upstream: by UDP from a port of its own for each question,
// and by TCP where the answer did not fit. Anything but the answer to this
// question is passed over, whoever sent it.
func exchange(ctx context.Context, up netip.AddrPort, k key) (*found, error) {
	ctx, cancel := context.WithTimeout(ctx, tryTime)
	defer cancel()
	name, _, err := dns.UnpackDomainName([]byte(k.name), 0)
	if err != nil {
		return nil, err
	}
	m := new(dns.Msg).SetQuestion(name, k.typ)
	m.CheckingDisabled, m.AuthenticatedData = k.unchecked, true
	m.SetEdns0(maxUDP, k.do)
	for _, network := range []string{"udp", "tcp"} {
		answer, err := converse(ctx, network, up, m)
		if err != nil {
			return nil, err
		}
		if !answer.truncated {
			return answer.found, nil
		}
	}
	return nil, errors.New("its answer does not even fit by TCP")
}

type conversation struct {
	found     *found
	truncated bool
}

func converse(ctx context.Context, network string, up netip.AddrPort, m *dns.Msg) (c conversation, err error) {
	client := dns.Client{Net: network, UDPSize: maxUDP}
	conn, err := client.DialContext(ctx, up.String())
	if err != nil {
		return c, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	conn.UDPSize = maxUDP
	if err := conn.WriteMsg(m); err != nil {
		return c, err
	}
	for {
		raw, err := conn.ReadMsgHeader(nil)
		if err != nil {
			if ctx.Err() != nil {
				err = ctx.Err()
			}
			return c, err
		}
		var answer dns.Msg
		bad := answer.Unpack(raw)
		if answer.Id != m.Id {
			continue
		}
		if answer.Truncated {
			return conversation{truncated: true}, nil
		}
		if f, ok := read(&answer, m.Question[0], time.Now()); ok && bad == nil {
			c.found = f
			return c, nil
		}
	}
}

// overloaded answers without looking further.
func overloaded(raw []byte, udp bool) []byte {
	var q query
	var r reply
	q.parse(raw, udp)
	r.begin(nil, &q)
	r.rcode, r.available = dns.RcodeServerFailure, true
	return r.finish(&q)
}
