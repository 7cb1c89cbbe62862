// Package app puts a head together: it is the only package that imports all
// others, reads the configuration, and picks the store's backend.
//
// New opens and connects the parts, Run serves until it is told to stop. What
// one part needs of another goes through directory.go; a part is never reached
// in any other way.
package app

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"muster/controller/api"
	"muster/controller/auth"
	"muster/controller/auth/authority"
	"muster/controller/cluster"
	"muster/controller/exec"
	"muster/controller/fleet"
	"muster/controller/gitrepo"
	"muster/controller/library"
	"muster/controller/naming"
	"muster/controller/registry"
	"muster/controller/selection"
	"muster/controller/store/boltstore"
	"muster/shared/object"
	"muster/shared/service"
)

// Head is one head node's program.
type Head struct {
	cfg     Config
	log     *slog.Logger
	level   *slog.LevelVar
	version string
	name    string
	store   *boltstore.Store
	reg     *registry.Registry
	fleet   *fleet.Fleet
	auth    *auth.Service
	ca      *authority.Authority
	dir     *directory
	agent   *agentArchive
	library *library.Library
	index   *selection.Index
	git     *gitrepo.Repos
	blobs   *library.Blobs
	routes  []api.Route
	handler http.Handler
	http    net.Listener
	https   net.Listener
}

// New opens everything under cfg.Data. Nothing is served yet.
func New(ctx context.Context, cfg Config, log *slog.Logger, level *slog.LevelVar, version string) (*Head, error) {
	h := &Head{cfg: cfg, log: log, level: level, version: version, name: cfg.Name}
	if h.name == "" {
		var err error
		if h.name, err = os.Hostname(); err != nil {
			return nil, err
		}
	}
	// Users of the head reach the login socket inside, nothing else.
	if err := os.MkdirAll(cfg.Data, 0o711); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	var err error
	if h.store, err = boltstore.Open(filepath.Join(cfg.Data, "muster.db"), boltstore.Options{}); err != nil {
		return nil, err
	}
	if err := h.open(ctx); err != nil {
		return nil, errors.Join(err, h.store.Close())
	}
	return h, nil
}

func (h *Head) open(ctx context.Context) error {
	var err error
	h.dir = &directory{now: time.Now, head: h.name, dns: h.cfg.DNS}
	h.reg, err = registry.Open(ctx, h.store, object.All(), registry.Options{
		Head: h.name, Now: time.Now, Log: h.log, Taken: taken,
		Live: func(uid string) ([]byte, []byte) { return h.fleet.Live(uid) },
	})
	if err != nil {
		return err
	}
	bootHead, err := h.bootHead()
	if err != nil {
		return err
	}
	if bootHead.Addr.IsValid() {
		h.dir.heads = []netip.Addr{bootHead.Addr}
	}
	if h.ca, err = authority.Open(authority.Config{Dir: filepath.Join(h.cfg.Data, "ca"), Head: h.name, Addrs: h.addresses(), Log: h.log}); err != nil {
		return err
	}
	bootHead.CA = h.ca.Fingerprint()
	h.index = selection.NewIndex()
	h.fleet, err = fleet.Open(ctx, fleet.Options{
		Changed: h.index.News,
		Store:   h.store, Nodes: h.reg, Boot: h.dir, Log: h.log, Now: time.Now, Every: h.cfg.ReportEvery,
		Sign: func(csr []byte, uid string, ttl time.Duration) ([][]byte, string, error) {
			c, err := h.ca.SignNode(csr, uid, ttl)
			if err != nil {
				return nil, "", err
			}
			return c.Chain, c.Serial, nil
		},
	})
	if err != nil {
		return err
	}
	if h.blobs, err = library.OpenBlobs(filepath.Join(h.cfg.Data, "files")); err != nil {
		return err
	}
	program, err := beside(h.cfg.Agent, "muster-agent")
	if err != nil {
		return err
	}
	h.agent = newAgentArchive(program, h.blobs, h.cfg.Data, h.log)
	h.library = library.New(library.Options{Objects: h.reg, Blobs: h.blobs, Head: h.name, Log: h.log, Now: time.Now, Extra: h.agent.inUse,
		Problems: func(bc *object.Bootconfig) []string { return h.dir.provision.Problems(bc) }})
	h.dir.reg, h.dir.fleet, h.dir.library, h.dir.agent = h.reg, h.fleet, h.library, h.agent
	h.dir.provision = h.newProvision(bootHead)
	if err := os.MkdirAll(filepath.Join(h.cfg.Data, "kickstarts"), 0o755); err != nil {
		return err
	}
	return h.serve(bootHead)
}

// serve makes the HTTP handler of everything.
func (h *Head) serve(bh bootHead) error {
	proxies, err := h.cfg.proxies()
	if err != nil {
		return err
	}
	helper, err := beside(h.cfg.PAMHelper, "muster-pam")
	if err != nil {
		return err
	}
	h.auth, err = auth.New(auth.Config{
		Head: h.name, DataDir: h.cfg.Data, Admins: h.dir, Nodes: h.dir, Heads: h.dir,
		Rights: object.NewRights(h.reg.Specs()), TrustedProxies: proxies, Helper: helper, Log: h.log,
	})
	if err != nil {
		return err
	}
	if h.git, err = h.openGitrepos(); err != nil {
		return err
	}
	info := &cluster.Info{Objects: h.reg, Head: h.name, Version: h.version, Bundle: h.ca.Bundle, Now: time.Now}
	h.routes = slices.Concat(
		api.Generic(h.reg),
		h.auth.Routes(),
		h.fleet.Routes(),
		h.library.Routes(),
		h.provisionRoutes(),
		h.git.Routes(),
		h.repos().Routes(),
		info.Routes(),
		(&naming.Naming{Objects: h.reg}).Routes(),
		(&selection.Selection{Objects: h.reg, Live: h.fleet, Index: h.index}).Routes(),
		(&exec.Exec{Nodes: h.reg, Agents: h.fleet, Log: h.log}).Routes(),
		h.bootRoutes(bh),
	)
	h.handler, err = api.New(h.auth, h.log, h.routes)
	h.dir.boot = bh
	return err
}

