package selector

import (
	"fmt"
	"math"
	"strings"
)

type literalKind uint8

const (
	textual literalKind = iota
	numeric
	boolean
	nullary
)

// literal is a value as it is written in a selector.
type literal struct {
	kind     literalKind
	spelling string // of all but texts
	str      string
	num      number
	numeric  bool // num is the value, also of a text
	truth    bool
	duration bool
}

func textLiteral(s string) literal {
	lit := literal{kind: textual, str: s}
	lit.num, lit.numeric = parseNumber(s)
	return lit
}

func boolLiteral(b bool) literal {
	return literal{kind: boolean, spelling: fmt.Sprint(b), truth: b}
}

func nullLiteral() literal { return literal{kind: nullary, spelling: "null"} }

// units are what a number may end in, each with the number that it multiplies
// with. Sizes count bytes and durations seconds.
var (
	sizes = map[string]int64{
		"b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12, "pb": 1e15, "eb": 1e18,
		"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40, "pib": 1 << 50, "eib": 1 << 60,
	}
	durations = map[string]int64{"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
)

const unitNames = "B, kB, MB, GB, TB, PB, EB, KiB, MiB, GiB, TiB, PiB, EiB (bytes), s, m, h, d or w (time)"

// numberLiteral reads digits and a unit, which may be empty. Durations are
// taken in lower case only: 5M is more likely meant as a size.
func numberLiteral(digits, unit string) (literal, error) {
	lit := literal{kind: numeric, spelling: digits + unit, numeric: true}
	factor, ok := int64(1), true
	if unit != "" {
		if factor, ok = durations[unit]; ok {
			lit.duration = true
		} else if factor, ok = sizes[strings.ToLower(unit)]; !ok {
			return lit, fmt.Errorf("a unit, which is one of %s", unitNames)
		}
	}
	n, ok := parseNumber(digits)
	if ok {
		n, ok = n.times(factor)
	}
	if !ok || math.IsInf(n.other, 0) {
		return lit, fmt.Errorf("a number of at most %g", math.MaxFloat64)
	}
	lit.num = n
	return lit, nil
}

func (lit *literal) print(b *strings.Builder) {
	if lit.kind == textual {
		quote(b, lit.str)
		return
	}
	b.WriteString(lit.spelling)
}

const escaped = `"'\` // what a backslash takes literally

// quote writes a string so that as few backslashes as possible are added.
func quote(b *strings.Builder, s string) {
	b.WriteByte('"')
	for i := range len(s) {
		last := i+1 == len(s)
		if s[i] == '"' || s[i] == '\\' && (last || strings.IndexByte(escaped, s[i+1]) >= 0) {
			b.WriteByte('\\')
		}
		b.WriteByte(s[i])
	}
	b.WriteByte('"')
}

// unquote reads the string in quotes that s begins with. The end is 0 where
// there is no closing quote.
func unquote(s string) (text string, end int) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == s[0]:
			return b.String(), i + 1
		case s[i] == '\\' && i+1 < len(s) && strings.IndexByte(escaped, s[i+1]) >= 0:
			i++
		}
		b.WriteByte(s[i])
	}
	return "", 0
}
