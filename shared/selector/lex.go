package selector

import (
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"muster/shared/hostlist"
)

const blanks = " \t\r\n"

var sections = map[string]Section{
	"a": Attributes, "attribute": Attributes, "attributes": Attributes,
	"s": Status, "status": Status,
	"h": Hardware, "hardware": Hardware,
	"n": Fields, "node": Fields,
}

func (p *parser) spaces() {
	for p.at < len(p.s) && strings.IndexByte(blanks, p.s[p.at]) >= 0 {
		p.at++
	}
}

func (p *parser) atEnd() bool {
	p.spaces()
	return p.at == len(p.s)
}

// sign takes a sign if it comes next.
func (p *parser) sign(sign string) bool {
	p.spaces()
	if !strings.HasPrefix(p.s[p.at:], sign) {
		return false
	}
	p.at += len(sign)
	return true
}

// word takes a word of the language if it comes next.
func (p *parser) word(word string) bool {
	p.spaces()
	n := wordLength(p.s[p.at:])
	if !strings.EqualFold(p.s[p.at:p.at+n], word) {
		return false
	}
	p.at += n
	return true
}

func wordLength(s string) int {
	n := 0
	for n < len(s) && (s[n] == '_' || s[n] == '.' || isLetter(s[n]) || isDigit(s[n])) {
		n++
	}
	return n
}

func isDigit(c byte) bool  { return '0' <= c && c <= '9' }
func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

// inName says what a group's name may have without quotes.
func inName(r rune) bool {
	return unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("_.@+~#-", r)
}

// name reads the rest of %name or @name.
func (p *parser) name(expected string) (string, error) {
	at := p.at
	var name string
	if p.at < len(p.s) && (p.s[p.at] == '"' || p.s[p.at] == '\'') {
		var err error
		if name, err = p.str(); err != nil {
			return "", err
		}
	} else {
		for p.at < len(p.s) {
			r, n := utf8.DecodeRuneInString(p.s[p.at:])
			if !inName(r) {
				break
			}
			p.at += n
		}
		name = p.s[at:p.at]
	}
	return name, p.checkKey(at, name, expected)
}

func (p *parser) checkKey(at int, key, expected string) error {
	switch {
	case key == "":
		return p.fail(at, expected)
	case len(key) > MaxKey:
		return p.problem(at, fmt.Sprintf("expected %s of at most %d bytes and found one of %d", expected, MaxKey, len(key)))
	}
	return nil
}

const lookupNames = `a value of a node, such as a[key], s[key], h[key] or name,`

// lookup reads section[key] or a field.
func (p *parser) lookup() (lookup, error) {
	p.spaces()
	at := p.at
	n := wordLength(p.s[at:])
	word := p.s[at : at+n]
	if n == 0 || isDigit(word[0]) || word[0] == '.' || word[n-1] == '.' {
		return lookup{}, p.fail(at, lookupNames)
	}
	switch strings.ToLower(word) {
	case "and", "or", "not", "in", "true", "false", "null":
		return lookup{}, p.fail(at, lookupNames)
	}
	p.at += n
	if section, ok := sections[word]; ok {
		return p.key(section)
	}
	section, key := Fields, word
	if first, rest, ok := strings.Cut(word, "."); ok && sections[first] != "" {
		section, key = sections[first], rest
	}
	return newLookup(section, key), p.checkKey(at, key, "a field")
}

// key reads [key].
func (p *parser) key(section Section) (lookup, error) {
	if !p.sign("[") {
		return lookup{}, p.fail(p.at, `"[" and a key`)
	}
	p.spaces()
	at := p.at
	var key string
	if at < len(p.s) && (p.s[at] == '"' || p.s[at] == '\'') {
		var err error
		if key, err = p.str(); err != nil {
			return lookup{}, err
		}
	} else {
		n := strings.IndexAny(p.s[at:], `"'[]`+blanks)
		if n < 0 {
			n = len(p.s) - at
		}
		p.at += n
		key = p.s[at:p.at]
	}
	if err := p.checkKey(at, key, "a key"); err != nil {
		return lookup{}, err
	}
	if !p.sign("]") {
		return lookup{}, p.fail(p.at, `"]" after the key`)
	}
	return newLookup(section, key), nil
}

