package selection

import (
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
	pending   queue // slots to look at again
	all       bool  // or rather all of them
}

// refresh brings the members up to date.
func (g *group) refresh(ix *Index) {
	if g.expr == nil {
		return
	}
	if g.all {
		g.pending = queue{}
		g.members, g.all = ix.evaluate(g.expr), false
		return
	}
	v := view{ix: ix}
	for _, slot := range g.pending.take() {
		if v.slot = slot; ix.nodes[slot] != nil && g.expr.Match(&v) {
			g.members.set(slot)
		} else {
			g.members.clear(slot)
		}
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
		g := &group{uid: uid, name: d.Name, expr: e, all: true}
		ix.groups[uid], ix.byName[d.Name] = g, g
	}
	for _, g := range ix.groups {
		if g.uid == uid || g.reads&inDyngroups != 0 {
			g.reads, g.all = ix.sections(g.expr), true
		}
	}
}
