package app_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"muster/controller/api"
	"muster/controller/app/apptest"
	"muster/shared/kind"
	"muster/shared/object"
)

// walker is somebody who tries every route.
type walker struct {
	name  string
	from  string // source address
	roles []string
	// kinds of being known, beside what the roles give
	admin, node, head bool
	refresh           bool // sends the refresh token instead
}

// The addresses from which walkers come. Only the first is a head's.
const (
	headAddr, nodeAddr, otherAddr = "127.0.0.1", "127.0.0.77", "127.0.0.78"
)

func walkers() []walker {
	out := []walker{
		{name: "nobody", from: otherAddr},
		{name: "a node", from: nodeAddr, node: true},
		{name: "a head", from: headAddr, head: true},
		{name: "no role", from: otherAddr, admin: true},
		{name: "a refresh token", from: otherAddr, admin: true, refresh: true, roles: []string{object.RoleFullAdmin}},
		{name: "one permission", from: otherAddr, admin: true, roles: []string{"NodesRead"}},
		{name: "one taken away", from: otherAddr, admin: true, roles: []string{object.RoleFullAdmin, "-NodesRead"}},
		{name: "two roles", from: otherAddr, admin: true, roles: []string{object.RoleOnsiteEngineer, object.RoleImagingAdmin}},
		{name: "full without access", from: otherAddr, admin: true, roles: []string{object.RoleFullAdmin, object.RoleNoAccess}},
	}
	for _, r := range object.Roles() {
		out = append(out, walker{name: r.Name, from: otherAddr, admin: true, roles: []string{r.Name}})
	}
	return out
}

// verdict is what a route must answer as far as permission goes.
type verdict string

const (
	unknown   verdict = "401"
	forbidden verdict = "403"
	noNode    verdict = "404 no node"
	letIn     verdict = "let in"
)

// expected is written from what the permissions mean, not from the code that
// checks them.
func expected(w walker, p kind.Permission, can map[kind.Permission]bool) verdict {
	switch p {
	case kind.Public:
		return letIn
	case kind.NodeOnly:
		if w.node {
			return letIn
		}
		return noNode
	case kind.HeadOnly:
		if w.head {
			return letIn
		}
		return forbidden
	}
	switch {
	case !w.admin || w.refresh:
		return unknown
	case !can[p]:
		return forbidden
	}
	return letIn
}

func given(a apptest.Answer) verdict {
	switch {
	case a.Status == http.StatusUnauthorized:
		return unknown
	case a.Status == http.StatusForbidden:
		return forbidden
	case a.Status == http.StatusNotFound && strings.HasPrefix(a.Reason, "No node found for ID=127."):
		return noNode
	}
	return letIn
}

// TestEveryRouteWithEveryRole sends an empty request for an object that does
// not exist, so that nothing is changed by those who may.
func TestEveryRouteWithEveryRole(t *testing.T) {
	h := apptest.Start(t, nil)
	h.OK("POST", "/nets", `{"first_ip":"`+nodeAddr+`","ip_count":1,"mask_bits":8}`)
	h.OK("POST", "/nodes", `{"mac":"52:54:00:00:00:77"}`)
	rights := object.NewRights(object.All())
	for i, w := range walkers() {
		t.Run(w.name, func(t *testing.T) {
			client := from(w.from)
			defer client.CloseIdleConnections()
			token, tried := "", 0
			if w.admin {
				_, set := h.NewAdmin("walker"+string(rune('a'+i)), w.roles...)
				token = set.Access
				if w.refresh {
					token = set.Refresh
				}
			}
			for _, route := range h.Routes() {
				// The two that check by themselves are tested in controller/auth.
				if route.Permission == kind.OnlyLocal {
					continue
				}
				a, streams := try(t, h, client, route, token)
				want := expected(w, route.Permission, rights.Of(w.roles))
				tried++
				if got := given(a); !streams && got != want && !ownCheck(route, want, got) {
					t.Errorf("%s %s (%s): %s, want %s: %d %.200s", route.Method, route.Path, route.Permission, got, want, a.Status, a.Raw)
				}
			}
			t.Logf("%d routes", tried)
		})
	}
	if h.As(h.Token(), "GET", "/whoami", nil).Status != http.StatusOK {
		t.Error("after all this the first admin cannot go on")
	}
}