// str reads a string, whose first quote comes next.
func (p *parser) str() (string, error) {
	s, n := unquote(p.s[p.at:])
	if n == 0 {
		return "", p.problem(p.at, fmt.Sprintf("expected the %c that ends the string beginning here and found the end", p.s[p.at]))
	}
	p.at += n
	return s, nil
}

// startsLiteral says whether what comes next can only be a literal.
func (p *parser) startsLiteral() bool {
	if p.at == len(p.s) {
		return false
	}
	switch c := p.s[p.at]; {
	case c == '"', c == '\'', c == '-', isDigit(c):
		return true
	}
	switch strings.ToLower(p.s[p.at : p.at+wordLength(p.s[p.at:])]) {
	case "true", "false", "null":
		return true
	}
	return false
}

func (p *parser) literal() (literal, error) {
	p.spaces()
	switch {
	case !p.startsLiteral():
		return literal{}, p.fail(p.at, "a value (a string in quotes, a number, true, false or null)")
	case p.s[p.at] == '"' || p.s[p.at] == '\'':
		s, err := p.str()
		return textLiteral(s), err
	case p.word("true"):
		return boolLiteral(true), nil
	case p.word("false"):
		return boolLiteral(false), nil
	case p.word("null"):
		return nullLiteral(), nil
	}
	at := p.at
	n, _ := scanNumber(p.s[at:])
	if n == 0 {
		return literal{}, p.fail(at+1, "a number after -")
	}
	unit := p.s[at+n:]
	unit = unit[:wordLength(unit)]
	lit, err := numberLiteral(p.s[at:at+n], unit)
	if err != nil {
		if unit != "" {
			at += n
		}
		return lit, p.fail(at, err.Error())
	}
	p.at += n + len(unit)
	return lit, nil
}

func (p *parser) pattern(l lookup, negate bool) (term, error) {
	p.spaces()
	at := p.at
	if at == len(p.s) || p.s[at] != '"' && p.s[at] != '\'' {
		return nil, p.fail(at, "a regular expression in quotes")
	}
	source, err := p.str()
	if err != nil {
		return nil, err
	}
	if len(source) > MaxPattern {
		return nil, p.problem(at, fmt.Sprintf("expected a regular expression of at most %d bytes and found one of %d", MaxPattern, len(source)))
	}
	size, err := regexpSize(source)
	if err != nil {
		return nil, p.problem(at, "expected a regular expression in the syntax of RE2: "+err.Error())
	}
	if p.program += size; p.program > maxProgram {
		return nil, p.problem(at, "expected regular expressions that are less complex, with fewer or smaller repetitions")
	}
	re, err := regexp.Compile(source)
	if err != nil {
		return nil, p.problem(at, "expected a regular expression in the syntax of RE2: "+err.Error())
	}
	return &pattern{l, negate, source, re}, nil
}

// hostlist reads a list of names, in quotes or up to a space, ")", "&&" or "||"
// outside of brackets.
func (p *parser) hostlist(l lookup, negate bool) (term, error) {
	p.spaces()
	at := p.at
	if at == len(p.s) {
		return nil, p.fail(at, `a list such as ["a", "b"] or n[0-9]`)
	}
	var source string
	if p.s[at] == '"' || p.s[at] == '\'' {
		var err error
		if source, err = p.str(); err != nil {
			return nil, err
		}
	} else {
		p.at += bareHostlist(p.s[at:])
		// The name of a group here would be taken for that of a node.
		if source = p.s[at:p.at]; source == "" || source[0] == '%' || source[0] == '@' {
			return nil, p.fail(at, `a list such as ["a", "b"] or n[0-9]`)
		}
	}
	names, err := hostlist.ParseAtMost(source, MaxItems)
	if err != nil {
		return nil, p.problem(at, "expected a list of names, but "+err.Error())
	}
	t := &named{l, negate, source, make(map[string]struct{}, len(names))}
	for _, name := range names {
		t.names[name] = struct{}{}
		p.bytes += len(name)
	}
	return t, p.count(len(names))
}

func bareHostlist(s string) int {
	inside := false
	for i := range len(s) {
		switch c := s[i]; {
		case c == '[':
			inside = true
		case c == ']':
			inside = false
		case inside:
		case strings.IndexByte(blanks+")", c) >= 0, strings.HasPrefix(s[i:], "&&"), strings.HasPrefix(s[i:], "||"):
			return i
		}
	}
	return len(s)
}
