package selection

import (
	"context"
	"sync"

	"muster/shared/fault"
	"muster/shared/kind"
	"muster/shared/object"
	"muster/shared/selector"
)

// maxColumns bounds what is kept: a column of 10,000 nodes has 200 kB, twice
// that where it is kept by value.
const maxColumns = 256

// Index answers selectors without looking at every node where it can. It
// follows the feed of objects and what the fleet says has changed, and only
// takes note then: values are read when a selector asks for them.
//
// A node's slot is its place in every column. An answer waits until the index
// is as new as what reads show, so that who made a change sees it.
type Index struct {
	objects Objects
	live    Live
	look    kind.Look

	mu      sync.Mutex
	at      uint64        // revision that the index has
	moved   chan struct{} // closed and replaced when at moves
	failed  error         // why it follows no longer
	nodes   []*object.Node
	slot    map[string]int32 // by UID
	free    []int32
	order   []int32 // the slots in use, by UID
	columns map[selector.Lookup]*column
	members map[string]map[int32]struct{} // slots by UID of the attribute group that the node names
	named   map[string]string             // names of attribute groups, by UID
	groups  map[string]*group             // dynamic ones, by UID
	byName  map[string]*group
	clock   uint64 // counts questions: how new the use of a column is
	states  states

	newsMu sync.Mutex
	news   map[string]struct{} // UIDs of nodes that the fleet says something new of
}

// NewIndex makes one, which Run fills and keeps. Its News is for the fleet.
func NewIndex() *Index {
	return &Index{moved: make(chan struct{}), news: map[string]struct{}{}}
}

// News notes that something is new of a node's status, hardware or state. It
// never waits.
func (ix *Index) News(uid string) {
	ix.newsMu.Lock()
	defer ix.newsMu.Unlock()
	ix.news[uid] = struct{}{}
}

// Run follows the objects until ctx ends.
func (ix *Index) Run(ctx context.Context, objects Objects, live Live) error {
	ix.mu.Lock()
	ix.objects, ix.live, ix.look = objects, live, objects.Look()
	at := objects.Revision()
	ix.fill()
	ix.moveTo(at)
	ix.mu.Unlock()
	defer func() {
		ix.mu.Lock()
		defer ix.mu.Unlock()
		ix.failed = fault.New(fault.Unavailable, "The head is shutting down.")
		ix.moveTo(ix.at)
	}()
	for commit, err := range objects.Commits(ctx, at) {
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		ix.mu.Lock()
		for _, o := range commit.Objects {
			ix.changed(o.Kind, o.UID)
		}
		ix.moveTo(commit.Revision)
		ix.mu.Unlock()
	}
	return nil
}

// fill begins anew with the objects as they are. ix.mu is held.
func (ix *Index) fill() {
	ix.nodes, ix.slot, ix.free, ix.order = nil, map[string]int32{}, nil, nil
	ix.columns, ix.members, ix.named = map[selector.Lookup]*column{}, map[string]map[int32]struct{}{}, map[string]string{}
	ix.groups, ix.byName = map[string]*group{}, map[string]*group{}
	for _, name := range []string{object.KindAttrib, object.KindNode, object.KindDyngroup} {
		for _, o := range ix.objects.All(name) {
			ix.changed(name, o.Base().UID)
		}
	}
}

// moveTo says how new the index is, and wakes those who wait. ix.mu is held.
func (ix *Index) moveTo(revision uint64) {
	ix.at = revision
	close(ix.moved)
	ix.moved = make(chan struct{})
}

