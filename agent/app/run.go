package app

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"muster/agent/apply"
	"muster/agent/attributes"
	"muster/agent/command"
	"muster/agent/head"
	"muster/agent/identity"
	"muster/agent/link"
	"muster/agent/network"
	"muster/agent/overlay"
	"muster/agent/pull"
	"muster/agent/report"
	"muster/shared/wire"
)

// defaultState is where an installed system keeps the agent's identity.
const defaultState = "/var/lib/muster-agent"

// Where admins put what the agent shall run: their own first, then that of
// packages.
const (
	defaultPlugins = "/etc/muster/plugins:/usr/lib/muster/plugins"
	defaultInit    = "/etc/muster/init.d:/usr/lib/muster/init.d"
)

// options are the flags of run.
type options struct {
	head    *url.URL
	bind    netip.Addr
	state   string
	root    string
	plugins []string
	init    []string
	ca      string
	version string
}

func parseRun(args []string, stderr io.Writer) (options, error) {
	var o options
	f := flag.NewFlagSet("muster-agent run", flag.ContinueOnError)
	f.SetOutput(stderr)
	headURL := f.String("head", "", "`URL` of the head, http or https")
	bind := f.String("bind", "", "local `address` of every connection; the head knows the node by it")
	f.StringVar(&o.state, "state", defaultState, "`directory` for the identity")
	f.StringVar(&o.root, "root", "/", "`directory` that is the node's root, where its own files are kept")
	plugins := f.String("plugins", defaultPlugins, "`directories` of plugins, with colons; each has the folders status, hardware and health")
	scripts := f.String("init", defaultInit, "`directories` of scripts to run once the node's attributes are there, with colons")
	f.StringVar(&o.ca, "ca", "", "`file` with the certificate of the head's authority (PEM); without it an https head is trusted on first use")
	if err := f.Parse(args); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			err = usageError{err}
		}
		return o, err
	}
	o.plugins, o.init = filepath.SplitList(*plugins), filepath.SplitList(*scripts)
	var err error
	if o.head, err = url.Parse(*headURL); err != nil || o.head.Hostname() == "" || o.head.Scheme != "http" && o.head.Scheme != "https" {
		return o, usageError{fmt.Errorf("--head %q: want the head's URL, such as https://10.0.0.1:8443", *headURL)}
	}
	if *bind != "" {
		if o.bind, err = netip.ParseAddr(*bind); err != nil {
			return o, usageError{fmt.Errorf("--bind: %w", err)}
		}
	}
	if f.NArg() > 0 {
		return o, usageError{fmt.Errorf("%q is more than run takes", f.Arg(0))}
	}
	return o, nil
}

// run is the service. It returns nil when ctx ends, an error only for what an
// admin must repair.
func run(ctx context.Context, o options, stderr io.Writer) error {
	all := ctx // the life of the agent, not that of a link
	bound()
	loosen()
	runtime.GOMAXPROCS(1) // one core at most is taken from who computes, and no thread spins for work
	log := slog.New(slog.NewTextHandler(stderr, nil))
	dialer := head.Dialer{Bind: o.bind, Version: o.version}
	id, err := know(ctx, o, dialer, log)
	if err != nil || ctx.Err() != nil {
		return err
	}
	config := link.Config{Head: o.head.String(), Dialer: dialer, Log: log}
	if o.head.Scheme == "https" {
		config.TLS = id.TLS()
	}
	client := head.New(o.head.String(), dialer, config.TLS)
	defer client.Close()
	commands := command.New(log)
	config.Reports = &link.Reports{Else: client}
	reporter := report.New(report.Config{
		Send: config.Reports, Version: o.version, Log: log, Run: commands, Plugins: o.plugins, Env: []string{"MUSTER_ATTRIBUTES=" + filepath.Join(o.state, attributes.FileINI)},
	})
	keeper := newKeeper(o, client, commands, reporter, log)
	defer keeper.Wait()
	files := overlay.New(overlay.Config{Root: o.root, Log: log, Told: func(r overlay.Report) { reporter.Set("overlay", r) }})
	applier := newApplier(o, dialer, config.TLS, files, commands, reporter, log)
	config.Accepted = func(h wire.Hello) { reporter.Every(h.Every) }
	config.Hello = func() wire.Hello {
		return wire.Hello{Agent: o.version, BootID: report.BootID(), InImage: true}
	}
	config.Serve = func(ctx context.Context, s net.Conn, h wire.Header) {
		switch {
		case h.Type == wire.StreamExec && h.Exec != nil:
			commands.Serve(ctx, s, *h.Exec)
		case h.Type == wire.StreamAttributes && h.Attributes != nil:
			if err := keeper.Take(all, *h.Attributes); err != nil {
				log.Warn(err.Error())
				reporter.Set("attributes_error", err.Error())
				return
			}
			reporter.Set("attributes_error", nil)
		case h.Type == wire.StreamOverlay && h.Overlay != nil:
			err := takeFiles(s, files, *h.Overlay)
			if err != nil {
				log.Warn("the node's own files were not taken", "error", err)
				reporter.Set("overlay_error", err.Error())
				return
			}
			reporter.Set("overlay_error", nil)
		case h.Type == wire.StreamApply && h.Apply != nil:
			applier.Serve(ctx, s, *h.Apply)
		}
	}
	var parts sync.WaitGroup
	parts.Go(func() { link.Run(ctx, config) })
	parts.Go(func() { reporter.Run(ctx) })
	parts.Go(func() { tend(ctx) })
	parts.Go(func() {
		if err := network.Renew(ctx, o.state, log); err != nil {
			log.Warn("the address is not renewed", "error", err)
		}
	})
	parts.Wait()
	return nil
}

