package selection

import (
	"slices"

	"muster/shared/object"
	"muster/shared/selector"
)

// group is a dynamic group with its members, which are brought up to date when
// somebody asks: only for the nodes of which something changed that it reads.
type group struct {
	uid, name string
	expr      *selector.Expr // nil where it cannot be parsed: nobody is in it
	reads     sections
	members   bits
	uids      []string // the members', in order; replaced, never changed, as it is given out
	pending   queue    // slots to look at again
	all       bool     // or rather all of them
}

// few is how many members are put into the list or taken out one by one;
// beyond, making it anew is quicker.
const few = 32

// refresh brings the members up to date.
func (g *group) refresh(ix *Index) {
	switch {
	case g.expr == nil:
		return
	case g.all:
		g.pending = queue{}
		g.members, g.all = ix.evaluate(g.expr), false
		g.uids = ix.uids(g.members)
		return
	}
	slots := g.pending.take()
	v := view{ix: ix}
	for _, slot := range slots {
		if ix.nodes[slot] == nil {
			continue // was taken out when it was deleted
		}
		v.slot = slot
		if in := g.expr.Match(&v); len(slots) <= few {
			g.put(ix, slot, in)
		} else if in {
			g.members.set(slot)
		} else {
			g.members.clear(slot)
		}
	}
	if len(slots) > few {
		g.uids = ix.uids(g.members)
	}
}

// put makes the node in a slot a member, or not.
func (g *group) put(ix *Index, slot int32, in bool) {
	if g.members.has(slot) == in {
		return
	}
	uid := ix.nodes[slot].UID
	i, found := slices.BinarySearch(g.uids, uid)
	switch {
	case in && !found:
		g.uids = slices.Insert(slices.Clone(g.uids), i, uid)
	case !in && found:
		g.uids = slices.Delete(slices.Clone(g.uids), i, i+1)
	}
	if in {
		g.members.set(slot)
	} else {
		g.members.clear(slot)
	}
}

// dyngroupChanged: those that refer to others may mean another one now.
func (ix *Index) dyngroupChanged(uid string) {
	if old := ix.groups[uid]; old != nil {
		delete(ix.groups, uid)
		if ix.byName[old.name] == old {
			delete(ix.byName, old.name)
		}
	}
	if o, ok := ix.look.Get(object.KindDyngroup, uid); ok {
		d := o.(*object.Dyngroup)
		e, _ := selector.Parse(d.Selector) // stored by a version that took it, else it has no members
		g := &group{uid: uid, name: d.Name, expr: e, all: true, uids: []string{}}
		ix.groups[uid], ix.byName[d.Name] = g, g
	}
	for _, g := range ix.groups {
		if g.uid == uid || g.reads&inDyngroups != 0 {
			g.reads, g.all = ix.sections(g.expr), true
		}
	}
}
