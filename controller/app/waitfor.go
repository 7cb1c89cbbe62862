package app

import (
	"context"
	"iter"
	"time"

	"muster/controller/registry"
	"muster/controller/selection"
	"muster/controller/waitfor"
	"muster/shared/kind"
	"muster/shared/object"
)

// newWaitfor makes the sets of node states. The fleet tells it of what nodes
// report; who is in a state is the selection's to say.
func (h *Head) newWaitfor() *waitfor.Waitfor {
	return waitfor.New(waitfor.Options{
		Now: time.Now,
		Select: func(ctx context.Context, by kind.Author, text string) ([]*object.Node, error) {
			return (&selection.Selection{Objects: h.reg, Live: h.fleet, Index: h.index}).SelectBy(ctx, by, text)
		},
		Commits: func(ctx context.Context) iter.Seq2[registry.Commit, error] {
			return h.reg.Commits(ctx, h.reg.Revision())
		},
	})
}
