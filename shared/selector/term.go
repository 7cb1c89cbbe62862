package selector

import (
	"regexp"
	"strings"
)

// term is a part of an expression that is true or false for a node.
type term interface {
	match(Node) bool
	print(*strings.Builder)
	uses(*Uses)
	depth() int
}

type (
	and      []term // two or more
	or       []term // two or more
	not      struct{ term }
	group    string
	dyngroup string
)

// comparison is lookup == literal and its like.
type comparison struct {
	lookup
	op  operator
	lit literal
}

// pattern is lookup =~ string.
type pattern struct {
	lookup
	negate bool
	source string
	re     *regexp.Regexp
}

// oneOf is lookup in list.
type oneOf struct {
	lookup
	negate bool
	list   []literal
	set    set
}

// named is lookup in hostlist.
type named struct {
	lookup
	negate bool
	source string
	names  map[string]struct{}
}

// contains is literal in lookup.
type contains struct {
	lit    literal
	negate bool
	lookup
}

func (t and) match(n Node) bool {
	for _, x := range t {
		if !x.match(n) {
			return false
		}
	}
	return true
}

func (t or) match(n Node) bool {
	for _, x := range t {
		if x.match(n) {
			return true
		}
	}
	return false
}

func (t not) match(n Node) bool      { return !t.term.match(n) }
func (t group) match(n Node) bool    { return n.InGroup(string(t)) }
func (t dyngroup) match(n Node) bool { return n.InDyngroup(string(t)) }

func (t *comparison) match(n Node) bool {
	v, ok := t.get(n)
	return ok && t.op.holds(v, &t.lit, t.kib)
}

func (t *pattern) match(n Node) bool {
	v, ok := t.get(n)
	if !ok {
		return false
	}
	s, ok := text(v)
	return (ok && len(s) <= maxMatched && t.re.MatchString(s)) != t.negate
}

func (t *oneOf) match(n Node) bool {
	v, ok := t.get(n)
	return ok && t.set.has(v, t.kib) != t.negate
}

func (t *named) match(n Node) bool {
	v, ok := t.get(n)
	if !ok {
		return false
	}
	s, ok := text(v)
	if ok {
		_, ok = t.names[s]
	}
	return ok != t.negate
}

func (t *contains) match(n Node) bool {
	v, ok := t.get(n)
	return ok && t.within(v) != t.negate
}

func (t *contains) within(v any) bool {
	switch v := v.(type) {
	case []any:
		for _, x := range v {
			if equal.holds(x, &t.lit, t.kib) {
				return true
			}
		}
	case []string:
		for i := range v {
			if equal.holds(&v[i], &t.lit, t.kib) {
				return true
			}
		}
	case map[string]any:
		_, ok := v[t.lit.str]
		return ok && t.lit.kind == textual
	}
	return false
}

func (t and) uses(u *Uses) {
	for _, x := range t {
		x.uses(u)
	}
}

func (t or) uses(u *Uses)       { and(t).uses(u) }
func (t not) uses(u *Uses)      { t.term.uses(u) }
func (t group) uses(u *Uses)    { u.Groups = append(u.Groups, string(t)) }
func (t dyngroup) uses(u *Uses) { u.Dyngroups = append(u.Dyngroups, string(t)) }
func (l *lookup) uses(u *Uses)  { u.Lookups = append(u.Lookups, l.Lookup) }

func (t and) depth() int {
	d := 0
	for _, x := range t {
		d = max(d, x.depth())
	}
	return d + 1
}

func (t or) depth() int     { return and(t).depth() }
func (t not) depth() int    { return t.term.depth() + 1 }
func (group) depth() int    { return 1 }
func (dyngroup) depth() int { return 1 }
func (*lookup) depth() int  { return 1 }
