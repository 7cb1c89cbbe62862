// Package apptest runs a whole head for a test: everything that `muster serve`
// runs but the boot services, in a temporary directory and on loopback, driven
// over HTTP with real logins. What needs only the registry and one feature
// takes api/apitest, which starts faster and believes its callers.
package apptest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"muster/controller/api"
	"muster/controller/app"
	"muster/controller/auth"
	"muster/shared/client"
)

// Name is the host name of the heads made here.
const Name = "testhead"

// startTime bounds how long a head may take to become ready, and to end.
const startTime = time.Minute

// Head is a running one.
type Head struct {
	testing.TB
	Data        string // its directory
	HTTP, HTTPS string // URLs, without a path
	Admin       string // the admin that a new head has, who may do everything
	Logged      *Log

	head *app.Head
	stop func()

	mu     sync.Mutex
	tokens map[string]string // access tokens by admin
}

// Start runs a head until the test ends or Stop is called. change, if not nil,
// adjusts its configuration; with the Data of a stopped head it starts again.
func Start(tb testing.TB, change func(*app.Config)) *Head {
	tb.Helper()
	cfg := app.Defaults()
	cfg.HTTP, cfg.HTTPS, cfg.Name, cfg.LogLevel = "127.0.0.1:0", "127.0.0.1:0", Name, "debug"
	if change != nil {
		change(&cfg)
	}
	if cfg.Data == app.Defaults().Data {
		cfg.Data = shortDir(tb)
	}
	admin, err := auth.StartedBy(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	h := &Head{TB: tb, Data: cfg.Data, Admin: admin, Logged: &Log{}, tokens: map[string]string{}}
	h.run(cfg)
	return h
}

// shortDir is a directory whose login.sock has a path that a socket may have.
func shortDir(tb testing.TB) string {
	dir, err := os.MkdirTemp("", "muster")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func (h *Head) run(cfg app.Config) {
	h.Helper()
	// Not the test's own context, which ends before its cleanup: the head is
	// to end by itself and to say if that fails.
	ctx, cancel := context.WithCancel(context.WithoutCancel(h.Context()))
	level := &slog.LevelVar{}
	level.Set(slog.LevelDebug)
	var err error
	if h.head, err = app.New(ctx, cfg, slog.New(slog.NewTextHandler(h.Logged, &slog.HandlerOptions{Level: level})), level, "test"); err != nil {
		cancel()
		h.Fatal(err)
	}
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- h.head.Run(ctx, func() { close(ready) }) }()
	h.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				h.Errorf("the head ended with %v", err)
			}
		case <-time.After(startTime):
			h.Error("the head does not end")
		}
	})
	h.Cleanup(h.Stop)
	select {
	case <-ready:
	case err := <-done:
		done <- nil
		h.Fatalf("the head did not start: %v", err)
	case <-time.After(startTime):
		h.Fatal("the head does not become ready")
	}
	raw, err := os.ReadFile(filepath.Join(h.Data, "head.json"))
	if err == nil {
		err = json.Unmarshal(raw, &struct{ HTTP, HTTPS *string }{&h.HTTP, &h.HTTPS})
	}
	if err != nil {
		h.Fatal(err)
	}
}

// Fails starts a head that is expected not to come up, and gives the reason.
func Fails(tb testing.TB, change func(*app.Config)) error {
	tb.Helper()
	cfg := app.Defaults()
	cfg.HTTP, cfg.HTTPS, cfg.Name = "127.0.0.1:0", "127.0.0.1:0", Name
	change(&cfg)
	ctx, cancel := context.WithCancel(context.WithoutCancel(tb.Context()))
	defer cancel()
	head, err := app.New(ctx, cfg, slog.New(slog.DiscardHandler), &slog.LevelVar{}, "test")
	if err != nil {
		return err
	}
	return head.Run(ctx, cancel)
}

// Stop ends the head; its directory stays until the test ends.
func (h *Head) Stop() { h.stop() }

// Routes is every endpoint that the head serves.
func (h *Head) Routes() []api.Route { return h.head.Routes() }

// Socket is the path of its login socket.
func (h *Head) Socket() string { return filepath.Join(h.Data, "login.sock") }

