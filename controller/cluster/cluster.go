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
	return []api.Route{
		get("time", kind.Public, "The head's clock; answers as soon as the head serves.", i.time),
		get("database", kind.Public, "The kind of database and its revision.", i.database),
		get("hosts", kind.Public, "Names and addresses of all nodes and heads.", i.hosts),
		get("cabundle", kind.Public, "The CA certificates that this head's certificate can be checked with, PEM.", func() string { return string(i.Bundle()) }),
		get("sshkeys", kind.Public, "The public SSH keys of the admins and of the heads.", i.sshKeys),
		get("license", "ClusterRead", "What muster may be used for.", i.license),
		get("summary", "ClusterRead", "The UIDs of all objects, by kind.", i.summary),
	}
}

// get is a route that answers with what a function gives.
func get[T any](path string, p kind.Permission, doc string, answer func() T) api.Route {
	var example T
	return api.Route{Method: "GET", Path: api.Root + "/cluster/" + path, Permission: p, Doc: doc, Answer: example,
		Handler: func(w http.ResponseWriter, _ *http.Request) error { return api.Data(w, answer()) }}
}

// clock is the head's.
type clock struct {
	ISO  string  `json:"iso"`  // RFC 3339
	Time float64 `json:"time"` // seconds since 1970
}

func (i *Info) time() clock {
	now := i.Now()
	return clock{now.Format(time.RFC3339Nano), float64(now.UnixMicro()) / 1e6}
}

// database is where objects are kept.
type database struct {
	Head     string `json:"head"`
	Heads    int    `json:"heads"`
	Revision uint64 `json:"revision"`
	Size     int64  `json:"size"` // bytes on disk
	Status   string `json:"status"`
	Type     string `json:"type"`
	UID      string `json:"uid"` // of the head
	Version  string `json:"version"`
}

func (i *Info) database() database {
	return database{
		Type: "bbolt", Status: "up", Revision: i.Objects.Revision(), Size: i.DatabaseSize(),
		Head: i.Head, UID: i.UID, Heads: len(i.Objects.All(object.KindHead)), Version: i.Version,
	}
}

// hosts gives nodes, and heads where their address is known. A node keeps its
// name where a head has the same.
func (i *Info) hosts() map[string]string {
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

// publicKeys are those of SSH.
type publicKeys struct {
	AuthorizedKeys []string          `json:"authorized_keys"`
	Heads          map[string]string `json:"heads"` // by UID
}

// sshKeys gives the admins' keys without saying whose they are: anybody may ask.
func (i *Info) sshKeys() publicKeys {
	keys, heads := []string{}, map[string]string{}
	for _, o := range i.Objects.All(object.KindAdmin) {
		keys = append(keys, o.(*object.Admin).Keys...)
	}
	for _, o := range i.Objects.All(object.KindHead) {
		heads[o.Base().UID] = o.(*object.Head).SSHPublic
	}
	slices.Sort(keys)
	return publicKeys{slices.Compact(keys), heads}
}

// license says what clients ask before they go on.
type license struct {
	Expires      *string `json:"expires"`
	License      string  `json:"license"` // SPDX
	Name         string  `json:"name"`
	Nodes        int     `json:"nodes"`
	NodesAllowed string  `json:"nodes_allowed"`
	URL          string  `json:"url"`
	Valid        bool    `json:"valid"`
}

// license is the same for everybody: there are none to buy.
func (i *Info) license() license {
	return license{
		License: "Apache-2.0", Name: "Apache License, Version 2.0", URL: "https://www.apache.org/licenses/LICENSE-2.0",
		Valid: true, NodesAllowed: "unlimited", Nodes: len(i.Objects.All(object.KindNode)),
	}
}

func (i *Info) summary() map[string][]string {
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
