package selector

import (
	"slices"
	"strings"
)

func (t and) print(b *strings.Builder) { printAll(b, t, " and ") }
func (t or) print(b *strings.Builder)  { printAll(b, t, " or ") }

func printAll(b *strings.Builder, terms []term, between string) {
	b.WriteByte('(')
	for i, x := range terms {
		if i > 0 {
			b.WriteString(between)
		}
		x.print(b)
	}
	b.WriteByte(')')
}

func (t not) print(b *strings.Builder) {
	b.WriteString("(not ")
	t.term.print(b)
	b.WriteByte(')')
}

func (t group) print(b *strings.Builder)    { printName(b, '%', string(t)) }
func (t dyngroup) print(b *strings.Builder) { printName(b, '@', string(t)) }

func printName(b *strings.Builder, sign byte, name string) {
	b.WriteByte(sign)
	if name == "" || slices.ContainsFunc([]rune(name), func(r rune) bool { return !inName(r) }) {
		quote(b, name)
		return
	}
	b.WriteString(name)
}

func (l *lookup) print(b *strings.Builder) {
	b.WriteString(string(l.Section))
	b.WriteByte('[')
	quote(b, l.Key)
	b.WriteByte(']')
}

func (t *comparison) print(b *strings.Builder) {
	b.WriteByte('(')
	t.lookup.print(b)
	b.WriteString(" " + operators[t.op] + " ")
	t.lit.print(b)
	b.WriteByte(')')
}

func (t *pattern) print(b *strings.Builder) {
	b.WriteByte('(')
	t.lookup.print(b)
	b.WriteString(either(t.negate, " !~ ", " =~ "))
	quote(b, t.source)
	b.WriteByte(')')
}

func (t *oneOf) print(b *strings.Builder) {
	b.WriteByte('(')
	t.lookup.print(b)
	b.WriteString(either(t.negate, " not in ", " in ") + "[")
	for i := range t.list {
		if i > 0 {
			b.WriteString(", ")
		}
		t.list[i].print(b)
	}
	b.WriteString("])")
}

func (t *named) print(b *strings.Builder) {
	b.WriteByte('(')
	t.lookup.print(b)
	b.WriteString(either(t.negate, " not in ", " in "))
	quote(b, t.source)
	b.WriteByte(')')
}

func (t *contains) print(b *strings.Builder) {
	b.WriteByte('(')
	t.lit.print(b)
	b.WriteString(either(t.negate, " not in ", " in "))
	t.lookup.print(b)
	b.WriteByte(')')
}

func either(b bool, yes, no string) string {
	if b {
		return yes
	}
	return no
}
