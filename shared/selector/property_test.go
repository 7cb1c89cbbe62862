package selector

import (
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"muster/shared/hostlist"
)

// Random expressions are made as terms, not as texts, so that all that has a
// printed form is tried.

var anyText = rapid.OneOf(
	rapid.StringMatching(`[a-c0-9.\\"' ]{0,5}`),
	rapid.String(),
)

var anyKey = rapid.OneOf(
	rapid.SampledFrom([]string{"x", "y", "x.y", "l", "l.0", "o.x", "o.l.1", "ram_total", "odd_kib", "and", "]"}),
	rapid.Custom(func(t *rapid.T) string { return "k" + anyText.Draw(t, "key") }),
)

var anyLookup = rapid.Custom(func(t *rapid.T) lookup {
	return newLookup(rapid.SampledFrom([]Section{Attributes, Status, Hardware, Fields}).Draw(t, "section"), anyKey.Draw(t, "key"))
})

// literalFor makes one that the grammar takes beside the lookup.
func literalFor(l lookup) *rapid.Generator[literal] {
	return rapid.Custom(func(t *rapid.T) literal {
		switch rapid.IntRange(0, 9).Draw(t, "literal") {
		case 0:
			return nullLiteral()
		case 1:
			return boolLiteral(rapid.Bool().Draw(t, "truth"))
		case 2, 3, 4:
			return textLiteral(anyText.Draw(t, "text"))
		}
		digits := rapid.OneOf(
			rapid.StringMatching(`-?[0-9]{1,3}`),
			rapid.StringMatching(`-?[0-9]{1,25}(\.[0-9]{1,5})?([eE][+-]?[0-9]{1,2})?`),
		).Draw(t, "digits")
		units := []string{"", "", "", "B", "KB", "kib", "EiB"}
		if !l.kib {
			units = append(units, "s", "m", "w")
		}
		lit, err := numberLiteral(digits, rapid.SampledFrom(units).Draw(t, "unit"))
		if err != nil {
			t.Fatalf("%s: %v", digits, err)
		}
		return lit
	})
}

func anyTerm(depth int) *rapid.Generator[term] {
	return rapid.Custom(func(t *rapid.T) term {
		most := 7
		if depth > 0 {
			most = 13
		}
		l, negate := anyLookup.Draw(t, "lookup"), rapid.Bool().Draw(t, "negate")
		switch kind := rapid.IntRange(0, most).Draw(t, "kind"); kind {
		case 0:
			return group("g" + anyText.Draw(t, "group"))
		case 1:
			return dyngroup(rapid.StringMatching(`[a-z0-9_.@+~#ä-]{1,9}`).Draw(t, "dyngroup"))
		case 2:
			list := append([]literal(nil), rapid.SliceOfN(literalFor(l), 0, 4).Draw(t, "list")...) // nil when empty, as parsed
			return &oneOf{l, negate, list, newSet(list)}
		case 3:
			return anyNamed(t, l, negate)
		case 4:
			return &contains{literalFor(l).Draw(t, "literal"), negate, l}
		case 5:
			source := rapid.SampledFrom([]string{"", "^x", `\d+`, `a|"b'`, `\\`, "[a-z]$"}).Draw(t, "pattern")
			return &pattern{l, negate, source, regexp.MustCompile(source)}
		case 6, 7:
			lit, op := literalFor(l).Draw(t, "literal"), rapid.SampledFrom([]operator{equal, unequal, less, atMost, greater, atLeast}).Draw(t, "op")
			if lit.kind > numeric {
				op = equal
			}
			return &comparison{l, op, lit}
		case 8, 9:
			return not{anyTerm(depth-1).Draw(t, "not")}
		default:
			terms := rapid.SliceOfN(anyTerm(depth-1), 2, 3).Draw(t, "terms")
			if kind < 12 {
				return and(terms)
			}
			return or(terms)
		}
	})
}

func anyNamed(t *rapid.T, l lookup, negate bool) term {
	source := rapid.StringMatching(`(x|y\[1-3\]|[0-9]{1,2}|n"')(,(z|w\[08-12\]))?`).Draw(t, "hostlist")
	names, err := hostlist.Parse(source)
	if err != nil {
		t.Fatal(err)
	}
	n := &named{l, negate, source, map[string]struct{}{}}
	for _, name := range names {
		n.names[name] = struct{}{}
	}
	return n
}

func TestPrintedFormParsesToTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := anyTerm(4).Draw(t, "expression")
		var b strings.Builder
		want.print(&b)
		e, err := Parse(b.String())
		if err != nil {
			t.Fatalf("%s: %v", b.String(), err)
		}
		if !reflect.DeepEqual(e.root, want) {
			t.Fatalf("%s becomes %s", b.String(), e)
		}
		if e.String() != b.String() {
			t.Fatalf("%s is printed as %s", b.String(), e)
		}
	})
}

// randomNode has the same values in all sections.
type randomNode map[string]any

func (n randomNode) Attribute(key string) (any, bool) { v, ok := n[key]; return v, ok }
func (n randomNode) Status(key string) (any, bool)    { v, ok := n[key]; return v, ok }
func (n randomNode) Hardware(key string) (any, bool)  { v, ok := n[key]; return v, ok }
func (n randomNode) Field(key string) (any, bool)     { v, ok := n[key]; return v, ok }
func (n randomNode) InGroup(name string) bool         { return len(name)%2 == 0 }
func (n randomNode) InDyngroup(name string) bool      { return len(name)%2 == 1 }

