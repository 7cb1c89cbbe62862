package dns

import (
	"encoding/binary"
	"hash/maphash"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/miekg/dns"
)

// How long others may remember an answer, in seconds: short, because an answer
// is cheap and nodes are moved and renamed.
const (
	ttl         = 10
	ttlNegative = 5
)

// record is one that an object contributes.
type record struct {
	name string // wire form
	typ  uint16 // 0: the name exists, because there is one below it
	data string // wire form
}

// Ranks: of the records with one name those of a lower rank come first.
const (
	rankNode = iota
	rankHead
	rankHost
)

// owned is a record with where it comes from.
type owned struct {
	record
	rank   int
	source string
}

// entry is everything at one name, ready to be sent. It is never changed.
type entry struct{ sets []rrset }

// rrset is the records of one type, packed behind a pointer to the question.
type rrset struct {
	typ     uint16
	count   int
	packed  []byte
	addrs   []netip.Addr // where there is more than one
	targets []string     // of SRV: names whose addresses the asker wants next
}

const shardCount = 512

type shard map[string]*entry

// zone holds all names. Readers take no lock: each shard is a map that is
// replaced, never changed. Writing is for one goroutine.
type zone struct {
	seed   maphash.Seed
	shards [shardCount]atomic.Pointer[shard]

	// The writer's own:
	by    map[string][]record // what each source contributes
	names map[string][]owned  // the same by name
	dirty map[string]bool     // names changed since the last commit
}

func newZone() *zone {
	z := &zone{seed: maphash.MakeSeed(), by: map[string][]record{}, names: map[string][]owned{}, dirty: map[string]bool{}}
	for i := range z.shards {
		z.shards[i].Store(&shard{})
	}
	return z
}

func (z *zone) lookup(name []byte) *entry {
	m := *z.shards[maphash.Bytes(z.seed, name)%shardCount].Load()
	return m[string(name)]
}

// set replaces what a source contributes; nothing removes it.
func (z *zone) set(source string, rank int, records []record) {
	old := z.by[source]
	if slices.Equal(old, records) {
		return
	}
	for _, r := range old {
		z.dirty[r.name] = true
		z.names[r.name] = slices.DeleteFunc(z.names[r.name], func(o owned) bool { return o.source == source })
	}
	for _, r := range records {
		z.dirty[r.name] = true
		z.names[r.name] = append(z.names[r.name], owned{r, rank, source})
	}
	z.by[source] = records
	if len(records) == 0 {
		delete(z.by, source)
	}
}

// commit makes the changes visible.
func (z *zone) commit() {
	changed := map[int][]string{}
	for name := range z.dirty {
		i := int(maphash.String(z.seed, name) % shardCount)
		changed[i] = append(changed[i], name)
	}
	for i, names := range changed {
		next := maps.Clone(*z.shards[i].Load())
		for _, name := range names {
			if len(z.names[name]) == 0 {
				delete(z.names, name)
				delete(next, name)
				continue
			}
			next[name] = build(z.names[name])
		}
		z.shards[i].Store(&next)
	}
	clear(z.dirty)
}

// build packs the records of one name, each once. An address has one name
// only: that of the best source.
func build(all []owned) *entry {
	slices.SortStableFunc(all, func(a, b owned) int {
		if a.rank != b.rank {
			return a.rank - b.rank
		}
		return strings.Compare(a.source, b.source)
	})
	e := &entry{}
	seen := map[record]bool{}
	for _, r := range all {
		if r.typ == 0 || seen[r.record] {
			continue
		}
		seen[r.record] = true
		i := slices.IndexFunc(e.sets, func(s rrset) bool { return s.typ == r.typ })
		if i < 0 {
			e.sets = append(e.sets, rrset{typ: r.typ})
			i = len(e.sets) - 1
		} else if r.typ == dns.TypePTR {
			continue
		}
		e.sets[i].add(r.record)
	}
	for i := range e.sets {
		if e.sets[i].count < 2 {
			e.sets[i].addrs = nil
		}
	}
	return e
}

func (s *rrset) add(r record) {
	s.count++
	s.packed = appendRecord(s.packed, 0xc000|headerSize, r.typ, ttl, r.data)
	switch r.typ {
	case dns.TypeA, dns.TypeAAAA:
		a, _ := netip.AddrFromSlice([]byte(r.data))
		s.addrs = append(s.addrs, a)
	case dns.TypeSRV:
		s.targets = append(s.targets, r.data[6:])
	}
}

// appendRecord packs a record whose name is a pointer into the message.
func appendRecord(out []byte, pointer uint16, typ uint16, ttl uint32, data string) []byte {
	out = binary.BigEndian.AppendUint16(out, pointer)
	out = binary.BigEndian.AppendUint16(out, typ)
	out = binary.BigEndian.AppendUint16(out, dns.ClassINET)
	out = binary.BigEndian.AppendUint32(out, ttl)
	out = binary.BigEndian.AppendUint16(out, uint16(len(data)))
	return append(out, data...)
}

// find gives the records of a type, nil for none.
func (e *entry) find(typ uint16) *rrset {
	for i := range e.sets {
		if e.sets[i].typ == typ {
			return &e.sets[i]
		}
	}
	return nil
}

// appendTo writes the records, first those with an address in the network near.
func (s *rrset) appendTo(out []byte, near netip.Prefix) []byte {
	if s.addrs == nil || !near.IsValid() {
		return append(out, s.packed...)
	}
	size := len(s.packed) / s.count // addresses of one type are equally long
	for _, first := range []bool{true, false} {
		for i, a := range s.addrs {
			if near.Contains(a) == first {
				out = append(out, s.packed[i*size:(i+1)*size]...)
			}
		}
	}
	return out
}
