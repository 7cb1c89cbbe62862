package object

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"muster/shared/kind"
)

// Node is a machine, or anything else that is controlled like one.
type Node struct {
	kind.Meta
	MAC         string      `json:"mac"`
	Name        string      `json:"name"`
	Index       *int64      `json:"index,omitempty"`
	IP          *string     `json:"ip"`
	Type        string      `json:"type"`
	Description string      `json:"description,omitempty"`
	Attributes  kind.Values `json:"attributes"`
	Groups      []string    `json:"groups"`
	NamingPool  string      `json:"naming_pool,omitempty"`
	PowerURI    *string     `json:"power_uri"`
	RedfishURI  string      `json:"redfish_uri,omitempty"`

	// What follows is filled in when a node is shown, and never stored.
	Hostname string          `json:"hostname,omitempty"`
	Domain   string          `json:"domain,omitempty"`
	Hardware json.RawMessage `json:"hardware,omitempty"`
	Status   json.RawMessage `json:"status,omitempty"`
}

func node() *kind.Spec {
	return &kind.Spec{
		Name: KindNode, Plural: "nodes", Title: "Node",
		Doc:      "A machine of the cluster, or a switch or PDU controlled like one.",
		New:      func() kind.Object { return &Node{} },
		Names:    []string{"name", "mac", "ip"},
		Read:     "NodesRead",
		Write:    "NodesWrite",
		Reserved: []string{"putstatus", "putattribs"},
		Fields: meta(
			kind.Field{Path: "mac", Summary: "the address of the interface that the node boots from", Source: kind.User, Format: kind.MAC, Required: true, Unique: true, Label: "MAC"},
			kind.Field{Path: "name", Summary: "made from the naming pool's pattern and the index", Source: kind.Head, Format: kind.Name, Unique: true},
			kind.Field{Path: "index", Summary: "the node's number in its naming pool; the next free one unless chosen on creation", Source: kind.Head, OnCreate: true, Format: kind.Count},
			kind.Field{Path: "ip", Summary: "the node's address, from its naming pool and network", Source: kind.Head, Format: kind.IP, Unique: true, Label: "IP"},
			kind.Field{Path: "type", Summary: "what the node is", Source: kind.User, Format: kind.OneOf("unknown", "compute", "head", "simulated"), Default: `"compute"`},
			descriptionField(),
			kind.Field{Path: "attributes", Summary: "the node's attributes, those inherited from groups included when read", Source: kind.User, Format: kind.KeyValues, Default: "{}", Sub: kind.SubMap, Guarded: true},
			kind.Field{Path: "groups", Summary: "attribute groups in order; later ones overwrite earlier ones", Source: kind.User, Format: kind.References, Ref: KindAttrib, Default: "[]", Sub: kind.SubList, Write: kind.NodesWriteGroups},
			kind.Field{Path: "naming_pool", Summary: "the pool that names the node", Source: kind.User, Format: kind.Reference, Ref: KindNamingpool},
			kind.Field{Path: "power_uri", Summary: "the URI of the node's BMC; <x> stands for an attribute, status or hardware value", Source: kind.User, Format: kind.Line},
			kind.Field{Path: "redfish_uri", Summary: "the URI of the node's Redfish service", Source: kind.User, Format: kind.Line},
			kind.Field{Path: "hostname", Summary: "the node's host name", Source: kind.Head, Format: kind.Shown("text")},
			kind.Field{Path: "domain", Summary: "the node's DNS domain", Source: kind.Head, Format: kind.Shown("text")},
			kind.Field{Path: "hardware", Summary: "what the node is made of, as it last reported", Source: kind.Node, Format: kind.Shown("object")},
			kind.Field{Path: "status", Summary: "the node's state and since when; all that it reported is under /node/<UID>/status", Source: kind.Node, Format: kind.Shown("object")},
			kind.Field{Path: "status.state", Summary: "down, booting, up, failed or unknown", Source: kind.Node, Format: kind.Shown("text")},
			kind.Field{Path: "status.since", Summary: "since when, in seconds since 1970", Source: kind.Node, Format: kind.Shown("time")},
			kind.Field{Path: "status.reason", Summary: "why a boot failed", Source: kind.Node, Format: kind.Shown("text")},
		),
		Columns: []string{"name", "status.state", "status.since", "ip", "mac", "type", "groups", "description"},
		Prepare: func(tx kind.Tx, obj, old kind.Object) error {
			if err := guardPowerURIs(tx.By(), obj.(*Node), old); err != nil {
				return err
			}
			var was kind.Values
			if old != nil {
				was = old.(*Node).Attributes
			}
			if err := guardIgnition(tx, obj.(*Node).Attributes, was); err != nil {
				return err
			}
			if err := prepareBMC(tx, obj.(*Node), old); err != nil {
				return err
			}
			return placeNode(tx, obj, old)
		},
		Keys: func(obj kind.Object) map[string]string {
			n, keys := obj.(*Node), map[string]string{}
			if n.Index != nil {
				keys["index"] = indexKey(n.NamingPool, *n.Index)
			}
			bmcKeys(n, keys)
			return keys
		},
		After: func(tx kind.Tx, obj, old kind.Object) error {
			if obj == nil {
				return releaseIndex(tx, old.(*Node))
			}
			return nil
		},
		Show: func(look kind.Look, obj kind.Object) kind.Object {
			n := *obj.(*Node)
			n.Hostname = n.Name
			n.Domain = NodeDomain(look, &n)
			n.Attributes = Effective(look, &n)
			n.Hardware, n.Status = look.Live(n.UID)
			if n.Hardware == nil {
				n.Hardware = json.RawMessage("{}")
			}
			return &n
		},
	}
}

