// Package hostlist folds lists of names into the notation that ClusterShell
// and Slurm made common, and unfolds them: n[0-3,7-9],gpu[01-04]x.
//
// A list is names separated by commas; spaces around a name are ignored. In a
// name, brackets hold numbers and ranges of numbers; several brackets multiply.
// The first number of a range sets the least number of digits, so [08-11] is
// 08 09 10 11 and [8-11] is 8 9 10 11. All else stands for itself: MAC and IP
// addresses and UIDs are lists of one name.
//
// The package knows text only: whether a name exists is for others to say.
package hostlist

import (
	"fmt"
	"strconv"
	"strings"
)

// Bounds of what Parse gives, checked before anything is unfolded.
const (
	MaxNames = 1_000_000
	MaxBytes = 64 << 20 // of all names together
)

const (
	maxDigits   = 18 // keeps every number in a uint64
	maxBrackets = 16 // in a name: unfolding nests as deep

	blanks   = " \t\r\n"
	specials = ",[]" + blanks // what a name cannot have
)

// Parse unfolds a list. Names come in the order in which they are written,
// the last bracket of a name varying fastest, and each only once. Without any
// name the list is nil. Errors give the position in s, from 1.
func Parse(s string) ([]string, error) { return ParseAtMost(s, MaxNames) }

// ParseAtMost is Parse with another bound on the names than MaxNames.
func ParseAtMost(s string, names int) ([]string, error) {
	p := &parser{s: s, max: names}
	items, err := p.list()
	if err != nil || items == nil {
		return nil, err
	}
	seen := make(map[string]struct{}, p.names)
	unfolded := make([]string, 0, p.names)
	buf := make([]byte, 0, 64)
	for _, it := range items {
		it.expand(buf, func(name []byte) {
			if _, ok := seen[string(name)]; !ok {
				n := string(name)
				seen[n] = struct{}{}
				unfolded = append(unfolded, n)
			}
		})
	}
	return unfolded, nil
}

// span is the numbers from lo to hi with at least width digits.
type span struct {
	lo, hi uint64
	width  int
}

// part is text, then a choice of numbers (none at the end of a name).
type part struct {
	text  string
	spans []span
}

type item []part

func (it item) expand(name []byte, add func([]byte)) {
	if len(it) == 0 {
		add(name)
		return
	}
	name = append(name, it[0].text...)
	if it[0].spans == nil {
		it[1:].expand(name, add)
		return
	}
	for _, sp := range it[0].spans {
		for v := sp.lo; v <= sp.hi; v++ {
			it[1:].expand(appendNumber(name, v, sp.width), add)
		}
	}
}

// appendNumber appends v with at least width digits.
func appendNumber(b []byte, v uint64, width int) []byte {
	var digits [20]byte
	d := strconv.AppendUint(digits[:0], v, 10)
	for range width - len(d) {
		b = append(b, '0')
	}
	return append(b, d...)
}

type parser struct {
	s     string
	at    int
	max   int // names
	names int // of the items so far
	bytes int
}

// errorf gives an error about the position at.
func (p *parser) errorf(at int, format string, args ...any) error {
	s := p.s
	if len(s) > 60 {
		s = s[:60] + "…"
	}
	return fmt.Errorf("%q is no list of names: at position %d: %s", s, at+1, fmt.Sprintf(format, args...))
}

// here describes what stands at the present position.
func (p *parser) here() string {
	if p.at == len(p.s) {
		return "the end"
	}
	return strconv.Quote(p.s[p.at : p.at+1])
}

func (p *parser) list() ([]item, error) {
	if strings.Trim(p.s, blanks) == "" {
		return nil, nil
	}
	var items []item
	for {
		it, err := p.item()
		if err != nil {
			return nil, err
		}
		items = append(items, it)
		if p.at == len(p.s) {
			return items, nil
		}
		p.at++ // the comma
	}
}

func (p *parser) spaces() {
	for p.at < len(p.s) && strings.IndexByte(blanks, p.s[p.at]) >= 0 {
		p.at++
	}
}

