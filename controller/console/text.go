package console

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of what the parser remembers, in bytes: of an escape sequence, of a
// string inside one (a window's title), and of a line of text.
const (
	maxSequence = 32
	maxString   = 1024
	maxText     = 1024
)

// parser reads what a machine says to its terminal (ECMA-48, and what xterm
// made of it), and makes two things of it: a stream that a terminal may show,
// without what would set a title, a clipboard or a mouse mode, or make it
// answer; and lines of plain text.
type parser struct {
	live func(p []byte) // gets what may be shown
	line func(s string) // gets each line

	state state
	seq   []byte // of the present sequence
	count int    // of the present string's bytes
	rune  []byte // of a character that is not whole
	text  []byte // of the present line
	cr    bool   // a carriage return came, and nothing after it
	out   []byte
}

type state int

const (
	ground state = iota
	escape
	control  // behind ESC [
	skip     // one more byte of a short sequence
	str      // a string, until BEL or ESC \
	strEnd   // ESC inside a string
	overlong // a sequence that is dropped, until its end
)

const (
	esc = 0x1b
	can = 0x18
	sub = 0x1a
	bel = 0x07
	del = 0x7f
)

// feed takes bytes as they come.
func (p *parser) feed(b []byte) {
	p.out = p.out[:0]
	for _, c := range b {
		p.byte(c)
	}
	if len(p.out) > 0 {
		p.live(p.out)
	}
}

func (p *parser) byte(c byte) {
	// A newline ends whatever garbage is before it: nothing can hide what
	// comes after.
	if c == '\n' || c == can || c == sub {
		p.state = ground
	}
	switch p.state {
	case ground:
		p.plain(c)
	case escape:
		p.escaped(c)
	case control, overlong:
		p.control(c)
	case skip:
		p.state = ground
	case str:
		if p.count++; c == bel || p.count > maxString {
			p.state = ground
		} else if c == esc {
			p.state = strEnd
		}
	case strEnd:
		if p.state = ground; c != '\\' {
			p.state = escape
			p.escaped(c)
		}
	}
}

func (p *parser) plain(c byte) {
	if c >= utf8.RuneSelf || len(p.rune) > 0 {
		p.character(c)
		return
	}
	if p.cr && c != '\n' && c != '\r' {
		p.end() // what is written over stays in the log
	}
	if c != '\r' {
		p.cr = false
	}
	switch {
	case c == esc:
		p.state, p.seq = escape, p.seq[:0]
		return
	case c == '\n':
		p.commit()
	case c == '\r':
		p.cr = true
	case c == '\b':
		_, n := utf8.DecodeLastRune(p.text)
		p.text = p.text[:len(p.text)-n]
	case c == '\v' || c == '\f':
		p.end()
	case c == '\t' || c >= ' ' && c != del:
		p.say(c)
	case c == bel:
	default:
		return
	}
	p.out = append(p.out, c)
}

// character takes bytes of what is not ASCII. C1 controls are dropped: some
// terminals read escape sequences in them.
func (p *parser) character(c byte) {
	if c < utf8.RuneSelf {
		p.rune = p.rune[:0]
		p.show(utf8.RuneError)
		p.byte(c)
		return
	}
	p.rune = append(p.rune, c)
	for len(p.rune) > 0 && utf8.FullRune(p.rune) {
		r, n := utf8.DecodeRune(p.rune)
		p.rune = slices.Delete(p.rune, 0, n)
		if r > 0x9f {
			p.show(r)
		}
	}
}

func (p *parser) show(r rune) {
	if p.cr {
		p.cr = false
		p.end()
	}
	p.out = utf8.AppendRune(p.out, r)
	if unicode.IsPrint(r) {
		p.say(utf8.AppendRune(nil, r)...)
	}
}

func (p *parser) say(c ...byte) {
	if p.text = append(p.text, c...); len(p.text) >= maxText {
		p.commit()
	}
}

// end ends the line where something is on it.
func (p *parser) end() {
	if len(p.text) > 0 {
		p.commit()
	}
}

func (p *parser) commit() {
	p.line(strings.TrimRight(string(p.text), " \t"))
	p.text = p.text[:0]
}

// escaped takes the byte after ESC.
func (p *parser) escaped(c byte) {
	switch p.state = ground; c {
	case esc:
		p.state = escape
	case '[':
		p.state = control
	case ']', 'P', 'X', '^', '_':
		p.state, p.count = str, 0
	case '(', ')', '*', '+', '-', '.', '/', '#', '%', ' ':
		p.state = skip // another character set, which would stay
	case '7', '8', 'D', 'E', 'M', '=', '>', 'c':
		p.end()
		p.out = append(p.out, esc, c)
	}
}

// control takes a byte of a control sequence.
func (p *parser) control(c byte) {
	switch {
	case c == esc:
		p.state, p.seq = escape, p.seq[:0]
	case c < ' ' || c == del:
	case c < '@':
		if p.seq = append(p.seq, c); len(p.seq) > maxSequence {
			p.state, p.seq = overlong, p.seq[:0]
		}
	case p.state == overlong || c > '~':
		p.state = ground
	default:
		p.state = ground
		if !harmless(string(p.seq), c) {
			return
		}
		p.out = append(append(append(p.out, esc, '['), p.seq...), c)
		switch c {
		case 'A', 'B', 'E', 'F', 'H', 'J', 'd', 'f':
			p.end()
		case 'C', 'G':
			p.say(' ')
		}
	}
}

// harmless says whether a control sequence only moves the cursor or paints.
func harmless(parameters string, final byte) bool {
	if final == 'h' || final == 'l' { // modes: the cursor's keys and looks, wrapping, the other screen
		return slices.Contains([]string{"?1", "?7", "?12", "?25", "?47", "?1047", "?1049", "4", "20"}, parameters)
	}
	return strings.IndexByte("ABCDEFGHJKLMPSTX@dfmrsu`a", final) >= 0 && strings.Trim(parameters, "0123456789;:") == ""
}
