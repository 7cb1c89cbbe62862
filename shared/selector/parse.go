package selector

import (
	"fmt"
	"regexp/syntax"
	"strconv"
	"strings"
	"unicode/utf8"

	"muster/shared/fault"
)

// SyntaxError says where a text stops being a selector.
type SyntaxError struct {
	Position int    // in characters, from 1; one past the last where more was expected
	Problem  string // what was expected, and what was found
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("The selector is wrong at position %d: %s.", e.Position, e.Problem)
}

// Parse reads a selector. Errors are Invalid faults; the cause is a SyntaxError
// unless a bound is broken.
func Parse(s string) (*Expr, error) {
	if len(s) > MaxLength {
		return nil, fault.Invalidf("The selector has %d bytes, at most %d are taken.", len(s), MaxLength)
	}
	p := &parser{s: s}
	root, err := p.whole()
	if err != nil {
		return nil, fault.New(fault.Invalid, "%w", err)
	}
	if d := root.depth(); d > MaxDepth {
		return nil, fault.Invalidf("The selector is nested %d deep, at most %d is taken.", d, MaxDepth)
	}
	var b strings.Builder
	root.print(&b)
	if b.Len() > MaxLength {
		return nil, fault.Invalidf("The selector has %d bytes when written out, at most %d are taken.", b.Len(), MaxLength)
	}
	return &Expr{root, b.String()}, nil
}

// maxNested bounds the parser's stack. The normal form has at most two opening
// things, a parenthesis and a not, for each level of an expression.
const maxNested = 2 * MaxDepth

// maxProgram bounds the regular expressions of a selector, in instructions of
// RE2, because the time to match grows with them.
const maxProgram = 10_000

// maxNameBytes bounds what the hostlists of a selector unfold to.
const maxNameBytes = 8 << 20

type parser struct {
	s       string
	at      int // bytes
	nested  int
	items   int // of all lists
	bytes   int // of all names in hostlists
	program int // instructions of all regular expressions
}

// fail gives an error about what stands at a place.
func (p *parser) fail(at int, expected string) error {
	found := "the end"
	if at < len(p.s) {
		end := at + wordLength(p.s[at:])
		if end == at {
			_, n := utf8.DecodeRuneInString(p.s[at:])
			end += n
		}
		found = strconv.Quote(p.s[at:min(end, at+40)])
	}
	return p.problem(at, "expected "+expected+" and found "+found)
}

func (p *parser) problem(at int, text string) error {
	return &SyntaxError{Position: utf8.RuneCountInString(p.s[:at]) + 1, Problem: text}
}

func (p *parser) whole() (term, error) {
	for i, r := range p.s {
		if r == utf8.RuneError {
			if _, n := utf8.DecodeRuneInString(p.s[i:]); n == 1 {
				return nil, p.problem(i, "expected UTF-8 and found "+strconv.Quote(p.s[i:i+1]))
			}
		}
	}
	t, err := p.or()
	if err == nil && !p.atEnd() {
		err = p.fail(p.at, `"and", "or" or the end`)
	}
	return t, err
}

func (p *parser) or() (term, error) {
	terms, err := p.series("or", "||", p.and)
	if err != nil || len(terms) == 1 {
		return first(terms), err
	}
	return or(terms), nil
}

func (p *parser) and() (term, error) {
	terms, err := p.series("and", "&&", p.unary)
	if err != nil || len(terms) == 1 {
		return first(terms), err
	}
	return and(terms), nil
}

func first(terms []term) term {
	if len(terms) == 0 {
		return nil
	}
	return terms[0]
}

// series reads one or more terms with a word or sign between them.
func (p *parser) series(word, sign string, part func() (term, error)) ([]term, error) {
	var terms []term
	for {
		t, err := part()
		if err != nil {
			return nil, err
		}
		terms = append(terms, t)
		if !p.word(word) && !p.sign(sign) {
			return terms, nil
		}
	}
}

