package registry

import (
	"context"
	"errors"
	"iter"
	"slices"

	"muster/controller/store"
	"muster/shared/fault"
	"muster/shared/kind"
)

// Change is one object's new state, as subscribers get it.
type Change struct {
	Revision uint64
	Kind     string
	UID      string
	New      kind.Object // nil: deleted
	Name     string      // of the object, also of a deleted one if it was deleted lately
	Last     bool        // nothing more follows of this commit
}

// Changes gives every change of an object after a revision, in order and
// without gaps, until ctx ends. It is how the rest of the head follows what
// users do: nothing polls. What the registry then gives is at least as new as
// the change. fault.Gone is given where a revision is no longer held: read
// everything anew and go on from Revision as it was before.
func (r *Registry) Changes(ctx context.Context, after uint64) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		for commit, err := range r.store.Watch(ctx, objectPrefix, after) {
			if err == nil {
				err = r.view.wait(ctx, commit.Revision)
			}
			if err != nil {
				yield(Change{}, tooOld(err, after))
				return
			}
			// What a newer version of the head stored is passed over.
			known := slices.DeleteFunc(slices.Clone(commit.Changes), func(c store.Change) bool { spec, _ := r.view.spec(c.Key); return spec == nil })
			for i, c := range known {
				spec, uid := r.view.spec(c.Key)
				name := spec.Name
				change := Change{Revision: commit.Revision, Kind: name, UID: uid, Last: i == len(known)-1}
				if c.Value != nil {
					t := tx{r: r}
					if change.New, err = t.decode(name, c.Value); err != nil {
						yield(Change{}, err)
						return
					}
				}
				change.Name = r.nameOf(name, uid, change.New)
				if !yield(change, nil) {
					return
				}
			}
		}
	}
}

// nameOf gives the name of an object, nil for one that was deleted.
func (r *Registry) nameOf(kindName, uid string, obj kind.Object) string {
	if obj == nil {
		return r.view.nameOfDeleted(uid)
	}
	if spec := r.kinds[kindName]; len(spec.Names) > 0 {
		return spec.Text(obj, spec.Names[0])
	}
	return ""
}

func tooOld(err error, after uint64) error {
	if !errors.Is(err, store.ErrCompacted) {
		return err
	}
	return fault.New(fault.Gone, "Revision %d is not among those that the head still holds: read everything anew, and go on from now. (%w)", after, err)
}

// Resumable says whether Changes can go on after a revision: fault.Gone if not.
func (r *Registry) Resumable(ctx context.Context, after uint64) error {
	if after == r.store.Revision() {
		return nil
	}
	for _, err := range r.store.Watch(ctx, "", after) {
		return tooOld(err, after)
	}
	return nil
}

// Revision is that of the newest change the view has.
func (r *Registry) Revision() uint64 { return r.view.revision() }

// Wait returns when reads show the revision, which a subscriber may hear of a
// moment before.
func (r *Registry) Wait(ctx context.Context, revision uint64) error {
	return r.view.wait(ctx, revision)
}
