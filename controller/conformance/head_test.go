package conformance

import (
	"bufio"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"muster/controller/api/apitest"
	"muster/controller/app"
	"muster/controller/app/apptest"
)

// root is where the published API begins.
const root = "/api/v1"

// headName is the host name of the heads made here.
const headName = apptest.Name

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
		cmd := exec.Command("go", "build", "-buildvcs=false", "-trimpath", "-ldflags", "-s -w", "-o", path, what[0])
		cmd.Env = append(os.Environ(), "CGO_ENABLED="+what[1])
		if out, err := cmd.CombinedOutput(); err != nil {
			return p, fmt.Errorf("building %s: %w: %s", what[0], err, out)
		}
	}
	return p, nil
})

// head is a complete one, whose files lie in dir.
type head struct {
	*apptest.Head
	programs  programs
	operator  string // the admin that a first start makes
	token     string // of the operator
	refresh   string
	powerless string // token of an admin without any role
	ignition  string // path of the ignition binary that it is configured with

	contract func() *apitest.Contract // its OpenAPI document

	mu      sync.Mutex
	clients map[string]*http.Client // by the address that they call from
}

// startHead runs a head until the test ends. Packing the agent for it takes a
// second, so that not every one gets its programs.
func startHead(tb testing.TB, withPrograms bool) *head {
	tb.Helper()
	h := &head{clients: map[string]*http.Client{}, ignition: filepath.Join(tb.TempDir(), "ignition")}
	if withPrograms {
		var err error
		if h.programs, err = built(); err != nil {
			tb.Fatal(err)
		}
	}
	h.Head = apptest.Start(tb, func(c *app.Config) {
		c.Agent, c.PAMHelper, c.Ignition = h.programs.agent, h.programs.pam, h.ignition
	})
	h.contract = sync.OnceValue(func() *apitest.Contract { return apitest.ContractOf(tb, h.client(""), h.HTTP) })
	t := h.Login(h.Admin)
	h.operator, h.token, h.refresh = h.Admin, t.Access, t.Refresh
	_, t = h.NewAdmin("powerless")
	h.powerless = t.Access
	tb.Cleanup(func() {
		for _, c := range h.clients {
			c.CloseIdleConnections()
		}
	})
	return h
}

// leave puts a one-time secret for user at the head's login socket.
func (h *head) leave(user string) (secret string) {
	h.Helper()
	conn, err := net.Dial("unix", h.Socket())
	if err != nil {
		h.Fatal(err)
	}
	defer conn.Close()
	secret = rand.Text()
	fmt.Fprintf(conn, `{"user":%q,"secret":%q}`+"\n", user, secret)
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil || strings.TrimSpace(strings.ReplaceAll(line, " ", "")) != `{"success":true}` {
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
