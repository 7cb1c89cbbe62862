// Package heads knows the machines that run muster: it keeps this one's record,
// says which of the others are down, runs and stops this one's services, and
// shows its log.
//
// A head is an object like others, declared in shared/object. The package must
// not decide what a service does, nor how a head joins.
package heads

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"muster/controller/api"
	"muster/controller/heads/headlog"
	"muster/controller/registry"
	"muster/shared/fault"
	"muster/shared/kind"
	"muster/shared/object"
	"muster/shared/service"
)

// Objects is what the package needs of the registry.
type Objects interface {
	Find(kindName, id string) (kind.Object, error)
	All(kindName string) []kind.Object
	Show(kindName string, obj kind.Object) kind.Object
	Look() kind.Look
	Create(ctx context.Context, by kind.Author, kindName string, in registry.Input) (string, error)
	Patch(ctx context.Context, by kind.Author, kindName, id string, in registry.Input) error
	Delete(ctx context.Context, by kind.Author, kindName, id string) error
}

// Self is what this head says of itself. The functions give what may change
// while it runs.
type Self struct {
	UID       string
	Name      string // host name
	Version   string
	SSHPublic string // one line, as in authorized_keys
	CAPEM     func() []byte
	PeerURL   func() string // where others reach it
	// Addresses are those that it comes from.
	Addresses func() []netip.Addr
}

// Options are what New has to be told.
type Options struct {
	Objects Objects
	Self    Self
	Book    *headlog.Book
	// Group is the head's services, and Saved keeps which of them are disabled.
	Group func() *service.Group
	Saved func(disabled []string) error
	// Reload reads the head's configuration again, for all services.
	Reload func() error
	// Changed is called when a service went up or down.
	Changed func() error
	Data    string // directory where the head keeps what it knows
	// Left is a file that marks a head which left the others; End ends the
	// program.
	Left string
	End  func()
	Log  *slog.Logger
	Now  func() time.Time
}

// Heads answers.
type Heads struct {
	opt     Options
	started time.Time
}

// New makes it.
func New(opt Options) *Heads { return &Heads{opt: opt, started: opt.Now()} }

// Routes are the endpoints.
func (h *Heads) Routes() []api.Route {
	const head, cluster = api.Root + "/head", api.Root + "/cluster/head/{id}"
	return []api.Route{
		{Method: "GET", Path: api.Root + "/heads/down", Permission: "HeadsRead", Doc: "The heads that do not answer, each with the reason.", Handler: h.getDown, Answer: []downHead{}},
		{Method: "DELETE", Path: api.Root + "/heads/down", Permission: "HeadsWrite", Doc: "Delete the heads that do not answer; the answer lists them.", Handler: h.deleteDown, Answer: []downHead{}},
		{Method: "GET", Path: head + "/peerurl", Permission: kind.Public, Doc: "The URL at which another head reaches this one.", Handler: h.getPeerURL, Answer: ""},
		{Method: "GET", Path: head + "/services", Permission: kind.HeadOnly, Doc: "This head's services, each with its status up or down.", Handler: h.getServices, Answer: []shownService{}},
		{Method: "POST", Path: head + "/services", Permission: kind.HeadOnly, Doc: "Start, stop, restart, reload, enable or disable services of this head.", Handler: h.postServices, Body: ordered{}, Answer: []shownService{}},
		{Method: "POST", Path: api.Root + "/database/leave", Permission: kind.HeadOnly, Doc: "Make this head leave the others and end.", Handler: h.leave, Answer: api.Any()},
		{Method: "GET", Path: cluster, Permission: "HeadsRead", Doc: "A head, and how it is.", Handler: h.getHead, Answer: shownHead{}},
		{Method: "GET", Path: cluster + "/log", Permission: "HeadsRead", Doc: "The head's last log lines; ?lines=N and ?level=warn choose.", Handler: h.getLog, Answer: api.Any(),
			Query: []api.Param{{Name: "lines", Type: "integer", Doc: "how many of the newest, 200 when not given"}, {Name: "level", Doc: "only lines of at least this level: debug, info, warn or error"}}},
	}
}

