package app_test

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"muster/controller/app"
	"muster/controller/app/apptest"
	"muster/shared/kind"
	"muster/shared/object"
)

// self is the record that a head keeps of itself.
func self(h *apptest.Head) object.Head {
	h.Helper()
	var all map[string]object.Head
	h.Into(&all, "GET", "/heads", nil)
	for _, o := range all {
		if o.Name == apptest.Name {
			return o
		}
	}
	h.Fatalf("the head did not register itself: %v", all)
	return object.Head{}
}

func again(t *testing.T, h *apptest.Head) *apptest.Head {
	t.Helper()
	h.Stop()
	return apptest.Start(t, func(c *app.Config) { c.Data = h.Data })
}

func refused(t *testing.T, a apptest.Answer, status int, reason string) {
	t.Helper()
	if a.Status != status || !strings.Contains(a.Reason, reason) || a.Success == nil || *a.Success {
		t.Errorf("got %d %s, want %d with %q", a.Status, a.Raw, status, reason)
	}
}

func TestHeadRegistersItself(t *testing.T) {
	h := apptest.Start(t, nil)
	o := self(h)
	if !kind.UIDPattern.MatchString(o.UID) || !strings.HasPrefix(o.SSHPublic, "ssh-ed25519 ") || !strings.Contains(o.CAPEM, "BEGIN CERTIFICATE") || o.PeerURL != h.HTTPS || o.LastModifiedBy != "muster" {
		t.Errorf("it registered as %+v", o)
	}
	h.OK("PATCH", "/head/"+o.UID, `{"description":"in the corner"}`)
	refused(t, h.As(h.Token(), "PUT", "/head/"+o.UID, o), 405, "PUT")
	refused(t, h.As(h.Token(), "PATCH", "/head/"+o.UID, `{"uid":"`+strings.Repeat("0", 32)+`"}`), 400, "Unhandled parameter(s): uid")
	refused(t, h.As(h.Token(), "DELETE", "/head/"+o.UID, nil), 409, "only head")
	refused(t, h.As("", "POST", "/database/leave", nil), 409, "only head")
	refused(t, h.As(h.Token(), "POST", "/heads", map[string]any{"uid": o.UID, "ssh_public": o.SSHPublic}), 409, "Head with uid="+o.UID+" already exists.")
	h = again(t, h)
	if now := self(h); now.UID != o.UID || now.SSHPublic != o.SSHPublic || now.Description != "in the corner" || now.PeerURL != h.HTTPS {
		t.Errorf("after a restart it is %+v", now)
	}
	// The database is lost, the head is the same.
	h.Stop()
	if err := os.Remove(filepath.Join(h.Data, "muster.db")); err != nil {
		t.Fatal(err)
	}
	if now := self(again(t, h)); now.UID != o.UID || now.Description != "" {
		t.Errorf("with a new database it is %+v", now)
	}
}

