package dhcp

import (
	"sync"
	"time"
)

// Bounds on what strangers can make the head do.
const (
	perMAC  = 20      // packets a second that one MAC is answered
	maxMACs = 1 << 16 // MACs remembered at once
	twinFor = time.Minute
)

// limiter counts packets per key in each second. When it is full, keys that
// are new in that second are refused.
type limiter struct {
	mu     sync.Mutex
	second int64
	count  map[string]int
}

func (l *limiter) allow(key string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := now.Unix(); s != l.second || l.count == nil {
		l.second, l.count = s, map[string]int{}
	}
	n, known := l.count[key]
	if n >= perMAC || !known && len(l.count) >= maxMACs {
		return false
	}
	l.count[key] = n + 1
	return true
}

// once says whether a text has not been said in the last ten minutes, so that
// a machine that asks in vain every few seconds does not fill the log.
type once struct {
	mu    sync.Mutex
	since time.Time
	said  map[string]bool
}

func (o *once) first(text string, now time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.said == nil || now.Sub(o.since) > 10*time.Minute {
		o.since, o.said = now, map[string]bool{}
	}
	if o.said[text] || len(o.said) >= 4096 {
		return false
	}
	o.said[text] = true
	return true
}

// twins notices two machines with one MAC by their identifiers (option 97). A
// reservation cannot tell them apart, and would give both one address.
type twins struct {
	mu   sync.Mutex
	seen map[string]sighting
}

type sighting struct {
	identity string
	at       time.Time
}

// check says whether key (a MAC and the sort of client, which may see another
// identifier than the next one does) was used by another machine within the
// last minute. Whoever came first stays in possession for as long as it keeps
// asking; a board that was really exchanged waits a minute.
func (t *twins) check(key, identity string, now time.Time) (conflict bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.seen == nil || len(t.seen) >= maxMACs {
		t.seen = map[string]sighting{}
	}
	s, ok := t.seen[key]
	if ok && s.identity != identity && now.Sub(s.at) < twinFor {
		return true
	}
	t.seen[key] = sighting{identity, now}
	return false
}
