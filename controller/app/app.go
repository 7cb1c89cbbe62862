// Package app puts a head together: it is the only package that imports all
// others, reads the configuration, and picks the store's backend.
//
// New opens and connects the parts, Run serves until it is told to stop. What
// one part needs of another goes through directory.go; a part is never reached
// in any other way.
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"muster/controller/api"
	"muster/controller/audit"
	"muster/controller/auth"
	"muster/controller/auth/authority"
	"muster/controller/boots"
	"muster/controller/events"
	"muster/controller/exec"
	"muster/controller/fleet"
	"muster/controller/gitrepo"
	"muster/controller/heads"
	"muster/controller/heads/headlog"
	"muster/controller/iscsi"
	"muster/controller/library"
	"muster/controller/metrics"
	"muster/controller/naming"
	"muster/controller/overlay"
	"muster/controller/registry"
	"muster/controller/selection"
	"muster/controller/store/boltstore"
	"muster/controller/waitfor"
	"muster/shared/object"
	"muster/shared/service"
	"muster/shared/wire"
)

// Head is one head node's program.
type Head struct {
	cfg     Config
	log     *slog.Logger
	level   *slog.LevelVar
	version string
	name    string
	store   *boltstore.Store
	switchgear
	reg      *registry.Registry
	fleet    *fleet.Fleet
	auth     *auth.Service
	ca       *authority.Authority
	dir      *directory
	agent    *agentArchive
	target   *iscsi.Target // nil where there is none
	work     string        // directory for temporary files, emptied at each start
	library  *library.Library
	index    *selection.Index
	waitfor  *waitfor.Waitfor
	metrics  *metrics.Metrics
	tracer   *boots.Tracer // nil where boots are sent nowhere
	git      *gitrepo.Repos
	blobs    *library.Blobs
	routes   []api.Route
	events   *events.Events
	handler  http.Handler
	self     identity
	book     *headlog.Book
	heads    *heads.Heads
	group    *service.Group
	end      context.CancelFunc
	reread   func() error // reads the configuration again
	doors    doors
	overlays *overlay.Overlays
}

// databaseFile is its name below the data directory.
const databaseFile = "muster.db"

// New opens everything under cfg.Data. Nothing is served yet.
func New(ctx context.Context, cfg Config, log *slog.Logger, level *slog.LevelVar, version string) (*Head, error) {
	h := &Head{cfg: cfg, level: level, version: version, name: cfg.Name, book: headlog.New(), reread: func() error { return nil }}
	h.log = slog.New(h.book.Handler(log.Handler()))
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
	if h.store, err = boltstore.Open(filepath.Join(cfg.Data, databaseFile), boltstore.Options{}); err != nil {
		return nil, err
	}
	if err := h.open(ctx); err != nil {
		return nil, errors.Join(err, h.store.Close())
	}
	return h, nil
}

