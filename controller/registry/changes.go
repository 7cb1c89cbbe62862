package registry

import (
	"context"
	"iter"
	"strings"

	"muster/shared/kind"
)

// Change is one object's new state, as subscribers get it.
type Change struct {
	Revision uint64
	Kind     string
	UID      string
	New      kind.Object // nil: deleted
}

// Changes gives every change of an object after a revision, in order and
// without gaps, until ctx ends. It is how the rest of the head follows what
// users do: nothing polls.
func (r *Registry) Changes(ctx context.Context, after uint64) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		for commit, err := range r.store.Watch(ctx, objectPrefix, after) {
			if err != nil {
				yield(Change{}, err)
				return
			}
			for _, c := range commit.Changes {
				name, uid, _ := strings.Cut(strings.TrimPrefix(c.Key, objectPrefix), "/")
				if r.kinds[name] == nil {
					continue
				}
				change := Change{Revision: commit.Revision, Kind: name, UID: uid}
				if c.Value != nil {
					t := tx{r: r}
					if change.New, err = t.decode(name, c.Value); err != nil {
						yield(Change{}, err)
						return
					}
				}
				if !yield(change, nil) {
					return
				}
			}
		}
	}
}

// Revision is that of the newest change the view has.
func (r *Registry) Revision() uint64 { return r.view.revision() }

// Wait returns when reads show the revision, which a subscriber may hear of a
// moment before.
func (r *Registry) Wait(ctx context.Context, revision uint64) error {
	return r.view.wait(ctx, revision)
}
