package conformance

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"muster/controller/app"
)

// root is where the published API begins.
const root = "/api/v1"

// headName is the host name of the heads made here.
const headName = "conformance"

// programs are those that a head has beside itself.
type programs struct{ agent, pam string }

// built makes them once for all tests.
var built = sync.OnceValues(func() (programs, error) {
	dir, err := os.MkdirTemp("", "muster-programs")
	if err != nil {
		return programs{}, err
	}
	p := programs{filepath.Join(dir, "muster-agent"), filepath.Join(dir, "muster-pam")}
	for path, what := range map[string][2]string{p.agent: {"muster/agent", "0"}, p.pam: {"muster/controller/auth/muster-pam", "1"}} {
		cmd := exec.Command("go", "build", "-buildvcs=false", "-ldflags", "-s -w", "-o", path, what[0])
		cmd.Env = append(os.Environ(), "CGO_ENABLED="+what[1])
		if out, err := cmd.CombinedOutput(); err != nil {
			return p, fmt.Errorf("building %s: %w: %s", what[0], err, out)
		}
	}
	return p, nil
})

// head is a complete one that runs in this process, with everything below a
// directory of its own and listening on loopback.
type head struct {
	testing.TB
	dir         string
	programs    programs
	http, https string // URLs
	operator    string // the admin that a first start makes
	token       string // of the operator
	refresh     string
	powerless   string // token of an admin without any role

	mu      sync.Mutex
	clients map[string]*http.Client // by the address that they call from
}

// startHead runs a head until the test ends. Packing the agent for it takes a
// second, so that not every one gets its programs.
func startHead(tb testing.TB, withPrograms bool) *head {
	tb.Helper()
	var p programs
	if withPrograms {
		var err error
		if p, err = built(); err != nil {
			tb.Fatal(err)
		}
	}
	// A Unix socket's path must be short.
	dir, err := os.MkdirTemp("", "muster")
	if err != nil {
		tb.Fatal(err)
	}
	h := &head{TB: tb, dir: dir, programs: p, clients: map[string]*http.Client{}}
	cfg := app.Defaults()
	cfg.Data, cfg.HTTP, cfg.HTTPS, cfg.Name = dir, "127.0.0.1:0", "127.0.0.1:0", headName
	cfg.Agent, cfg.PAMHelper = p.agent, p.pam
	ctx, cancel := context.WithCancel(context.Background())
	running, err := app.New(ctx, cfg, slog.New(slog.NewTextHandler(io.Discard, nil)), &slog.LevelVar{}, "v0.0.0-conformance")
	if err != nil {
		cancel()
		tb.Fatal(err)
	}
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- running.Run(ctx, func() { close(ready) }) }()
	tb.Cleanup(func() {
		for _, c := range h.clients {
			c.CloseIdleConnections()
		}
		cancel()
		if err := <-done; err != nil {
			tb.Errorf("the head ended with %v", err)
		}
		os.RemoveAll(dir)
	})
	select {
	case <-ready:
	case err := <-done:
		done <- err
		tb.Fatal("the head did not start: ", err)
	case <-time.After(time.Minute):
		tb.Fatal("the head does not become ready")
	}
	h.open()
	return h
}

// open learns where the head listens and logs in as its first admin.
func (h *head) open() {
	h.Helper()
	raw, err := os.ReadFile(filepath.Join(h.dir, "head.json"))
	if err != nil {
		h.Fatal(err)
	}
	var where struct{ HTTP, HTTPS string }
	if err := json.Unmarshal(raw, &where); err != nil {
		h.Fatal(err)
	}
	h.http, h.https = where.HTTP, where.HTTPS
	out, err := exec.Command("id", "-un").Output()
	if err != nil {
		h.Fatal(err)
	}
	h.operator = string(out[:len(out)-1])
	c := h.check()
	secret := h.leave(h.operator)
	t := c.anybody().POST("/login", fmt.Sprintf(`{"user":%q,"secret":%q}`, h.operator, secret)).object()
	tokens, _ := t["token"].(map[string]any)
	h.token, _ = tokens["access_token"].(string)
	h.refresh, _ = tokens["refresh_token"].(string)
	c.POST("/admins", `{"name":"powerless","roles":[]}`).uid()
	t = c.POST("/admin/powerless/newtoken", "").object()
	tokens, _ = t["token"].(map[string]any)
	h.powerless, _ = tokens["access_token"].(string)
	if len(c.problems) > 0 || h.token == "" || h.powerless == "" {
		h.Fatalf("nobody can log in: %v", c.problems)
	}
}

// leave puts a one-time secret for user at the head's login socket.
func (h *head) leave(user string) (secret string) {
	h.Helper()
	conn, err := net.Dial("unix", filepath.Join(h.dir, "login.sock"))
	if err != nil {
		h.Fatal(err)
	}
	defer conn.Close()
	secret = rand.Text()
	fmt.Fprintf(conn, `{"user":%q,"secret":%q}`+"\n", user, secret)
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil || line != `{"success":true}`+"\n" && line != `{"success": true}`+"\n" {
		h.Fatalf("the login socket says %q, %v", line, err)
	}
	return secret
}

// client calls from an address of the loopback network, "" for any.
func (h *head) client(from string) *http.Client {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c := h.clients[from]; c != nil {
		return c
	}
	d := &net.Dialer{Timeout: 10 * time.Second}
	if from != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	c := &http.Client{
		Transport: &http.Transport{
			DialContext: d.DialContext,
			// That the certificate is the head's own is tested with `cabundle`.
			TLSClientConfig:    &tls.Config{InsecureSkipVerify: true},
			DisableCompression: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       2 * time.Minute,
	}
	h.clients[from] = c
	return c
}
