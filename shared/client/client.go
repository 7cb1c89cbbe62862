// Package client speaks the head's REST API: for the command line, the agent's
// tools and the tests.
//
// It turns the envelope into a value or a *fault.Error that is the same as the
// head's own, keeps a set of tokens fresh, and carries bytes both ways without
// holding them in memory. It reads no flags, environment or configuration and
// knows no kind: those who call it name paths, or kinds by their words.
package client

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
	"net/url"
	"strings"
	"sync"
	"time"

	"muster/shared/fault"
)

// Root is where the published API begins.
const Root = "/api/v1"

// Bounds on what is read of an answer, in bytes. A list of 10,000 nodes with
// their hardware has about 100 MiB.
const (
	maxAnswer = 512 << 20
	maxReason = 64 << 10
)

// Options are what New has to be told.
type Options struct {
	Head string // URL of the head, "https://head:8443"; a path in it is kept
	TLS  *tls.Config
	// Tokens are those to begin with; the zero value for none.
	Tokens Tokens
	// Login gets tokens where there are none or the head no longer takes them;
	// nil when there is no way without asking somebody.
	Login func(ctx context.Context, c *Client) (Tokens, error)
	// Save is told each new set that the client got, nil for nobody.
	Save func(Tokens)
}

// Client speaks to one head. It is safe for concurrent use.
type Client struct {
	base  *url.URL
	http  *http.Client
	tls   *tls.Config
	login func(context.Context, *Client) (Tokens, error)
	save  func(Tokens)

	mu     sync.Mutex // held while tokens are renewed, so that only one does it
	tokens Tokens
}

// New makes a client; nothing is sent yet.
func New(opt Options) (*Client, error) {
	base, err := ParseHead(opt.Head)
	if err != nil {
		return nil, err
	}
	c := &Client{base: base, tls: opt.TLS, login: opt.Login, save: opt.Save, tokens: opt.Tokens}
	c.http = &http.Client{
		Transport: &http.Transport{
			Proxy:                 nil, // a head is in the machine room, not behind the way out
			DialContext:           (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
			TLSClientConfig:       opt.TLS,
			TLSHandshakeTimeout:   10 * time.Second,
			ExpectContinueTimeout: 2 * time.Second,
			MaxIdleConnsPerHost:   64,
			IdleConnTimeout:       time.Minute,
			ForceAttemptHTTP2:     true,
			DisableCompression:    true, // what is downloaded comes byte for byte
		},
		// A token must not follow a redirection to somebody else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, nil
}

// ParseHead checks the URL of a head.
func ParseHead(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, fmt.Errorf("%q is not the URL of a head such as http://127.0.0.1:8080", text)
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("the URL of a head is scheme, host and port, without user, query or fragment: %q", u.Redacted())
	}
	u.Path = strings.TrimRight(u.Path, "/")
	return u, nil
}

// Head is the URL that the client speaks to.
func (c *Client) Head() string { return c.base.String() }

// Close lets idle connections go.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Path joins words to a path below Root, each escaped.
func Path(words ...string) string {
	var b strings.Builder
	b.WriteString(Root)
	for _, w := range words {
		b.WriteByte('/')
		b.WriteString(escape(w))
	}
	return b.String()
}

// escape makes one segment of a path; "." and ".." would be taken for steps.
func escape(word string) string {
	if strings.Trim(word, ".") == "" {
		return strings.ReplaceAll(word, ".", "%2E")
	}
	return url.PathEscape(word)
}

// Call sends in as JSON (nil for no body) to an escaped path, which may have a
// query, and decodes the answer's data into out (nil to pass it over).
func (c *Client) Call(ctx context.Context, method, path string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = encode(in); err != nil {
			return err
		}
	}
	resp, err := c.do(ctx, request{method: method, path: path, body: rewindable(body), size: int64(len(body)), kind: "application/json"})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return c.decode(resp, out)
}

// decode reads the success envelope.
func (c *Client) decode(resp *http.Response, out any) error {
	limit := &io.LimitedReader{R: resp.Body, N: maxAnswer}
	d := json.NewDecoder(limit)
	d.UseNumber()
	var env struct {
		Success *bool           `json:"success"`
		Reason  string          `json:"reason"`
		Data    json.RawMessage `json:"data"`
	}
	err := d.Decode(&env)
	switch {
	case limit.N <= 0:
		return fmt.Errorf("the head's answer is larger than %d MiB", maxAnswer>>20)
	case err != nil && resp.Request.Context().Err() != nil:
		return resp.Request.Context().Err()
	case err != nil:
		return fmt.Errorf("the answer of %s is no JSON of a head: %w", c.base, err)
	case env.Success == nil:
		return fmt.Errorf("%s answers, but is no head of muster", c.base)
	case !*env.Success:
		return fault.FromStatus(resp.StatusCode, env.Reason)
	case out == nil:
		return nil
	}
	if raw, ok := out.(*json.RawMessage); ok {
		*raw = env.Data
		return nil
	}
	d = json.NewDecoder(bytes.NewReader(env.Data))
	d.UseNumber()
	if err := d.Decode(out); err != nil {
		return fmt.Errorf("the answer of %s has another form than this program knows: %w", c.base, err)
	}
	return nil
}

// failure turns an answer with an error's status into the head's fault.
func failure(resp *http.Response) *fault.Error {
	raw, _ := io.ReadAll(io.LimitReader(resp.Body, maxReason)) // what came is all there is to say
	var env struct{ Reason string }
	if json.Unmarshal(raw, &env) != nil || env.Reason == "" {
		env.Reason = fmt.Sprintf("The head answered %s without a reason.", resp.Status)
	}
	return fault.FromStatus(resp.StatusCode, env.Reason)
}

// unreachable says what to do about an error of the transport.
func (c *Client) unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err
	}
	if cause := untrusted(err); cause != nil {
		return cause
	}
	return &fault.Error{Code: fault.Unavailable, Err: err,
		Reason: fmt.Sprintf("The head at %s cannot be reached: %v.", c.base, err)}
}
