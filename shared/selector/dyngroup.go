package selector

import (
	"slices"
	"strings"

	"muster/shared/fault"
)

// Acyclic follows the references of a dynamic group's selector to others, and
// gives an Invalid fault that names those that lead back to where they came from.
// get gives a group's selector, by what stands behind the @, and nil where there
// is none: that has no members and is no error here. Where a group has several
// names (name and UID), id gives the one that it is known by.
func Acyclic(name string, e *Expr, id func(string) string, get func(string) *Expr) error {
	w := walk{id: id, get: get, state: map[string]int{}}
	return w.visit(name, e)
}

// walk goes depth first and looks at each group once.
type walk struct {
	id    func(string) string
	get   func(string) *Expr
	state map[string]int // by id: where in path a group is, from 1, or done
	path  []string       // as written
}

const done = -1

func (w *walk) visit(name string, e *Expr) error {
	id := w.id(name)
	switch at := w.state[id]; {
	case at > 0:
		circle := append(slices.Clone(w.path[at-1:]), name)
		return fault.Invalidf("The dynamic groups refer to each other in a circle: @%s. Take one of the references out.", strings.Join(circle, " → @"))
	case at == done, e == nil:
		return nil
	}
	w.path = append(w.path, name)
	w.state[id] = len(w.path)
	for _, other := range e.Uses().Dyngroups {
		if err := w.visit(other, w.get(other)); err != nil {
			return err
		}
	}
	w.path = w.path[:len(w.path)-1]
	w.state[id] = done
	return nil
}
