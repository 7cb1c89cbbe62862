package object

import (
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

// guardPowerURI refuses a power_uri with reserved attributes of somebody who may
// not read them: the head would send them to wherever it says.
func guardPowerURI(by kind.Author, n *Node, old kind.Object) error {
	if by.May(kind.ReservedAttribRead) || n.PowerURI == nil {
		return nil
	}
	if old != nil && old.(*Node).PowerURI != nil && *old.(*Node).PowerURI == *n.PowerURI {
		return nil
	}
	if ref := ReservedIn(*n.PowerURI); ref != nil {
		return fault.New(fault.Forbidden, "A power_uri with values of reserved attributes (%s) needs the permission %s.", ref, kind.ReservedAttribRead)
	}
	return nil
}
