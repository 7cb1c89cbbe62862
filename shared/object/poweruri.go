package object

import (
	"slices"
	"strings"

	"muster/shared/fault"
	"muster/shared/kind"
	"muster/shared/template"
)

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
	return guardURI(by, "redfish_uri", n.RedfishURI, was.RedfishURI)
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// guardURI refuses a URI with reserved attributes that its author may not read,
// which the head would send to wherever it says, and one that acts as the
// head's own user. What was there before may stay.
func guardURI(by kind.Author, field, now, was string) error {
	if now == "" || now == was {
		return nil
	}
	scheme, _, _ := strings.Cut(now, "://")
	name, _, _ := strings.Cut(strings.ToLower(scheme), "+")
	if !slices.Contains(asNobody[:], name) && !slices.Contains(by.Roles, RoleFullAdmin) {
		return fault.New(fault.Forbidden, "%s: %.20q uses keys or sockets of the head's own user, so only an admin with %s may set it; others may use ipmi, redfish and agent.", field, scheme, RoleFullAdmin)
	}
	if ref := ReservedIn(now); ref != nil && !by.May(kind.ReservedAttribRead) {
		return fault.New(fault.Forbidden, "A %s with values of reserved attributes (%s) needs the permission %s.", field, ref, kind.ReservedAttribRead)
	}
	return nil
}
