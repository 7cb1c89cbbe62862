package selection

import (
	"encoding/json"
	"slices"
	"strconv"

	"muster/shared/selector"
)

// column is what one lookup reads of every node, by slot. Values are filled in
// when they are first read and after they have changed.
type column struct {
	lookup selector.Lookup
	values []any
	there  bits // slots that have a value
	known  bits // slots whose value is filled in
	used   uint64

	// By value, from when somebody first asks for one.
	indexed bool
	keys    []string           // by slot, what its value is kept under
	slots   map[string][]int32 // by that
	stale   queue              // slots whose place is not certain
}

// grow makes room for n slots; those that are new are unknown.
func (c *column) grow(n int) {
	for len(c.values) < n {
		slot := int32(len(c.values))
		c.values = append(c.values, nil)
		if c.indexed {
			c.keys = append(c.keys, absent)
			c.stale.add(slot)
		}
	}
}

// absent is no key that Key gives: those of texts have no such bytes at the
// end, as none is valid UTF-8.
const absent = "\xff"

// forget notes that the slot's value may be another one now.
func (c *column) forget(slot int32) {
	if int(slot) >= len(c.values) {
		return
	}
	c.known.clear(slot)
	if c.indexed {
		c.stale.add(slot)
	}
}

// get gives the slot's value.
func (c *column) get(ix *Index, slot int32) (any, bool) {
	if !c.known.has(slot) {
		v, ok := ix.read(c.lookup, slot)
		c.values[slot] = ready(v)
		if ok {
			c.there.set(slot)
		} else {
			c.there.clear(slot)
		}
		c.known.set(slot)
	}
	return c.values[slot], c.there.has(slot)
}

// ready turns a number as it was written into one that need not be parsed each
// time, where that loses nothing of how it was written; and one that lies with
// its node into one that lies beside the others of the column.
func ready(v any) any {
	switch n := v.(type) {
	case json.Number:
		if i, err := strconv.ParseInt(string(n), 10, 64); err == nil && strconv.FormatInt(i, 10) == string(n) {
			return i
		}
	case *int64:
		if n != nil {
			return *n
		}
	}
	return v
}

// holding gives the slots whose value is kept under the key.
func (c *column) holding(ix *Index, key string) []int32 {
	if !c.indexed {
		c.indexed, c.slots, c.keys = true, map[string][]int32{}, make([]string, len(c.values))
		for slot := range c.values {
			c.keys[slot] = absent
			c.stale.add(int32(slot))
		}
	}
	for _, slot := range c.stale.take() {
		c.place(ix, slot)
	}
	return c.slots[key]
}

// place puts a slot where its value belongs.
func (c *column) place(ix *Index, slot int32) {
	key := absent
	if ix.nodes[slot] != nil {
		if v, ok := c.get(ix, slot); ok {
			if k, ok := selector.Key(v); ok {
				key = k
			}
		}
	}
	old := c.keys[slot]
	if key == old {
		return
	}
	if old != absent {
		list := c.slots[old]
		if i := slices.Index(list, slot); i >= 0 {
			list[i] = list[len(list)-1]
			list = list[:len(list)-1]
		}
		if len(list) == 0 {
			delete(c.slots, old)
		} else {
			c.slots[old] = list
		}
	}
	if key != absent {
		c.slots[key] = append(c.slots[key], slot)
	}
	c.keys[slot] = key
}
