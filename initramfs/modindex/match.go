package modindex

import (
	"slices"
	"strings"
)

// Step is one module to be loaded.
type Step struct {
	Module
	Optional bool // its failure does not matter to the modules after it
}

// Order gives what must be loaded, in this order, so that the named modules
// work; each module once. Names that are not listed (built in, or not wanted
// in this archive) come back in unknown.
func (ix *Index) Order(names ...string) (steps []Step, unknown []string) {
	place := map[string]int{}
	add := func(m *Module, optional bool) {
		if i, ok := place[m.Name]; ok {
			steps[i].Optional = steps[i].Optional && optional
			return
		}
		place[m.Name] = len(steps)
		steps = append(steps, Step{*m, optional})
	}
	for _, name := range names {
		name = CanonicalName(name)
		m := ix.byName[name]
		if m == nil {
			unknown = append(unknown, name)
			continue
		}
		for _, n := range m.Needs {
			add(ix.byName[n.Name], n.Optional)
		}
		add(m, false)
	}
	return steps, unknown
}

// Match gives the names of the modules that drive a device, from the text in
// its /sys/…/modalias, in the order of the list and each once.
func (ix *Index) Match(modalias string) []string {
	modalias = CanonicalName(strings.TrimSpace(modalias))
	if modalias == "" || len(modalias) > maxLine {
		return nil
	}
	var names []string
	for i, pattern := range ix.patterns {
		if name := ix.Aliases[i].Name; glob(pattern, modalias) && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// glob is fnmatch(3) without flags, which the kernel's aliases are written
// for: '*', '?' and '[…]', and no character is special in the text. It goes
// back only to the last '*', so its time is at most the product of the lengths.
func glob(pattern, text string) bool {
	star, mark := -1, 0
	p, t := 0, 0
	for t < len(text) {
		if p < len(pattern) && pattern[p] == '*' {
			star, mark = p, t
			p++
			continue
		}
		if n := one(pattern[p:], text[t]); n > 0 {
			p, t = p+n, t+1
			continue
		}
		if star < 0 {
			return false
		}
		mark++
		p, t = star+1, mark
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// one matches one character and gives the length of what matched it, or 0.
func one(pattern string, c byte) int {
	switch {
	case pattern == "":
		return 0
	case pattern[0] == '?':
		return 1
	case pattern[0] == '[':
		if n, ok := class(pattern, c); n > 0 {
			if ok {
				return n
			}
			return 0
		}
	}
	if pattern[0] == c {
		return 1
	}
	return 0
}

// class matches c with a bracket expression and gives its length; 0 when the
// bracket is never closed and so stands for itself.
func class(pattern string, c byte) (n int, ok bool) {
	i := 1
	negate := i < len(pattern) && (pattern[i] == '!' || pattern[i] == '^')
	if negate {
		i++
	}
	for first := true; i < len(pattern); first = false {
		lo := pattern[i]
		if lo == ']' && !first {
			return i + 1, ok != negate
		}
		hi := lo
		if i+2 < len(pattern) && pattern[i+1] == '-' && pattern[i+2] != ']' {
			hi = pattern[i+2]
			i += 2
		}
		ok = ok || (lo <= c && c <= hi)
		i++
	}
	return 0, false
}
