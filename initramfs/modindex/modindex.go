// Package modindex is the list of kernel modules in a "modules" boot archive:
// written by initramfs, read by the agent, which finds in it what to load for
// a device and in which order, without looking into any module.
//
// It is light on purpose, because the agent carries it; it must not import
// anything but the standard library, and it loads nothing itself.
//
// The format is text, one record a line, fields separated by single spaces:
//
//	muster-modules 1                     the format's version, always first
//	kernel 6.1.0-56-amd64                the release (uname -r) that the modules are for
//	module NAME PATH [NEED...]           PATH is relative to /lib/modules/RELEASE
//	boot NAME                            to be loaded at every boot, in this order
//	builtin NAME                         wanted, and already in the kernel
//	alias PATTERN NAME                   NAME drives devices whose modalias matches
//
// NAME has underscores where a file name may have dashes. The NEEDs of a
// module are complete and in loading order; one that begins with "?" is worth
// loading first but may fail (a "softdep" in the kernel's terms).
package modindex

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
)

// Version is that of the format.
const Version = 1

// Path is where the index lies in the archive, relative to the root; Dir is
// the directory that Module.Path is relative to.
func Path(release string) string { return Dir(release) + "/muster.index" }

// Dir is the modules' directory in the archive.
func Dir(release string) string { return "lib/modules/" + release }

// The bounds within which Parse reads; an archive for every module of a
// distribution's kernel stays within them.
const (
	maxLine    = 16 << 10
	maxRecords = 200_000
)

// Index is the content of the list.
type Index struct {
	Release string
	Modules []Module
	Boot    []string
	BuiltIn []string
	Aliases []Alias

	byName   map[string]*Module
	patterns []string // of Aliases, as they are matched
}

// Module is one module and what must be loaded before it.
type Module struct {
	Name  string
	Path  string
	Needs []Need
}

// Need is a module to be loaded before another one.
type Need struct {
	Name     string
	Optional bool // its failure does not matter
}

// Alias says that a module drives the devices which a pattern matches.
type Alias struct {
	Pattern string
	Name    string
}

// CanonicalName is a module's name as the kernel writes it, whatever its file
// is called.
func CanonicalName(name string) string { return strings.ReplaceAll(name, "-", "_") }

// canonicalPattern is CanonicalName for an alias, where a dash within brackets
// is a range.
func canonicalPattern(p string) string {
	b := []byte(p)
	in := false
	for i, c := range b {
		switch {
		case c == '[':
			in = true
		case c == ']':
			in = false
		case c == '-' && !in:
			b[i] = '_'
		}
	}
	return string(b)
}

// Plain says whether s can be a field of the list: not empty, no blanks.
func Plain(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f })
}

// Write writes the list in the format that Parse reads.
func (ix *Index) Write(w io.Writer) error {
	if err := ix.check(); err != nil {
		return err
	}
	b := bufio.NewWriter(w)
	fmt.Fprintf(b, "muster-modules %d\nkernel %s\n", Version, ix.Release)
	for _, m := range ix.Modules {
		fmt.Fprintf(b, "module %s %s", m.Name, m.Path)
		for _, n := range m.Needs {
			mark := ""
			if n.Optional {
				mark = "?"
			}
			fmt.Fprintf(b, " %s%s", mark, n.Name)
		}
		fmt.Fprintln(b)
	}
	for _, name := range ix.Boot {
		fmt.Fprintf(b, "boot %s\n", name)
	}
	for _, name := range ix.BuiltIn {
		fmt.Fprintf(b, "builtin %s\n", name)
	}
	for _, a := range ix.Aliases {
		fmt.Fprintf(b, "alias %s %s\n", a.Pattern, a.Name)
	}
	return b.Flush()
}

// Parse reads a list. It fails on anything that it would not have written,
// and names the line.
func Parse(r io.Reader) (*Index, error) {
	ix := &Index{}
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 4096), maxLine)
	line := 0
	for s.Scan() {
		if line++; line > maxRecords {
			return nil, fmt.Errorf("module index: more than %d lines", maxRecords)
		}
		if err := ix.record(line, strings.Split(s.Text(), " ")); err != nil {
			return nil, fmt.Errorf("module index: line %d: %w", line, err)
		}
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("module index: after line %d: %w", line, err)
	}
	if line < 2 {
		return nil, errors.New("module index: it has no kernel release")
	}
	if err := ix.check(); err != nil {
		return nil, err
	}
	return ix, nil
}

func (ix *Index) record(line int, f []string) error {
	key, f := f[0], f[1:]
	switch {
	case line == 1:
		if key != "muster-modules" || len(f) != 1 || f[0] != fmt.Sprint(Version) {
			return fmt.Errorf("want \"muster-modules %d\"; head and boot archive are of different versions", Version)
		}
	case line == 2:
		if key != "kernel" || len(f) != 1 {
			return errors.New("want \"kernel RELEASE\"")
		}
		ix.Release = f[0]
	case key == "module" && len(f) >= 2:
		m := Module{Name: f[0], Path: f[1]}
		for _, need := range f[2:] {
			name, optional := strings.CutPrefix(need, "?")
			m.Needs = append(m.Needs, Need{name, optional})
		}
		ix.Modules = append(ix.Modules, m)
	case key == "boot" && len(f) == 1:
		ix.Boot = append(ix.Boot, f[0])
	case key == "builtin" && len(f) == 1:
		ix.BuiltIn = append(ix.BuiltIn, f[0])
	case key == "alias" && len(f) == 2:
		ix.Aliases = append(ix.Aliases, Alias{f[0], f[1]})
	default:
		return fmt.Errorf("%q with %d fields is not a record", key, len(f))
	}
	return nil
}

// check makes sure that every name that is used is defined, and that no field
// would break the format or lead out of the directory.
func (ix *Index) check() error {
	if ix.Release == "" || ix.Release == "." || ix.Release == ".." || strings.Contains(ix.Release, "/") || !Plain(ix.Release) {
		return fmt.Errorf("module index: %q is not a kernel release", ix.Release)
	}
	ix.byName = make(map[string]*Module, len(ix.Modules))
	ix.patterns = make([]string, 0, len(ix.Aliases))
	for i, m := range ix.Modules {
		if !Plain(m.Name) || !Plain(m.Path) || path.Clean("/"+m.Path) != "/"+m.Path {
			return fmt.Errorf("module index: module %q at %q has a name that cannot be used", m.Name, m.Path)
		}
		if ix.byName[m.Name] != nil {
			return fmt.Errorf("module index: module %s is listed twice", m.Name)
		}
		ix.byName[m.Name] = &ix.Modules[i]
	}
	for _, m := range ix.Modules {
		for _, n := range m.Needs {
			if ix.byName[n.Name] == nil {
				return fmt.Errorf("module index: module %s needs %q, which is not listed", m.Name, n.Name)
			}
		}
	}
	for _, name := range ix.Boot {
		if ix.byName[name] == nil {
			return fmt.Errorf("module index: %q is to be loaded at boot, but not listed", name)
		}
	}
	for _, name := range ix.BuiltIn {
		if !Plain(name) {
			return fmt.Errorf("module index: built-in module %q has a name that cannot be used", name)
		}
	}
	for _, a := range ix.Aliases {
		if !Plain(a.Pattern) || ix.byName[a.Name] == nil {
			return fmt.Errorf("module index: alias %q is for %q, which is not listed", a.Pattern, a.Name)
		}
		ix.patterns = append(ix.patterns, canonicalPattern(a.Pattern))
	}
	return nil
}
