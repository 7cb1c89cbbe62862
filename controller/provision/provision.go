// Package provision answers machines that install themselves: kickstarts and
// their kin, ZTP scripts of switches, Ignition configurations.
//
// Their files lie in the head's kickstart directory, put there by whoever
// administers the host; no endpoint writes them. A file is a template (package
// shared/template) that is filled in with what is known of the node that it is
// for; /kickstart/<NAME> alone gives it as it is.
//
// Most of what is here is public, because installers have no token: whoever
// reaches the head can read what these files say of any node. A machine is
// known by the address that it asks from.
//
// The package must not decide what a node boots, and writes nothing.
package provision

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"muster/controller/api"
	"muster/shared/fault"
	"muster/shared/kind"
	"muster/shared/object"
	"muster/shared/template"
)

// Objects is what the package needs of the registry.
type Objects interface {
	Find(kindName, id string) (kind.Object, error)
	Show(kindName string, obj kind.Object) kind.Object
	Look() kind.Look
}

// Options are what the package has to be told.
type Options struct {
	Objects Objects
	Dir     string // of the files; absolute
	// NodeAt finds the node that has an address.
	NodeAt func(netip.Addr) (uid string, ok bool)
	// Status gives all that a node reported, with its state.
	Status func(uid string) (map[string]any, error)
	// RootURL is the head's plain URL without a path; empty where the head is
	// known only by the address that a client reached it at.
	RootURL string
	// Head gives what templates look up of the head.
	Head func() map[string]any
	// Ignition is the path of the ignition binary; empty: there is none.
	Ignition string
	// GitFile reads one file of a gitrepo; nil where there are none.
	GitFile func(ctx context.Context, repo, path string, limit int64) ([]byte, error)
	// Heads says whether an address is one of a head.
	Heads func(addr string) bool
	Log   *slog.Logger
}

// Provision serves the endpoints.
type Provision struct {
	opt     Options
	files   files
	fetcher *fetcher
}

// New makes it.
func New(opt Options) *Provision {
	return &Provision{opt: opt, files: files{opt.Dir}, fetcher: newFetcher(opt.Heads)}
}

// RootURL is the head's plain URL without a path, empty where it is not known.
func (p *Provision) RootURL() string { return p.opt.RootURL }

// Paths that installers use; the published API has its own.
const (
	pathKickstart = "/boot/v1/kickstart"
	pathSeed      = "/boot/v1/autoinstall/" // a NoCloud data source, in the words of cloud-init
)

// Routes are the endpoints.
func (p *Provision) Routes() []api.Route {
	return []api.Route{
		{Method: "GET", Path: api.Root + "/kickstart/{name...}", Permission: kind.Public, Doc: "A file of the kickstart directory, as it is.", Handler: p.getFile, Raw: plainText},
		{Method: "GET", Path: api.Root + "/bootconfig/{id}/kickstart", Permission: "BootconfigsRead",
			Doc: "The boot configuration's kickstart, filled in for the node that ?node= names or else that asks.", Handler: p.getKickstart, Raw: plainText,
			Query: []api.Param{{Name: "node", Doc: "the node; the one that asks when empty"}}},
		{Method: "GET", Path: api.Root + "/ztp/script", Permission: kind.Public, Doc: "The ZTP script of the node that asks, filled in.", Handler: p.getZTP, Raw: plainText},
		{Method: "GET", Path: api.Root + "/ignition/bin", Permission: kind.Public, Doc: "The ignition binary that this head is configured with.", Handler: p.getIgnitionBinary, Raw: "application/octet-stream"},
		{Method: "GET", Path: api.Root + "/ignition/{id}", Permission: kind.Public, Doc: "The node's Ignition configuration, checked; Butane is translated.", Handler: p.getIgnition, Raw: plainText},
		{Method: "GET", Path: pathKickstart, Permission: kind.Public, Doc: "The kickstart of the node that asks, for its installer.", Handler: p.getOwnKickstart, Raw: plainText},
		{Method: "GET", Path: pathSeed + "user-data", Permission: kind.Public, Doc: "The autoinstall configuration of the node that asks, for its installer.", Handler: p.getOwnKickstart, Raw: plainText},
		{Method: "GET", Path: pathSeed + "meta-data", Permission: kind.Public, Doc: "What cloud-init wants beside user-data.", Handler: p.getMetaData, Raw: plainText},
		{Method: "GET", Path: pathSeed + "vendor-data", Permission: kind.Public, Doc: "Nothing: cloud-init asks for it.", Handler: p.getVendorData, Raw: plainText},
	}
}

func (p *Provision) getFile(w http.ResponseWriter, r *http.Request) error {
	text, err := p.files.read(r.PathValue("name"))
	if err != nil {
		return err
	}
	return send(w, text)
}

func (p *Provision) getKickstart(w http.ResponseWriter, r *http.Request) error {
	o, err := p.opt.Objects.Find(object.KindBootconfig, r.PathValue("id"))
	if err != nil {
		return err
	}
	n, err := p.named(r)
	if err != nil {
		return err
	}
	return p.kickstart(w, r, o.(*object.Bootconfig), n)
}

// named is the node that ?node= names, or else the one that asks.
func (p *Provision) named(r *http.Request) (*object.Node, error) {
	if id := r.URL.Query().Get("node"); id != "" {
		o, err := p.opt.Objects.Find(object.KindNode, id)
		if err != nil {
			return nil, err
		}
		return o.(*object.Node), nil
	}
	n, ok := p.asker(r)
	if !ok {
		return nil, fault.Invalidf("For which node? %s is the address of none; say ?node=NAME.", api.CallerOf(r.Context()).Addr)
	}
	return n, nil
}