// ownCheck passes over handlers that refuse for a reason of their own: what
// they say of whom is tested with them.
func ownCheck(r api.Route, want, got verdict) bool {
	if want != letIn {
		return false
	}
	switch r.Path {
	case api.Root + "/whereami": // asked from where no node is
		return got == noNode
	case api.Root + "/admin/{id}/newtoken", api.Root + "/admin/{id}/revoke": // of an admin who is not there
		return got == forbidden
	}
	return r.Permission == kind.Public && got == noNode // scripts for the node that asks
}

var wildcard = regexp.MustCompile(`\{[^}]*\}`)

// try sends one request; streams says that the answer is one that does not end.
func try(t *testing.T, h *apptest.Head, client *http.Client, r api.Route, token string) (a apptest.Answer, streams bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, r.Method, h.HTTP+wildcard.ReplaceAllString(r.Path, "no-such"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := client.Do(req)
	if errors.Is(err, context.DeadlineExceeded) {
		return a, true
	}
	if err != nil {
		t.Fatalf("%s %s: %v", r.Method, r.Path, err)
	}
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		resp.Body.Close()
		return a, true
	}
	if !strings.HasPrefix(r.Path, api.Root) && resp.StatusCode == http.StatusOK { // other programs' formats
		resp.Body.Close()
		return apptest.Answer{Status: resp.StatusCode}, false
	}
	return apptest.Read(t, resp), false
}

// from is a client whose connections come from that address.
func from(addr string) *http.Client {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(addr)}}
	return &http.Client{
		Transport:     &http.Transport{DialContext: d.DialContext},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// public are the routes that need no token, so that none becomes public by a
// slip: * stands for one word, ** for the rest.
var public = []string{
	"GET /api/v1/*/meta", "POST /api/v1/login", "GET /api/v1/login/challenge",
	"GET /api/v1/cluster/database", "GET /api/v1/cluster/time", "GET /api/v1/cluster/hosts", "GET /api/v1/cluster/sshkeys", "GET /api/v1/cluster/cabundle",
	"GET /api/v1/head/peerurl", "GET /api/v1/gitrepo/*/url", "GET /api/v1/gitrepo/*/repo", "GET /api/v1/gitrepo/*/repo/**", "POST /api/v1/gitrepo/*/repo/**",
	"GET /api/v1/gitrepo/*/content", "GET /api/v1/gitrepo/*/content/**", "GET /api/v1/distro/*/sources",
	"GET /api/v1/kickstart/**", "GET /api/v1/ztp/script", "GET /api/v1/ignition/bin", "GET /api/v1/ignition/*",
	"GET /api/v1/install/**", "POST /api/v1/install/password", "GET /api/v1/openapi.json", "GET /api/v1/docs**",
	"POST /agent/v1/enrol", "GET /boot/v1/**", "GET /repo/*/key/*", "GET /repo/*/mirrors/*", "GET /repo/*/tree/**",
	"GET /agent/v1/image/*", "GET /agent/v1/index/*", "POST /agent/v1/chunks",
}

func TestPermissionsOfRoutes(t *testing.T) {
	h := apptest.Start(t, nil)
	declared := append(kind.Permissions(object.All()), kind.LoggedIn, kind.NodeOnly, kind.HeadOnly, kind.OnlyLocal, kind.Public)
	known := map[string]bool{}
	for _, r := range h.Routes() {
		line := r.Method + " " + r.Path
		if known[line] {
			t.Errorf("%s is there twice", line)
		}
		known[line] = true
		if !slices.Contains(declared, r.Permission) {
			t.Errorf("%s needs the permission %s, which no role can give: list it in shared/kind/permission.go", line, r.Permission)
		}
		if r.Permission == kind.Public && !slices.ContainsFunc(public, func(p string) bool { return matches(p, line) }) {
			t.Errorf("%s is open to everybody: if that is meant, list it here", line)
		}
		if r.Permission == kind.OnlyLocal && line != "GET /api/v1/newtoken" && line != "POST /api/v1/logout" {
			t.Errorf("%s checks by itself who asks: if that is meant, list it here and test it", line)
		}
	}
}

func matches(pattern, line string) bool {
	p := regexp.QuoteMeta(pattern)
	p = strings.ReplaceAll(p, `\*\*`, `.*`)
	p = strings.ReplaceAll(p, `\*`, `[^/]*`)
	ok, err := regexp.MatchString("^"+p+"$", line)
	return ok && err == nil
}
