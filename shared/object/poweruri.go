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
// act with keys and sockets of the user that the head runs as.
var asNobody = [...]string{"ipmi", "redfish", "agent"}

// guardPowerURI refuses a power_uri that would let somebody have what he has
// not: one with reserved attributes that he may not read, which the head would
// send to wherever it says, and one that acts as the head's own user.
func guardPowerURI(by kind.Author, n *Node, old kind.Object) error {
	if by.Itself() || n.PowerURI == nil || *n.PowerURI == "" {
		return nil
	}
	if old != nil && old.(*Node).PowerURI != nil && *old.(*Node).PowerURI == *n.PowerURI {
		return nil
	}
	scheme, _, _ := strings.Cut(*n.PowerURI, "://")
	name, _, _ := strings.Cut(strings.ToLower(scheme), "+")
	if !slices.Contains(asNobody[:], name) && !slices.Contains(by.Roles, RoleFullAdmin) {
		return fault.New(fault.Forbidden, "power_uri: %.20q uses keys or sockets of the head's own user, so only an admin with %s may set it; others may use ipmi, redfish and agent.", scheme, RoleFullAdmin)
	}
	if ref := ReservedIn(*n.PowerURI); ref != nil && !by.May(kind.ReservedAttribRead) {
		return fault.New(fault.Forbidden, "A power_uri with values of reserved attributes (%s) needs the permission %s.", ref, kind.ReservedAttribRead)
	}
	return nil
}
