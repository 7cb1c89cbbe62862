package dns

import (
	"container/list"
	"encoding/binary"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Bounds on what is remembered of others' answers.
const (
	maxCached      = 20_000
	maxCachedBytes = 32 << 20
	maxTTL         = 24 * 60 * 60 // seconds
	maxNegativeTTL = 15 * 60      // seconds
)

// key is a question to others.
type key struct {
	name          string // wire form
	typ           uint16
	do, unchecked bool
}

func keyOf(q *query) key { return key{string(q.name()), q.typ, q.do, q.unchecked()} }

// found is what others answered: a message without OPT, and where in it the
// lifetimes are. It is never changed.
type found struct {
	packed    []byte
	question  int   // where the question ends
	ttls      []int // positions
	rcode     int
	authentic bool
	counts    [3]int
	at        time.Time
	expires   time.Time
}

// write puts it into a reply, with lifetimes as they are by now.
func (f *found) write(r *reply, q *query, now time.Time) {
	begin := len(r.out)
	r.out = append(r.out, f.packed[f.question:]...)
	passed := uint32(max(0, now.Sub(f.at)/time.Second))
	for _, at := range f.ttls {
		field := r.out[begin+at-f.question:]
		left := binary.BigEndian.Uint32(field)
		binary.BigEndian.PutUint32(field, left-min(left, passed))
	}
	r.rcode, r.authoritative, r.available = f.rcode, false, true
	r.verified = f.authentic && (q.do || q.authentic())
	r.answer, r.author, r.additional = f.counts[0], f.counts[1], f.counts[2]
}

// read turns an upstream's answer to a question into one that can be given to
// others; ok is false for one that is not the answer to it.
func read(m *dns.Msg, asked dns.Question, now time.Time) (f *found, ok bool) {
	if !m.Response || m.Opcode != dns.OpcodeQuery || len(m.Question) != 1 {
		return nil, false
	}
	echo := m.Question[0]
	if !strings.EqualFold(echo.Name, asked.Name) || echo.Qtype != asked.Qtype || echo.Qclass != asked.Qclass {
		return nil, false
	}
	rcode, authentic := m.Rcode, m.AuthenticatedData
	m.Extra = withoutOPT(m.Extra)
	m.Rcode &= 15
	m.Compress = true
	lifetime := clampTTL(m)
	packed, err := m.Pack()
	if err != nil || len(packed) > dns.MaxMsgSize {
		return nil, false
	}
	f = &found{packed: packed, rcode: rcode, authentic: authentic, at: now, expires: now.Add(lifetime),
		counts: [3]int{len(m.Answer), len(m.Ns), len(m.Extra)}}
	return f, f.locate()
}

func withoutOPT(records []dns.RR) []dns.RR {
	var out []dns.RR
	for _, r := range records {
		if r.Header().Rrtype != dns.TypeOPT {
			out = append(out, r)
		}
	}
	return out
}

// clampTTL bounds the records' lifetimes and gives that of the whole. An answer
// that says no lives as long as its SOA says (RFC 2308), one without not at all.
func clampTTL(m *dns.Msg) time.Duration {
	lowest := uint32(maxTTL)
	if len(m.Answer) == 0 || m.Rcode != dns.RcodeSuccess {
		lowest = 0
		for _, r := range m.Ns {
			if soa, ok := r.(*dns.SOA); ok && (m.Rcode == dns.RcodeSuccess || m.Rcode == dns.RcodeNameError) {
				lowest = min(soa.Minttl, soa.Hdr.Ttl, maxNegativeTTL)
			}
		}
	}
	for _, records := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		for _, r := range records {
			h := r.Header()
			h.Ttl = min(h.Ttl, maxTTL)
			lowest = min(lowest, h.Ttl)
		}
	}
	return time.Duration(lowest) * time.Second
}

// locate finds the lifetimes in the packed message.
func (f *found) locate() bool {
	at := skipName(f.packed, headerSize)
	if at < 0 || at+4 > len(f.packed) {
		return false
	}
	at += 4
	f.question = at
	for range f.counts[0] + f.counts[1] + f.counts[2] {
		next := skipName(f.packed, at)
		if next < 0 || next+10 > len(f.packed) {
			return false
		}
		f.ttls = append(f.ttls, next+4)
		at = next + 10 + int(binary.BigEndian.Uint16(f.packed[next+8:]))
	}
	return at == len(f.packed)
}

// cache remembers answers, the least recently used going first.
type cache struct {
	mu    sync.Mutex
	byKey map[key]*list.Element
	order list.List // of *cached, the newest first
	bytes int
}

type cached struct {
	key   key
	found *found
}

func (c *cached) size() int { return len(c.found.packed) + len(c.key.name) + 8*len(c.found.ttls) + 256 }

func newCache() *cache { return &cache{byKey: map[key]*list.Element{}} }

// get gives a living answer, nil for none.
func (c *cache) get(k key, now time.Time) *found {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.byKey[k]
	if !ok {
		return nil
	}
	if f := e.Value.(*cached).found; now.Before(f.expires) {
		c.order.MoveToFront(e)
		return f
	}
	c.drop(e)
	return nil
}

func (c *cache) put(k key, f *found) {
	if !f.at.Before(f.expires) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.byKey[k]; ok {
		c.drop(e)
	}
	one := &cached{k, f}
	c.byKey[k] = c.order.PushFront(one)
	c.bytes += one.size()
	for len(c.byKey) > maxCached || c.bytes > maxCachedBytes {
		c.drop(c.order.Back())
	}
}

func (c *cache) drop(e *list.Element) {
	one := c.order.Remove(e).(*cached)
	delete(c.byKey, one.key)
	c.bytes -= one.size()
}