// itself is the author of what the head does without being told.
var itself = kind.Author{Name: "muster"}

// Register brings this head's record up to date, or makes it. A head that left
// the others does not come back by being started again.
func (h *Heads) Register(ctx context.Context) error {
	if err := h.mayReturn(); err != nil {
		return err
	}
	want := h.record()
	old, known := h.opt.Objects.Look().Get(object.KindHead, h.opt.Self.UID)
	if !known {
		want["uid"] = h.opt.Self.UID
		return h.save(want, func(in registry.Input) error {
			_, err := h.opt.Objects.Create(ctx, itself, object.KindHead, in)
			return err
		})
	}
	was := old.(*object.Head)
	for key, same := range map[string]bool{
		"name": was.Name == h.opt.Self.Name, "ssh_public": was.SSHPublic == h.opt.Self.SSHPublic, "ca_pem": was.CAPEM == want["ca_pem"],
		"peer_url": was.PeerURL == want["peer_url"], "addresses": slices.Equal(was.Addresses, want["addresses"].([]string)),
	} {
		if same {
			delete(want, key)
		}
	}
	if len(want) == 0 {
		return nil
	}
	return h.save(want, func(in registry.Input) error {
		return h.opt.Objects.Patch(ctx, itself, object.KindHead, was.UID, in)
	})
}

// maxAddresses bounds how many addresses of its own a head registers: one with
// containers may have thousands, none of which another head sees.
const maxAddresses = 64

func (h *Heads) record() map[string]any {
	self := h.opt.Self
	addresses := []string{}
	for _, a := range self.Addresses() {
		if !a.IsLoopback() && len(addresses) < maxAddresses {
			addresses = append(addresses, a.String())
		}
	}
	slices.Sort(addresses)
	return map[string]any{"name": self.Name, "ssh_public": self.SSHPublic, "ca_pem": string(self.CAPEM()), "peer_url": self.PeerURL(), "addresses": addresses}
}

// save writes the record. A host name that is another head's, or none that an
// object can have, is left out: it is only there for people.
func (h *Heads) save(doc map[string]any, write func(registry.Input) error) error {
	in := registry.Input{}
	for key, value := range doc {
		raw, err := json.Marshal(value)
		if err != nil {
			return err
		}
		in[key] = raw
	}
	err := write(in)
	if _, named := in["name"]; named && (fault.Is(err, fault.Conflict) || fault.Is(err, fault.Invalid)) {
		h.opt.Log.Warn("this head registers without its name", "error", err)
		delete(in, "name")
		if len(in) > 0 {
			err = write(in)
		} else {
			err = nil
		}
	}
	return err
}

// IsHead says whether an address is that of another registered head.
func IsHead(look interface {
	All(kindName string) []kind.Object
}, addr netip.Addr) bool {
	text := addr.Unmap().WithZone("").String()
	return slices.ContainsFunc(look.All(object.KindHead), func(o kind.Object) bool {
		return slices.Contains(o.(*object.Head).Addresses, text)
	})
}

func (h *Heads) getPeerURL(w http.ResponseWriter, r *http.Request) error {
	return api.Data(w, h.opt.Self.PeerURL())
}

// find gives the head that a path names.
func (h *Heads) find(r *http.Request) (*object.Head, error) {
	o, err := h.opt.Objects.Find(object.KindHead, r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	return o.(*object.Head), nil
}

// here gives the head that a path names if it is this one, or a fault that
// says where to ask.
func (h *Heads) here(r *http.Request) (*object.Head, error) {
	o, err := h.find(r)
	if err != nil || o.UID == h.opt.Self.UID {
		return o, err
	}
	where := "that head"
	if o.PeerURL != "" {
		where = o.PeerURL + r.URL.Path
	}
	return nil, fault.New(fault.Conflict, "Each head knows only its own log: ask %s.", where)
}
