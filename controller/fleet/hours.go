package fleet

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"muster/controller/store"
	"muster/shared/object"
)

// How long nodes were in which state is summed up by day, so that it can be
// told how much a cluster was used. What a head did not see, because it did not
// run, is in no sum.

// hoursPrefix is where the sums lie, one record for each day (UTC).
const hoursPrefix = store.Unlogged + "hours/"

const (
	countEvery = time.Minute    // how much a crash may lose
	keepDays   = 1100           // three years
	maxGap     = 24 * time.Hour // a longer step is one of the clock, not time that passed
	dayForm    = "2006-01-02"
)

// Day is one day's sum.
type Day struct {
	Date    string             `json:"date"`    // 2006-01-02, UTC
	Hours   map[string]float64 `json:"hours"`   // node-hours by state
	Watched float64            `json:"watched"` // hours of the day that a head saw
}

// tally is the sums. It is guarded by Fleet.mu.
type tally struct {
	days    map[string]*sums
	dirty   map[string]bool
	watched time.Time // until when it was counted that the head runs
}

// sums are those of a day, in seconds.
type sums struct {
	States  map[string]float64 `json:"states"`
	Watched float64            `json:"watched"`
}

// add counts a span of time by the days that it touches.
func (t *tally) add(from, to time.Time, count func(*sums, float64)) {
	from, to = from.UTC().Round(0), to.UTC().Round(0) // by the calendar, not by the monotonic clock
	if to.Sub(from) > maxGap {
		return
	}
	for from.Before(to) {
		end := from.Truncate(24 * time.Hour).Add(24 * time.Hour)
		if end.After(to) {
			end = to
		}
		date := from.Format(dayForm)
		if t.days[date] == nil {
			t.days[date] = &sums{States: map[string]float64{}}
		}
		count(t.days[date], end.Sub(from).Seconds())
		t.dirty[date] = true
		from = end
	}
}

// count adds the time that a node has been in its state. f.mu is held.
func (f *Fleet) count(n *node, now time.Time) {
	state := n.was
	if state == "" {
		state = Unknown
	}
	f.tally.add(n.counted, now, func(s *sums, seconds float64) { s.States[state] += seconds })
	n.counted = now
}

// turn gives a node another state. f.mu is held.
func (f *Fleet) turn(n *node, state string) {
	now := f.opt.Now()
	f.count(n, now)
	n.was, n.since = state, now
}

// tallyUp brings the sums of all nodes to this moment, and notices the states
// that time alone has turned.
func (f *Fleet) tallyUp() {
	all := f.opt.Nodes.All(object.KindNode)
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.opt.Now()
	f.tally.add(f.tally.watched, now, func(s *sums, seconds float64) { s.Watched += seconds })
	f.tally.watched = now
	for _, o := range all {
		n := f.nodes[o.Base().UID]
		if _, exists := f.opt.Nodes.Look().Get(object.KindNode, o.Base().UID); !exists {
			continue // deleted meanwhile
		}
		if n == nil { // it never said anything
			n = f.get(o.Base().UID)
			created := time.UnixMicro(int64(o.Base().Created * 1e6))
			if n.counted = f.started; created.After(f.started) && created.Before(now) {
				n.counted = created
			}
		}
		f.count(n, now)
		if n.was != "" && f.state(n) != n.was {
			f.touch(o.Base().UID, n)
		}
	}
}

// Usage gives the sums of the days from one to another, both included, as they
// are at this moment.
func (f *Fleet) Usage(from, to time.Time) []Day {
	f.tallyUp()
	first, last := from.Format(dayForm), to.Format(dayForm)
	f.mu.Lock()
	defer f.mu.Unlock()
	out := []Day{}
	for _, date := range slices.Sorted(maps.Keys(f.tally.days)) {
		if date < first || date > last {
			continue
		}
		s := f.tally.days[date]
		d := Day{Date: date, Hours: map[string]float64{}, Watched: s.Watched / 3600}
		for state, seconds := range s.States {
			d.Hours[state] = seconds / 3600
		}
		out = append(out, d)
	}
	return out
}

func (f *Fleet) loadTally(tx store.Tx) error {
	f.tally = tally{days: map[string]*sums{}, dirty: map[string]bool{}, watched: f.started}
	for pair, err := range tx.Scan(hoursPrefix, "") {
		if err != nil {
			return err
		}
		s := &sums{}
		if err := json.Unmarshal(pair.Value, s); err != nil {
			return err
		}
		if s.States == nil {
			s.States = map[string]float64{}
		}
		f.tally.days[strings.TrimPrefix(pair.Key, hoursPrefix)] = s
	}
	return nil
}

// keepTally counts and stores until ctx ends.
func (f *Fleet) keepTally(ctx context.Context) *sync.WaitGroup {
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(countEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if err := f.saveTally(context.WithoutCancel(ctx)); err != nil {
				f.opt.Log.Error("how long nodes were up could not be stored, it will be tried again", "error", err)
			}
		}
	})
	return &wg
}

// saveTally counts and writes the days that changed; the oldest are dropped.
func (f *Fleet) saveTally(ctx context.Context) error {
	f.tallyUp()
	oldest := f.opt.Now().UTC().AddDate(0, 0, -keepDays).Format(dayForm)
	put, drop := map[string][]byte{}, []string{}
	f.mu.Lock()
	for date, s := range f.tally.days {
		if date < oldest {
			delete(f.tally.days, date)
			drop = append(drop, date)
		} else if f.tally.dirty[date] {
			put[date], _ = json.Marshal(s) // numbers can always be written
		}
	}
	clear(f.tally.dirty)
	f.mu.Unlock()
	if len(put)+len(drop) == 0 {
		return nil
	}
	_, err := f.opt.Store.Update(ctx, func(tx store.Tx) error {
		for date, raw := range put {
			if err := tx.Put(hoursPrefix+date, raw); err != nil {
				return err
			}
		}
		for _, date := range drop {
			if err := tx.Delete(hoursPrefix + date); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		for date := range put {
			f.tally.dirty[date] = true
		}
	}
	return err
}

// Stale gives the UIDs of nodes of which something is known though they are
// no more.
func (f *Fleet) Stale() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	gone := []string{}
	for uid := range f.nodes {
		if _, ok := f.opt.Nodes.Look().Get(object.KindNode, uid); !ok {
			gone = append(gone, uid)
		}
	}
	slices.Sort(gone)
	return gone
}
