// Package cluster answers questions about the cluster and the head as a whole:
// the time, the names and addresses of nodes, the CA, what there is.
//
// The cluster's settings themselves are an object like others and come from
// its declaration; nothing here changes anything.
package cluster

import (
	"net/http"
	"time"

	"muster/controller/api"
	"muster/shared/kind"
	"muster/shared/object"
)

// Objects is what the package needs of the registry.
type Objects interface {
	Specs() []*kind.Spec
	All(kindName string) []kind.Object
	Revision() uint64
}

// Info answers.
type Info struct {
	Objects Objects
	Head    string // host name
	Version string
	Bundle  func() []byte // the CA's certificates, PEM
	Now     func() time.Time
}

// Routes are the endpoints.
func (i *Info) Routes() []api.Route {
	get := func(path string, p kind.Permission, doc string, answer func() any) api.Route {
		return api.Route{Method: "GET", Path: api.Root + "/cluster/" + path, Permission: p, Doc: doc,
			Handler: func(w http.ResponseWriter, _ *http.Request) error { return api.Data(w, answer()) }}
	}
	return []api.Route{
		get("time", kind.Public, "The head's clock; answers as soon as the head serves.", i.time),
		get("database", kind.Public, "The kind of database and its revision.", i.database),
		get("hosts", kind.Public, "Names and addresses of all nodes.", i.hosts),
		get("cabundle", kind.Public, "The CA certificates that this head's certificate can be checked with, PEM.", func() any { return string(i.Bundle()) }),
		get("summary", "ClusterRead", "The UIDs of all objects, by kind.", i.summary),
	}
}

func (i *Info) time() any {
	now := i.Now()
	return map[string]any{"time": float64(now.UnixMicro()) / 1e6, "iso": now.Format(time.RFC3339Nano)}
}

func (i *Info) database() any {
	return map[string]any{"type": "bbolt", "revision": i.Objects.Revision(), "head": i.Head, "version": i.Version}
}

func (i *Info) hosts() any {
	out := map[string]string{}
	for _, o := range i.Objects.All(object.KindNode) {
		if n := o.(*object.Node); n.IP != nil {
			out[n.Name] = *n.IP
		}
	}
	return out
}

func (i *Info) summary() any {
	out := map[string][]string{}
	for _, s := range i.Objects.Specs() {
		if s.Singleton {
			continue
		}
		uids := []string{}
		for _, o := range i.Objects.All(s.Name) {
			uids = append(uids, o.Base().UID)
		}
		out[s.Plural] = uids
	}
	return out
}
