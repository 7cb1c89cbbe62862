// Package selection evaluates selectors on the nodes as they are now: for
// dynamic groups, and for whoever wants to address nodes by what they are.
//
// The language is shared/selector's. This package gives it the data, and must
// change nothing.
package selection

import (
	"encoding/json"
	"net/http"

	"muster/controller/api"
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
}

// Live gives what a node last reported, with its state.
type Live interface {
	Status(uid string) (map[string]any, error)
}

// Selection serves the endpoints.
type Selection struct {
	Objects Objects
	Live    Live
}

// Routes are the endpoints.
func (s *Selection) Routes() []api.Route {
	return []api.Route{
		{Method: "GET", Path: api.Root + "/dyngroup/{id}/nodes", Permission: "DyngroupsRead", Doc: "The UIDs of the nodes that are in the group now.", Handler: s.members},
		{Method: "GET", Path: api.Root + "/nodes/select", Permission: "NodesRead", Doc: "The nodes that ?selector= picks, as UID and name.", Handler: s.pick},
	}
}

func (s *Selection) members(w http.ResponseWriter, r *http.Request) error {
	o, err := s.Objects.Find(object.KindDyngroup, r.PathValue("id"))
	if err != nil {
		return err
	}
	uids := []string{}
	err = s.each(o.(*object.Dyngroup).Selector, func(n *object.Node) { uids = append(uids, n.UID) })
	if err != nil {
		return err
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
	nodes := []picked{}
	if err := s.each(text, func(n *object.Node) { nodes = append(nodes, picked{n.UID, n.Name}) }); err != nil {
		return err
	}
	return api.Data(w, nodes)
}

// each calls fn with the nodes that a selector picks, ordered by UID.
func (s *Selection) each(text string, fn func(*object.Node)) error {
	e, err := selector.Parse(text)
	if err != nil {
		return err
	}
	p := &pass{s: s, look: s.Objects.Look(), groups: map[string]*selector.Expr{}}
	for _, o := range s.Objects.All(object.KindNode) {
		if n := o.(*object.Node); e.Match(&node{pass: p, Node: n}) {
			fn(n)
		}
	}
	return nil
}

// pass is one evaluation over all nodes; what it has parsed serves all of them.
type pass struct {
	s      *Selection
	look   kind.Look
	groups map[string]*selector.Expr // dynamic groups by what names them; nil: there is none
}

// node gives one node's data to a selector, each section when it is first
// asked for.
type node struct {
	*object.Node
	pass       *pass
	attributes kind.Values
	status     map[string]any
	hardware   map[string]any
}

func (n *node) Attribute(key string) (any, bool) {
	if n.attributes == nil {
		n.attributes = object.Effective(n.pass.look, n.Node)
	}
	v, ok := n.attributes[key]
	return v, ok
}

func (n *node) Status(key string) (any, bool) {
	if n.status == nil {
		n.status = map[string]any{}
		if all, err := n.pass.s.Live.Status(n.UID); err == nil {
			n.status = all
		}
	}
	v, ok := n.status[key]
	if raw, isRaw := v.(json.RawMessage); isRaw {
		var decoded any
		if json.Unmarshal(raw, &decoded) != nil {
			return nil, false
		}
		n.status[key], v = decoded, decoded
	}
	return v, ok
}

func (n *node) Hardware(key string) (any, bool) {
	if n.hardware == nil {
		n.hardware = map[string]any{}
		if raw, _ := n.pass.look.Live(n.UID); raw != nil {
			json.Unmarshal(raw, &n.hardware) // checked when it was reported
		}
	}
	v, ok := n.hardware[key]
	return v, ok
}

func (n *node) Field(name string) (any, bool) {
	switch name {
	case "uid":
		return n.UID, true
	case "name", "hostname":
		return n.Name, true
	case "mac":
		return n.MAC, true
	case "ip":
		return n.IP, true
	case "index":
		return n.Index, true
	case "type":
		return n.Type, true
	case "description":
		return n.Description, n.Description != ""
	case "power_uri":
		return n.PowerURI, n.PowerURI != nil
	case "redfish_uri":
		return n.RedfishURI, n.RedfishURI != ""
	case "groups":
		return n.Groups, true
	case "naming_pool":
		return n.pool()
	}
	return nil, false
}

// pool gives the pool's name, as a node is shown with.
func (n *node) pool() (any, bool) {
	if o, ok := n.pass.look.Get(object.KindNamingpool, n.NamingPool); ok {
		return o.(*object.Namingpool).Name, true
	}
	return nil, false
}

func (n *node) InGroup(name string) bool {
	for _, uid := range n.Groups {
		if uid == name {
			return true
		}
		if g, ok := n.pass.look.Get(object.KindAttrib, uid); ok && g.(*object.Attrib).Name == name {
			return true
		}
	}
	return false
}

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
