// Package selector is the language that picks nodes by what is known of them:
// its grammar, its normal form and its evaluation. It must do no I/O and knows
// neither the node kind nor where a node's data is kept: Node says that.
//
//	h[ram_total] > 100GB and a[_boot_config] == "DefaultBoot"
//	up and not (%gpu or name in n[0-15,20])
//	s[load_avg.0] > 8 || "nvidia" in s[modules]
//
// # Grammar
//
//	or         = and { ("or" | "||") and }
//	and        = unary { ("and" | "&&") unary }
//	unary      = ("not" | "!") unary | "(" or ")" | state | "%" name | "@" name | comparison
//	comparison = lookup ("==" | "!=" | "<" | "<=" | ">" | ">=") literal
//	           | lookup ("=~" | "!~") string
//	           | lookup ["not"] "in" ("[" [literal { "," literal }] "]" | hostlist)
//	           | literal ["not"] "in" lookup
//	lookup     = section "[" key "]" | field
//	literal    = string | number [unit] | "true" | "false" | "null"
//	state      = "down" | "booting" | "up" | "failed" | "unknown"
//
// Sections are attributes (attribute, a), status (s), hardware (h) and node
// (n); a bare field is short for node[field], and up for status[state] == "up".
// A key is quoted, or bare without spaces, quotes and brackets. One with dots
// leads into objects and lists (disks.0.model) where no key is spelled so.
// %name is membership of an attribute group and @name of a dynamic group.
// A hostlist is a string, or bare (see package hostlist). The words of the
// language are taken in upper case too.
//
// In a string, in " or ', a backslash before a quote or a backslash takes it
// literally; any other stands for itself, as regular expressions want it.
//
// # Values
//
// A value that is missing matches no comparison, != !~ and "not in" included,
// and is no error: not (s[x] == 1) holds where x is missing. For a value that is
// there, != is the opposite of ==, !~ of =~ and "not in" of in. Values of
// different types are not equal and have no order; only a string that is a number
// compares with numbers as one. Two strings compare by their bytes, also where
// both are numbers. A list or object is equal to nothing; "x" in s[list] asks
// for an element, and for a key of an object. null is a value that is there:
// index == null.
//
// Sizes are numbers of bytes: B, kB, MB … EB are decimal and KiB, MiB … EiB
// binary, in any case. Durations are numbers of seconds: s, m, h, d, w. What
// nodes report in KiB (see inKiB) counts as bytes here, so that
// h[ram_total] > 100GB and h[ram_total] > 100000 both mean bytes.
//
// =~ is a regular expression in the syntax of RE2, not anchored, and works on
// the text of strings, numbers and booleans; a[x] =~ "" says that a[x] is there.
package selector

import (
	"slices"
	"strings"
)

// Bounds of what Parse takes.
const (
	MaxLength   = 64 << 10 // bytes, of the text and of its normal form
	MaxDepth    = 200      // of not, and, or and comparison in each other
	MaxItems    = 10_000   // of one list, or names of one hostlist
	MaxAllItems = 100_000  // of all lists and hostlists together
	MaxKey      = 1024     // bytes of a key or name
	MaxPattern  = 1000     // bytes of a regular expression
)

// Node is what a selector asks of a node. A key that is not there gives false.
//
// Values are what encoding/json makes, numbers also as json.Number or any of
// Go's integers, and lists also []string. A *string or *int64 counts as what it points
// to and nil as null: an interface holds those without an allocation. A value
// of any other type is there but equals nothing.
type Node interface {
	Attribute(key string) (any, bool) // effective ones: inherited from groups too
	Status(key string) (any, bool)
	Hardware(key string) (any, bool)
	Field(name string) (any, bool)
	InGroup(name string) bool
	// InDyngroup must end: Acyclic says whether references do.
	InDyngroup(name string) bool
}

// Expr is a parsed selector. It does not change and may be used by many at once.
type Expr struct {
	root   term
	normal string
}

// Match says whether the node is one of those that the selector picks.
func (e *Expr) Match(n Node) bool { return e.root.match(n) }

// String gives the normal form: long names, parentheses around everything that
// is composed, strings in ", and literals as they were written. It parses to
// an equal expression, whose normal form is the same.
func (e *Expr) String() string { return e.normal }

// Section is one of the parts that a node's data has.
type Section string

// The sections, by the names that the normal form gives them.
const (
	Attributes Section = "attributes"
	Status     Section = "status"
	Hardware   Section = "hardware"
	Fields     Section = "node"
)

// Lookup is a value that a selector reads.
type Lookup struct {
	Section Section
	Key     string
}

// Reads says whether a change of the section's entry of that name can change
// the lookup: it is the key, or holds what a key with dots leads to.
func (l Lookup) Reads(name string) bool {
	rest, ok := strings.CutPrefix(l.Key, name)
	return ok && (rest == "" || rest[0] == '.')
}

// Uses is all that a selector's result depends on, each once and in order.
type Uses struct {
	Lookups   []Lookup
	Groups    []string // as written: names, or UIDs
	Dyngroups []string
}

// Uses says what the selector reads, so that it is evaluated again only when
// that changes.
func (e *Expr) Uses() Uses {
	var u Uses
	e.root.uses(&u)
	slices.SortFunc(u.Lookups, func(a, b Lookup) int {
		if c := strings.Compare(string(a.Section), string(b.Section)); c != 0 {
			return c
		}
		return strings.Compare(a.Key, b.Key)
	})
	u.Lookups = slices.Compact(u.Lookups)
	slices.Sort(u.Groups)
	u.Groups = slices.Compact(u.Groups)
	slices.Sort(u.Dyngroups)
	u.Dyngroups = slices.Compact(u.Dyngroups)
	return u
}
