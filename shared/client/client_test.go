package client

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"muster/shared/fault"
)

// These tests are about what no good head does, and about tokens that end. The
// client against a real head is tested with the command line.

func newClient(t *testing.T, h http.Handler, opt Options) (*Client, *httptest.Server) {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	opt.Head = srv.URL
	c, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, srv
}

func text(body string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, body) })
}

func TestAnswers(t *testing.T) {
	for body, want := range map[string]string{
		`{"success":true,"data":{"a":1}}`: "",
		`{"success":false,"reason":"x"}`:  "x",
		`{"data":{"a":1}}`:                "is no head of muster",
		`hello`:                           "is no JSON of a head",
		``:                                "is no JSON of a head",
		`{"success":true,"data":[1]}`:     "another form",
		`{"success":true,"data":{"a":`:    "is no JSON of a head",
	} {
		c, _ := newClient(t, text(body), Options{})
		_, err := Get[map[string]int](t.Context(), c, "node", "n0")
		if (want == "") != (err == nil) || (err != nil && !strings.Contains(err.Error(), want)) {
			t.Errorf("%s gives %v, want %q", body, err, want)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add(200, `{"success":true,"data":{}}`)
	f.Add(404, `{"success":false,"reason":"No node found for ID=x"}`)
	f.Add(500, "\x00")
	f.Add(302, "")
	f.Fuzz(func(t *testing.T, status int, body string) {
		c := &Client{base: must(ParseHead("http://h"))}
		resp := &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(body)), Request: httptest.NewRequest("GET", "/", nil)}
		var out map[string]any
		if err := c.decode(resp, &out); err == nil && !strings.Contains(body, "true") {
			t.Errorf("%q is taken for success", body)
		}
		resp.Body = io.NopCloser(strings.NewReader(body))
		if failure(resp).Reason == "" {
			t.Errorf("%q fails without a reason", body)
		}
	})
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestParseHead(t *testing.T) {
	for in, want := range map[string]string{
		"http://h": "http://h", "https://h:1/": "https://h:1", "http://[::1]:8/x/": "http://[::1]:8/x",
		"h:80": "", "": "", "ftp://h": "", "http://": "", "http://u:p@h": "", "http://h?x": "", "http://h#x": "", "http://h:port": "",
	} {
		u, err := ParseHead(in)
		if (want == "") != (err != nil) || (err == nil && u.String() != want) {
			t.Errorf("%q: %v, %v", in, u, err)
		}
		if err != nil && strings.Contains(err.Error(), "p@") {
			t.Errorf("the password in a URL is shown: %v", err)
		}
	}
}

// TestPath: a name cannot leave its place in the path.
func TestPath(t *testing.T) {
	got := make(chan string, 1)
	c, _ := newClient(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got <- r.RequestURI
		io.WriteString(w, `{"success":true}`)
	}), Options{})
	for id, want := range map[string]string{"a b": "a%20b", "a/../b?c#d": "a%2F..%2Fb%3Fc%23d", "..": "%2E%2E", "é": "%C3%A9", "1:2": "1:2"} {
		if err := c.Delete(t.Context(), "node", id); err != nil {
			t.Fatal(err)
		}
		if uri := <-got; uri != "/api/v1/node/"+want {
			t.Errorf("%q is asked for as %s", id, uri)
		}
	}
}

// head takes one access token at a time and gives another for its refresh token.
type tokenHead struct {
	n         atomic.Int64 // number of the token that is good
	refreshes atomic.Int64
}

func (h *tokenHead) set(n int64) string {
	return fmt.Sprintf(`{"success":true,"data":{"userid":"bob","token":{"access_token":"a%d","expires_in":1200,"refresh_token":"r%d","refresh_expires_in":9999}}}`, n, n)
}

func (h *tokenHead) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	refuse := func() {
		w.WriteHeader(http.StatusUnauthorized)
		io.WriteString(w, `{"success":false,"reason":"expired"}`)
	}
	auth := r.Header.Get("Authorization")
	switch {
	case r.URL.Path == Root+"/newtoken":
		if !strings.HasPrefix(auth, "Bearer r") {
			refuse()
			return
		}
		h.refreshes.Add(1)
		io.WriteString(w, h.set(h.n.Load()))
	case auth != fmt.Sprintf("Bearer a%d", h.n.Load()):
		refuse()
	default:
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, `{"success":true,"data":{}}`)
	}
}

