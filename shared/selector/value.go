package selector

import (
	"cmp"
	"encoding/json"
	"math"
	"strconv"
	"strings"
)

// maxMatched is the length in bytes of the longest text that a regular
// expression is tried on; the time that takes grows with it.
const maxMatched = 64 << 10

type operator uint8

const (
	equal operator = iota
	unequal
	less
	atMost
	greater
	atLeast
)

var operators = [...]string{equal: "==", unequal: "!=", less: "<", atMost: "<=", greater: ">", atLeast: ">="}

// holds says whether the operator holds between a value that is there and a
// literal.
func (op operator) holds(v any, lit *literal, kib bool) bool {
	if op <= unequal {
		return lit.equals(v, kib) == (op == equal)
	}
	order, ok := lit.order(v, kib)
	switch {
	case !ok:
		return false
	case op == less:
		return order < 0
	case op == atMost:
		return order <= 0
	case op == greater:
		return order > 0
	}
	return order >= 0
}

// equals says whether a value is the literal.
func (lit *literal) equals(v any, kib bool) bool {
	switch lit.kind {
	case textual:
		if s, ok := str(v); ok {
			return s == lit.str
		}
		if !lit.numeric {
			return false
		}
		n, ok := numberOf(v, kib)
		return ok && n == lit.num
	case numeric:
		n, ok := numberOf(v, kib)
		return ok && n == lit.num
	case boolean:
		b, ok := v.(bool)
		return ok && b == lit.truth
	}
	return null(v)
}

// order compares a value with a literal: less than 0 where the value is less.
func (lit *literal) order(v any, kib bool) (int, bool) {
	if lit.kind == textual {
		if s, ok := str(v); ok {
			return strings.Compare(s, lit.str), true
		}
	}
	if lit.kind == numeric || lit.numeric {
		n, ok := numberOf(v, kib)
		return n.compare(lit.num), ok
	}
	return 0, false
}

// set finds what equals one of its literals without looking at each.
type set struct {
	texts   map[string]struct{}
	numbers map[number]struct{} // those that numbers and strings compare with
	numeric map[number]struct{} // of texts: those that only numbers compare with
	yes, no bool                // true and false are among them
	nothing bool                // so is null
}

func newSet(list []literal) set {
	s := set{texts: map[string]struct{}{}, numbers: map[number]struct{}{}, numeric: map[number]struct{}{}}
	for _, lit := range list {
		switch {
		case lit.kind == textual:
			s.texts[lit.str] = struct{}{}
			if lit.numeric {
				s.numeric[lit.num] = struct{}{}
			}
		case lit.kind == numeric:
			s.numbers[lit.num] = struct{}{}
		case lit.kind == nullary:
			s.nothing = true
		case lit.truth:
			s.yes = true
		default:
			s.no = true
		}
	}
	return s
}

func (s *set) has(v any, kib bool) bool {
	if b, ok := v.(bool); ok {
		return b && s.yes || !b && s.no
	}
	if null(v) {
		return s.nothing
	}
	t, isText := str(v)
	if isText {
		if _, ok := s.texts[t]; ok {
			return true
		}
	}
	if len(s.numbers)+len(s.numeric) == 0 {
		return false
	}
	n, ok := numberOf(v, kib)
	if !ok {
		return false
	}
	if _, ok = s.numbers[n]; !ok && !isText {
		_, ok = s.numeric[n]
	}
	return ok
}

// str gives a value that is a string.
func str(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case *string:
		if v != nil {
			return *v, true
		}
	}
	return "", false
}

func null(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case *string:
		return v == nil
	case *int64:
		return v == nil
	}
	return false
}

// text gives a value that is a string, number or boolean as text.
func text(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case json.Number:
		return string(v), true
	case bool:
		return strconv.FormatBool(v), true
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64), true
	case *string:
		return str(v)
	}
	if i, ok := integer(v); ok {
		return strconv.FormatInt(i, 10), true
	}
	if u, ok := v.(uint64); ok {
		return strconv.FormatUint(u, 10), true
	}
	return "", false
}