// TestHeadsThatAreDown has a second, real head: it is not down while it runs.
func TestHeadsThatAreDown(t *testing.T) {
	h, other := apptest.Start(t, nil), apptest.Start(t, nil)
	him := self(other)
	me := self(h)
	h.OK("POST", "/heads", map[string]any{"uid": him.UID, "ssh_public": him.SSHPublic, "ca_pem": him.CAPEM, "peer_url": him.PeerURL, "name": "head2", "addresses": "192.0.2.7"})
	impostor, silent := strings.Repeat("1", 32), strings.Repeat("2", 32)
	h.OK("POST", "/heads", map[string]any{"uid": impostor, "ssh_public": him.SSHPublic, "ca_pem": him.CAPEM, "peer_url": him.PeerURL})
	h.OK("POST", "/heads", map[string]any{"uid": silent, "ssh_public": him.SSHPublic})
	down := func(method string) string {
		t.Helper()
		var list []struct{ UID, Reason string }
		h.Into(&list, method, "/heads/down", nil)
		var out []string
		for _, o := range list {
			if o.Reason == "" {
				t.Errorf("%s is down without a reason", o.UID)
			}
			out = append(out, o.UID)
		}
		slices.Sort(out)
		return strings.Join(out, " ")
	}
	if got := down("GET"); got != impostor+" "+silent {
		t.Errorf("down are %s", got)
	}
	if got := down("DELETE"); got != impostor+" "+silent {
		t.Errorf("removed were %s", got)
	}
	var seen struct {
		This, Up bool
		Name     string
	}
	if h.Into(&seen, "GET", "/cluster/head/head2", nil); seen.This || !seen.Up {
		t.Errorf("the other head is %+v", seen)
	}
	refused(t, h.As(h.Token(), "GET", "/cluster/head/head2/log", nil), 409, him.PeerURL)
	refused(t, h.As(h.Token(), "DELETE", "/head/"+me.UID, nil), 409, "/api/v1/database/leave")
	var hosts map[string]string
	if h.Into(&hosts, "GET", "/cluster/hosts", nil); hosts["head2"] != "192.0.2.7" || hosts[apptest.Name] == "" {
		t.Errorf("hosts are %v", hosts)
	}

	other.Stop()
	if got := down("GET"); got != him.UID {
		t.Errorf("after the other head stopped, down are %q", got)
	}
	refused(t, h.As("", "POST", "/database/leave", nil), 409, "None of the other heads answers")
	if got := down("DELETE"); got != him.UID {
		t.Errorf("removed were %q", got)
	}
	refused(t, h.As(h.Token(), "GET", "/head/head2", nil), 404, "No head found for ID=head2")
}

func TestLeave(t *testing.T) {
	h, other := apptest.Start(t, nil), apptest.Start(t, nil)
	him, me := self(other), self(h)
	h.OK("POST", "/heads", map[string]any{"uid": him.UID, "ssh_public": him.SSHPublic, "ca_pem": him.CAPEM, "peer_url": him.PeerURL})
	if a := h.As("", "POST", "/database/leave", nil); a.Status != 200 || !strings.Contains(string(a.Data), me.UID) {
		t.Fatalf("leaving: %d %s", a.Status, a.Raw)
	}
	h.Stop() // it ends by itself, and without an error
	if err := apptest.Fails(t, func(c *app.Config) { c.Data = h.Data }); err == nil || !strings.Contains(err.Error(), "has left") {
		t.Errorf("it starts again with %v", err)
	}
	if err := os.Remove(filepath.Join(h.Data, "left")); err != nil {
		t.Fatal(err)
	}
	if now := self(again(t, h)); now.UID != me.UID {
		t.Errorf("it came back as %s", now.UID)
	}
}

type shownService struct {
	Name, Status string
	Enabled      bool
	Restarting   bool
}

func services(t *testing.T, a apptest.Answer) map[string]shownService {
	t.Helper()
	var list []shownService
	if err := json.Unmarshal(a.Data, &list); a.Status != 200 || err != nil {
		t.Fatalf("%d %s", a.Status, a.Raw)
	}
	out := map[string]shownService{}
	for _, s := range list {
		out[s.Name] = s
	}
	return out
}