func (p *parser) unary() (term, error) {
	if p.nested++; p.nested > maxNested {
		return nil, p.problem(p.at, fmt.Sprintf("expected nesting at most %d deep", MaxDepth))
	}
	defer func() { p.nested-- }()
	switch {
	case p.word("not"), p.sign("!"):
		t, err := p.unary()
		return not{t}, err
	case p.sign("("):
		t, err := p.or()
		if err == nil && !p.sign(")") {
			err = p.fail(p.at, `"and", "or" or ")"`)
		}
		return t, err
	case p.sign("%"):
		name, err := p.name("the name of an attribute group")
		return group(name), err
	case p.sign("@"):
		name, err := p.name("the name of a dynamic group")
		return dyngroup(name), err
	}
	for _, state := range []string{"down", "booting", "up", "failed", "unknown"} {
		if p.word(state) {
			return &comparison{newLookup(Status, "state"), equal, textLiteral(state)}, nil
		}
	}
	return p.comparison()
}

func (p *parser) comparison() (term, error) {
	p.spaces()
	if p.startsLiteral() {
		return p.contains()
	}
	l, err := p.lookup()
	if err != nil {
		return nil, err
	}
	for _, sign := range []string{"=~", "!~"} {
		if p.sign(sign) {
			return p.pattern(l, sign == "!~")
		}
	}
	for _, op := range []operator{equal, unequal, atMost, atLeast, less, greater} {
		if p.sign(operators[op]) {
			return p.compared(l, op)
		}
	}
	negate, err := p.in(`a comparison (== != < <= > >= =~ !~ in "not in")`)
	if err != nil {
		return nil, err
	}
	if p.sign("[") {
		return p.list(l, negate)
	}
	return p.hostlist(l, negate)
}

// in reads "in" or "not in".
func (p *parser) in(expected string) (negate bool, err error) {
	p.spaces()
	at := p.at
	negate = p.word("not")
	if !p.word("in") {
		if negate {
			at, expected = p.at, `"in"`
		}
		return false, p.fail(at, expected)
	}
	return negate, nil
}

func (p *parser) compared(l lookup, op operator) (term, error) {
	p.spaces()
	at := p.at
	lit, err := p.literalFor(l)
	if err == nil && op > unequal && lit.kind > numeric {
		err = p.fail(at, "a string in quotes or a number after "+operators[op])
	}
	return &comparison{l, op, lit}, err
}

func (p *parser) contains() (term, error) {
	at := p.at
	lit, err := p.literal()
	if err != nil {
		return nil, err
	}
	negate, err := p.in(`"in" or "not in", as other comparisons have the value on the right,`)
	if err != nil {
		return nil, err
	}
	l, err := p.lookup()
	if err == nil {
		err = p.fits(at, l, lit)
	}
	return &contains{lit, negate, l}, err
}

func (p *parser) list(l lookup, negate bool) (term, error) {
	t := &oneOf{lookup: l, negate: negate}
	for !p.sign("]") {
		if len(t.list) > 0 && !p.sign(",") {
			return nil, p.fail(p.at, `"," or "]"`)
		}
		p.spaces()
		if len(t.list) == MaxItems {
			return nil, p.problem(p.at, fmt.Sprintf("expected at most %d values in a list", MaxItems))
		}
		lit, err := p.literalFor(l)
		if err != nil {
			return nil, err
		}
		t.list = append(t.list, lit)
	}
	t.set = newSet(t.list)
	return t, p.count(len(t.list))
}

// count keeps all lists together in bounds.
func (p *parser) count(items int) error {
	if p.items += items; p.items > MaxAllItems || p.bytes > maxNameBytes {
		return p.problem(p.at, fmt.Sprintf("expected at most %d values and names in all lists, and at most %d bytes of names", MaxAllItems, maxNameBytes))
	}
	return nil
}

// literalFor reads a literal that a lookup is compared with.
func (p *parser) literalFor(l lookup) (literal, error) {
	at := p.at
	lit, err := p.literal()
	if err == nil {
		err = p.fits(at, l, lit)
	}
	return lit, err
}

// fits refuses minutes where megabytes must have been meant: 5m bytes would
// be fewer than any node has.
func (p *parser) fits(at int, l lookup, lit literal) error {
	if l.kib && lit.duration {
		return p.fail(at, fmt.Sprintf("a size such as 5MB, because %s is one,", l.Key))
	}
	return nil
}

// regexpSize gives the number of instructions that a regular expression needs.
func regexpSize(source string) (int, error) {
	parsed, err := syntax.Parse(source, syntax.Perl)
	if err != nil {
		return 0, err
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return 0, err
	}
	return len(program.Inst), nil
}
