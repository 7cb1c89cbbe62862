package selection

import (
	"slices"
	"strings"

	"muster/shared/object"
	"muster/shared/selector"
)

// sections says which parts of a node a selector reads.
type sections uint8

const (
	inAttributes sections = 1 << iota
	inStatus
	inHardware
	inFields
	inGroups
	inDyngroups

	inObject = inAttributes | inFields | inGroups
	inFleet  = inStatus | inHardware
	all      = inObject | inFleet | inDyngroups // what a new node concerns, also where nothing of it is read
)

func sectionOf(s selector.Section) sections {
	switch s {
	case selector.Attributes:
		return inAttributes
	case selector.Status:
		return inStatus
	case selector.Hardware:
		return inHardware
	}
	return inFields
}

// sections gives what a selector reads, through dynamic groups too.
func (ix *Index) sections(e *selector.Expr) sections { return ix.through(e, map[string]bool{}) }

func (ix *Index) through(e *selector.Expr, seen map[string]bool) (read sections) {
	if e == nil {
		return 0
	}
	uses := e.Uses()
	for _, l := range uses.Lookups {
		read |= sectionOf(l.Section)
	}
	if len(uses.Groups) > 0 {
		read |= inGroups
	}
	for _, name := range uses.Dyngroups {
		read |= inDyngroups
		g := ix.groups[name]
		if g == nil {
			g = ix.byName[name]
		}
		if g != nil && !seen[g.uid] {
			seen[g.uid] = true
			read |= ix.through(g.expr, seen)
		}
	}
	return read
}

// changed takes note of an object that is made, changed or deleted. ix.mu is held.
func (ix *Index) changed(kindName, uid string) {
	switch kindName {
	case object.KindNode:
		ix.nodeChanged(uid)
	case object.KindAttrib:
		ix.attribChanged(uid)
	case object.KindNamingpool: // its name, its group, and those of pools below it
		ix.forgetAll(inAttributes | inFields)
	case object.KindCluster: // the default group
		ix.forgetAll(inAttributes)
	case object.KindDyngroup:
		ix.dyngroupChanged(uid)
	}
}

func (ix *Index) nodeChanged(uid string) {
	slot, known := ix.slot[uid]
	o, exists := ix.look.Get(object.KindNode, uid)
	if known {
		ix.join(slot, ix.nodes[slot].Groups, false)
	}
	switch {
	case !exists && known:
		ix.remove(uid, slot)
	case exists && !known:
		slot = ix.add(uid)
		fallthrough
	case exists:
		n := o.(*object.Node)
		ix.nodes[slot] = n
		ix.join(slot, n.Groups, true)
		if known {
			ix.forget(slot, inObject)
		} else {
			ix.forget(slot, all)
		}
	}
}

// add gives a node a slot.
func (ix *Index) add(uid string) int32 {
	slot := int32(len(ix.nodes))
	if n := len(ix.free); n > 0 {
		slot, ix.free = ix.free[n-1], ix.free[:n-1]
	} else {
		ix.nodes = append(ix.nodes, nil)
	}
	ix.slot[uid] = slot
	i, _ := ix.position(uid)
	ix.order = slices.Insert(ix.order, i, slot)
	return slot
}

// remove takes a node's slot away.
func (ix *Index) remove(uid string, slot int32) {
	i, _ := ix.position(uid)
	ix.order = slices.Delete(ix.order, i, i+1)
	for _, g := range ix.groups {
		g.put(ix, slot, false)
	}
	delete(ix.slot, uid)
	ix.nodes[slot] = nil
	ix.free = append(ix.free, slot)
	ix.forget(slot, inObject|inFleet)
}

func (ix *Index) position(uid string) (int, bool) {
	return slices.BinarySearchFunc(ix.order, uid, func(slot int32, uid string) int {
		return strings.Compare(ix.nodes[slot].UID, uid)
	})
}

// join notes which attribute groups a node names.
func (ix *Index) join(slot int32, groups []string, in bool) {
	for _, uid := range groups {
		if !in {
			if delete(ix.members[uid], slot); len(ix.members[uid]) == 0 {
				delete(ix.members, uid)
			}
			continue
		}
		if ix.members[uid] == nil {
			ix.members[uid] = map[int32]struct{}{}
		}
		ix.members[uid][slot] = struct{}{}
	}
}

// attribChanged: a group's attributes are those of its members, of the nodes
// of a pool, or of all.
func (ix *Index) attribChanged(uid string) {
	was, existed := ix.named[uid]
	o, exists := ix.look.Get(object.KindAttrib, uid)
	if exists {
		ix.named[uid] = o.(*object.Attrib).Name
	} else {
		delete(ix.named, uid)
	}
	if exists != existed || was != ix.named[uid] {
		for _, g := range ix.groups {
			g.all = g.all || g.reads&inGroups != 0
		}
	}
	if c, ok := ix.look.Oldest(object.KindCluster); ok && c.(*object.Cluster).DefaultGroup == uid {
		ix.forgetAll(inAttributes)
		return
	}
	for slot := range ix.members[uid] {
		ix.forget(slot, inAttributes)
	}
	for _, slot := range ix.order { // those that may have it from their pool
		if n := ix.nodes[slot]; n.NamingPool != "" && len(n.Groups) == 0 {
			ix.forget(slot, inAttributes)
		}
	}
}

// forget notes that parts of a node may be other ones now.
func (ix *Index) forget(slot int32, what sections) {
	for _, c := range ix.columns {
		if sectionOf(c.lookup.Section)&what != 0 {
			c.forget(slot)
		}
	}
	for _, g := range ix.groups {
		if g.reads&what != 0 && !g.all {
			g.pending.add(slot)
		}
	}
}

// forgetAll does so for all nodes.
func (ix *Index) forgetAll(what sections) {
	for l := range ix.columns {
		if sectionOf(l.Section)&what != 0 {
			delete(ix.columns, l)
		}
	}
	for _, g := range ix.groups {
		g.all = g.all || g.reads&what != 0
	}
}

// hear takes note of what the fleet said is new, where it matters.
func (ix *Index) hear(reads sections) {
	if reads&inFleet == 0 {
		return
	}
	ix.newsMu.Lock()
	news := ix.news
	ix.news = map[string]struct{}{}
	ix.newsMu.Unlock()
	for uid := range news {
		if slot, ok := ix.slot[uid]; ok {
			ix.forget(slot, inFleet)
		}
	}
	if reads&inStatus != 0 {
		ix.states.compare(ix)
	}
}

// states are those that nodes had when they were last compared, by slot: some
// turn by time alone, of which the fleet says nothing.
type states struct {
	uids, now, was []string
}

func (s *states) compare(ix *Index) {
	s.uids = s.uids[:0]
	for _, slot := range ix.order {
		s.uids = append(s.uids, ix.nodes[slot].UID)
	}
	s.now = slices.Grow(s.now[:0], len(s.uids))[:len(s.uids)]
	ix.live.StatesOf(s.uids, s.now)
	for len(s.was) < len(ix.nodes) {
		s.was = append(s.was, "")
	}
	for i, slot := range ix.order {
		if s.was[slot] != s.now[i] {
			s.was[slot] = s.now[i]
			ix.forget(slot, inStatus)
		}
	}
}
