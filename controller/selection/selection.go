// Package selection evaluates selectors on the nodes as they are now: for
// dynamic groups, and for whoever wants to address nodes by what they are.
//
// The language is shared/selector's. This package gives it the data, and must
// change nothing. An Index keeps what selectors read, by key and by value, and
// who is in each dynamic group; without one, all nodes are looked at.
package selection

import (
	"context"
	"encoding/json"
	"iter"
	"net/http"
	"time"

	"muster/controller/api"
	"muster/controller/registry"
	"muster/shared/fault"
	"muster/shared/kind"
	"muster/shared/object"
	"muster/shared/selector"
)

// Objects is what the package needs of the registry.
type Objects interface {
	Find(kindName, id string) (kind.Object, error)
	All(kindName string) []kind.Object
	Look() kind.Look
	Revision() uint64
	Commits(ctx context.Context, after uint64) iter.Seq2[registry.Commit, error]
}

// Live gives what nodes last reported, and their states.
type Live interface {
	Status(uid string) (map[string]any, error)
	Reported(uid string) (status, hardware json.RawMessage, at time.Time)
	StatesOf(uids, states []string)
}

// Selection serves the endpoints.
type Selection struct {
	Objects Objects
	Live    Live
	Index   *Index // nil: each answer looks at all nodes
}

// Routes are the endpoints.
func (s *Selection) Routes() []api.Route {
	return []api.Route{
		{Method: "GET", Path: api.Root + "/dyngroup/{id}/nodes", Permission: "DyngroupsRead", Doc: "The UIDs of the nodes that are in the group now.", Handler: s.members, Answer: []string{}},
		{Method: "GET", Path: api.Root + "/nodes/select", Permission: "NodesRead", Doc: "The nodes that ?selector= picks, as UID and name.", Handler: s.pick,
			Query: []api.Param{{Name: "selector", Doc: "which nodes, such as up or h[ram_total] > 100GB"}}, Answer: []picked{}},
	}
}

func (s *Selection) members(w http.ResponseWriter, r *http.Request) error {
	o, err := s.Objects.Find(object.KindDyngroup, r.PathValue("id"))
	if err != nil {
		return err
	}
	if s.Index != nil {
		uids, err := s.Index.Members(r.Context(), o.Base().UID)
		if err != nil {
			return err
		}
		return api.Data(w, uids)
	}
	nodes, err := s.scan(o.(*object.Dyngroup).Selector)
	if err != nil {
		return err
	}
	uids := make([]string, len(nodes))
	for i, n := range nodes {
		uids[i] = n.UID
	}
	return api.Data(w, uids)
}

// picked names a node.
type picked struct {
	UID  string `json:"uid"`
	Name string `json:"name"`
}

func (s *Selection) pick(w http.ResponseWriter, r *http.Request) error {
	text := r.URL.Query().Get("selector")
	if text == "" {
		return fault.Invalidf("selector: which nodes? For instance ?selector=up.")
	}
	nodes, err := s.SelectBy(r.Context(), api.By(r), text)
	if err != nil {
		return err
	}
	out := make([]picked, len(nodes))
	for i, n := range nodes {
		out[i] = picked{n.UID, n.Name}
	}
	return api.Data(w, out)
}

// SelectBy is Select for somebody who must not learn what he may not see.
func (s *Selection) SelectBy(ctx context.Context, by kind.Author, text string) ([]*object.Node, error) {
	if err := object.MayAsk(text, by); err != nil {
		return nil, err
	}
	return s.Select(ctx, text)
}

// Select gives the nodes that a selector picks, ordered by UID. They must not
// be changed.
func (s *Selection) Select(ctx context.Context, text string) ([]*object.Node, error) {
	if s.Index == nil {
		return s.scan(text)
	}
	e, err := selector.Parse(text)
	if err != nil {
		return nil, err
	}
	return s.Index.Select(ctx, e)
}

// scan looks at all nodes.
func (s *Selection) scan(text string) ([]*object.Node, error) {
	e, err := selector.Parse(text)
	if err != nil {
		return nil, err
	}
	p := &pass{s: s, look: s.Objects.Look(), groups: map[string]*selector.Expr{}}
	var nodes []*object.Node
	for _, o := range s.Objects.All(object.KindNode) {
		if n := o.(*object.Node); e.Match(&node{pass: p, Node: n}) {
			nodes = append(nodes, n)
		}
	}
	return nodes, nil
}

// pass is one look at all nodes; what it has parsed serves all of them.
type pass struct {
	s      *Selection
	look   kind.Look
	groups map[string]*selector.Expr // dynamic groups by what names them; nil: there is none
}

// node gives one node's data to a selector.
type node struct {
	*object.Node
	pass *pass
}

func (n *node) Attribute(key string) (any, bool) {
	return object.EffectiveValue(n.pass.look, n.Node, key)
}
func (n *node) Status(key string) (any, bool)   { return status(n.pass.s.Live, n.UID, key) }
func (n *node) Hardware(key string) (any, bool) { return hardware(n.pass.s.Live, n.UID, key) }
func (n *node) Field(name string) (any, bool)   { return field(n.pass.look, n.Node, name) }
func (n *node) InGroup(name string) bool        { return inGroup(n.pass.look, n.Node, name) }

func (n *node) InDyngroup(name string) bool {
	e, seen := n.pass.groups[name]
	if !seen {
		if o, err := n.pass.s.Objects.Find(object.KindDyngroup, name); err == nil {
			e, _ = selector.Parse(o.(*object.Dyngroup).Selector) // checked when it was stored
		}
		n.pass.groups[name] = e
	}
	return e != nil && e.Match(n)
}
