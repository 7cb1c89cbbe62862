package report

import (
	"bytes"
	"encoding/json"
	"strconv"
	"sync"
)

// bulky is from how many bytes on an entry is left out of whole reports when
// the head has it as it is.
const bulky = 2 << 10

// Bounds on the status as a whole, below those of a head.
const (
	maxKeys  = 900
	maxBytes = 900 << 10
)

// table is the status as it was last seen, entry by entry, and when each last
// changed, so that a report can be made of what is new.
type table struct {
	mu      sync.Mutex
	now     uint64 // counts changes
	bytes   int
	entries map[string]*entry
	gone    map[string]uint64 // entries that are no more, and since which change
	scratch []byte
}

type entry struct {
	raw     []byte // JSON
	changed uint64
}

func newTable() *table {
	return &table{entries: map[string]*entry{}, gone: map[string]uint64{}}
}

// set takes the value of an entry, which must be JSON and is copied. It says
// no to what would make the status larger than a head takes.
func (t *table) set(key string, raw []byte) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.entries[key]
	if e == nil {
		if len(t.entries) >= maxKeys {
			return false
		}
		e = &entry{}
	} else if bytes.Equal(e.raw, raw) {
		return true
	}
	if t.bytes+len(raw)-len(e.raw) > maxBytes {
		return false
	}
	t.bytes += len(raw) - len(e.raw)
	t.entries[key] = e
	t.now++
	e.raw, e.changed = append(e.raw[:0], raw...), t.now
	delete(t.gone, key)
	return true
}

// uint and text are the common values; put is for any other. A value that JSON
// has no form for is left out.
func (t *table) uint(key string, n uint64) {
	t.scratch = strconv.AppendUint(t.scratch[:0], n, 10)
	t.set(key, t.scratch)
}

func (t *table) text(key, s string) { t.put(key, s) }

func (t *table) put(key string, v any) bool {
	raw, err := json.Marshal(v)
	return err == nil && t.set(key, raw)
}

func (t *table) has(key string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.entries[key] != nil
}

// drop removes an entry.
func (t *table) drop(keys ...string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, key := range keys {
		if e := t.entries[key]; e != nil {
			t.now++
			t.bytes -= len(e.raw)
			delete(t.entries, key)
			t.gone[key] = t.now
		}
	}
}

// since gives the entries that are new after a change, those that are no more,
// and the number of the newest change. The values are copies.
func (t *table) since(change uint64) (fresh map[string]any, gone []string, now uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fresh = make(map[string]any, 16)
	for key, e := range t.entries {
		if e.changed > change {
			fresh[key] = json.RawMessage(bytes.Clone(e.raw))
		}
	}
	for key, when := range t.gone {
		if when > change {
			gone = append(gone, key)
		} else {
			delete(t.gone, key)
		}
	}
	return fresh, gone, t.now
}

// whole gives all entries, but for the bulky ones that did not change after a
// change that the head has: those are to be kept.
func (t *table) whole(change uint64) (all map[string]any, keep []string, now uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	all = make(map[string]any, len(t.entries))
	for key, e := range t.entries {
		if len(e.raw) > bulky && e.changed <= change {
			keep = append(keep, key)
			continue
		}
		all[key] = json.RawMessage(bytes.Clone(e.raw))
	}
	return all, keep, t.now
}

// nothing is a change before all others: with it everything is new.
const nothing = 0
