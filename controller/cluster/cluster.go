// Package cluster answers questions about the cluster and the head as a whole:
// the time, the names and addresses of nodes, the keys and certificates to
// trust, what there is.
//
// The cluster's settings themselves are an object like others and come from
// its declaration; nothing here changes anything.
package cluster

import (
	"net/http"
	"slices"
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
	UID     string // of the head
	Version string
	Bundle  func() []byte // the CA's certificates, PEM
	Now     func() time.Time
	// Auth and Monitoring say how logins and nodes' reports are set up here.
	Auth, Monitoring map[string]any
	// DatabaseSize gives the bytes that the database takes on disk.
	DatabaseSize func() int64
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
		get("hosts", kind.Public, "Names and addresses of all nodes and heads.", i.hosts),
		get("cabundle", kind.Public, "The CA certificates that this head's certificate can be checked with, PEM.", func() any { return string(i.Bundle()) }),
		get("sshkeys", kind.Public, "The public SSH keys of the admins and of the heads.", i.sshKeys),
		get("license", "ClusterRead", "What muster may be used for.", i.license),
		get("summary", "ClusterRead", "The UIDs of all objects, by kind.", i.summary),
	}
}

func (i *Info) time() any {
	now := i.Now()
	return map[string]any{"time": float64(now.UnixMicro()) / 1e6, "iso": now.Format(time.RFC3339Nano)}
}

func (i *Info) database() any {
	heads := len(i.Objects.All(object.KindHead))
	return map[string]any{
		"type": "bbolt", "status": "up", "revision": i.Objects.Revision(), "size": i.DatabaseSize(),
		"head": i.Head, "uid": i.UID, "heads": heads, "version": i.Version,
	}
}

// hosts gives nodes, and heads where their address is known. A node keeps its
// name where a head has the same.
func (i *Info) hosts() any {
	out := map[string]string{}
	for _, o := range i.Objects.All(object.KindHead) {
		if h := o.(*object.Head); h.Name != "" && len(h.Addresses) > 0 {
			out[h.Name] = h.Addresses[0]
		}
	}
	for _, o := range i.Objects.All(object.KindNode) {
		if n := o.(*object.Node); n.IP != nil {
			out[n.Name] = *n.IP
		}
	}
	return out
}

// sshKeys gives the admins' keys without saying whose they are: anybody may ask.
func (i *Info) sshKeys() any {
	keys, heads := []string{}, map[string]string{}
	for _, o := range i.Objects.All(object.KindAdmin) {
		keys = append(keys, o.(*object.Admin).Keys...)
	}
	for _, o := range i.Objects.All(object.KindHead) {
		heads[o.Base().UID] = o.(*object.Head).SSHPublic
	}
	slices.Sort(keys)
	return map[string]any{"authorized_keys": slices.Compact(keys), "heads": heads}
}

// license is the same for everybody: there are none to buy.
func (i *Info) license() any {
	return map[string]any{
		"license": "Apache-2.0", "name": "Apache License, Version 2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0",
		"valid": true, "expires": nil, "nodes_allowed": "unlimited", "nodes": len(i.Objects.All(object.KindNode)),
	}
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