// Routes is every endpoint that the head serves.
func (h *Head) Routes() []api.Route { return h.routes }

// Run serves until ctx ends, and returns when everything is on disk and closed.
func (h *Head) Run(ctx context.Context, ready func()) (err error) {
	defer func() { err = errors.Join(err, h.store.Close()) }()
	// The registry outlives what serves: requests under way still finish.
	keep, stop := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan error, 1)
	go func() { done <- h.reg.Run(keep) }()
	defer func() { stop(); err = errors.Join(err, <-done) }()
	if err := seed(ctx, h.reg); err != nil {
		return err
	}
	parts := []service.Part{
		{Name: "objects", Run: func(ctx context.Context) error {
			select {
			case <-ctx.Done():
				return nil
			case err := <-done: // reads would show what was, from here on
				done <- nil
				return err
			}
		}},
		{Name: "agent archive", Run: h.agent.run},
		{Name: "fleet", Run: h.fleet.Run},
		{Name: "changes", Run: h.follow},
		{Name: "selections", Run: func(ctx context.Context) error { return h.index.Run(ctx, h.reg, h.fleet) }},
		{Name: "library", Run: h.library.Run},
		{Name: "git repositories", Run: h.git.Run},
		h.auth.Socket(),
		h.web("http", h.cfg.HTTP, &h.http, nil),
		h.web("https", h.cfg.HTTPS, &h.https, h.ca.TLSConfig()),
	}
	parts = append(parts, h.bootParts()...)
	parts = append(parts, h.dnsParts()...)
	parts = append(parts, service.Part{Name: "head.json", Listen: func(context.Context) error { return h.announce() }, Run: wait})
	return service.Run(ctx, h.log, parts, ready)
}

func wait(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// follow tells the fleet which nodes are gone.
func (h *Head) follow(ctx context.Context) error {
	h.fleet.Prune()
	for change, err := range h.reg.Changes(ctx, h.reg.Revision()) {
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if change.Kind == object.KindNode && change.New == nil {
			h.fleet.Forget(change.UID)
		}
	}
	return nil
}

// Bounds on HTTP that hold for every route. Bodies have their own.
const (
	headerTime = 10 * time.Second
	idleTime   = 2 * time.Minute
	maxHeader  = 64 << 10 // bytes
	drainTime  = 5 * time.Second
)

// web is one listener of the API.
func (h *Head) web(name, addr string, l *net.Listener, conf *tls.Config) service.Part {
	srv := &http.Server{
		Handler: h.handler, ReadHeaderTimeout: headerTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeader,
		TLSConfig: conf, ErrorLog: slog.NewLogLogger(h.log.Handler(), slog.LevelDebug),
	}
	return service.Part{
		Name: name,
		Listen: func(ctx context.Context) (err error) {
			*l, err = (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
			return err
		},
		Run: func(ctx context.Context) error {
			stopped := make(chan struct{})
			stop := context.AfterFunc(ctx, func() {
				defer close(stopped)
				drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
				defer cancel()
				if srv.Shutdown(drain) != nil {
					srv.Close() // what did not finish by now is cut off
				}
			})
			var err error
			if conf == nil {
				err = srv.Serve(*l)
			} else {
				err = srv.ServeTLS(*l, "", "")
			}
			if stop() { // not told to stop: the listener failed
				return err
			}
			<-stopped
			return nil
		},
	}
}

// announce writes where this head listens, for the command line on this host.
func (h *Head) announce() error {
	where := map[string]string{
		"http":  "http://" + reachable(h.http.Addr()),
		"https": "https://" + reachable(h.https.Addr()),
	}
	raw, err := json.Marshal(where)
	if err != nil {
		return err
	}
	h.log.Info("serving", "http", where["http"], "https", where["https"], "data", h.cfg.Data, "version", h.version)
	path := filepath.Join(h.cfg.Data, "head.json")
	if err := os.WriteFile(path+".new", append(raw, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// reachable turns "any address" into one that a local client can dial.
func reachable(a net.Addr) string {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil || !ap.Addr().IsUnspecified() {
		return a.String()
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), ap.Port()).String()
}

// addresses are those that clients may dial: the certificate names them.
func (h *Head) addresses() []netip.Addr {
	out := slices.Clone(h.dir.heads)
	own, err := net.InterfaceAddrs()
	if err != nil {
		return out
	}
	for _, a := range own {
		if p, err := netip.ParsePrefix(a.String()); err == nil && !p.Addr().IsLinkLocalUnicast() && !slices.Contains(out, p.Addr()) {
			out = append(out, p.Addr())
		}
	}
	return out
}

// Reload takes over what may change while the head runs: the log level.
func (h *Head) Reload(cfg Config) error {
	level, err := cfg.level()
	if err != nil {
		return err
	}
	h.level.Set(level)
	h.log.Info("configuration reloaded", "log-level", level)
	return nil
}
