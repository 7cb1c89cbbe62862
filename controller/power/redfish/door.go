package redfish

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"

	"muster/controller/power/bmc"
)

// door is the way to one BMC: every request carries the credentials (Redfish
// §13.3.2, so that no session is left behind on a BMC that has few), and every
// answer has a bound.
type door struct {
	client         *http.Client
	transport      *http.Transport
	host           string
	user, password string
}

func newDoor(host, user, password string, verify bool) *door {
	d := &door{host: host, user: user, password: password, transport: &http.Transport{
		Proxy:                  nil, // BMCs are in the machine room
		DialContext:            (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		TLSClientConfig:        &tls.Config{InsecureSkipVerify: !verify, MinVersion: tls.VersionTLS10},
		TLSHandshakeTimeout:    5 * time.Second,
		IdleConnTimeout:        30 * time.Second,
		MaxIdleConnsPerHost:    1,
		MaxResponseHeaderBytes: 64 << 10,
	}}
	d.client = &http.Client{Transport: d, CheckRedirect: d.redirect}
	return d
}

// redirect follows a service to another path of its own only.
func (d *door) redirect(r *http.Request, via []*http.Request) error {
	if r.URL.Host != via[0].URL.Host || r.URL.Scheme != via[0].URL.Scheme || len(via) > 3 {
		return errors.New("the BMC redirects to somewhere else")
	}
	return nil
}

// RoundTrip implements http.RoundTripper.
func (d *door) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Host != d.host {
		return nil, errors.New("the BMC names another host")
	}
	r = r.Clone(r.Context())
	if r.Close = false; d.user != "" {
		r.SetBasicAuth(d.user, d.password)
	}
	resp, err := d.transport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	resp.Body = &bounded{resp.Body, maxAnswer}
	return resp, nil
}

// CloseIdleConnections is what the client's method of that name calls.
func (d *door) CloseIdleConnections() { d.transport.CloseIdleConnections() }

// bounded is a body that fails when it is too long.
type bounded struct {
	io.ReadCloser
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, errTooLong
	}
	return n, err
}

var errTooLong = fmt.Errorf("the BMC's answer has more than %d MiB", maxAnswer>>20)

// unreachable says what an error of the transport means. Its text may have
// nothing of the URL, which is why it is not wrapped.
func unreachable(ctx context.Context, err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err
	}
	var timeout net.Error
	var authority x509.UnknownAuthorityError
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, errTooLong):
		return errTooLong
	case errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("no answer: %w", context.DeadlineExceeded)
	case errors.Is(err, syscall.ECONNREFUSED):
		return errors.New("nothing listens there (connection refused)")
	case errors.As(err, &authority):
		return errors.New("its certificate is signed by nobody known here; leave verify=true out to believe it")
	}
	return errors.New(bmc.Clean(err.Error()))
}