// newApplier ends what was under way when the agent stopped, and tells which
// version the root is of.
func newApplier(o options, d head.Dialer, trust *tls.Config, files *overlay.Keeper, commands *command.Runner, reporter *report.Reporter, log *slog.Logger) *apply.Applier {
	source := pull.New(o.head.String(), d)
	if trust != nil {
		source.Client = &http.Client{Transport: d.Transport(trust)}
	}
	source.Trouble = func(err error) { log.Warn(err.Error()) }
	told := func(r apply.Record) { reporter.Set("image", r.Said()) }
	a := apply.New(apply.Config{Root: o.root, Source: source, Log: log, Own: files, Run: commands.Run, Told: told})
	if err := a.Recover(); err != nil {
		log.Error("a change of the root that was under way could not be ended", "error", err)
	}
	if r, err := apply.Load(o.root); err != nil {
		log.Warn(err.Error())
	} else if r != nil {
		told(*r)
	}
	return a
}

// takeFiles asks for the node's own files, where they are not those that it has.
func takeFiles(s io.ReadWriter, files *overlay.Keeper, all wire.Overlay) error {
	if !files.Wants(all.Digest) {
		return nil
	}
	if _, err := s.Write([]byte{1}); err != nil {
		return err
	}
	h, err := wire.ReadHeader(s)
	if err != nil {
		return err
	}
	if h.Overlay == nil {
		return errors.New("the head sends something else")
	}
	_, err = files.Take(*h.Overlay)
	return err
}

// givenCA reads the authority that --ca names.
func givenCA(file string) (*x509.Certificate, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("--ca: %w", err)
	}
	ca, err := identity.ParseCA(text)
	if err != nil {
		return nil, fmt.Errorf("--ca %s: %w", file, err)
	}
	return ca, nil
}

// know loads the identity, and for an https head learns its authority: from
// the file that was given, else from what was learned before, else by asking
// the head now and trusting its answer from then on.
func know(ctx context.Context, o options, d head.Dialer, log *slog.Logger) (*identity.Identity, error) {
	id, err := identity.Load(o.state)
	if err != nil || o.head.Scheme != "https" {
		return id, err
	}
	if o.ca != "" {
		id.CA, err = givenCA(o.ca)
		return id, err
	}
	said := ""
	for delay := time.Second; id.CA == nil; delay = min(2*delay, 15*time.Second) {
		id.CA, err = identity.TrustOnFirstUse(ctx, d, o.head.String())
		if err == nil {
			log.Info("from now on only this head is trusted", "head", o.head.Host, "authority", id.CA.Subject.CommonName, "kept in", o.state)
			return id, id.Save(o.state)
		}
		if err.Error() != said {
			log.Warn("the head's authority is not known yet", "error", err)
			said = err.Error()
		}
		select {
		case <-ctx.Done():
			return id, nil
		case <-time.After(delay/2 + rand.N(delay)):
		}
	}
	return id, nil
}
