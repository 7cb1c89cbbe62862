package selection

import (
	"muster/shared/kind"
	"muster/shared/object"
	"muster/shared/selector"
)

// Matcher gives a function that says whether a selector picks a node at the
// moment of asking, where by may know that. One goroutine may use it.
func (s *Selection) Matcher(text string, by kind.Author) (func(uid string) bool, error) {
	if err := object.MayAsk(text, by); err != nil {
		return nil, err
	}
	e, err := selector.Parse(text)
	if err != nil {
		return nil, err
	}
	look := s.Objects.Look()
	return func(uid string) bool {
		o, ok := look.Get(object.KindNode, uid)
		if !ok {
			return false
		}
		p := &pass{s: s, look: look, groups: map[string]*selector.Expr{}}
		return e.Match(&node{pass: p, Node: o.(*object.Node)})
	}, nil
}
