// Package template fills in texts that admins write about nodes: kickstarts,
// ZTP scripts, kernel command lines, the URIs of BMCs. It must do no I/O and
// knows neither nodes nor files: Options says where values and included texts
// come from, and what may stand where.
//
//	<hostname>          an attribute, status or hardware value or a field of the node, the first that is there;
//	                    one that begins with _ is an attribute only
//	<a[rack]>           an attribute; also attribute[…] and attributes[…]
//	<s[kernel]>         a status value; also status[…]
//	<h[disks.0.size]>   a hardware value; also hardware[…]
//	<n[ip]>             a field of the node; also node[…]
//	<head[ip]>          of the head that answers
//	<root_url()>        its URL without a path, http://10.0.0.1:8080
//	<include(disks.ks)> another text, filled in as well
//	<quote(a[motd])>    any value on one line, as one word for a shell
//	<json(a[motd])>     any value, as a string of JSON or YAML
//
// Keys are as in package selector: with dots they lead into objects and lists,
// and they may be quoted. Everything else that has a < is left as it is; so is
// the name of a group in a regular expression, (?P<name>…). A backslash before a
// reference takes it literally: \<name> becomes <name>. In XML, a text that begins
// with "<?xml", bare names are tags and not replaced.
//
// A value that is missing is an error that names it, and so is one that does not
// fit where it stands: half a kickstart may erase the wrong disk.
package template

import (
	"fmt"
	"regexp"
	"strings"
)

// Bounds on what is expanded.
const (
	MaxText     = 1 << 20 // bytes of one text, as it is written
	MaxResult   = 4 << 20 // bytes
	MaxDepth    = 8       // of inclusion
	MaxIncludes = 64      // in all
)

// Section is where a value is looked up.
type Section string

// The sections.
const (
	Any       Section = "" // a, s, h and n, in this order
	Attribute Section = "a"
	Status    Section = "s"
	Hardware  Section = "h"
	Node      Section = "n"
	Head      Section = "head"
)

// Ref is a reference as it was written, without the brackets around it.
type Ref struct {
	Section Section
	Key     string
	Func    string // root_url, include, quote or json; Key is then that of the argument
	text    string
}

// String gives the reference as it was written.
func (r Ref) String() string { return "<" + r.text + ">" }

// Part is a piece of a template: literal text, or a reference.
type Part struct {
	Text string
	Ref  *Ref
	line int
}

const (
	bareName = `[A-Za-z_][A-Za-z0-9_-]*`
	oneKey   = `(?:"[^"<>[:cntrl:]]+"|'[^'<>[:cntrl:]]+'|[^]\["'<>()[:cntrl:]]+)`
	lookup   = `(?:a|attributes?|s|status|h|hardware|n|node|head)\[` + oneKey + `\]`
)

// Kept together so that one pass finds a reference of any form.
var (
	reference = regexp.MustCompile(`\\?<(?:` + bareName + `|` + lookup + `|[a-z_]+\((?:` + lookup + `|[^()<>[:cntrl:]]*)\))>`)
	call      = regexp.MustCompile(`^([a-z_]+)\((.*)\)$`)
	indexed   = regexp.MustCompile(`^([a-z]+)\[(.*)\]$`)
)

// Parse takes a text apart.
func Parse(text string) ([]Part, error) {
	if len(text) > MaxText {
		return nil, fmt.Errorf("the template has %d bytes, at most %d are taken", len(text), MaxText)
	}
	xml := strings.HasPrefix(text, "<?xml")
	var parts []Part
	done, line, counted := 0, 1, 0
	for _, at := range reference.FindAllStringIndex(text, -1) {
		line += strings.Count(text[counted:at[0]], "\n")
		counted = at[0]
		if text[at[0]] == '\\' {
			parts = append(parts, Part{Text: text[done:at[0]] + text[at[0]+1:at[1]]})
			done = at[1]
			continue
		}
		inner := text[at[0]+1 : at[1]-1]
		if bare := !strings.ContainsAny(inner, "[("); bare && (xml || isGroup(text[:at[0]])) {
			continue // it belongs to the text that follows
		}
		ref, err := parseRef(inner)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
		parts = append(parts, Part{Text: text[done:at[0]]}, Part{Ref: &ref, line: line})
		done = at[1]
	}
	return append(parts, Part{Text: text[done:]}), nil
}

// isGroup says whether what follows names a group of a regular expression.
func isGroup(before string) bool {
	return strings.HasSuffix(before, "(?P") || strings.HasSuffix(before, "(?")
}

func parseRef(inner string) (Ref, error) {
	if m := call.FindStringSubmatch(inner); m != nil {
		return parseCall(m[1], m[2], inner)
	}
	if m := indexed.FindStringSubmatch(inner); m != nil {
		return Ref{Section: section(m[1]), Key: strings.Trim(m[2], `"'`), text: inner}, nil
	}
	return Ref{Key: inner, text: inner}, nil
}

func parseCall(name, arg, inner string) (Ref, error) {
	ref := Ref{Func: name, Key: arg, text: inner}
	switch name {
	case "root_url":
		if arg != "" {
			return ref, fmt.Errorf("<%s>: root_url() takes nothing in its parentheses", inner)
		}
	case "include":
		ref.Key = strings.Trim(arg, `"' `)
		if ref.Key == "" {
			return ref, fmt.Errorf("<%s>: include(…) needs the name of a file", inner)
		}
	case "quote", "json":
		of, err := parseRef(arg)
		if err != nil || of.Func != "" || arg == "" {
			return ref, fmt.Errorf("<%s>: %s(…) takes a name or a lookup such as a[x]", inner, name)
		}
		ref.Section, ref.Key = of.Section, of.Key
	default:
		return ref, fmt.Errorf(`<%s>: there is no function %s, only root_url, include, quote and json; \<%s> takes it literally`, inner, name, inner)
	}
	return ref, nil
}

func section(word string) Section {
	switch word {
	case "attribute", "attributes":
		return Attribute
	case "status":
		return Status
	case "hardware":
		return Hardware
	case "node":
		return Node
	}
	return Section(word)
}