func anyValue(depth int) *rapid.Generator[any] {
	return rapid.Custom(func(t *rapid.T) any {
		most := 8
		if depth > 0 {
			most = 10
		}
		switch rapid.IntRange(0, most).Draw(t, "value") {
		case 0:
			return nil
		case 1:
			return rapid.Bool().Draw(t, "bool")
		case 2:
			return anyText.Draw(t, "text")
		case 3:
			return json.Number(rapid.StringMatching(`-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,3})?(e[0-9]{1,3})?`).Draw(t, "number"))
		case 4:
			return rapid.Float64().Draw(t, "float")
		case 5:
			return rapid.Int().Draw(t, "int")
		case 6:
			return rapid.Uint64().Draw(t, "uint64")
		case 7:
			return rapid.Ptr(rapid.Int64(), true).Draw(t, "*int64")
		case 8:
			return rapid.Ptr(anyText, true).Draw(t, "*string")
		case 9:
			return rapid.SliceOfN(anyValue(depth-1), 0, 3).Draw(t, "list")
		}
		return rapid.MapOfN(rapid.SampledFrom([]string{"x", "y", "l", "0"}), anyValue(depth-1), 0, 3).Draw(t, "object")
	})
}

var anyNode = rapid.Custom(func(t *rapid.T) randomNode {
	keys := rapid.SampledFrom([]string{"x", "y", "x.y", "l", "o", "ram_total", "odd_kib"})
	return rapid.MapOfN(keys, anyValue(2), 0, 7).Draw(t, "node")
})

// Any expression has an answer for any node, and these laws hold.
func TestMatchLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x, n := anyTerm(3).Draw(t, "expression"), anyNode.Draw(t, "node")
		if (not{x}).match(n) == x.match(n) {
			t.Fatal("not is no opposite")
		}
		l := anyLookup.Draw(t, "lookup")
		list := rapid.SliceOfN(literalFor(l), 0, 4).Draw(t, "list")
		_, there := l.get(n)
		one := false
		for _, lit := range list {
			is := func(op operator) bool { return (&comparison{l, op, lit}).match(n) }
			one = one || is(equal)
			if is(unequal) != (there && !is(equal)) {
				t.Fatalf("%v: == and != of %q do not exclude each other", l, lit.spelling)
			}
			ordered := is(less) || is(greater) || is(atMost)
			if ordered && (is(atMost) != (is(less) || is(equal)) || is(atLeast) == is(less) || is(atLeast) != (is(greater) || is(equal))) {
				t.Fatalf("%v: %q has no place in the order", l, lit.spelling)
			}
		}
		if in := (&oneOf{l, false, list, newSet(list)}).match(n); in != one {
			t.Fatalf("%v: in a list is %v, == is %v", l, in, one)
		}
		if out := (&oneOf{l, true, list, newSet(list)}).match(n); out != (there && !one) {
			t.Fatalf("%v: not in a list is %v", l, out)
		}
	})
}

// A node that is picked meets one of the anchors.
func TestAnchorLaw(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := &Expr{root: anyTerm(3).Draw(t, "expression")}
		n := anyNode.Draw(t, "node")
		anchors, ok := e.Anchors()
		if !ok || !e.Match(n) {
			return
		}
		for _, a := range anchors {
			if a.Group != "" && n.InGroup(a.Group) {
				return
			}
			if v, there := n[a.Key]; there && a.Group == "" {
				if key, ok := Key(v); ok && key == a.Value {
					return
				}
			}
		}
		t.Fatalf("%v is picked and meets none of %v", n, anchors)
	})
}

// What an expression does not use cannot change its answer.
func TestUsesLaw(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := &Expr{root: anyTerm(3).Draw(t, "expression")}
		n := anyNode.Draw(t, "node")
		before := e.Match(n)
		uses := e.Uses()
		for key := range n {
			if !slices.ContainsFunc(uses.Lookups, func(l Lookup) bool { return l.Reads(key) }) {
				n[key] = anyValue(2).Draw(t, "other")
			}
		}
		if e.Match(n) != before {
			t.Fatalf("changed by what is not in %v", uses)
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		``, `up`, `h[ram_total] > 100GB`, `a[_boot_config]=="DefaultBoot" and not (%gpu or @big)`, `name in n[0-3],gpu1 || !down`,
		`s["a.b"] !~ '^\d{2}\\' && index not in [1, "2", true, null]`, `"x" in s[modules]`, `s[uptime] < 1.5e2h`, `%"a b"`, `a[`, `((((`, "\xff",
		`a[x] =~ "(a{9}){9}"`, `n[x]in[`, `status.state=="up"`,
	} {
		f.Add(s)
	}
	n := randomNode{"x": "1", "name": "n1", "ram_total": json.Number("5"), "modules": []any{"x", nil}, "a": map[string]any{"b": 2}}
	f.Fuzz(func(t *testing.T, s string) {
		e, err := Parse(s)
		if err != nil {
			if err.Error() == "" {
				t.Error("an error without a reason")
			}
			return
		}
		again, err := Parse(e.String())
		if err != nil {
			t.Fatalf("the normal form %s of %q: %v", e, s, err)
		}
		if !reflect.DeepEqual(again, e) {
			t.Fatalf("the normal form of %q is %s and then %s", s, e, again)
		}
		if again.Match(n) != e.Match(n) || fmt.Sprint(again.Uses()) != fmt.Sprint(e.Uses()) {
			t.Fatalf("%s is not the same when parsed again", e)
		}
	})
}
