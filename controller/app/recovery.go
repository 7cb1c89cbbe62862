package app

import (
	"context"
	"time"

	"muster/controller/recovery"
	"muster/shared/object"
	"muster/shared/service"
)

// recoveryPart switches nodes off and on that do not come up.
func (h *Head) recoveryPart() service.Part {
	r := recovery.New(recovery.Options{
		Nodes: func() []*object.Node {
			var out []*object.Node
			for _, o := range h.reg.All(object.KindNode) {
				out = append(out, o.(*object.Node))
			}
			return out
		},
		Attribute: func(n *object.Node, name string) string { return object.Attribute(h.reg.Look(), n, name) },
		Case:      func(uid string) recovery.Case { return recovery.Case(h.fleet.Condition(uid)) },
		On:        h.power.IsOn,
		Cycle:     func(ctx context.Context, n *object.Node) error { return h.power.Cycle(ctx, headAuthor, n) },
		Note:      h.fleet.Recovered,
		PerMinute: h.cfg.RecoverRate, Log: h.log, Now: time.Now,
	})
	return service.Part{Name: "recovery", Doc: "Switches nodes off and on that do not come up, where their attributes ask for it.", Run: r.Run}
}
