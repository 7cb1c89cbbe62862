package auth

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"muster/controller/api"
	"muster/shared/kind"
	"muster/shared/object"
)

// TestMain lets a test run this program again as another user, see socketChild.
func TestMain(m *testing.M) {
	if path := os.Getenv("MUSTER_TEST_SOCKET"); path != "" {
		socketChild(path, os.Getenv("MUSTER_TEST_LINE"))
	}
	status := m.Run()
	if helper.path != "" {
		os.RemoveAll(filepath.Dir(helper.path))
	}
	os.Exit(status)
}

// room is everything around the service: who exists, and what time it is.
type room struct {
	mu       sync.Mutex
	time     time.Time
	admins   map[string]Admin // by UID
	nodes    map[netip.Addr]string
	enrolled map[string]string // UID to serial
	heads    map[netip.Addr]bool
}

func (x *room) now() time.Time {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.time
}

func (x *room) pass(d time.Duration) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.time = x.time.Add(d)
}

func (x *room) set(a Admin) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.admins[a.UID] = a
}

func (x *room) drop(uid string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.admins, uid)
}

// RevokeTokens does what the registry's transaction does.
func (x *room) RevokeTokens(_ context.Context, _ kind.Author, uid string) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	a := x.admins[uid]
	a.Generation++
	x.admins[uid] = a
	return nil
}

func (x *room) AdminByUID(uid string) (Admin, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	a, ok := x.admins[uid]
	return a, ok
}

func (x *room) AdminByName(name string) (Admin, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, a := range x.admins {
		if a.Name == name {
			return a, true
		}
	}
	return Admin{}, false
}

func (x *room) NodeByAddr(a netip.Addr) (string, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	uid, ok := x.nodes[a]
	return uid, ok
}

func (x *room) Enrolled(uid string) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	_, ok := x.enrolled[uid]
	return ok
}

func (x *room) CertValid(uid, serial string) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	s, ok := x.enrolled[uid]
	return ok && s == serial
}

func (x *room) IsHead(a netip.Addr) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.heads[a] || OwnAddress(a)
}

// The admins of every test.
var (
	full    = Admin{UID: strings.Repeat("f", 32), Name: "full", Roles: []string{object.RoleAuthUser, object.RoleFullAdmin}}
	reader  = Admin{UID: strings.Repeat("a", 32), Name: "reader", Roles: []string{object.RoleAuthUser}}
	nobody  = Admin{UID: strings.Repeat("0", 32), Name: "norole"}
	strange = Admin{UID: strings.Repeat("5", 32), Name: "strange", Roles: []string{"role.from.the.future"}}
)

type fixture struct {
	*room
	*Service
	dir, url string
	handler  http.Handler
}