// TestRefresh: a token that ended is renewed once, however many requests need
// it, and those who keep it are told.
func TestRefresh(t *testing.T) {
	h := &tokenHead{}
	h.n.Store(2)
	var saved []Tokens
	c, _ := newClient(t, h, Options{
		Tokens: Tokens{User: "bob", Access: "a1", Refresh: "r1", Ends: time.Now().Add(time.Hour), RefreshEnd: time.Now().Add(time.Hour)},
		Save:   func(s Tokens) { saved = append(saved, s) },
	})
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if err := c.Patch(t.Context(), "node", "n0", map[string]int{"a": 1}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := h.refreshes.Load(); n != 1 || len(saved) != 1 || saved[0].Access != "a2" || saved[0].User != "bob" {
		t.Errorf("%d refreshes, saved %v", n, saved)
	}
	// An upload cannot be sent twice: the token must be good before.
	h.n.Store(3)
	if err := c.Upload(t.Context(), Path("image", "x", "content"), strings.NewReader("content"), 7, nil); err != nil {
		t.Error(err)
	}
	// A token that is about to end is not even tried.
	h.n.Store(4)
	c.SetTokens(Tokens{Access: "a4", Refresh: "r4", Ends: time.Now().Add(time.Second), RefreshEnd: time.Now().Add(time.Hour)})
	before := h.refreshes.Load()
	if err := c.Delete(t.Context(), "node", "n0"); err != nil || h.refreshes.Load() != before+1 {
		t.Errorf("%v after %d refreshes", err, h.refreshes.Load()-before)
	}
}

// TestLoginAgain: where the refresh token is no good either, Login is asked; its
// error is the request's.
func TestLoginAgain(t *testing.T) {
	h := &tokenHead{}
	h.n.Store(7)
	asked := 0
	why := errors.New("ask somebody")
	old := Tokens{Access: "a1", Refresh: "x", Ends: time.Now().Add(time.Hour), RefreshEnd: time.Now().Add(time.Hour)}
	c, _ := newClient(t, h, Options{Tokens: old, Login: func(context.Context, *Client) (Tokens, error) {
		if asked++; asked > 1 {
			return Tokens{}, why
		}
		return Tokens{Access: "a7", Ends: time.Now().Add(time.Hour)}, nil
	}})
	if err := c.Delete(t.Context(), "node", "n0"); err != nil || asked != 1 {
		t.Errorf("%v, asked %d times", err, asked)
	}
	h.n.Store(8)
	if err := c.Delete(t.Context(), "node", "n0"); !errors.Is(err, why) {
		t.Errorf("got %v", err)
	}
	c, _ = newClient(t, h, Options{Tokens: old})
	if err := c.Delete(t.Context(), "node", "n0"); !fault.Is(err, fault.Unauthenticated) || err.Error() != "expired" {
		t.Errorf("without any way to log in: %v", err)
	}
}

// TestRedirect: a token does not follow to somebody else.
func TestRedirect(t *testing.T) {
	var got atomic.Bool
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { got.Store(true) }))
	defer other.Close()
	c, _ := newClient(t, http.RedirectHandler(other.URL, http.StatusTemporaryRedirect), Options{Tokens: Tokens{Access: "a", Ends: time.Now().Add(time.Hour)}})
	if err := c.Delete(t.Context(), "node", "n0"); err == nil || got.Load() {
		t.Errorf("followed (%v): %v", got.Load(), err)
	}
}

func TestUnreachable(t *testing.T) {
	c, srv := newClient(t, text(""), Options{})
	srv.Close()
	if _, err := c.Whoami(t.Context()); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), srv.URL) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Whoami(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// TestRefusedUpload: a head that says no before the body is sent is understood,
// and nothing is sent.
func TestRefusedUpload(t *testing.T) {
	c, _ := newClient(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "GET" {
			io.WriteString(w, `{"success":true,"data":{}}`)
			return
		}
		w.WriteHeader(http.StatusConflict)
		io.WriteString(w, `{"success":false,"reason":"frozen"}`)
	}), Options{})
	sent := int64(0)
	err := c.Upload(t.Context(), "/x", bytes.NewReader(make([]byte, 64<<20)), 64<<20, func(n int64) { sent = n })
	if !fault.Is(err, fault.Conflict) || err.Error() != "frozen" || sent > 0 {
		t.Errorf("%v after %d bytes", err, sent)
	}
}

