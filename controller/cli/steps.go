package cli

import (
	"fmt"
	"os"

	"golang.org/x/term"
)

// steps shows on stderr how something of several steps goes on: each step as
// a line, how far it is as a bar, and what programs say, on a terminal only
// the latest of it.
type steps struct {
	m       *muster
	show    progressFlag
	tty     *os.File // nil elsewhere
	verbose bool

	name   string
	bar    *bar
	shown  bool // an unfinished line
	silent bool
}

func (m *muster) steps(p progressFlag, verbose bool) (*steps, error) {
	if _, err := m.bar(p, ""); err != nil { // is the flag right?
		return nil, err
	}
	s := &steps{m: m, show: p, verbose: verbose, silent: p == "never"}
	if f, ok := m.Stderr.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		s.tty = f
	}
	return s, nil
}

// Step begins a step.
func (s *steps) Step(name string) {
	s.end()
	s.name = name
	if !s.silent {
		fmt.Fprintln(s.m.Stderr, printable(name))
	}
}

// Said shows a line of a program.
func (s *steps) Said(line string) {
	switch {
	case s.verbose:
		s.clear()
		fmt.Fprintln(s.m.Stderr, "  "+printable(line))
	case s.tty != nil && !s.silent:
		width, _, err := term.GetSize(int(s.tty.Fd()))
		if err != nil || width < 20 {
			width = 80
		}
		text := []rune("  " + printable(line))
		fmt.Fprintf(s.m.Stderr, "\r\x1b[K%s", string(text[:min(len(text), width-1)]))
		s.shown = true
	}
}

// At shows how far the step is.
func (s *steps) At(done, total int64) {
	if s.bar == nil {
		s.clear()
		s.bar, _ = s.m.bar(s.show, "  "+s.name)
	}
	s.bar.at(done, total)
}

// end leaves the line of the last step.
func (s *steps) end() {
	s.clear()
	if s.bar != nil {
		s.bar.end()
		s.bar = nil
	}
}

func (s *steps) clear() {
	if s.shown {
		fmt.Fprint(s.m.Stderr, "\r\x1b[K")
		s.shown = false
	}
}
