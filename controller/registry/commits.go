package registry

import (
	"context"
	"iter"
	"strings"
)

// Commit names the objects that one transaction changed, made or deleted.
type Commit struct {
	Revision uint64
	Objects  []Ref
}

// Ref names an object.
type Ref struct{ Kind, UID string }

// Commits gives what each commit after a revision touched, in order, without
// gaps and when reads show it, until ctx ends. It is for those who keep
// something that follows from objects and look at them as they are now.
func (r *Registry) Commits(ctx context.Context, after uint64) iter.Seq2[Commit, error] {
	return func(yield func(Commit, error) bool) {
		for c, err := range r.store.Watch(ctx, objectPrefix, after) {
			if err == nil {
				err = r.view.wait(ctx, c.Revision)
			}
			if err != nil {
				yield(Commit{}, err)
				return
			}
			out := Commit{Revision: c.Revision, Objects: make([]Ref, len(c.Changes))}
			for i, change := range c.Changes {
				name, uid, _ := strings.Cut(strings.TrimPrefix(change.Key, objectPrefix), "/")
				out.Objects[i] = Ref{name, uid}
			}
			if !yield(out, nil) {
				return
			}
		}
	}
}