// TestBrokenOff: an answer that ends too early is never taken for a whole one.
func TestBrokenOff(t *testing.T) {
	cut := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", trailerStatus)
		io.WriteString(w, "some output")
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	c, _ := newClient(t, cut, Options{})
	var out bytes.Buffer
	if _, err := c.Download(t.Context(), "/x", &out, nil); !fault.Is(err, fault.Unavailable) || out.String() != "some output" {
		t.Errorf("download: %v, %q", err, &out)
	}
	if _, _, err := c.Exec(t.Context(), "n0", Command{Cmd: "x"}, io.Discard); err == nil {
		t.Error("exec: no error")
	}
	c, _ = newClient(t, text("output"), Options{})
	if _, _, err := c.Exec(t.Context(), "n0", Command{Cmd: "x"}, io.Discard); !errors.Is(err, ErrNoStatus) {
		t.Errorf("exec without a status: %v", err)
	}
}

func TestExitStatus(t *testing.T) {
	for in, want := range map[string]int{"0": 0, "143": 143, "": -1, "x": -1} {
		h := http.Header{}
		h.Set(trailerStatus, in)
		h.Set(trailerError, `"no such \u00e9"`)
		status, why, err := exitStatus(h)
		if (want < 0) != (err != nil) || (err == nil && (status != want || why != "no such é")) {
			t.Errorf("%q: %d %q %v", in, status, why, err)
		}
	}
}

// TestTrust: an unknown authority is told as such; once fetched and trusted,
// the same head is spoken to.
func TestTrust(t *testing.T) {
	srv := httptest.NewUnstartedServer(text(`{"success":true,"data":{"userid":"bob"}}`))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0) // refused handshakes are what is tested
	srv.StartTLS()
	defer srv.Close()
	system := must(TLS(nil))
	c := must(New(Options{Head: srv.URL, TLS: system}))
	_, err := c.Whoami(t.Context())
	var untrusted *Untrusted
	if !errors.As(err, &untrusted) || !untrusted.Unknown() {
		t.Fatalf("got %v", err)
	}
	ca, err := FetchAuthority(t.Context(), srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	if len(Fingerprint(ca)) != 64 {
		t.Errorf("fingerprint %s", Fingerprint(ca))
	}
	c = must(New(Options{Head: srv.URL, TLS: must(TLS(PEM(ca)))}))
	if w, err := c.Whoami(t.Context()); err != nil || w.Name != "bob" {
		t.Errorf("%v, %v", w, err)
	}
	// The right authority for another name is no reason to trust anew.
	named := must(TLS(PEM(ca)))
	named.ServerName = "other.example"
	c = must(New(Options{Head: srv.URL, TLS: named}))
	if _, err := c.Whoami(t.Context()); !errors.As(err, &untrusted) || untrusted.Unknown() || !strings.Contains(err.Error(), "other") {
		t.Errorf("got %v", err)
	}
	if _, err := TLS(pem.EncodeToMemory(&pem.Block{Type: "X"})); err == nil {
		t.Error("something else is taken for a certificate")
	}
}

// TestTerminalEnds: a terminal whose connection goes without a word is an error,
// never an exit status of 0.
func TestTerminalEnds(t *testing.T) {
	for end, want := range map[string]string{"": "broke off", "{": "nonsense", `{"status":3,"error":"x"}`: ""} {
		c, _ := newClient(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ws, err := (&websocket.Upgrader{}).Upgrade(w, r, nil)
			if err != nil {
				return
			}
			defer ws.Close()
			ws.WriteMessage(websocket.BinaryMessage, []byte("shown"))
			if end != "" {
				ws.WriteMessage(websocket.TextMessage, []byte(end))
			}
		}), Options{})
		term, err := c.Shell(t.Context(), "n0", Size{Rows: 1, Cols: 2}, "vt100", "")
		if err != nil {
			t.Fatal(err)
		}
		out, err := io.ReadAll(term)
		if string(out) != "shown" || (want == "") != (err == nil) || (err != nil && !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %q, %v", end, out, err)
		}
		if status, why := term.Exit(); want == "" && (status != 3 || why != "x") {
			t.Errorf("status %d, %q", status, why)
		}
		term.Close()
	}
	c, _ := newClient(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusConflict)
		io.WriteString(w, `{"success":false,"reason":"not connected"}`)
	}), Options{})
	if _, err := c.Shell(t.Context(), "n0", Size{}, "", ""); !fault.Is(err, fault.Conflict) {
		t.Errorf("got %v", err)
	}
}
