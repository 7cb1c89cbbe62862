// Package naming has the endpoints around names and networks that are more
// than reading and writing one object: how a node was named, renaming a pool's
// nodes, and searching networks and host names.
//
// The arithmetic of names and addresses is shared/object's.
package naming

import (
	"context"
	"net/http"
	"net/netip"
	"strings"

	"muster/controller/api"
	"muster/shared/fault"
	"muster/shared/kind"
	"muster/shared/object"
)

// Objects is what the package needs of the registry.
type Objects interface {
	Specs() []*kind.Spec
	Find(kindName, id string) (kind.Object, error)
	All(kindName string) []kind.Object
	Show(kindName string, obj kind.Object) kind.Object
	Look() kind.Look
	Modify(ctx context.Context, by kind.Author, kindName, id string, fn func(kind.Tx, kind.Object) error) error
}

// Naming serves the endpoints.
type Naming struct{ Objects Objects }

// Routes are the endpoints.
func (n *Naming) Routes() []api.Route {
	routes := []api.Route{
		{Method: "GET", Path: api.Root + "/namingpools/info/{node}", Permission: "NamingpoolsRead", Doc: "The index and the pattern that name a node.", Handler: n.info, Answer: map[string]any{}},
		{Method: "PUT", Path: api.Root + "/namingpool/{id}/push", Permission: "NamingpoolsWrite", Doc: "Give the pool's nodes the names that its pattern says now.", Handler: n.push, Answer: api.Nothing{}},
	}
	for _, spec := range n.Objects.Specs() {
		switch spec.Name {
		case object.KindNet:
			for word, match := range searches() {
				routes = append(routes, api.Route{Method: "GET", Path: api.Root + "/nets/" + word + "/{part}", Permission: spec.Read, Deprecated: word == "byiface",
					Doc: "The networks that match a part.", Handler: n.search(word, match), Answer: api.List(api.Shown(spec))})
			}
		case object.KindHostname:
			for _, words := range spec.Called() {
				routes = append(routes, api.Route{Method: "GET", Path: api.Root + "/" + words.Plural + "/bypart/{part}", Permission: spec.Read,
					Doc: "The UIDs of the host names whose UID has this part.", Handler: n.byPart, Answer: api.List(api.UID())})
			}
		}
	}
	return routes
}

func (n *Naming) byPart(w http.ResponseWriter, r *http.Request) error {
	part, err := wanted(r)
	if err != nil {
		return err
	}
	uids := []string{}
	for _, o := range n.Objects.All(object.KindHostname) {
		if uid := o.Base().UID; strings.Contains(uid, part) {
			uids = append(uids, uid)
		}
	}
	return api.Data(w, uids)
}

// wanted is the part to look for.
func wanted(r *http.Request) (string, error) {
	part := r.PathValue("part")
	if len(part) > kind.MaxName {
		return "", fault.Invalidf("%d bytes are too long to look for.", len(part))
	}
	return part, nil
}

func (n *Naming) info(w http.ResponseWriter, r *http.Request) error {
	o, err := n.Objects.Find(object.KindNode, r.PathValue("node"))
	if err != nil {
		return err
	}
	node := o.(*object.Node)
	return api.Data(w, map[string]any{"index": node.Index, "pattern": object.PatternOf(n.Objects.Look(), node)})
}

// push renames in one transaction: either all nodes have their new names, or
// the first conflict says why none has.
func (n *Naming) push(w http.ResponseWriter, r *http.Request) error {
	err := n.Objects.Modify(r.Context(), api.By(r), object.KindNamingpool, r.PathValue("id"), func(tx kind.Tx, o kind.Object) error {
		return object.Rename(tx, o.(*object.Namingpool))
	})
	if err != nil {
		return err
	}
	return api.OK(w)
}

// searches are the ways to look for a network by a part of something.
func searches() map[string]func(n *object.Net, part string) bool {
	return map[string]func(*object.Net, string) bool{
		"byiface": func(n *object.Net, part string) bool { return n.NodeIface != "" && strings.Contains(n.NodeIface, part) },
		"byname":  func(n *object.Net, part string) bool { return n.Name != "" && strings.Contains(n.Name, part) },
		"bykey":   func(n *object.Net, part string) bool { return strings.Contains(n.UID, part) },
		"byip":    holdsIP,
	}
}

// holdsIP matches a whole address inside the network, or a part of the texts
// of its own addresses.
func holdsIP(n *object.Net, part string) bool {
	if a, err := netip.ParseAddr(part); err == nil {
		return n.Prefix().Contains(a.Unmap())
	}
	return strings.Contains(n.FirstIP, part) || strings.Contains(n.RouterIP, part) || strings.Contains(n.GatewayIP, part)
}

func (n *Naming) search(word string, match func(*object.Net, string) bool) api.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		part, err := wanted(r)
		if err != nil {
			return err
		}
		if word == "byiface" {
			w.Header().Set("Deprecation", "true") // the reference says that it will go
		}
		out := []kind.Object{}
		for _, o := range n.Objects.All(object.KindNet) {
			if match(o.(*object.Net), part) {
				out = append(out, n.Objects.Show(object.KindNet, o))
			}
		}
		return api.Data(w, out)
	}
}