func TestServicesReallyStopAndStart(t *testing.T) {
	h := apptest.Start(t, nil)
	do := func(status string, names ...string) apptest.Answer {
		t.Helper()
		return h.As("", "POST", "/head/services", map[string]any{"status": status, "services": names})
	}
	all := services(t, h.As("", "GET", "/head/services", nil))
	for _, name := range []string{"http", "https", "fleet", "library", "login-socket", "agent-archive"} {
		if s := all[name]; s.Status != "up" || !s.Enabled {
			t.Errorf("%s is %+v", name, s)
		}
	}
	for _, c := range []struct {
		status  int
		body    any
		because string
	}{
		{400, `{}`, "both"}, {400, `{"status":"stop"}`, "both"}, {400, `{"status":"stop","services":[]}`, "empty"}, {400, `{"status":"stop","services":"https"}`, "services"},
		{400, `{"status":"stop,explode","services":["https"]}`, "explode"}, {400, `{"status":"","services":["https"]}`, "none of"},
		{404, `{"status":"stop","services":["https","dchp"]}`, "dchp"}, {404, `{"status":"stop","services":["objects"]}`, "objects"},
		{409, `{"status":"stop","services":["https","http"]}`, "through itself"}, {409, `{"status":"start,disable","services":["http"]}`, "through itself"},
		{409, `{"status":"stop","services":["fleet"]}`, "restart it instead"}, {400, `{"status":"stop","services":["https"],"x":1}`, "x"},
		{400, `{"status":"` + strings.Repeat("start,", 20) + `start","services":["https"]}`, "too many"},
	} {
		a := h.As("", "POST", "/head/services", c.body)
		if a.Status != c.status || !strings.Contains(strings.ToLower(a.Reason), c.because) {
			t.Errorf("%v: %d %s, want %d %q", c.body, a.Status, a.Raw, c.status, c.because)
		}
	}
	if now := services(t, h.As("", "GET", "/head/services", nil)); fmt.Sprint(now) != fmt.Sprint(all) {
		t.Errorf("what was refused was done: %v", now)
	}

	sweb := strings.TrimPrefix(h.HTTPS, "https://")
	answers := func(addr string) bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	}
	if s := services(t, do("stop", "https", "login-socket")); s["https"].Status != "down" || s["login-socket"].Status != "down" || answers(sweb) {
		t.Errorf("stopped, but: %v", s)
	}
	if _, err := net.Dial("unix", h.Socket()); err == nil {
		t.Error("the login socket answers")
	}
	if raw, _ := os.ReadFile(filepath.Join(h.Data, "head.json")); strings.Contains(string(raw), "https:") {
		t.Errorf("clients on this machine are told %s", raw)
	}
	if s := services(t, do("start, restart,reload", "https", "login-socket", "library", "fleet")); s["https"].Status != "up" {
		t.Errorf("started, but: %v", s)
	}
	var where struct{ HTTPS string }
	raw, _ := os.ReadFile(filepath.Join(h.Data, "head.json"))
	if err := json.Unmarshal(raw, &where); err != nil || !answers(strings.TrimPrefix(where.HTTPS, "https://")) {
		t.Errorf("https does not answer at %s", raw)
	}
	if h.Login(h.Admin).Access == "" {
		t.Error("the login socket does not answer")
	}
}

// TestServiceThatAnswersRestarts: the answer comes first.
func TestServiceThatAnswersRestarts(t *testing.T) {
	h := apptest.Start(t, func(c *app.Config) { c.HTTP = freePort(t) })
	s := services(t, h.As("", "POST", "/head/services", `{"status":"restart","services":["http"]}`))
	if !s["http"].Restarting {
		t.Errorf("http is %+v", s["http"])
	}
	for deadline := time.Now().Add(time.Minute); ; { // it is down for a moment
		resp, err := http.Get(h.HTTP + "/api/v1/head/services")
		if err == nil {
			resp.Body.Close()
			if strings.Count(h.Logged.String(), "msg=serving") > 1 {
				break
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("http does not come back: %v\n%s", err, h.Logged)
		}
	}
}

func freePort(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestDisabledServicesStayDown(t *testing.T) {
	h := apptest.Start(t, nil)
	s := services(t, h.As("", "POST", "/head/services", `{"status":"disable","services":["https","library"]}`))
	if s["https"].Enabled || s["https"].Status != "up" {
		t.Errorf("disabling touches what runs: %+v", s["https"])
	}
	h = again(t, h)
	if s := services(t, h.As("", "GET", "/head/services", nil)); s["https"].Status != "down" || s["library"].Status != "down" || s["http"].Status != "up" {
		t.Errorf("after a restart: %v", s)
	}
	if h.HTTPS != "" {
		t.Errorf("clients are told of %s", h.HTTPS)
	}
	if s := services(t, h.As("", "POST", "/head/services", `{"status":"enable,start","services":["https"]}`)); !s["https"].Enabled || s["https"].Status != "up" {
		t.Errorf("enabled and started: %v", s)
	}
	if h = again(t, h); h.HTTPS == "" {
		t.Error("enabled, but it did not start")
	}
}

// TestOnlyHeadsMayStopServices: other loopback addresses are not this head's.
func TestOnlyHeadsMayStopServices(t *testing.T) {
	h := apptest.Start(t, nil)
	from := &http.Client{Transport: &http.Transport{DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9)}}).DialContext, TLSClientConfig: &tls.Config{}}}
	for _, r := range [][2]string{{"GET", "/head/services"}, {"POST", "/head/services"}, {"POST", "/database/leave"}} {
		req, err := http.NewRequest(r[0], h.HTTP+"/api/v1"+r[1], strings.NewReader(`{"status":"stop","services":["https"]}`))
		if err != nil {
			t.Fatal(err)
		}
		refused(t, h.Send(from, req), 403, "127.0.0.9")
	}
}