func (p *Provision) asker(r *http.Request) (*object.Node, bool) {
	uid, ok := p.opt.NodeAt(api.CallerOf(r.Context()).Addr)
	if !ok {
		return nil, false
	}
	o, ok := p.opt.Objects.Look().Get(object.KindNode, uid)
	if !ok {
		return nil, false
	}
	return o.(*object.Node), true
}

// mustAsk is the node that asks, on endpoints for nodes.
func (p *Provision) mustAsk(r *http.Request) (*object.Node, error) {
	n, ok := p.asker(r)
	if !ok {
		return nil, fault.New(fault.NotFound, "No node found for ID=%s: only a node may ask, from its own address.", api.CallerOf(r.Context()).Addr)
	}
	return n, nil
}

func (p *Provision) kickstart(w http.ResponseWriter, r *http.Request, bc *object.Bootconfig, n *object.Node) error {
	if bc.Kickstart == "" {
		return fault.New(fault.NotFound, "The boot configuration %s names no kickstart: muster bootconfig update %s --kickstart FILE", bc.Name, bc.Name)
	}
	text, err := p.files.read(bc.Kickstart)
	if err != nil {
		return err
	}
	if text, err = p.fill(r, n, bc.Kickstart, text); err != nil {
		return err
	}
	if installerOf(bc.Kickstart, text) == ignition {
		if text, err = ignitionOf(text); err != nil {
			return fault.New(fault.Conflict, "The Ignition configuration %s is not valid: %v.", bc.Kickstart, err)
		}
	}
	return send(w, text)
}

// getOwnKickstart is for the machine that installs itself. Once it is up, no
// user of it can have the kickstart any more, which may hold secrets.
func (p *Provision) getOwnKickstart(w http.ResponseWriter, r *http.Request) error {
	n, err := p.installing(r)
	if err != nil {
		return err
	}
	bc, err := object.BootconfigOf(p.opt.Objects.Look(), n)
	if err != nil {
		return err
	}
	return p.kickstart(w, r, bc, n)
}

func (p *Provision) installing(r *http.Request) (*object.Node, error) {
	n, err := p.mustAsk(r)
	if err != nil {
		return nil, err
	}
	status, err := p.opt.Status(n.UID)
	if err != nil {
		return nil, err
	}
	if status["state"] == "up" {
		return nil, fault.New(fault.Forbidden, "The node %s is up: only its installer gets this.", n.Name)
	}
	return n, nil
}

func (p *Provision) getMetaData(w http.ResponseWriter, r *http.Request) error {
	n, err := p.installing(r)
	if err != nil {
		return err
	}
	return send(w, fmt.Sprintf("instance-id: %s\nlocal-hostname: %s\n", n.UID, n.Name))
}

func (p *Provision) getVendorData(w http.ResponseWriter, r *http.Request) error { return send(w, "") }

// ztpPrefix marks an attribute _boot_config that names no boot configuration
// but a script.
const ztpPrefix = "ztp:"

func (p *Provision) getZTP(w http.ResponseWriter, r *http.Request) error {
	n, err := p.mustAsk(r)
	if err != nil {
		return err
	}
	attr := object.Attribute(p.opt.Objects.Look(), n, object.AttrBootConfig)
	name, ok := strings.CutPrefix(attr, ztpPrefix)
	if !ok || name == "" {
		return fault.New(fault.Conflict, "The attribute %s of node %s is %q; for ZTP it must be %s and the name of a script.", object.AttrBootConfig, n.Name, attr, ztpPrefix)
	}
	text, err := p.files.read(name)
	if err != nil {
		return err
	}
	if text, err = p.fill(r, n, name, text); err != nil {
		return err
	}
	return send(w, text)
}

// fill fills in one of the files for a node.
func (p *Provision) fill(r *http.Request, n *object.Node, name, text string) (string, error) {
	values, hidden := p.Values(n), ""
	out, err := template.Expand(name, text, template.Options{
		Value: func(s template.Section, key string) (any, bool) {
			if s == template.Attribute && kind.Reserved(key) {
				hidden = key
			}
			return values(s, key)
		},
		RootURL: p.root(r), Include: p.files.read, Escape: template.Script,
	})
	// Nodes get all that is theirs; an admin sees here no more than elsewhere.
	if who := caller(r); hidden != "" && who.Admin != "" && !who.Can(kind.ReservedAttribRead) {
		return "", fault.New(fault.Forbidden, "%s uses the reserved attribute %s of node %s; %s lacks the permission %s.", name, hidden, n.Name, who.Admin, kind.ReservedAttribRead)
	}
	if err != nil {
		return "", fault.New(fault.Conflict, "%s cannot be filled in for node %s: %v.", name, n.Name, err)
	}
	return out, nil
}

// caller is who asks; nobody where the head itself fills something in.
func caller(r *http.Request) *api.Caller {
	if r == nil {
		return &api.Caller{}
	}
	return api.CallerOf(r.Context())
}

// root is the head's URL as the client can reach it.
func (p *Provision) root(r *http.Request) string {
	if p.opt.RootURL != "" || r == nil {
		return p.opt.RootURL
	}
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	// The address that the client connected to, never its Host header: that is
	// the client's own word.
	if local, ok := r.Context().Value(http.LocalAddrContextKey).(interface{ String() string }); ok {
		return (&url.URL{Scheme: scheme, Host: local.String()}).String()
	}
	return ""
}

const plainText = "text/plain"

func send(w http.ResponseWriter, text string) error {
	w.Header().Set("Content-Type", plainText+"; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Length", fmt.Sprint(len(text)))
	_, err := w.Write([]byte(text))
	return err
}