// start serves the service's routes and one for each way to be known.
func start(t *testing.T, change func(*Config)) *fixture {
	t.Helper()
	dir, err := os.MkdirTemp("", "auth")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	x := &room{time: time.Unix(1_800_000_000, 123_000_000), admins: map[string]Admin{}, nodes: map[netip.Addr]string{}, enrolled: map[string]string{}, heads: map[netip.Addr]bool{}}
	for _, a := range []Admin{full, reader, nobody, strange} {
		x.set(a)
	}
	cfg := Config{
		Head: "head1", DataDir: dir, Admins: x, Nodes: x, Heads: x, Now: x.now, Helper: "/nonexistent/muster-pam",
		Rights: object.NewRights(object.All()),
		Log:    slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	if change != nil {
		change(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	routes := append(s.Routes(), api.Route{Method: "POST", Path: "/api/v1/password", Permission: kind.Public, Doc: "test", Answer: api.Nothing{}, Handler: func(w http.ResponseWriter, r *http.Request) error {
		var in struct {
			Pass string `json:"pass"`
		}
		if err := api.Decode(w, r, &in); err != nil {
			return err
		}
		if err := s.VerifyClusterPassword(w, r, in.Pass); err != nil {
			return err
		}
		return api.OK(w)
	}})
	for path, p := range map[string]kind.Permission{
		"public": kind.Public, "me": kind.LoggedIn, "read": "NodesRead", "write": "NodesWrite", "node": kind.NodeOnly,
		"head": kind.HeadOnly, "reserved": kind.ReservedAttribRead, "unlisted": "Unlisted",
	} {
		routes = append(routes, api.Route{Method: "GET", Path: "/api/v1/" + path, Permission: p, Doc: "test", Answer: map[string]string{}, Handler: func(w http.ResponseWriter, r *http.Request) error {
			c := api.CallerOf(r.Context())
			return api.Data(w, map[string]string{"admin": c.Admin, "node": c.Node, "addr": c.Addr.String()})
		}})
	}
	h, err := api.New(s, cfg.Log, routes)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return &fixture{room: x, Service: s, dir: dir, url: srv.URL, handler: h}
}

type reply struct {
	Success bool
	Reason  string
	Data    struct {
		User, UserID, UID string
		AuthorizedBy      string `json:"authorized_by"`
		Roles             []string
		Admin, Node, Addr string
		Challenge         string
		Token             struct {
			Access         string  `json:"access_token"`
			ExpiresIn      float64 `json:"expires_in"`
			Refresh        string  `json:"refresh_token"`
			RefreshExpires float64 `json:"refresh_expires_in"`
		}
	}
	status int
	raw    string
	header http.Header
}

// ask sends a request; headers are name, value, name, value …
func (f *fixture) ask(t *testing.T, client *http.Client, method, url, body string, headers ...string) reply {
	t.Helper()
	if !strings.HasPrefix(url, "http") {
		url = f.url + "/api/v1/" + url
	}
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	out := reply{status: res.StatusCode, raw: string(raw), header: res.Header}
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatalf("%s %s: %v in %q", method, url, err, raw)
	}
	if out.Success != (out.status == 200) || !out.Success && out.Reason == "" {
		t.Errorf("%s %s: envelope does not fit status %d: %s", method, url, out.status, raw)
	}
	return out
}

func (f *fixture) get(t *testing.T, path, token string) reply {
	t.Helper()
	if token == "" {
		return f.ask(t, http.DefaultClient, "GET", path, "")
	}
	return f.ask(t, http.DefaultClient, "GET", path, "", "Authorization", "Bearer "+token)
}

// tokensOf logs the admin in with a one-time secret.
func (f *fixture) tokensOf(t *testing.T, a Admin) (access, refresh string) {
	t.Helper()
	if err := f.secrets.add(a.Name, "a secret that is long enough"); err != nil {
		t.Fatal(err)
	}
	r := f.ask(t, http.DefaultClient, "POST", "login", `{"user":"`+a.Name+`","secret":"a secret that is long enough"}`)
	if r.status != 200 || r.Data.User != a.Name {
		t.Fatalf("login of %s: %s", a.Name, r.raw)
	}
	return r.Data.Token.Access, r.Data.Token.Refresh
}

func (r reply) want(t *testing.T, what string, status int, reason string) {
	t.Helper()
	if r.status != status || !strings.Contains(r.Reason, reason) {
		t.Errorf("%s: got %d %q, want %d with %q", what, r.status, r.Reason, status, reason)
	}
}

// from is a client whose connections come from that address.
func from(addr string, config *tls.Config) *http.Client {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(addr)}}
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: config, DialContext: func(ctx context.Context, network, to string) (net.Conn, error) {
		return d.DialContext(ctx, network, to)
	}}}
}

func TestRolesDecide(t *testing.T) {
	f := start(t, nil)
	for _, c := range []struct {
		admin   Admin
		allowed string
		reason  string
	}{
		{full, "public me read write reserved", "lacks the permission Unlisted"},
		{reader, "public me read", "lacks the permission"},
		{nobody, "public", "has no role"},
		{strange, "public", "has no role"},
	} {
		access, _ := f.tokensOf(t, c.admin)
		for _, path := range strings.Fields("public me read write reserved unlisted") {
			r := f.get(t, path, access)
			if strings.Contains(" "+c.allowed+" ", " "+path+" ") {
				r.want(t, c.admin.Name+" "+path, 200, "")
			} else {
				r.want(t, c.admin.Name+" "+path, 403, c.reason)
			}
		}
	}
	access, _ := f.tokensOf(t, reader)
	f.get(t, "write", access).want(t, "reader", 403, "NodesWrite")
	f.get(t, "read", "").want(t, "without token", 401, "needs a token")
	f.get(t, "public", "rubbish").want(t, "public with a bad token", 200, "")
}