func TestHeadLog(t *testing.T) {
	h := apptest.Start(t, nil)
	uid := self(h).UID
	var log struct {
		Head  string
		Lines []struct {
			Time             float64
			Level, Text, ISO string
		}
	}
	h.Into(&log, "GET", "/cluster/head/"+uid+"/log?lines=1000&level=info", nil)
	found := false
	for _, l := range log.Lines {
		found = found || l.Level == "info" && strings.HasPrefix(l.Text, "serving ") && l.Time > 1e9
		if strings.Contains(l.Text, h.Token()) {
			t.Errorf("a token is in the log: %s", l.Text)
		}
	}
	if !found || log.Head != uid {
		t.Errorf("the log is %+v", log)
	}
	for _, q := range []string{"?lines=0", "?lines=x", "?level=loud", "?nonsense=1"} {
		refused(t, h.As(h.Token(), "GET", "/cluster/head/"+uid+"/log"+q, nil), 400, "")
	}
	refused(t, h.As(h.Token(), "GET", "/cluster/head/nobody/log", nil), 404, "No head found for ID=nobody")
	var now struct {
		This, Up bool
		Now      struct {
			Version  string
			Services []shownService
		}
	}
	if h.Into(&now, "GET", "/cluster/head/"+uid, nil); !now.This || !now.Up || now.Now.Version != "test" || len(now.Now.Services) < 5 {
		t.Errorf("this head is %+v", now)
	}
	if a := h.As("", "GET", "/head/peerurl", nil); string(a.Data) != `"`+h.HTTPS+`"` {
		t.Errorf("peerurl is %s, the head is at %s", a.Raw, h.HTTPS)
	}
}

// TestWholeCluster: GET /cluster tells of the head too, and its ETag still
// guards the settings.
func TestWholeCluster(t *testing.T) {
	h := apptest.Start(t, nil)
	a := h.As(h.Token(), "GET", "/cluster", nil)
	var c map[string]any
	if err := json.Unmarshal(a.Data, &c); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"time", "iso", "version", "auth", "monitoring", "image_formats", "plugins", "default_group", "accept_new_nodes", "head_uid"} {
		if _, ok := c[key]; !ok {
			t.Errorf("there is no %s in %s", key, a.Data)
		}
	}
	change := func(tag string) int {
		req, err := http.NewRequest("PATCH", h.HTTP+"/api/v1/cluster", strings.NewReader(`{"cluster_name":"c"}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+h.Token())
		req.Header.Set("If-Match", tag)
		return h.Send(http.DefaultClient, req).Status
	}
	if tag := a.Header.Get("ETag"); tag == "" || change(tag) != 200 || change(tag) != 412 {
		t.Errorf("the tag %q guards nothing", tag)
	}
	if a := h.As(h.Token(), "GET", "/cluster?fields=cluster_name", nil); string(a.Data) != `{"cluster_name":"c"}` {
		t.Errorf("one field is %s", a.Raw)
	}
}

// TestEveryServiceRestarts: what was up is up again, and the head lives.
func TestEveryServiceRestarts(t *testing.T) {
	h := apptest.Start(t, func(c *app.Config) { c.DNS, c.HTTP = freePort(t), freePort(t) })
	up := services(t, h.As("", "GET", "/head/services", nil))
	for range 2 {
		for name := range up {
			if name == "http" { // it is what answers
				continue
			}
			s := services(t, h.As("", "POST", "/head/services", map[string]any{"status": "restart,reload", "services": []string{name}}))
			if s[name].Status != "up" {
				t.Errorf("%s is %+v", name, s[name])
			}
		}
	}
	if up["dns"].Status != "up" {
		t.Errorf("services are %v", up)
	}
	if now := services(t, h.As("", "GET", "/head/services", nil)); len(now) != len(up) {
		t.Errorf("services are %v", now)
	}
}
