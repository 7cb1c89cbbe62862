package registry

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"muster/controller/store"
)

// How much of the audit trail is kept unless Options say otherwise.
const (
	DefaultAuditRecords = 100_000
	DefaultAuditAge     = 365 * 24 * time.Hour
)

// slack is how many records more than allowed may be there, as a part of them,
// and trimEvery how often what is too old is removed. maxTrim bounds what one
// transaction deletes.
const (
	slack     = 20
	trimEvery = time.Hour
	trimFirst = time.Minute // after the start, which must not wait for it
	maxTrim   = 2000
)

// trail keeps the audit trail within its bounds.
type trail struct {
	records int
	age     time.Duration

	mu    sync.Mutex
	last  int64         // newest stamp given out, in nanoseconds
	count int           // records in the store; -1 while not counted
	since int           // records written since the start, until counted
	full  chan struct{} // holds an element when there are too many
}

func newTrail(records int, age time.Duration) *trail {
	if records <= 0 {
		records = DefaultAuditRecords
	}
	if age <= 0 {
		age = DefaultAuditAge
	}
	return &trail{records: records, age: age, count: -1, full: make(chan struct{}, 1)}
}

// grew notes that records were written.
func (a *trail) grew(n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	have := &a.since
	if a.count >= 0 {
		have = &a.count
	}
	if *have += n; *have > a.records+a.records/slack {
		select {
		case a.full <- struct{}{}:
		default:
		}
	}
}

// trim removes what is beyond the bounds until ctx ends.
func (r *Registry) trim(ctx context.Context) {
	next := time.NewTimer(trimFirst)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.trail.full:
		case <-next.C:
			next.Reset(trimEvery)
		}
		if err := r.Trim(ctx); err != nil && ctx.Err() == nil {
			r.opt.Log.Error("old records of the audit trail could not be removed", "error", err)
		}
	}
}

// Trim removes the records of the audit trail that are too many or too old.
func (r *Registry) Trim(ctx context.Context) error {
	if err := r.countTrail(ctx); err != nil {
		return err
	}
	for {
		removed, err := r.trimSome(ctx)
		if err != nil || removed == 0 {
			return err
		}
	}
}

func (r *Registry) countTrail(ctx context.Context) error {
	a := r.trail
	a.mu.Lock()
	counted := a.count >= 0
	a.mu.Unlock()
	if counted {
		return nil
	}
	// In a transaction of its own nothing is written meanwhile.
	n := 0
	_, err := r.store.Update(ctx, func(tx store.Tx) error {
		n = 0
		for _, err := range tx.Scan(auditPrefix, "") {
			if err != nil {
				return err
			}
			n++
		}
		return nil
	})
	if err == nil {
		a.mu.Lock()
		a.count = n
		a.mu.Unlock()
	}
	return err
}

func (r *Registry) trimSome(ctx context.Context) (removed int, err error) {
	a := r.trail
	a.mu.Lock()
	excess := a.count - a.records
	a.mu.Unlock()
	oldest := auditPrefix + fmt.Sprintf("%016x", max(0, r.opt.Now().Add(-a.age).UnixNano()))
	_, err = r.store.Update(ctx, func(tx store.Tx) error {
		removed = 0
		var keys []string
		for pair, err := range tx.Scan(auditPrefix, "") {
			if err != nil {
				return err
			}
			if len(keys) >= excess && pair.Key >= oldest || len(keys) == maxTrim {
				break
			}
			keys = append(keys, pair.Key)
		}
		for _, key := range keys {
			if err := tx.Delete(key); err != nil {
				return err
			}
		}
		removed = len(keys)
		return nil
	})
	if err == nil {
		a.mu.Lock()
		a.count -= removed
		a.mu.Unlock()
	}
	return removed, err
}

// Trail says which records of the audit trail are wanted: those from Since on
// and before Before (both may be zero), that Match takes (nil for all), the
// newest Limit of them.
type Trail struct {
	Since  time.Time
	Before string // an Entry's ID
	Limit  int
	Match  func(*Entry) bool
}

// Audit gives records of the audit trail, oldest first.
func (r *Registry) Audit(ctx context.Context, q Trail) ([]Entry, error) {
	since, before := int64(0), q.Before
	if !q.Since.IsZero() {
		since = max(0, q.Since.UnixNano())
	}
	if before == "" {
		before = "~"
	}
	end, err := strconv.ParseInt(before[:min(16, len(before))], 16, 64)
	if err != nil {
		end = r.opt.Now().UnixNano()
	}
	var found []Entry
	// The newest records lie at the end, and a store is read forwards only: look
	// at ever longer spans, each before the one before it.
	for span := int64(10 * time.Minute); ; span *= 8 {
		begin := max(since, end-span)
		if span > int64(365*24*time.Hour) {
			begin = since
		}
		older, err := r.span(ctx, begin, before, q, q.Limit-len(found))
		if err != nil {
			return nil, err
		}
		found = slices.Concat(older, found)
		if len(found) >= q.Limit || begin <= since {
			return found, nil
		}
		end, before = begin, fmt.Sprintf("%016x", begin)
	}
}

// span gives the newest records of a span of time.
func (r *Registry) span(ctx context.Context, begin int64, before string, q Trail, limit int) (found []Entry, err error) {
	err = r.store.View(ctx, func(tx store.Tx) error {
		for pair, err := range tx.Scan(auditPrefix, auditPrefix+fmt.Sprintf("%016x", begin)) {
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				return err
			}
			if strings.TrimPrefix(pair.Key, auditPrefix) >= before {
				return nil
			}
			var e Entry
			if err := json.Unmarshal(pair.Value, &e); err != nil {
				return fmt.Errorf("record %s of the audit trail cannot be read: %w", pair.Key, err)
			}
			if q.Match != nil && !q.Match(&e) {
				continue
			}
			found = append(found, e)
			if len(found) >= 2*limit+64 {
				found = append(found[:0], found[len(found)-limit:]...)
			}
		}
		return nil
	})
	return found[max(0, len(found)-limit):], err
}
