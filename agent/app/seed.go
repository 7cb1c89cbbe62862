package app

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"

	"muster/agent/head"
	"muster/agent/peer"
	"muster/agent/pull"
)

// place reads the flags that say where the head is and where the node.
func place(headURL, bind string) (u *url.URL, addr netip.Addr, err error) {
	if u, err = url.Parse(headURL); err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, addr, usageError{fmt.Errorf("--head %q: want the head's URL, such as http://10.0.0.1:8080", headURL)}
	}
	if bind != "" {
		if addr, err = netip.ParseAddr(bind); err != nil {
			return nil, addr, usageError{fmt.Errorf("--bind: %w", err)}
		}
	}
	return u, addr, nil
}

// lingers is how long who has everything goes on giving to who has not.
const lingers = 3 * time.Second

func seedCommand(args []string, version string, stderr io.Writer) error {
	var o pullOptions
	f := flag.NewFlagSet("muster-agent seed", flag.ContinueOnError)
	f.SetOutput(stderr)
	headURL := f.String("head", "", "`URL` of the head, http or https")
	bind := f.String("bind", "", "local `address` where others ask, and of every connection")
	f.StringVar(&o.ca, "ca", "", "`file` with the certificate of the head's authority (PEM); without it an https head is trusted as it is now")
	f.StringVar(&o.state, "state", "", "`directory` with the node's certificate, for an https head")
	f.StringVar(&o.cache, "cache", "", "`directory` with what was pulled before")
	if err := f.Parse(args); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			err = usageError{err}
		}
		return err
	}
	var err error
	if o.head, o.bind, err = place(*headURL, *bind); err != nil {
		return err
	}
	switch {
	case o.cache == "":
		return usageError{errors.New("--cache: say which")}
	case f.NArg() > 0:
		return usageError{fmt.Errorf("%q is more than seed takes", f.Arg(0))}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewTextHandler(stderr, nil))
	cache, err := pull.OpenCache(o.cache, log)
	if err != nil {
		return fmt.Errorf("--cache %s: %w", o.cache, err)
	}
	dialer := head.Dialer{Bind: o.bind, Version: version}
	trust, err := trusted(ctx, o, dialer)
	if err != nil {
		return err
	}
	client := head.New(o.head.String(), dialer, trust)
	defer client.Close()
	fellows, err := peer.Join(ctx, client, cache, dialer, log)
	if err != nil {
		return err
	}
	log.Info("offering", "cache", o.cache, "port", fellows.Server.Port())
	<-ctx.Done()
	fellows.Leave(ctx, lingers)
	return nil
}
