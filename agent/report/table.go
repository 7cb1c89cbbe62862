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
// changed, so that a report can be made of what is new. Neither to note what
// did not change nor to write a report takes memory.
type table struct {
	mu      sync.Mutex
	now     uint64 // counts changes
	bytes   int
	entries map[string]*entry
	gone    map[string]uint64 // entries that are no more, and since which change
}

type entry struct {
	name    []byte // the key as JSON, with its colon
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
		name, err := json.Marshal(key)
		if err != nil {
			return false
		}
		e = &entry{name: append(name, ':')}
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

// uint is for numbers that change often, put for any other value. One that
// JSON has no form for is left out.
func (t *table) uint(key string, n uint64) {
	var text [20]byte
	t.set(key, strconv.AppendUint(text[:0], n, 10))
}

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

// change is the number of the newest one.
func (t *table) change() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.now
}

// since writes the entries that are new after a change as an object, and gives
// those that are no more, and the number of the newest change.
func (t *table) since(to []byte, change uint64) (text []byte, gone []string, now uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	to = append(to, '{')
	begin := len(to)
	for _, e := range t.entries {
		if e.changed > change {
			to = e.write(to, begin)
		}
	}
	for key, when := range t.gone {
		if when > change {
			gone = append(gone, key)
		} else {
			delete(t.gone, key)
		}
	}
	return append(to, '}'), gone, t.now
}

// whole writes all entries, but for the bulky ones that did not change after a
// change that the head has: those are to be kept.
func (t *table) whole(to []byte, change uint64) (text []byte, keep []string, now uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	to = append(to, '{')
	begin := len(to)
	for key, e := range t.entries {
		if len(e.raw) > bulky && e.changed <= change {
			keep = append(keep, key)
			continue
		}
		to = e.write(to, begin)
	}
	return append(to, '}'), keep, t.now
}

// write appends an entry to an object whose first one begins at begin.
func (e *entry) write(to []byte, begin int) []byte {
	if len(to) > begin {
		to = append(to, ',')
	}
	return append(append(to, e.name...), e.raw...)
}

// nothing is a change before all others: with it everything is new.
const nothing = 0
