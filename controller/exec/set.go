package exec

import (
	"context"
	"encoding/json"
	"slices"

	"muster/shared/fault"
	"muster/shared/hostlist"
	"muster/shared/kind"
	"muster/shared/object"
)

// Set says which nodes: a list of names or hostlists, or one of them; those
// that a selector picks; those of an attribute group or a dynamic group.
type Set struct {
	Nodes    json.RawMessage `json:"nodes"`
	Selector string          `json:"selector"`
	Group    string          `json:"group"`
}

// maxNodes bounds how many a request may name.
const maxNodes = 100_000

// targets gives the nodes of a set, each once, and a line for each name that
// no node has. A set without any node is an error.
func (e *Exec) targets(ctx context.Context, by kind.Author, s *Set) (nodes []*object.Node, unknown []line, err error) {
	var named, narrow bool
	if len(s.Nodes) > 0 && string(s.Nodes) != "null" {
		if nodes, unknown, err = e.named(s.Nodes); err != nil {
			return nil, nil, err
		}
		named = true
	}
	for _, pick := range []struct {
		text string
		from func(context.Context, kind.Author, string) ([]*object.Node, error)
	}{{s.Selector, e.Select}, {s.Group, e.members}} {
		if pick.text == "" {
			continue
		}
		picked, err := pick.from(ctx, by, pick.text)
		if err != nil {
			return nil, nil, err
		}
		if named || narrow {
			picked = both(nodes, picked)
		}
		nodes, narrow = picked, true
	}
	switch {
	case !named && !narrow:
		return nil, nil, fault.Invalidf("nodes: which nodes? Name them, or give a selector or a group.")
	case len(nodes) == 0 && len(unknown) > 0 && !narrow:
		return nil, nil, fault.New(fault.NotFound, "%s", unknown[0].Error)
	case len(nodes) == 0:
		return nil, nil, fault.New(fault.NotFound, "No node is in this set.")
	}
	slices.SortFunc(nodes, func(a, b *object.Node) int { return hostlist.Compare(a.Name, b.Name) })
	return nodes, unknown, nil
}

// Targets gives the nodes of a set for other features, by name in their order,
// and why others that it names are none.
func (e *Exec) Targets(ctx context.Context, by kind.Author, s Set) (nodes []*object.Node, unknown map[string]string, err error) {
	nodes, lines, err := e.targets(ctx, by, &s)
	unknown = map[string]string{}
	for _, l := range lines {
		unknown[l.Node] = l.Error
	}
	return nodes, unknown, err
}

// both gives the nodes of a that are in b too.
func both(a, b []*object.Node) []*object.Node {
	in := make(map[string]bool, len(b))
	for _, n := range b {
		in[n.UID] = true
	}
	return slices.DeleteFunc(slices.Clone(a), func(n *object.Node) bool { return !in[n.UID] })
}

func (e *Exec) named(raw json.RawMessage) (nodes []*object.Node, unknown []line, err error) {
	var lists []string
	if json.Unmarshal(raw, &lists) != nil {
		var one string
		if json.Unmarshal(raw, &one) != nil {
			return nil, nil, fault.Invalidf("nodes: want a list of names, or a text such as n[0-3].")
		}
		lists = []string{one}
	}
	seen := map[string]bool{}
	for _, list := range lists {
		names, err := hostlist.ParseAtMost(list, maxNodes-len(seen))
		if err != nil {
			return nil, nil, fault.Invalidf("nodes: %v.", err)
		}
		for _, name := range names {
			o, err := e.Nodes.Find(object.KindNode, name)
			switch {
			case err != nil && !seen[name]:
				seen[name] = true
				unknown = append(unknown, line{Node: name, Error: fault.Of(err).Reason})
			case err == nil && !seen[o.Base().UID]:
				seen[o.Base().UID] = true
				nodes = append(nodes, o.(*object.Node))
			}
		}
	}
	if len(nodes)+len(unknown) == 0 {
		return nil, nil, fault.Invalidf("nodes: there is no name in it.")
	}
	return nodes, unknown, nil
}

// members gives the nodes of an attribute group, or else of a dynamic group.
func (e *Exec) members(ctx context.Context, _ kind.Author, group string) ([]*object.Node, error) {
	g, err := e.Nodes.Find(object.KindAttrib, group)
	if err != nil {
		d, err := e.Nodes.Find(object.KindDyngroup, group)
		if err != nil {
			return nil, fault.New(fault.NotFound, "group: there is neither an attribute group nor a dynamic group %q.", group)
		}
		// Whose group it is may know more; who is in it can be read anyway.
		return e.Select(ctx, kind.Author{Name: "group " + group}, d.(*object.Dyngroup).Selector)
	}
	var nodes []*object.Node
	for _, o := range e.Nodes.All(object.KindNode) {
		if n := o.(*object.Node); slices.Contains(n.Groups, g.Base().UID) {
			nodes = append(nodes, n)
		}
	}
	return nodes, nil
}

// fold names nodes in short, for the log.
func fold(nodes []*object.Node) string {
	names := make([]string, len(nodes))
	for i, n := range nodes {
		names[i] = n.Name
	}
	return hostlist.Fold(names)
}
