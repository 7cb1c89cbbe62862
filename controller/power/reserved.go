package power

import (
	"muster/controller/api"
	"muster/shared/fault"
	"muster/shared/kind"
	"muster/shared/object"
)

// mayRead refuses to fill a power_uri in for somebody who may not see the
// reserved attributes that it takes values from: whoever may write nodes
// could read all of them that way.
func mayRead(who *api.Caller, n *object.Node) error {
	if who.Can(kind.ReservedAttribRead) {
		return nil
	}
	if ref := object.ReservedIn(*n.PowerURI); ref != nil {
		return fault.New(fault.Forbidden, "The power_uri of node %s takes its values from reserved attributes (%s), which need the permission %s.", n.Name, ref, kind.ReservedAttribRead)
	}
	return nil
}