// number is whole where it can be, so that large ones are exact. Each number
// has one form only: two are equal if and only if their numbers are ==.
type number struct {
	whole int64
	other float64 // not 0 where whole is not the number
}

func fromFloat(f float64) (number, bool) {
	switch {
	case f != f:
		return number{}, false
	case f == math.Trunc(f) && f >= -1<<63 && f < 1<<63:
		return number{whole: int64(f)}, true
	}
	return number{other: f}, true
}

func (n number) float() float64 {
	if n.other != 0 {
		return n.other
	}
	return float64(n.whole)
}

// compare is exact. A number that is not whole here has so few digits before
// the point that whole ones near it are exact as floats, or it is beyond all of
// them: the nearest, 2^63-1, becomes the float 2^63 and then whole decides.
func (n number) compare(m number) int {
	if n.other != 0 || m.other != 0 {
		if c := cmp.Compare(n.float(), m.float()); c != 0 || n.other == m.other {
			return c
		}
		if n.other != 0 {
			return 1
		}
		return -1
	}
	return cmp.Compare(n.whole, m.whole)
}

// times multiplies with a small positive number, exactly where that is possible.
func (n number) times(k int64) (number, bool) {
	if n.other == 0 && n.whole <= math.MaxInt64/k && n.whole >= math.MinInt64/k {
		return number{whole: n.whole * k}, true
	}
	return fromFloat(n.float() * float64(k))
}

// numberOf gives a value that is a number, or a string that is one, in bytes
// where it is stored in KiB.
func numberOf(v any, kib bool) (n number, ok bool) {
	switch v := v.(type) {
	case json.Number:
		n, ok = parseNumber(string(v))
	case string:
		n, ok = parseNumber(v)
	case *string:
		if v != nil {
			n, ok = parseNumber(*v)
		}
	case float64:
		n, ok = fromFloat(v)
	case uint64:
		if n.whole = int64(v); n.whole < 0 {
			n, _ = fromFloat(float64(v))
		}
		ok = true
	default:
		n.whole, ok = integer(v)
	}
	if ok && kib {
		return n.times(1024)
	}
	return n, ok
}

func integer(v any) (int64, bool) {
	switch v := v.(type) {
	case *int64:
		if v != nil {
			return *v, true
		}
	case int:
		return int64(v), true
	case int8:
		return int64(v), true
	case int16:
		return int64(v), true
	case int32:
		return int64(v), true
	case int64:
		return v, true
	case uint:
		return int64(v), v <= math.MaxInt64
	case uint8:
		return int64(v), true
	case uint16:
		return int64(v), true
	case uint32:
		return int64(v), true
	}
	return 0, false
}

// parseNumber reads a decimal number as JSON and people write it; what
// strconv takes beyond that (hexadecimal, Inf, NaN) is text here. It does not
// allocate.
func parseNumber(s string) (number, bool) {
	end, whole := scanNumber(s)
	if end == 0 || end != len(s) {
		return number{}, false
	}
	if whole {
		if i, err := strconv.ParseInt(s, 10, 64); err == nil {
			return number{whole: i}, true
		}
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return number{}, false
	}
	return fromFloat(f)
}

// scanNumber gives the length of the number that s begins with, 0 for none.
func scanNumber(s string) (end int, whole bool) {
	digits := func() bool {
		start := end
		for end < len(s) && '0' <= s[end] && s[end] <= '9' {
			end++
		}
		return end > start
	}
	if s != "" && s[0] == '-' {
		end++
	}
	if !digits() {
		return 0, false
	}
	whole = true
	if at := end; at < len(s) && s[at] == '.' {
		if end++; digits() {
			whole = false
		} else {
			end = at
		}
	}
	if at := end; at < len(s) && (s[at] == 'e' || s[at] == 'E') {
		if end++; end < len(s) && (s[end] == '-' || s[end] == '+') {
			end++
		}
		if digits() {
			whole = false
		} else {
			end = at
		}
	}
	return end, whole
}