func (h *Head) open(ctx context.Context) error {
	var err error
	if h.self, err = loadIdentity(h.cfg.Data); err != nil {
		return err
	}
	h.dir = &directory{now: time.Now, head: h.name, dns: h.cfg.DNS}
	h.reg, err = registry.Open(ctx, h.store, object.All(), registry.Options{
		Head: h.name, UID: h.self.UID, Now: time.Now, Log: h.log, Taken: h.dir.taken,
		Live:         func(uid string) ([]byte, []byte) { return h.fleet.Live(uid) },
		AuditRecords: h.cfg.AuditRecords, AuditAge: time.Duration(h.cfg.AuditDays) * 24 * time.Hour,
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
	h.waitfor = h.newWaitfor()
	h.fleet, err = fleet.Open(ctx, fleet.Options{
		Changed: func(uid string) { h.index.News(uid); h.waitfor.News() },
		Booted:  h.booted,
		Files:   func(uid string, proven bool) (wire.Overlay, bool) { return h.overlays.Of(uid, proven) },
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
	if h.blobs, err = library.OpenBlobs(filepath.Join(h.cfg.Data, "files"), h.log); err != nil {
		return err
	}
	program, err := beside(h.cfg.Agent, "muster-agent")
	if err != nil {
		return err
	}
	h.agent = newAgentArchive(program, h.blobs, h.cfg.Data, h.log)
	if h.dir.iscsi, err = h.iscsiAt(bootHead); err != nil {
		return err
	}
	if h.dir.iscsi.IsValid() {
		h.target = iscsi.New(iscsi.Config{Addr: h.dir.iscsi, Disks: imageDisks{h.dir}, Log: h.log})
	}
	h.dir.provision, h.dir.blobs = h.newProvision(bootHead), h.blobs
	h.library = library.New(library.Options{Objects: h.reg, Blobs: h.blobs, Head: h.name, Log: h.log, Now: time.Now, Extra: h.inUse,
		Problems: h.dir.provision.Problems, Kickstarts: h.dir.provision, Booted: h.fleet.Images})
	h.dir.reg, h.dir.fleet, h.dir.library, h.dir.agent = h.reg, h.fleet, h.library, h.agent
	if h.work, err = makeWork(h.cfg.Data); err != nil {
		return err
	}
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
		Record: h.recordLogin,
	})
	if err != nil {
		return err
	}
	if h.git, err = h.openGitrepos(); err != nil {
		return err
	}
	h.heads = h.newHeads()
	info := h.clusterInfo()
	installs, err := h.installs()
	if err != nil {
		return err
	}
	captures, err := h.newCapture()
	if err != nil {
		return err
	}
	nodes := &selection.Selection{Objects: h.reg, Live: h.fleet, Index: h.index}
	h.overlays = &overlay.Overlays{Objects: h.reg, Matcher: nodes.Matcher, Values: h.dir.provision.Values, RootURL: h.dir.provision.RootURL()}
	h.events = events.New(events.Options{Objects: h.reg, States: fleetStates{h.fleet}, Auth: h.auth, Matcher: nodes.Matcher, Log: h.log})
	commands := &exec.Exec{Nodes: h.reg, Agents: h.fleet, Select: nodes.SelectBy, Log: h.log, Record: h.recordExec}
	h.routes = slices.Concat(
		info.Extend(api.Generic(h.reg)),
		h.auth.Routes(),
		h.fleet.Routes(),
		h.monitoringRoutes(nodes),
		h.library.Routes(),
		h.newPeers().Routes(),
		h.dir.provision.Routes(),
		h.overlays.Routes(),
		h.switchRoutes(bh),
		h.isoMaker(bh).Routes(),
		h.git.Routes(),
		h.repos().Routes(),
		installs.Routes(),
		info.Routes(),
		h.heads.Routes(),
		h.newDatabase().Routes(),
		h.newUsage().Routes(),
		(&naming.Naming{Objects: h.reg}).Routes(),
		nodes.Routes(),
		h.waitfor.Routes(),
		commands.Routes(),
		h.newApply(commands).Routes(),
		captures.Routes(),
		(&audit.Audit{Trail: h.reg}).Routes(),
		h.events.Routes(),
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
	ctx, h.end = context.WithCancel(ctx)
	defer h.end()
	disabled, err := h.disabled()
	if err != nil {
		return err
	}
	h.group = service.New(h.log, h.parts(done), disabled)
	return h.group.Run(ctx, ready)
}

// parts is everything that runs, in the order in which it starts to listen.
// done gets how the registry ended.
func (h *Head) parts(done chan error) []service.Part {
	parts := []service.Part{
		{Name: "objects", Stage: service.Base, Hidden: true, Run: func(ctx context.Context) error {
			select {
			case <-ctx.Done():
				return nil
			case err := <-done: // reads would show what was, from here on
				done <- nil
				return err
			}
		}},
		{Name: "changes", Stage: service.Base, Hidden: true, Run: h.follow},
		{Name: "fleet", Doc: "Keeps the links of nodes' agents, and what they report.", Kept: "what nodes report would be lost, restart it instead", Run: h.fleet.Run},
		{Name: "agent-archive", Doc: "Packs the agent for nodes that boot, when it is another one than before.", Run: h.agent.run},
		{Name: "selections", Stage: service.Base, Hidden: true, Run: func(ctx context.Context) error { return h.index.Run(ctx, h.reg, h.fleet) }},
		{Name: "events", Doc: "Tells clients what changes, as it happens.", Listen: h.events.Listen, Run: h.events.Run},
		{Name: "waitfor", Stage: service.Base, Hidden: true, Run: h.waitfor.Run},
		{Name: "consoles", Doc: "Holds the serial consoles of nodes open, logs them, and sees machines die.", Run: h.console.Run},
		h.recoveryPart(),
		{Name: "library", Doc: "Removes files that nothing uses any more, every hour.", Run: h.library.Run},
		{Name: "gitrepos", Doc: "Brings git repositories up to date with where they come from.", Run: h.git.Run},
		h.auth.Socket(),
		h.web("http", h.cfg.HTTP, nil),
		h.web("https", h.cfg.HTTPS, h.ca.TLSConfig()),
	}
	parts = append(parts, h.bootParts()...)
	parts = append(parts, h.iscsiParts()...)
	parts = append(parts, h.dnsParts()...)
	parts = append(parts, h.monitoringParts()...)
	return append(parts,
		service.Part{Name: "head.json", Stage: service.Base, Hidden: true, Listen: func(context.Context) error { return h.announce() }, Run: wait},
		service.Part{Name: "registration", Stage: service.Base, Hidden: true, Listen: h.heads.Register, Run: wait},
	)
}

func wait(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// follow tells the fleet which nodes are gone, and which may have other
// attributes.
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
		h.fleet.AttributesChanged(change.Kind, change.UID)
	}
	return nil
}

// RereadBy says how the configuration is read again when an admin asks for it.
func (h *Head) RereadBy(read func() error) { h.reread = read }

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