func TestChangesTakeEffectAtOnce(t *testing.T) {
	f := start(t, nil)
	access, refresh := f.tokensOf(t, reader)
	f.get(t, "read", access).want(t, "before", 200, "")
	more := reader
	more.Roles = full.Roles
	f.set(more)
	f.get(t, "write", access).want(t, "with more roles", 200, "")
	more.Roles = nil
	f.set(more)
	f.get(t, "read", access).want(t, "without roles", 403, "has no role")
	f.get(t, "newtoken", refresh).want(t, "refresh without roles", 403, "has no role")
	f.drop(reader.UID)
	f.get(t, "read", access).want(t, "deleted", 401, "deleted")
	f.get(t, "newtoken", refresh).want(t, "refresh of a deleted admin", 401, "deleted")
}

func TestTokenReachesThroughHeaderOrSubprotocol(t *testing.T) {
	f := start(t, nil)
	access, _ := f.tokensOf(t, reader)
	for _, c := range []struct {
		what    string
		status  int
		headers []string
	}{
		{"lower case", 200, []string{"Authorization", "bearer " + access}},
		{"upper case and spaces", 200, []string{"Authorization", " BEARER   " + access}},
		{"basic", 401, []string{"Authorization", "Basic " + access}},
		{"bare", 401, []string{"Authorization", access}},
		{"empty", 401, []string{"Authorization", "Bearer "}},
		{"two headers", 401, []string{"Authorization", "Bearer " + access, "Authorization", "Bearer " + access}},
		{"websocket", 200, []string{"Upgrade", "WebSocket", "Sec-WebSocket-Protocol", "muster, muster.bearer." + access}},
		{"subprotocol without websocket", 401, []string{"Sec-WebSocket-Protocol", "muster.bearer." + access}},
	} {
		req, _ := http.NewRequest("GET", "/api/v1/me", nil)
		for i := 0; i < len(c.headers); i += 2 {
			req.Header.Add(c.headers[i], c.headers[i+1])
		}
		req.RemoteAddr = "192.0.2.1:1"
		w := httptest.NewRecorder()
		f.handler.ServeHTTP(w, req)
		if w.Code != c.status {
			t.Errorf("%s: %d %s", c.what, w.Code, w.Body)
		}
	}
}

func TestOldSecretIsKept(t *testing.T) {
	f := start(t, nil)
	access, _ := f.tokensOf(t, full)
	again, err := New(f.cfg)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(again.tokens.secret, f.tokens.secret) {
		t.Fatal("the secret changed with a restart")
	}
	if _, err := again.tokens.verify(access, accessToken); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(f.dir+"/token-secret", []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(f.cfg); err == nil || !strings.Contains(err.Error(), "5 bytes") {
		t.Fatalf("a short secret: %v", err)
	}
}

func BenchmarkAuthenticate(b *testing.B) {
	x := &room{time: time.Now(), admins: map[string]Admin{full.UID: full}}
	s, err := New(Config{Head: "h", DataDir: b.TempDir(), Admins: x, Nodes: x, Heads: x, Log: slog.Default(), Now: x.now, Rights: object.NewRights(object.All())})
	if err != nil {
		b.Fatal(err)
	}
	token, err := s.tokens.sign(full, accessToken, "", time.Hour, false)
	if err != nil {
		b.Fatal(err)
	}
	b.RunParallel(func(pb *testing.PB) {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		for pb.Next() {
			if _, err := s.Authenticate(r, "NodesRead"); err != nil {
				b.Fatal(err)
			}
		}
	})
}
