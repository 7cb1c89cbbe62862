package selector

import "strconv"

// Anchor is a condition that an index answers: that an entry has an index key
// (see Key), or membership of an attribute group.
type Anchor struct {
	Lookup        // not for a group
	Value  string // what Key gives for the value
	Group  string
}

// Anchors gives conditions of which every node that the selector picks meets
// one, so that only those nodes need to be matched that an index has for them.
// It gives false where it knows of none, and then all nodes are to be matched.
// A key with dots is in no anchor: it may be read in more than one way.
func (e *Expr) Anchors() ([]Anchor, bool) { return anchors(e.root) }

func anchors(t term) ([]Anchor, bool) {
	switch t := t.(type) {
	case and:
		return narrowest(t)
	case or:
		var all []Anchor
		for _, x := range t {
			some, ok := anchors(x)
			if !ok {
				return nil, false
			}
			all = append(all, some...)
		}
		return all, true
	case group:
		return []Anchor{{Group: string(t)}}, true
	case *comparison:
		if t.op == equal {
			return t.anchors([]literal{t.lit})
		}
	case *oneOf:
		if !t.negate {
			return t.anchors(t.list)
		}
	case *named:
		if !t.negate {
			return t.anchors(t.literals())
		}
	}
	return nil, false
}

// narrowest takes the part with the fewest conditions: each must hold.
func narrowest(terms and) (best []Anchor, found bool) {
	for _, x := range terms {
		if some, ok := anchors(x); ok && (!found || len(some) < len(best)) {
			best, found = some, true
		}
	}
	return best, found
}

func (l *lookup) anchors(list []literal) ([]Anchor, bool) {
	if l.kib || l.dotted {
		return nil, false
	}
	all := make([]Anchor, len(list))
	for i, lit := range list {
		all[i] = Anchor{Lookup: l.Lookup, Value: lit.key()}
	}
	return all, true
}

func (t *named) literals() []literal {
	list := make([]literal, 0, len(t.names))
	for name := range t.names {
		list = append(list, textLiteral(name))
	}
	return list
}

// Key gives the text under which an index keeps a value: values that are equal
// in a selector have the same, but not all that have the same are equal. It
// gives false for what is never equal to anything.
func Key(v any) (string, bool) {
	if null(v) {
		return "null", true
	}
	if n, ok := numberOf(v, false); ok {
		return n.key(), true
	}
	return text(v)
}

func (lit *literal) key() string {
	switch {
	case lit.numeric:
		return lit.num.key()
	case lit.kind == textual:
		return lit.str
	}
	return lit.spelling
}

func (n number) key() string {
	if n.other != 0 {
		return strconv.FormatFloat(n.other, 'g', -1, 64)
	}
	return strconv.FormatInt(n.whole, 10)
}
