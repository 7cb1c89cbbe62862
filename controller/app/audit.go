package app

import (
	"context"

	"muster/controller/events"
	"muster/controller/fleet"
	"muster/controller/registry"
	"muster/shared/kind"
	"muster/shared/object"
)

// recordExec and recordLogin note in the audit trail what changes no object.
func (h *Head) recordExec(ctx context.Context, by kind.Author, n *object.Node, detail map[string]string) error {
	e := registry.Entry{Action: "exec", Kind: object.KindNode, Detail: detail}
	if n != nil {
		e.UID, e.Name = n.UID, n.Name
	}
	return h.reg.Record(ctx, by, e)
}

func (h *Head) recordLogin(ctx context.Context, by kind.Author, action string, detail map[string]string) error {
	return h.reg.Record(ctx, by, registry.Entry{Action: action, Detail: detail})
}

// fleetStates gives the fleet's states to the events.
type fleetStates struct{ fleet *fleet.Fleet }

func (s fleetStates) StatesAfter(seq uint64) ([]events.State, uint64, <-chan struct{}, bool) {
	changes, newest, next, ok := s.fleet.StatesAfter(seq)
	return states(changes), newest, next, ok
}

func (s fleetStates) Known() []events.State { return states(s.fleet.Known()) }

func states(changes []fleet.StateChange) []events.State {
	out := make([]events.State, len(changes))
	for i, c := range changes {
		out[i] = events.State{UID: c.UID, State: c.State, Reason: c.Reason}
		if !c.Since.IsZero() {
			out[i].Since = float64(c.Since.UnixMicro()) / 1e6
		}
	}
	return out
}
