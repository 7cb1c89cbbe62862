package provision

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"syscall"
	"time"

	"muster/shared/fault"
	"muster/shared/object"
)

// fetcher gets configurations from URLs that an admin wrote into attributes.
//
// Whoever may write a node's attributes can so make the head ask any HTTP
// server that it reaches. What comes back is only handed on when it is a valid
// configuration, and errors do not quote it. Addresses of the head itself are
// for those who may do everything, which is judged when one is written
// (shared/object), so that here no name and no redirect may lead to one.
// Addresses of one link only (169.254.0.0/16 and fe80::/10) are refused in any
// case: clouds keep credentials there, and no server of configurations lives
// there.
type fetcher struct {
	client *http.Client
	slots  chan struct{}
}

// Bounds on fetching.
const (
	fetchTime      = 20 * time.Second
	maxRedirects   = 5
	maxFetches     = 16 // at once
	maxConfig      = 1 << 20
	fetchIdleConns = 4
)

func newFetcher(heads func(addr string) bool) *fetcher {
	nowhere := func(a netip.Addr) bool { return a.IsLinkLocalUnicast() || a.IsMulticast() || a.IsUnspecified() }
	offLimits := func(a netip.Addr) bool { return object.OffLimits(a, heads) }
	written, lookedUp := unless(nowhere), unless(offLimits)
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		if host, _, err := net.SplitHostPort(address); err == nil && object.Literal(host) {
			return written.DialContext(ctx, network, address)
		}
		return lookedUp.DialContext(ctx, network, address)
	}
	return &fetcher{slots: make(chan struct{}, maxFetches), client: &http.Client{
		Timeout:   fetchTime,
		Transport: &http.Transport{DialContext: dial, TLSHandshakeTimeout: 5 * time.Second, MaxIdleConns: fetchIdleConns, IdleConnTimeout: time.Minute},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if len(via) > maxRedirects {
				return fmt.Errorf("more than %d redirects", maxRedirects)
			}
			host := r.URL.Hostname()
			if a, err := netip.ParseAddr(host); r.URL.Host != via[0].URL.Host && object.Literal(host) && (err != nil || offLimits(a)) {
				return refusal(host)
			}
			return remote(r.URL)
		},
	}}
}

// refusal is the error for an address.
func refusal(addr string) error {
	return fmt.Errorf("%s is an address that configurations are not fetched from", addr)
}

// unless is a dialer that refuses some addresses, after names are looked up.
func unless(refused func(netip.Addr) bool) *net.Dialer {
	return &net.Dialer{Timeout: 5 * time.Second, Control: func(_, address string, _ syscall.RawConn) error {
		ap, err := netip.ParseAddrPort(address)
		if err != nil {
			return err
		}
		if a := ap.Addr().Unmap(); refused(a) {
			return refusal(a.String())
		}
		return nil
	}}
}

// remote says whether a URL is one that is fetched.
func remote(u *url.URL) error {
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("%q is not fetched, only http and https are", u.Scheme)
	}
	return nil
}

func (f *fetcher) get(ctx context.Context, text string) (string, error) {
	u, err := url.Parse(text)
	if err == nil {
		err = remote(u)
	}
	if err != nil {
		return "", fault.New(fault.Conflict, "The Ignition configuration's URL is not good: %v.", err)
	}
	select {
	case f.slots <- struct{}{}:
		defer func() { <-f.slots }()
	default:
		return "", fault.New(fault.Unavailable, "The head is fetching %d configurations already; try again.", maxFetches)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("Accept", "application/vnd.coreos.ignition+json, */*;q=0.1")
	resp, err := f.client.Do(req)
	if err != nil {
		var cause *url.Error
		if errors.As(err, &cause) {
			err = cause.Err // the whole would quote a password in the URL
		}
		return "", fault.New(fault.Upstream, "The Ignition configuration cannot be fetched from %s: %v.", u.Redacted(), err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", fault.New(fault.Upstream, "The Ignition configuration cannot be fetched from %s: it answers %d.", u.Redacted(), resp.StatusCode)
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxConfig+1))
	switch {
	case err != nil:
		return "", fault.New(fault.Upstream, "The Ignition configuration from %s broke off: %v.", u.Redacted(), err)
	case len(raw) > maxConfig:
		return "", fault.New(fault.Upstream, "The Ignition configuration from %s has more than %d bytes.", u.Redacted(), maxConfig)
	}
	return string(raw), nil
}
