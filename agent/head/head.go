// Package head asks the head for what fits in one request and one answer:
// steps of the boot, what to become, enrolment, status.
//
// Streams are agent/link's and images agent/pull's. The package must not keep
// or judge identities: its TLS configuration is given to it.
package head

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"muster/shared/wire"
)

// Bounds on one request.
const (
	timeout   = 15 * time.Second
	maxAnswer = 4 << 20 // bytes
)

// Dialer makes the agent's connections.
type Dialer struct {
	Bind    netip.Addr // local address; the zero value lets the kernel choose
	Version string     // of the build, sent along
}

// Net is the dialer for anything but plain requests.
func (d Dialer) Net() *net.Dialer {
	nd := &net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}
	if d.Bind.IsValid() {
		nd.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(d.Bind, 0))
	}
	return nd
}

// Header is what every request of the agent carries.
func (d Dialer) Header() http.Header {
	return http.Header{
		wire.HeaderAgent:   {d.Version},
		wire.HeaderVersion: {strconv.Itoa(wire.Version)},
	}
}

// Transport makes connections for HTTP/1.1, without a proxy: the head is near.
func (d Dialer) Transport(t *tls.Config) *http.Transport {
	return &http.Transport{
		DialContext:           d.Net().DialContext,
		TLSClientConfig:       t,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: timeout,
		IdleConnTimeout:       90 * time.Second,
		MaxIdleConnsPerHost:   4,
		DisableCompression:    true,
		ReadBufferSize:        4 << 10,
		WriteBufferSize:       4 << 10,
	}
}

// Client talks to one head at one URL.
type Client struct {
	base   string
	header http.Header
	http   *http.Client
}

// New makes a client for a base URL such as "https://10.0.0.1:8443"; t is nil
// for plain http.
func New(base string, d Dialer, t *tls.Config) *Client {
	return &Client{
		base:   strings.TrimRight(base, "/"),
		header: d.Header(),
		http:   &http.Client{Transport: d.Transport(t), Timeout: timeout, CheckRedirect: noRedirect},
	}
}

// noRedirect: a head answers itself, and a certificate must not travel on.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// Close ends idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Refused is an answer that says no: asking the same again is of no use until
// something changes at the head.
type Refused struct {
	Status int
	Reason string
}

func (r *Refused) Error() string {
	return fmt.Sprintf("the head refuses: %s (HTTP %d)", r.Reason, r.Status)
}

// Call sends in as JSON, unless it is nil, and decodes the answer's data into
// out, unless that is nil. The time is the head's clock as the answer gives
// it, zero when there was none.
func (c *Client) Call(ctx context.Context, method, path string, in, out any) (time.Time, error) {
	if in == nil {
		return c.do(ctx, method, path, nil, out)
	}
	raw, err := json.Marshal(in)
	if err != nil {
		return time.Time{}, err
	}
	return c.do(ctx, method, path, raw, out)
}

// do is Call with a body that is JSON already, nil for none.
func (c *Client) do(ctx context.Context, method, path string, in []byte, out any) (time.Time, error) {
	var body io.Reader
	if in != nil {
		body = bytes.NewReader(in)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return time.Time{}, err
	}
	req.Header = c.header.Clone()
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return time.Time{}, err
	}
	defer resp.Body.Close()
	now, _ := http.ParseTime(resp.Header.Get("Date"))
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return now, fmt.Errorf("%s %s broke off: %w", method, path, err)
	}
	if len(raw) > maxAnswer {
		return now, fmt.Errorf("%s %s: the answer is larger than %d bytes", method, path, maxAnswer)
	}
	if resp.StatusCode != http.StatusOK {
		return now, Refusal(resp.StatusCode, raw)
	}
	return now, decode(raw, out)
}

// Refusal makes an error of an answer that is not 200. 5xx and 429 may pass by
// themselves and are no *Refused.
func Refusal(status int, body []byte) error {
	var e struct {
		Reason  string `json:"reason"`
		Message string `json:"message"`
		Error   string `json:"error"`
	}
	reason := http.StatusText(status)
	if json.Unmarshal(body, &e) == nil {
		for _, text := range []string{e.Reason, e.Message, e.Error} {
			if text != "" {
				reason = text
			}
		}
	}
	return Refuse(status, reason)
}

// Refuse is Refusal where the reason is known.
func Refuse(status int, reason string) error {
	if status >= 500 || status == http.StatusTooManyRequests {
		return fmt.Errorf("the head has a problem: %s (HTTP %d)", reason, status)
	}
	return &Refused{Status: status, Reason: reason}
}

// decode takes the data out of the envelope.
func decode(raw []byte, out any) error {
	var envelope struct {
		Success *bool           `json:"success"`
		Data    json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(raw, &envelope); err != nil || envelope.Success == nil {
		return errors.Join(errors.New("the answer is not one of a head"), err)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(envelope.Data, out); err != nil {
		return fmt.Errorf("the head's answer does not fit: %w", err)
	}
	return nil
}

// Step stamps a step of this boot.
func (c *Client) Step(ctx context.Context, s wire.Step) error {
	_, err := c.Call(ctx, http.MethodPost, wire.PathStep, s, nil)
	return err
}

// Boot asks what this machine shall become. A boot config and an image that are
// named by UID are taken instead of those that the head would choose.
func (c *Client) Boot(ctx context.Context, config, image string) (wire.Boot, error) {
	path, q := wire.PathBoot, url.Values{}
	if config != "" {
		q.Set(wire.QueryConfig, config)
	}
	if image != "" {
		q.Set(wire.QueryImage, image)
	}
	if len(q) > 0 {
		path += "?" + q.Encode()
	}
	var b wire.Boot
	_, err := c.Call(ctx, http.MethodGet, path, nil, &b)
	return b, err
}

// Send sends a report, the JSON of a wire.Status, and gives the head's clock.
func (c *Client) Send(ctx context.Context, report []byte) (time.Time, error) {
	// The transport may still read what it sends when the answer is there.
	return c.do(ctx, http.MethodPut, wire.PathStatus, bytes.Clone(report), nil)
}

// Files gives the node's own files, as they are now. A head that knows of none
// gives none.
func (c *Client) Files(ctx context.Context) (wire.Overlay, error) {
	var all wire.Overlay
	_, err := c.Call(ctx, http.MethodGet, wire.PathFiles, nil, &all)
	if r := (*Refused)(nil); errors.As(err, &r) && r.Status == http.StatusNotFound {
		return wire.Overlay{}, nil
	}
	return all, err
}