// indexKey is the text by which an index is unique in its pool. It sorts by number.
func indexKey(pool string, index int64) string { return fmt.Sprintf("%s %010d", pool, index) }

// Effective gives the attributes that hold for a node: those of the cluster's
// default group, of the pool's group when the node has no groups of its own,
// of its groups in order, and its own, later ones overwriting earlier ones.
func Effective(look kind.Look, n *Node) kind.Values {
	all := kind.Values{}
	join := func(group string) {
		if g, ok := look.Get(KindAttrib, group); ok {
			maps.Copy(all, g.(*Attrib).Attributes)
		}
	}
	if c, ok := look.Oldest(KindCluster); ok {
		join(c.(*Cluster).DefaultGroup)
	}
	if len(n.Groups) == 0 && n.NamingPool != "" {
		join(poolOf(look, n).Group)
	}
	for _, g := range n.Groups {
		join(g)
	}
	maps.Copy(all, n.Attributes)
	return all
}

// EffectiveValue gives one of the attributes that Effective gives, without
// making all of them.
func EffectiveValue(look kind.Look, n *Node, name string) (any, bool) {
	if v, ok := n.Attributes[name]; ok {
		return v, true
	}
	in := func(group string) (any, bool) {
		g, ok := look.Get(KindAttrib, group)
		if !ok {
			return nil, false
		}
		v, ok := g.(*Attrib).Attributes[name]
		return v, ok
	}
	for _, g := range slices.Backward(n.Groups) {
		if v, ok := in(g); ok {
			return v, true
		}
	}
	if len(n.Groups) == 0 && n.NamingPool != "" {
		if v, ok := in(poolOf(look, n).Group); ok {
			return v, true
		}
	}
	if c, ok := look.Oldest(KindCluster); ok {
		return in(c.(*Cluster).DefaultGroup)
	}
	return nil, false
}

// Attribute gives one effective attribute as text, "" where it is not set.
func Attribute(look kind.Look, n *Node, name string) string {
	v, ok := EffectiveValue(look, n, name)
	if !ok {
		return ""
	}
	return fmt.Sprint(v)
}

// Network gives the net that a node belongs to: that of its pool, or the
// cluster's default, which is the oldest.
func Network(look kind.Look, n *Node) (*Net, bool) {
	if id := poolOf(look, n).Network; id != "" {
		if o, ok := look.Get(KindNet, id); ok {
			return o.(*Net), true
		}
	}
	o, ok := look.Oldest(KindNet)
	if !ok {
		return nil, false
	}
	return o.(*Net), true
}

// NodeDomain gives the DNS domain of a node: that of its net.
func NodeDomain(look kind.Look, n *Node) string {
	if net, ok := Network(look, n); ok && net.Domain != "" {
		return net.Domain
	}
	return DefaultDomain
}

// PatternOf gives the pattern that names a node.
func PatternOf(look kind.Look, n *Node) string { return poolOf(look, n).Pattern }

// poolOf gives a node's pool with what it inherits; the default one for a node
// in none.
func poolOf(look kind.Look, n *Node) *Namingpool {
	get := func(uid string) *Namingpool {
		if o, ok := look.Get(KindNamingpool, uid); ok {
			return o.(*Namingpool)
		}
		return nil
	}
	if p := get(n.NamingPool); p != nil {
		return p.inherit(get)
	}
	return &Namingpool{Pattern: DefaultPattern}
}
