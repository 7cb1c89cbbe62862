package power

import (
	"context"

	"muster/controller/power/bmc"
	"muster/shared/kind"
	"muster/shared/object"
)

// IsOn asks a node's BMC. A node without one is an error.
func (p *Power) IsOn(ctx context.Context, n *object.Node) (bool, error) {
	targets, err := p.targets(n)
	if err != nil {
		return false, err
	}
	if len(targets) == 0 {
		return false, lacking("BMC")
	}
	state, err := p.state(ctx, n)
	return state == bmc.On, err
}

// Cycle begins to take a node's power away for a moment, without asking its
// system; how that ends is logged.
func (p *Power) Cycle(ctx context.Context, by kind.Author, n *object.Node) error {
	o := order{State: string(bmc.Cycle), Force: true}
	if err := o.check(); err != nil {
		return err
	}
	o.Force, o.forced = false, true // what somebody else does to it goes on, and this is refused
	_, err := p.start(ctx, n, by, o)
	return err
}
