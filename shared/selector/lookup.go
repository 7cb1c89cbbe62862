package selector

import (
	"strconv"
	"strings"
)

// inKiB is what nodes report in KiB, of status and hardware: these keys, and
// those that end in kibSuffix. A key with dots goes by its last part.
var inKiB = map[string]bool{
	"ram_total":     true,
	"ram_free":      true,
	"ram_available": true,
	"ram_cached":    true,
	"ram_used":      true,
	"swap_total":    true,
	"swap_free":     true,
	"swap_used":     true,
}

const kibSuffix = "_kib"

// lookup is a Lookup made ready.
type lookup struct {
	Lookup
	dotted bool
	kib    bool // the value is a number of KiB and counts as bytes
}

func newLookup(s Section, key string) lookup {
	last := key[strings.LastIndexByte(key, '.')+1:]
	return lookup{
		Lookup: Lookup{s, key},
		dotted: strings.Contains(key, "."),
		kib:    (s == Status || s == Hardware) && (inKiB[last] || strings.HasSuffix(last, kibSuffix)),
	}
}

// Value gives what the lookup reads of a node, as it is kept: sizes that nodes
// report in KiB too.
func (l Lookup) Value(n Node) (any, bool) {
	ready := newLookup(l.Section, l.Key)
	return ready.get(n)
}

// get gives the value for a node. The whole key comes before any path that
// its dots make, and a shorter first part before a longer one.
func (l *lookup) get(n Node) (any, bool) {
	v, ok := l.entry(n, l.Key)
	if ok || !l.dotted {
		return v, ok
	}
	for i := range len(l.Key) {
		if l.Key[i] != '.' {
			continue
		}
		if v, ok = l.entry(n, l.Key[:i]); !ok {
			continue
		}
		if v, ok = follow(v, l.Key[i+1:]); ok {
			return v, true
		}
	}
	return nil, false
}

func (l *lookup) entry(n Node, key string) (any, bool) {
	switch l.Section {
	case Attributes:
		return n.Attribute(key)
	case Status:
		return n.Status(key)
	case Hardware:
		return n.Hardware(key)
	}
	return n.Field(key)
}

// follow goes down from v. Each part of v is looked at once at most, as there
// is one way to it.
func follow(v any, path string) (any, bool) {
	switch v := v.(type) {
	case map[string]any:
		if x, ok := v[path]; ok {
			return x, true
		}
		for i := range len(path) {
			if path[i] != '.' {
				continue
			}
			if x, ok := v[path[:i]]; ok {
				if x, ok = follow(x, path[i+1:]); ok {
					return x, true
				}
			}
		}
	case []any:
		first, rest, more := strings.Cut(path, ".")
		i, ok := position(first, len(v))
		switch {
		case !ok:
			return nil, false
		case more:
			return follow(v[i], rest)
		}
		return v[i], true
	case []string:
		if i, ok := position(path, len(v)); ok {
			return v[i], true
		}
	}
	return nil, false
}

// position reads a list's index, from 0, which must be less than n.
func position(s string, n int) (int, bool) {
	if s == "" || len(s) > 9 || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	i, err := strconv.Atoi(s)
	return i, err == nil && i < n
}
