// Package apitest starts the part of a head that tests of endpoints need: a
// real store in a temporary directory, the registry, and the API on loopback.
// Callers are believed what they say of themselves; how that is proven is
// controller/auth's and tested there.
package apitest

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"muster/controller/api"
	"muster/controller/registry"
	"muster/controller/store/boltstore"
	"muster/shared/fault"
	"muster/shared/kind"
	"muster/shared/object"
)

// HeadName is the host name of the heads made here, Admin the caller of
// requests that name no other.
const (
	HeadName = "head1"
	Admin    = "admin1"
)

// The headers by which a request says who sends it: an admin's name, or a
// node's UID on routes that only nodes may use.
const (
	AsAdmin = "Test-Admin"
	AsNode  = "Test-Node"
)

// Options of Start; the zero value will do.
type Options struct {
	Dir    string // of the store; a temporary one when empty
	Now    func() time.Time
	Taken  func(addr string) bool
	Live   func(uid string) (hardware, status []byte)
	Routes func(h *Head) [][]api.Route // further endpoints
}

// Head is a running one.
type Head struct {
	testing.TB
	Dir      string
	Store    *boltstore.Store
	Registry *registry.Registry
	Server   *httptest.Server
	Logger   *slog.Logger
	contract func() *Contract
	stop     func()
}