// enter returns with ix.mu held, when the index is as new as what reads show.
func (ix *Index) enter(ctx context.Context) error {
	asked, want := false, uint64(0)
	for {
		ix.mu.Lock()
		if !asked && ix.objects != nil {
			asked, want = true, ix.objects.Revision()
		}
		if asked && ix.at >= want {
			return nil
		}
		moved, failed := ix.moved, ix.failed
		ix.mu.Unlock()
		if failed != nil {
			return failed
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Select gives the nodes that a selector picks, ordered by UID.
func (ix *Index) Select(ctx context.Context, e *selector.Expr) ([]*object.Node, error) {
	if err := ix.enter(ctx); err != nil {
		return nil, err
	}
	defer ix.mu.Unlock()
	ix.clock++
	ix.hear(ix.sections(e))
	found := ix.evaluate(e)
	return ix.list(found), nil
}

// Members gives the UIDs of a dynamic group's nodes, in order. They must not be
// changed.
func (ix *Index) Members(ctx context.Context, uid string) ([]string, error) {
	if err := ix.enter(ctx); err != nil {
		return nil, err
	}
	defer ix.mu.Unlock()
	g := ix.groups[uid]
	if g == nil {
		return nil, fault.New(fault.NotFound, "No dyngroup found for ID=%s", uid)
	}
	ix.clock++
	ix.hear(g.reads)
	g.refresh(ix)
	return g.uids, nil
}

// list gives the nodes in a set of slots, ordered by UID.
func (ix *Index) list(found bits) []*object.Node {
	nodes := make([]*object.Node, 0, found.count())
	for _, slot := range ix.order {
		if found.has(slot) {
			nodes = append(nodes, ix.nodes[slot])
		}
	}
	return nodes
}

// uids gives their UIDs.
func (ix *Index) uids(found bits) []string {
	uids := make([]string, 0, found.count())
	for _, slot := range ix.order {
		if found.has(slot) {
			uids = append(uids, ix.nodes[slot].UID)
		}
	}
	return uids
}

// evaluate gives the slots that a selector picks.
func (ix *Index) evaluate(e *selector.Expr) bits {
	found := make(bits, (len(ix.nodes)+63)/64)
	v := view{ix: ix}
	try := func(slot int32) {
		if v.slot = slot; !found.has(slot) && e.Match(&v) {
			found.set(slot)
		}
	}
	anchors, ok := e.Anchors()
	if !ok {
		for slot, n := range ix.nodes { // as columns lie in memory
			if n != nil {
				try(int32(slot))
			}
		}
		return found
	}
	tried := make(bits, len(found))
	for _, a := range anchors {
		for _, slot := range ix.anchored(a) {
			if tried.set(slot) {
				try(slot)
			}
		}
	}
	return found
}

// anchored gives the slots that meet an anchor, and maybe others.
func (ix *Index) anchored(a selector.Anchor) []int32 {
	if a.Group == "" {
		if c := ix.column(a.Lookup); c != nil {
			return c.holding(ix, a.Value)
		}
		return ix.order
	}
	var slots []int32
	for uid, name := range ix.named {
		if uid == a.Group || name == a.Group {
			for slot := range ix.members[uid] {
				slots = append(slots, slot)
			}
		}
	}
	return slots
}

// column gives that of a lookup, with room for all slots; nil where there are
// too many already that the selector at hand needs.
func (ix *Index) column(l selector.Lookup) *column {
	c := ix.columns[l]
	if c == nil {
		if len(ix.columns) >= maxColumns && !ix.drop() {
			return nil
		}
		c = &column{lookup: l}
		ix.columns[l] = c
	}
	c.grow(len(ix.nodes))
	c.used = ix.clock
	return c
}

// drop makes room: of the columns that the selector at hand does not need, the
// one goes that was not needed for the longest time.
func (ix *Index) drop() bool {
	var oldest *column
	for _, c := range ix.columns {
		if c.used < ix.clock && (oldest == nil || c.used < oldest.used) {
			oldest = c
		}
	}
	if oldest == nil {
		return false
	}
	delete(ix.columns, oldest.lookup)
	return true
}

// read gives what a lookup reads of a node, from where it is kept.
func (ix *Index) read(l selector.Lookup, slot int32) (any, bool) {
	n := ix.nodes[slot]
	switch l.Section {
	case selector.Attributes:
		return object.EffectiveValue(ix.look, n, l.Key)
	case selector.Status:
		return status(ix.live, n.UID, l.Key)
	case selector.Hardware:
		return hardware(ix.live, n.UID, l.Key)
	}
	return field(ix.look, n, l.Key)
}

// view shows the node in a slot to a selector. It remembers the columns that
// it reads: most selectors read few.
type view struct {
	ix      *Index
	slot    int32
	known   int
	columns [8]*column
}

func (v *view) value(s selector.Section, key string) (any, bool) {
	for _, c := range v.columns[:v.known] {
		if c.lookup.Key == key && c.lookup.Section == s {
			return c.get(v.ix, v.slot)
		}
	}
	l := selector.Lookup{Section: s, Key: key}
	c := v.ix.column(l)
	if c == nil {
		return v.ix.read(l, v.slot)
	}
	if v.known < len(v.columns) {
		v.columns[v.known] = c
		v.known++
	}
	return c.get(v.ix, v.slot)
}

func (v *view) Attribute(key string) (any, bool) { return v.value(selector.Attributes, key) }
func (v *view) Status(key string) (any, bool)    { return v.value(selector.Status, key) }
func (v *view) Hardware(key string) (any, bool)  { return v.value(selector.Hardware, key) }
func (v *view) Field(key string) (any, bool)     { return v.value(selector.Fields, key) }
func (v *view) InGroup(name string) bool         { return inGroup(v.ix.look, v.ix.nodes[v.slot], name) }

func (v *view) InDyngroup(name string) bool {
	g := v.ix.groups[name]
	if g == nil {
		g = v.ix.byName[name]
	}
	return g != nil && g.expr != nil && g.expr.Match(v)
}