// Login logs in as an admin, through the socket. Any name will do where the
// test runs as root, else only the own one.
func (h *Head) Login(admin string) client.Tokens {
	h.Helper()
	c, err := client.New(client.Options{Head: h.HTTP})
	if err != nil {
		h.Fatal(err)
	}
	defer c.Close()
	t, err := c.LoginSocket(h.Context(), h.Socket(), admin)
	if err != nil {
		h.Fatalf("logging in as %s: %v", admin, err)
	}
	return t
}

// Token is an access token of the head's first admin.
func (h *Head) Token() string {
	h.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.tokens[h.Admin] == "" {
		h.tokens[h.Admin] = h.Login(h.Admin).Access
	}
	return h.tokens[h.Admin]
}

// NewAdmin creates an admin with these roles and gives the UID and a set of
// tokens. It needs no operating-system user, nor root.
func (h *Head) NewAdmin(name string, roles ...string) (uid string, t client.Tokens) {
	h.Helper()
	if roles == nil {
		roles = []string{}
	}
	h.Into(&uid, "POST", "/admins", map[string]any{"name": name, "roles": roles})
	var set struct {
		Token struct {
			Access  string `json:"access_token"`
			Refresh string `json:"refresh_token"`
		}
	}
	h.Into(&set, "POST", "/admin/"+uid+"/newtoken", nil)
	return uid, client.Tokens{User: name, Access: set.Token.Access, Refresh: set.Token.Refresh}
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

// As sends a request with a token ("" for none). The path is below /api/v1
// unless it begins with /agent/ or /boot/. A body that is a string, bytes or a
// reader goes as it is, anything else as JSON, nil for none.
func (h *Head) As(token, method, path string, body any) Answer {
	h.Helper()
	if !strings.HasPrefix(path, "/agent/") && !strings.HasPrefix(path, "/boot/") {
		path = api.Root + path
	}
	req, err := http.NewRequestWithContext(h.Context(), method, h.HTTP+path, reader(h, body))
	if err != nil {
		h.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	return h.Send(http.DefaultClient, req)
}

// Send sends any request and reads the answer.
func (h *Head) Send(c *http.Client, req *http.Request) Answer {
	h.Helper()
	resp, err := c.Do(req)
	if err != nil {
		h.Errorf("%s %s: %v", req.Method, req.URL, err)
		return Answer{}
	}
	return Read(h, resp)
}

// Read reads an answer and closes it.
func Read(tb testing.TB, resp *http.Response) Answer {
	tb.Helper()
	defer resp.Body.Close()
	a := Answer{Status: resp.StatusCode, Header: resp.Header}
	var err error
	if a.Raw, err = io.ReadAll(resp.Body); err != nil && !errors.Is(err, context.Canceled) {
		tb.Errorf("%s %s: the answer broke off: %v", resp.Request.Method, resp.Request.URL, err)
	}
	if resp.Header.Get("Content-Type") == "application/json" {
		if err := json.Unmarshal(a.Raw, &a); err != nil {
			tb.Errorf("%s %s: %v in %.200s", resp.Request.Method, resp.Request.URL, err, a.Raw)
		}
	}
	return a
}

func reader(tb testing.TB, body any) io.Reader {
	switch b := body.(type) {
	case nil:
		return nil
	case string:
		return strings.NewReader(b)
	case []byte:
		return bytes.NewReader(b)
	case io.Reader:
		return b
	}
	raw, err := json.Marshal(body)
	if err != nil {
		tb.Fatal(err)
	}
	return bytes.NewReader(raw)
}

// OK sends a request as the first admin that must succeed, and gives its data.
func (h *Head) OK(method, path string, body any) json.RawMessage {
	h.Helper()
	a := h.As(h.Token(), method, path, body)
	if a.Status != http.StatusOK || a.Success == nil || !*a.Success {
		h.Fatalf("%s %s: status %d, %.500s", method, path, a.Status, a.Raw)
	}
	return a.Data
}

// Into is OK, with the data decoded into v.
func (h *Head) Into(v any, method, path string, body any) {
	h.Helper()
	if err := json.Unmarshal(h.OK(method, path, body), v); err != nil {
		h.Fatalf("%s %s: %v", method, path, err)
	}
}

// Log is what a head has logged so far.
type Log struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write implements io.Writer.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}