// Start runs a head until the test ends or Stop is called. On an empty store
// it makes the cluster and the admin.
func Start(tb testing.TB, opt Options) *Head {
	tb.Helper()
	h := &Head{TB: tb, Dir: opt.Dir, Logger: slog.New(slog.DiscardHandler)}
	if h.Dir == "" {
		h.Dir = tb.TempDir()
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	ctx, cancel := context.WithCancel(context.Background())
	var err error
	if h.Store, err = boltstore.Open(filepath.Join(h.Dir, "muster.db"), boltstore.Options{}); err != nil {
		tb.Fatal(err)
	}
	h.Registry, err = registry.Open(ctx, h.Store, object.All(), registry.Options{
		Head: HeadName, Now: opt.Now, Log: h.Logger, Taken: opt.Taken, Live: opt.Live,
	})
	if err != nil {
		tb.Fatal(err)
	}
	ran := make(chan error, 1)
	go func() { ran <- h.Registry.Run(ctx) }()
	routes := [][]api.Route{api.Generic(h.Registry)}
	if opt.Routes != nil {
		routes = append(routes, opt.Routes(h)...)
	}
	handler, err := api.New(believer(object.NewRights(h.Registry.Specs()).Of([]string{object.RoleFullAdmin})), h.Logger, routes...)
	if err != nil {
		tb.Fatal(err)
	}
	h.Server = httptest.NewServer(handler)
	h.contract = sync.OnceValue(func() *Contract { return ContractOf(tb, h.Server.Client(), h.Server.URL) })
	h.stop = func() {
		h.Server.Close()
		cancel()
		if err := <-ran; err != nil {
			tb.Errorf("registry: %v", err)
		}
		if err := h.Store.Close(); err != nil {
			tb.Errorf("store: %v", err)
		}
	}
	tb.Cleanup(h.Stop)
	if len(h.Registry.All(object.KindCluster)) == 0 {
		h.seed(ctx)
	}
	return h
}

// Stop ends the head; its directory stays.
func (h *Head) Stop() {
	if h.stop != nil {
		h.stop()
		h.stop = nil
	}
}

// For gives the same head for use in another test, such as a part of one.
func (h *Head) For(tb testing.TB) *Head {
	other := *h
	other.TB = tb
	return &other
}

func (h *Head) seed(ctx context.Context) {
	by := kind.Author{Name: "muster"}
	for name, in := range map[string]registry.Input{
		object.KindCluster: {},
		object.KindAdmin:   {"name": json.RawMessage(`"` + Admin + `"`), "roles": json.RawMessage(`["role.authuser","role.fulladmin"]`)},
	} {
		if _, err := h.Registry.Create(ctx, by, name, in); err != nil {
			h.Fatal(err)
		}
	}
}

// believer grants an admin everything: these permissions.
type believer map[kind.Permission]bool

func (b believer) Authenticate(r *http.Request, want kind.Permission) (*api.Caller, error) {
	if want == kind.Public {
		return &api.Caller{Addr: api.RemoteAddr(r)}, nil
	}
	if want == kind.NodeOnly {
		uid := r.Header.Get(AsNode)
		if uid == "" {
			return nil, fault.New(fault.NotFound, "No node found for ID=%s", api.RemoteAddr(r))
		}
		return &api.Caller{Node: uid, Addr: api.RemoteAddr(r)}, nil
	}
	name := r.Header.Get(AsAdmin)
	if name == "" {
		name = Admin
	}
	caller := api.NewCaller(name, "", []string{"role.authuser", "role.fulladmin"}, b)
	caller.Addr = api.RemoteAddr(r)
	return caller, nil
}

// Answer is what came back.
type Answer struct {
	Status  int
	Header  http.Header
	Raw     []byte
	Success *bool           `json:"success"`
	Data    json.RawMessage `json:"data"`
	Reason  string          `json:"reason"`
}

// Do sends a request and holds it and its answer to the OpenAPI document. A body that is a string or bytes goes as it is, anything
// else as JSON, nil for none. header lists names and values.
func (h *Head) Do(method, path string, body any, header ...string) Answer {
	h.Helper()
	var r io.Reader
	var sent []byte
	switch b := body.(type) {
	case nil:
	case string:
		sent, r = []byte(b), strings.NewReader(b)
	case []byte:
		sent, r = b, bytes.NewReader(b)
	case io.Reader:
		r = b
	default:
		raw, err := json.Marshal(b)
		if err != nil {
			h.Fatal(err)
		}
		sent, r = raw, bytes.NewReader(raw)
	}
	if !strings.HasPrefix(path, "/agent/") && !strings.HasPrefix(path, "/boot/") {
		path = api.Root + path
	}
	req, err := http.NewRequest(method, h.Server.URL+path, r)
	if err != nil {
		h.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := h.Server.Client().Do(req)
	if err != nil {
		h.Errorf("%s %s: %v", method, path, err)
		return Answer{}
	}
	defer resp.Body.Close()
	a := Answer{Status: resp.StatusCode, Header: resp.Header}
	if a.Raw, err = io.ReadAll(resp.Body); err != nil {
		h.Errorf("%s %s: the answer broke off: %v", method, path, err)
	}
	if err := h.contract().Check(req, sent, a.Status, a.Header, a.Raw); err != nil {
		h.Error(err)
	}
	if resp.Header.Get("Content-Type") == "application/json" {
		if err := json.Unmarshal(a.Raw, &a); err != nil {
			h.Errorf("%s %s: %v in %.200s", method, path, err, a.Raw)
		}
	}
	return a
}

// OK sends a request that must succeed, and gives the answer's data.
func (h *Head) OK(method, path string, body any, header ...string) json.RawMessage {
	h.Helper()
	a := h.Do(method, path, body, header...)
	if a.Status != http.StatusOK || a.Success == nil || !*a.Success {
		h.Fatalf("%s %s %.200v: status %d, %.500s", method, path, show(body), a.Status, a.Raw)
	}
	return a.Data
}

// Refused sends a request that must fail with a 4xx, success false and a
// reason, which it gives.
func (h *Head) Refused(method, path string, body any, header ...string) (reason string) {
	h.Helper()
	a := h.Do(method, path, body, header...)
	if a.Status < 400 || a.Status > 499 || a.Success == nil || *a.Success || a.Reason == "" || a.Data != nil {
		h.Errorf("%s %s %.200v: not refused properly: status %d, %.500s", method, path, show(body), a.Status, a.Raw)
	}
	return a.Reason
}

func show(body any) any {
	if b, ok := body.([]byte); ok {
		return string(b)
	}
	return body
}

// Create makes an object and gives its UID. The kind is named by its plural.
func (h *Head) Create(plural string, body any) (uid string) {
	h.Helper()
	if err := json.Unmarshal(h.OK("POST", "/"+plural, body), &uid); err != nil || !kind.UIDPattern.MatchString(uid) {
		h.Fatalf("creating one of %s gave %q, which is no UID", plural, uid)
	}
	return uid
}

// Get reads an object, as "node/n0" or the like.
func (h *Head) Get(path string) map[string]any {
	h.Helper()
	return Decode[map[string]any](h, h.OK("GET", "/"+path, nil))
}

// List reads all objects of a class, by UID.
func (h *Head) List(plural string) map[string]map[string]any {
	h.Helper()
	return Decode[map[string]map[string]any](h, h.OK("GET", "/"+plural, nil))
}

// Decode reads JSON, keeping numbers as they are written.
func Decode[T any](tb testing.TB, raw []byte) T {
	tb.Helper()
	var v T
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		tb.Fatalf("%v in %.200s", err, raw)
	}
	return v
}

// Map is a JSON object in a test's table.
type Map = map[string]any
