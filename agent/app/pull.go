package app

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"muster/agent/head"
	"muster/agent/identity"
	"muster/agent/peer"
	"muster/agent/pull"
)

// pullOptions are the flags of pull.
type pullOptions struct {
	head           *url.URL
	bind           netip.Addr
	ca             string
	image, version string
	form           pull.Form
	into, cache    string
	state          string
	noPeers, json  bool
}

// pulled is what pull prints.
type pulled struct {
	pull.Stats
	Seconds float64 `json:"seconds"`
	Digest  string  `json:"digest"`
	Version int     `json:"version"`
}

func parsePull(args []string, stderr io.Writer) (pullOptions, error) {
	var o pullOptions
	f := flag.NewFlagSet("muster-agent pull", flag.ContinueOnError)
	f.SetOutput(stderr)
	headURL := f.String("head", "", "`URL` of the head, http or https")
	bind := f.String("bind", "", "local `address` of every connection")
	f.StringVar(&o.ca, "ca", "", "`file` with the certificate of the head's authority (PEM); without it an https head is trusted as it is now")
	image := f.String("image", "", "the image, `NAME` or NAME:VERSION; a version is a number or a tag")
	form := f.String("form", string(pull.Tree), "`tree` for files below a directory, squash for one file")
	f.StringVar(&o.into, "into", "", "the `directory` or file to write")
	f.StringVar(&o.cache, "cache", "", "`directory` with what was pulled before")
	f.StringVar(&o.state, "state", "", "`directory` with the node's certificate, which an https head may want to see before it introduces other nodes")
	f.BoolVar(&o.noPeers, "no-peers", false, "fetch from the head only, and give nothing to others")
	f.BoolVar(&o.json, "json", false, "print the figures as JSON")
	if err := f.Parse(args); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			err = usageError{err}
		}
		return o, err
	}
	var err error
	if o.head, o.bind, err = place(*headURL, *bind); err != nil {
		return o, err
	}
	o.image, o.version, _ = strings.Cut(*image, ":")
	o.form = pull.Form(*form)
	switch {
	case o.image == "":
		return o, usageError{errors.New("--image: say which")}
	case o.form != pull.Tree && o.form != pull.Squash:
		return o, usageError{fmt.Errorf("--form %q: want tree or squash", *form)}
	case o.into == "":
		return o, usageError{errors.New("--into: say where to")}
	case f.NArg() > 0:
		return o, usageError{fmt.Errorf("%q is more than pull takes", f.Arg(0))}
	}
	return o, nil
}

func pullCommand(args []string, version string, stdout, stderr io.Writer) error {
	o, err := parsePull(args, stderr)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	began := time.Now()
	debug.SetGCPercent(400) // it does not live long, and has hardly anything but buffers
	log := slog.New(slog.NewTextHandler(stderr, nil))
	dialer := head.Dialer{Bind: o.bind, Version: version}
	source := pull.New(strings.TrimRight(o.head.String(), "/"), dialer)
	trust, err := trusted(ctx, o, dialer)
	if err != nil {
		return err
	}
	if trust != nil {
		source.Client = &http.Client{Transport: dialer.Transport(trust)}
	}
	source.Trouble = func(err error) { log.Warn(err.Error()) }
	p := &pull.Image{Source: source}
	if o.cache != "" {
		if p.Cache, err = pull.OpenCache(o.cache, log); err != nil {
			return fmt.Errorf("--cache %s: %w", o.cache, err)
		}
	}
	pulling := p.Expect()
	defer pulling()
	if !o.noPeers {
		client := head.New(source.Head, dialer, trust)
		defer client.Close()
		fellows, err := peer.Join(ctx, client, p, dialer, log)
		if err != nil {
			return err
		}
		defer fellows.Leave(ctx, lingers)
		p.Peers = peer.NewSwarm(fellows.Group, source, dialer)
	}
	image, err := source.Find(ctx, o.image, o.version)
	if err != nil {
		return err
	}
	if o.form == pull.Tree {
		err = p.Tree(ctx, image, o.into)
	} else {
		err = p.Squash(ctx, image, o.into)
	}
	if err != nil {
		return err
	}
	pulling()
	out := pulled{p.Stats(), time.Since(began).Seconds(), image.Digest, image.Version}
	if o.json {
		return json.NewEncoder(stdout).Encode(out)
	}
	_, err = fmt.Fprintf(stdout, "%s:%d in %.1f s: %d bytes from the head, %d from peers, %d from the cache, %d of indices\n",
		o.image, out.Version, out.Seconds, out.Head, out.Peers, out.Reused, out.Index)
	return err
}

// trusted is the TLS of an https head, nil for http.
func trusted(ctx context.Context, o pullOptions, d head.Dialer) (*tls.Config, error) {
	if o.head.Scheme != "https" {
		return nil, nil
	}
	id := &identity.Identity{}
	var err error
	if o.state != "" {
		if id, err = identity.Load(o.state); err != nil {
			return nil, err
		}
	}
	if o.ca != "" {
		if id.CA, err = givenCA(o.ca); err != nil {
			return nil, err
		}
	}
	if id.CA == nil {
		id.CA, err = identity.TrustOnFirstUse(ctx, d, o.head.String())
	}
	return id.TLS(), err
}
