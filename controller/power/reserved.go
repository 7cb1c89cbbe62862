package power

import (
	"muster/controller/api"
	"muster/shared/fault"
	"muster/shared/kind"
	"muster/shared/object"
	"muster/shared/template"
)

// mayRead refuses to fill a power_uri in for somebody who may not see the
// reserved attributes that it takes values from: whoever may write nodes
// could read all of them that way.
func mayRead(who *api.Caller, n *object.Node) error {
	if who.Can(kind.ReservedAttribRead) {
		return nil
	}
	parts, _ := template.Parse(*n.PowerURI) // what is wrong with it is told when it is filled in
	for _, p := range parts {
		if p.Ref != nil && (p.Ref.Section == template.Any || p.Ref.Section == template.Attribute) && kind.Reserved(p.Ref.Key) {
			return fault.New(fault.Forbidden, "The power_uri of node %s takes its values from reserved attributes (%s), which need the permission %s.", n.Name, p.Ref, kind.ReservedAttribRead)
		}
	}
	return nil
}