// item reads a name, up to a comma or the end.
func (p *parser) item() (item, error) {
	p.spaces()
	start := p.at
	var it item
	for {
		pt := part{text: p.text()}
		open := p.at < len(p.s) && p.s[p.at] == '['
		if open && len(it) == maxBrackets {
			return nil, p.errorf(p.at, "expected at most %d brackets in a name", maxBrackets)
		}
		if open {
			var err error
			if pt.spans, err = p.bracket(); err != nil {
				return nil, err
			}
		}
		if open || pt.text != "" {
			it = append(it, pt)
		}
		if !open {
			break
		}
	}
	end := p.at
	p.spaces()
	switch {
	case p.at < len(p.s) && p.s[p.at] == ']':
		return nil, p.errorf(p.at, `expected a name or "," and found "]", which no "[" opened`)
	case p.at < len(p.s) && p.s[p.at] != ',':
		return nil, p.errorf(p.at, `expected "," after a space and found %s`, p.here())
	case start == end:
		return nil, p.errorf(p.at, "expected a name and found %s", p.here())
	}
	return it, p.count(start, it)
}

func (p *parser) text() string {
	start := p.at
	if n := strings.IndexAny(p.s[start:], specials); n >= 0 {
		p.at += n
	} else {
		p.at = len(p.s)
	}
	return p.s[start:p.at]
}

// bracket reads "[", ranges and "]".
func (p *parser) bracket() ([]span, error) {
	var spans []span
	for {
		p.at++ // the bracket or comma
		sp, err := p.span()
		if err != nil {
			return nil, err
		}
		spans = append(spans, sp)
		switch {
		case p.at < len(p.s) && p.s[p.at] == ',':
		case p.at < len(p.s) && p.s[p.at] == ']':
			p.at++
			return spans, nil
		case p.at < len(p.s) && p.s[p.at] == '-':
			return nil, p.errorf(p.at, `expected "," or "]" after a range and found "-"`)
		default:
			return nil, p.errorf(p.at, `expected "-", "," or "]" and found %s`, p.here())
		}
	}
}

func (p *parser) span() (span, error) {
	lo, width, err := p.number()
	if err != nil || p.at == len(p.s) || p.s[p.at] != '-' {
		return span{lo, lo, width}, err
	}
	p.at++
	at := p.at
	hi, digits, err := p.number()
	switch {
	case err != nil:
		return span{}, err
	case hi < lo:
		return span{}, p.errorf(at, "expected a number not less than %d and found %d", lo, hi)
	case digits != max(width, len(strconv.FormatUint(hi, 10))):
		return span{}, p.errorf(at, "expected %s, with as many digits as the range begins with, and found %s",
			appendNumber(nil, hi, width), p.s[at:p.at])
	}
	return span{lo, hi, width}, nil
}

func (p *parser) number() (value uint64, digits int, err error) {
	start := p.at
	for p.at < len(p.s) && isDigit(p.s[p.at]) {
		p.at++
	}
	digits = p.at - start
	switch {
	case digits == 0:
		return 0, 0, p.errorf(start, "expected a number and found %s", p.here())
	case digits > maxDigits:
		return 0, 0, p.errorf(start, "expected a number of at most %d digits and found one of %d", maxDigits, digits)
	}
	value, err = strconv.ParseUint(p.s[start:p.at], 10, 64)
	return value, digits, err
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// count adds an item to the totals and keeps them in bounds.
func (p *parser) count(start int, it item) error {
	names, length := 1, 0
	for _, pt := range it {
		length += len(pt.text)
		if pt.spans == nil {
			continue
		}
		choices, digits := uint64(0), 0
		for _, sp := range pt.spans {
			choices += min(sp.hi-sp.lo, uint64(p.max)) + 1
			digits = max(digits, sp.width, len(strconv.FormatUint(sp.hi, 10)))
		}
		length += digits
		if choices > uint64(p.max) || names*int(choices) > p.max {
			return p.errorf(start, "expected at most %d names", p.max)
		}
		names *= int(choices)
	}
	if p.names += names; p.names > p.max {
		return p.errorf(start, "expected at most %d names", p.max)
	}
	if length > MaxBytes || names*length > MaxBytes-p.bytes {
		return p.errorf(start, "expected at most %d bytes of names", MaxBytes)
	}
	p.bytes += names * length
	return nil
}
