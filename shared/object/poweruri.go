package object

import (
	"slices"
	"strings"

	"muster/shared/fault"
	"muster/shared/kind"
	"muster/shared/template"
)

// AttrConsole is the attribute that says where a node's serial console is, as
// a URI with templates like power_uri; "none" for a node that has none. Without
// it the console is where the power_uri says.
const AttrConsole = "_console_uri"

// ReservedIn gives the first reference of a power_uri to a reserved attribute,
// nil when there is none.
func ReservedIn(powerURI string) *template.Ref {
	parts, _ := template.Parse(powerURI) // what is wrong with it is told when it is filled in
	for _, p := range parts {
		if p.Ref != nil && (p.Ref.Section == template.Any || p.Ref.Section == template.Attribute) && kind.Reserved(p.Ref.Key) {
			return p.Ref
		}
	}
	return nil
}

// Place is a part of a URI in which a reference may stand.
type Place int

// The places. What stands in the first or third decides who is talked to.
const (
	InScheme Place = iota
	InCredentials
	InAddress
	Behind
)

// Places says of each reference of a URI where it stands.
func Places(parts []template.Part) []Place {
	const mark = "\x00" // stands for a reference, in text that has no control characters
	var b strings.Builder
	for _, p := range parts {
		if b.WriteString(p.Text); p.Ref != nil {
			b.WriteString(mark)
		}
	}
	scheme, rest, found := strings.Cut(b.String(), "://")
	if !found {
		return make([]Place, strings.Count(scheme, mark))
	}
	authority, behind := rest, ""
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		authority, behind = rest[:i], rest[i:]
	}
	at := strings.LastIndex(authority, "@") + 1
	var out []Place
	for place, text := range []string{InScheme: scheme, InCredentials: authority[:at], InAddress: authority[at:], Behind: behind} {
		out = append(out, slices.Repeat([]Place{Place(place)}, strings.Count(text, mark))...)
	}
	return out
}

// ours are the fields of a node that the head gives, so that nobody who may
// change a node leads its BMC's password elsewhere by them.
var ours = [...]string{"name", "ip", "index", "hostname", "domain"}

// strayIn gives the first reference of a URI with reserved attributes that says
// where they are sent and may be changed by those who cannot read them: nil when
// there is none. Values that a node reports are of that kind too.
func strayIn(uri string) *template.Ref {
	parts, _ := template.Parse(uri)
	places := Places(parts)
	for _, p := range parts {
		if p.Ref == nil {
			continue
		}
		place := places[0]
		places = places[1:]
		if place != InScheme && place != InAddress {
			continue
		}
		switch p.Ref.Section {
		case template.Head:
			continue
		case template.Node:
			if slices.Contains(ours[:], p.Ref.Key) {
				continue
			}
		case template.Any, template.Attribute:
			if kind.Reserved(p.Ref.Key) {
				continue
			}
		}
		return p.Ref
	}
	return nil
}

// asNobody are the schemes that use nothing but what the URI says. All others
// act with keys and sockets of the user that the head runs as. A redfish_uri
// may be written http and https too.
var asNobody = [...]string{"ipmi", "redfish", "agent", "http", "https"}

// guardPowerURIs refuses what would let somebody have what he has not.
func guardPowerURIs(by kind.Author, n *Node, old kind.Object) error {
	if by.Itself() {
		return nil
	}
	var was Node
	if old != nil {
		was = *old.(*Node)
	}
	if err := guardURI(by, "power_uri", text(n.PowerURI), text(was.PowerURI)); err != nil {
		return err
	}
	if err := guardConsole(by, n.Attributes, was.Attributes); err != nil {
		return err
	}
	return guardURI(by, "redfish_uri", n.RedfishURI, was.RedfishURI)
}

// guardConsole does the same for the console's URI among attributes.
func guardConsole(by kind.Author, now, was kind.Values) error {
	value := func(v kind.Values) string {
		s, _ := v[AttrConsole].(string)
		return s
	}
	if by.Itself() || value(now) == "none" {
		return nil
	}
	return guardURI(by, AttrConsole, value(now), value(was))
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// guardURI refuses a URI with reserved attributes that its author may not read,
// which the head would send to wherever it says; one that would send them
// where somebody else says who may not read them either; and one that acts as
// the head's own user. What was there before may stay.
func guardURI(by kind.Author, field, now, was string) error {
	if now == "" || now == was {
		return nil
	}
	scheme, _, _ := strings.Cut(now, "://")
	name, _, _ := strings.Cut(strings.ToLower(scheme), "+")
	if !slices.Contains(asNobody[:], name) && !slices.Contains(by.Roles, RoleFullAdmin) {
		return fault.New(fault.Forbidden, "%s: %.20q uses keys or sockets of the head's own user, so only an admin with %s may set it; others may use ipmi, redfish and agent.", field, scheme, RoleFullAdmin)
	}
	ref := ReservedIn(now)
	if ref == nil {
		return nil
	}
	if !by.May(kind.ReservedAttribRead) {
		return fault.New(fault.Forbidden, "A %s with values of reserved attributes (%s) needs the permission %s.", field, ref, kind.ReservedAttribRead)
	}
	if stray := strayIn(now); stray != nil {
		return fault.Invalidf("%s: %s says where the value of %s is sent, and may be changed by those who must not know that: take scheme and address from reserved attributes too, such as <a[_bmc]>, or from <n[name]>, <n[ip]>, or write them out.", field, stray, ref)
	}
	return nil
}
