package power_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"

	"muster/controller/api"
	"muster/controller/api/apitest"
	"muster/controller/power/redfish/redfishtest"
)

// node makes a node whose BMC this is, with the credentials in attributes.
func (h *head) node(n byte, b *redfishtest.BMC) string {
	h.Helper()
	uid := h.Create("nodes", apitest.Map{"mac": net.HardwareAddr{2, 0, 0, 0, 0, n}.String(), "attributes": apitest.Map{"user": redfishtest.User, "pass": redfishtest.Password}})
	h.OK("PATCH", "/node/"+uid, apitest.Map{"power_uri": "redfish://<user>:<pass>@" + b.Host()})
	return uid
}

// state reads power_state, with its reason.
func (h *head) state(uid string) (state, reason string) {
	h.Helper()
	a := h.Do("GET", "/node/"+uid+"/power_state", nil)
	if a.Status != 200 || json.Unmarshal(a.Data, &state) != nil {
		h.Fatalf("power_state: %d %s", a.Status, a.Raw)
	}
	return state, a.Reason
}

func TestSwitching(t *testing.T) {
	h, b := start(t), redfishtest.Start(t)
	uid := h.node(1, b)
	if s, why := h.state(uid); s != "on" || why != "" {
		t.Fatal(s, why)
	}
	for _, c := range []struct {
		body, step, state, resets string
		begin                     string
		ignore                    []string
	}{
		{`{"state":"power off"}`, "soft", "off", "GracefulShutdown", "On", nil},
		{`{"state":"off"}`, "already off", "off", "", "Off", nil},
		{`{"state":"power off","force":true}`, "hard", "off", "ForceOff", "On", nil},
		{`{"state":"Power On"}`, "on", "on", "On", "Off", nil},
		{`{"state":"reset"}`, "reset", "on", "ForceRestart", "On", nil},
		{`{"state":"cycle"}`, "on", "on", "GracefulShutdown On", "On", nil},
		{`{"state":"cycle","force":true}`, "cycle", "on", "ForceRestart", "On", nil},
		{`{"state":"cycle"}`, "on", "on", "On", "Off", nil},
		{`{"state":"off","steps":[{"step":"soft","timeout":0.2},"hard"]}`, "hard", "off", "GracefulShutdown ForceOff", "On", []string{"GracefulShutdown"}},
	} {
		b.Set(c.begin)
		b.Ignore(c.ignore...)
		before, _ := b.Seen()
		a := h.Do("PUT", "/node/"+uid+"/power_state", c.body)
		after, _ := b.Seen()
		state, _ := h.state(uid)
		if got := strings.Join(after[len(before):], " "); a.Status != 200 || a.Header.Get("X-Power-Step") != c.step || got != c.resets || state != c.state {
			t.Errorf("%s: %d %s, step %q, %s, %s", c.body, a.Status, a.Raw, a.Header.Get("X-Power-Step"), got, state)
		}
	}
	if len(h.audit) != 9 || h.audit[0] != "admin1 n0 off" {
		t.Error(h.audit)
	}
}

func TestAgentFirst(t *testing.T) {
	h, b := start(t), redfishtest.Start(t)
	uid := h.node(1, b)
	h.agents.set(uid, true)
	h.agents.run = func(string, string) error { b.Set("Off"); return nil }
	a := h.Do("PUT", "/node/"+uid+"/power_state", `{"state":"power off"}`)
	if resets, _ := b.Seen(); a.Header.Get("X-Power-Step") != "agent" || strings.TrimSpace(string(a.Raw)) != `{"success": true}` || len(resets) > 0 {
		t.Errorf("%s %s %v", a.Raw, a.Header, resets)
	}
	if !strings.Contains(h.agents.ran[0], "shutdown -h now") {
		t.Error(h.agents.ran)
	}
	// One that cannot leaves it to the BMC.
	b.Set("On")
	h.agents.run = nil
	a = h.Do("PUT", "/node/"+uid+"/power_state", `{"state":"power off","steps":["agent","hard"]}`)
	if string(a.Data) != `{"step":"hard"}` {
		t.Errorf("%s", a.Raw)
	}
	// Without a BMC the agent is all there is.
	h.OK("PATCH", "/node/"+uid, apitest.Map{"power_uri": "agent://"})
	if s, _ := h.state(uid); s != "on" {
		t.Error(s)
	}
	h.agents.run = func(uid, _ string) error { h.agents.set(uid, false); return nil }
	h.OK("PUT", "/node/"+uid+"/power_state", `{"state":"off"}`)
	if s, why := h.state(uid); s != "unknown" || !strings.Contains(why, "no BMC") {
		t.Error(s, why)
	}
	h.Refused("PUT", "/node/"+uid+"/power_state", `{"state":"on"}`)
}

func TestRefusedOrders(t *testing.T) {
	h, b := start(t), redfishtest.Start(t)
	uid := h.node(1, b)
	for body, word := range map[string]string{
		`{}`: "power off", `{"state":"sideways"}`: "power on", `{"state":"on","colour":1}`: "colour", `{"state":"on","force":"yes"}`: "force",
		`{"state":"off","steps":["hammer"]}`: "hammer", `{"state":"off","steps":[{"step":"soft","timeout":-1}]}`: "timeout",
		`{"state":"on","steps":["soft"]}`: "steps", `{"state":"off","steps":[{"step":"soft","x":1}]}`: "step",
	} {
		if why := h.Refused("PUT", "/node/"+uid+"/power_state", body); !strings.Contains(why, word) {
			t.Errorf("%s: %s", body, why)
		}
	}
	for _, more := range []string{`"force":true`, `"steps":["hard"]`} {
		if why := h.Refused("POST", "/power", `{"nodes":"n0","state":"status",`+more+`}`); !strings.Contains(why, "status only asks") {
			t.Error(why)
		}
	}
	// One order at a time; what is refused is not in the audit trail.
	h.agents.set(uid, true)
	begun, end := make(chan struct{}), make(chan struct{})
	h.agents.run = func(string, string) error { close(begun); <-end; return errors.New("ended") }
	first := make(chan apitest.Answer, 1)
	go func() {
		first <- h.Do("PUT", "/node/"+uid+"/power_state", `{"state":"off","steps":[{"step":"agent","timeout":30},"hard"]}`)
	}()
	apitest.Receive(t, begun)
	noted := len(h.audit)
	if a := h.Do("PUT", "/node/"+uid+"/power_state", `{"state":"on"}`); a.Status != http.StatusConflict {
		t.Errorf("%d %s", a.Status, a.Raw)
	}
	if a := h.Do("POST", "/power", `{"nodes":"n0","state":"on"}`); !strings.Contains(string(a.Raw), `"status":409`) {
		t.Errorf("%s", a.Raw)
	}
	if resets, _ := b.Seen(); len(resets) > 0 || noted != 1 || len(h.audit) != noted {
		t.Errorf("switched %v, noted %v", resets, h.audit)
	}
	close(end)
	if a := apitest.Receive(t, first); string(a.Data) != `{"step":"hard"}` {
		t.Errorf("%d %s", a.Status, a.Raw)
	}
}

// TestBrokenBMCs: each fault has its reason, and none tells the password.
func TestBrokenBMCs(t *testing.T) {
	h := start(t)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	answer := func(text string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			fmt.Fprint(w, text)
			return true
		}
	}
	for i, c := range []struct {
		word   string
		before func(http.ResponseWriter, *http.Request) bool
		uri    string
	}{
		{"refused", nil, "redfish://<user>:wrong<pass>@HOST"},
		{"connection refused", nil, "redfish://<user>:<pass>@" + closed.Addr().String()},
		{"no JSON", answer("<html>" + redfishtest.Password), ""},
		{"no system", answer(`{"Members":[]}`), ""},
		{"not tell a PowerState", answer(`{"Members":[{"@odata.id":"/x"}]}`), ""},
		{"no JSON", answer(`{"PowerState":7,"Members":[{"@odata.id":"/x"}]}`), ""},
		{"no path", answer(`{"Members":[{"@odata.id":"http://elsewhere/"}]}`), ""},
		{"somewhere else", func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
			return true
		}, ""},
		{"more than", func(w http.ResponseWriter, r *http.Request) bool {
			for range 100 {
				if _, err := w.Write(bytes.Repeat([]byte(" "), 64<<10)); err != nil {
					return true
				}
			}
			return true
		}, ""},
		{"refused", nil, "redfish://admin:p@ss@HOST"},
		{"%2F", nil, "redfish://admin:a/b@HOST"},
		{"nothing here speaks", nil, "gopher://HOST"},
		{"no option", nil, "ipmi://a:b@HOST/?-oProxyCommand=x"},
		{"characters that are not allowed", nil, "ssh://-oProxyCommand=x@HOST/n0"},
		{"letters", nil, "ssh://root@HOST/n0;reboot"},
		{"names no domain", nil, "qemu+ssh://root@HOST/system/--help"},
		{"<gone>", nil, "ipmi://<gone>@HOST"},
	} {
		b := redfishtest.Start(t)
		b.Before(c.before)
		uid := h.node(byte(i), b)
		if c.uri != "" {
			h.OK("PATCH", "/node/"+uid, apitest.Map{"power_uri": strings.ReplaceAll(c.uri, "HOST", b.Host())})
		}
		state, why := h.state(uid)
		if state != "unknown" || !strings.Contains(why, c.word) {
			t.Errorf("%s: %s (%s)", c.word, state, why)
		}
		a := h.Do("PUT", "/node/"+uid+"/power_state", `{"state":"power on"}`)
		if a.Status < 400 || a.Reason == "" {
			t.Errorf("%s: %d %s", c.word, a.Status, a.Raw)
		}
		for _, text := range []string{why, a.Reason, h.said()} {
			if strings.Contains(text, redfishtest.Password) || strings.Contains(text, url.QueryEscape(redfishtest.Password)) {
				t.Errorf("%s: the password is told: %s", c.word, text)
			}
		}
	}
}

// TestPasswordStays: redfish_uri is asked with power_uri's user where it is that
// BMC, and nowhere else on its machine.
func TestPasswordStays(t *testing.T) {
	h, b, other := start(t), redfishtest.Start(t), redfishtest.Start(t)
	plain := httptest.NewServer(other.Config.Handler)
	defer plain.Close()
	var told atomic.Int32
	without := func(w http.ResponseWriter, r *http.Request) bool { // a BMC that has no sensors
		if _, _, ok := r.BasicAuth(); ok {
			told.Add(1)
		}
		if !strings.Contains(r.URL.Path, "/Chassis/1/") && !strings.HasSuffix(r.URL.Path, "/Chassis/1") {
			return false
		}
		fmt.Fprint(w, "{}")
		return true
	}
	b.Before(without)
	other.Before(without)
	uid := h.node(1, b)
	for _, c := range []struct {
		uri  string
		asks bool
	}{{"https://" + b.Host() + "/", true}, {"https://" + other.Host() + "/", false}, {plain.URL, false}} {
		h.OK("PATCH", "/node/"+uid, apitest.Map{"redfish_uri": c.uri})
		told.Store(0)
		h.Do("GET", "/node/"+uid+"/sensors", nil) // refused for want of sensors or of a user
		first := told.Load()
		h.OK("PATCH", "/node/"+uid, apitest.Map{"redfish_uri": ""})
		told.Store(0)
		h.Refused("GET", "/node/"+uid+"/sensors", nil)
		if alone := told.Load(); (first > alone) != c.asks || alone == 0 {
			t.Errorf("%s: %d requests with the password, %d without it", c.uri, first, alone)
		}
	}
}

func TestIgnoredOff(t *testing.T) {
	h, b := start(t), redfishtest.Start(t)
	uid := h.node(1, b)
	b.Ignore("ForceOff")
	a := h.Do("PUT", "/node/"+uid+"/power_state", `{"state":"power off","steps":[{"step":"hard","timeout":0.3}]}`)
	if a.Status != http.StatusGatewayTimeout || !strings.Contains(a.Reason, "says on") {
		t.Errorf("%d %s", a.Status, a.Reason)
	}
}

// TestMany: one that hangs costs only its own result.
func TestMany(t *testing.T) {
	h := start(t)
	hung, release := redfishtest.Start(t), make(chan struct{})
	hung.Before(func(_ http.ResponseWriter, r *http.Request) bool {
		select {
		case <-release:
		case <-r.Context().Done():
		}
		return true
	})
	defer close(release)
	h.node(0, hung)
	for n := range byte(5) {
		h.node(n+1, redfishtest.Start(t))
	}
	lines := func(method, path, body string) []map[string]any {
		req, err := http.NewRequest(method, h.Server.URL+api.Root+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := h.Server.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var out []map[string]any
		for s := bufio.NewScanner(resp.Body); s.Scan(); {
			out = append(out, apitest.Decode[apitest.Map](t, s.Bytes()))
		}
		return out
	}
	got := lines("GET", "/power?nodes=n[0-5],n9&timeout=0.5&limit=2", "")
	if len(got) != 7 || got[0]["node"] != "n9" || got[0]["error"] == nil {
		t.Fatalf("%v", got)
	}
	for _, l := range got[1:] {
		if bad := l["node"] == "n0"; bad != (l["error"] != nil) || bad && l["state"] != "unknown" || !bad && l["state"] != "on" {
			t.Error(l)
		}
	}
	got = lines("POST", "/power", `{"nodes":["n1","n2","n3","n1"],"state":"off","force":true,"stagger":0.01}`)
	if len(got) != 3 || got[0]["state"] != "off" || got[0]["step"] != "hard" {
		t.Errorf("%v", got)
	}
	for _, body := range []string{`{"state":"on"}`, `{"state":"on","nodes":[]}`, `{"state":"up","nodes":"n1"}`, `{"state":"on","nodes":"n1","limit":-1}`, `{"state":"on","nodes":"n1","stagger":1e9}`} {
		h.Refused("POST", "/power", body)
	}
}

// TestRetries: a BMC that fails once is told again what does no harm the second time.
func TestRetries(t *testing.T) {
	h := start(t)
	for i, c := range []struct{ order, begin, ends string }{
		{`"state":"on","retries":1`, "Off", "on"},
		{`"state":"off","force":true,"retries":1`, "On", "off"},
		{`"state":"on"`, "Off", "unknown"},
		{`"state":"reset","retries":1`, "On", "unknown"},
	} {
		b := redfishtest.Start(t)
		h.node(byte(i), b)
		b.Set(c.begin)
		var posts atomic.Int32
		b.Before(func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != "POST" || !strings.Contains(r.URL.Path, "ComputerSystem.Reset") || posts.Add(1) > 1 {
				return false
			}
			w.WriteHeader(http.StatusBadGateway)
			return true
		})
		got := apitest.Decode[apitest.Map](t, h.Do("POST", "/power", fmt.Sprintf(`{"nodes":"n%d",%s}`, i, c.order)).Raw)
		want := int32(1)
		if c.ends != "unknown" {
			want = 2
		}
		if got["state"] != c.ends || posts.Load() != want {
			t.Errorf("%s: %v after %d orders", c.order, got, posts.Load())
		}
	}
}

// TestOrdersAreGivenOnce: what fails on a session that was kept is not done
// again, whatever it is.
func TestOrdersAreGivenOnce(t *testing.T) {
	h, b := start(t), redfishtest.Start(t)
	h.node(0, b)
	var posts atomic.Int32
	b.Before(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != "POST" || !strings.Contains(r.URL.Path, "/Actions/") {
			return false
		}
		posts.Add(1)
		w.WriteHeader(http.StatusBadGateway)
		return true
	})
	for _, order := range [][3]string{
		{"PUT", "/node/n0/power_state", `{"state":"on"}`},
		{"PUT", "/node/n0/power_state", `{"state":"soft"}`},
		{"PUT", "/node/n0/power_state", `{"state":"reset"}`},
		{"POST", "/node/n0/bmc/reset", `{}`},
		{"DELETE", "/node/n0/sel", ""},
	} {
		b.Set("On")
		if order[2] == `{"state":"on"}` {
			b.Set("Off")
		}
		h.OK("GET", "/node/n0/power_state", nil) // keeps a session
		posts.Store(0)
		a := h.Do(order[0], order[1], order[2])
		if a.Status < 400 || posts.Load() != 1 {
			t.Errorf("%v: %d %s after %d orders", order, a.Status, a.Raw, posts.Load())
		}
	}
}

// TestAnswerTime: an order waits for a BMC as long as it says.
func TestAnswerTime(t *testing.T) {
	h, b, release := start(t), redfishtest.Start(t), make(chan struct{})
	h.node(0, b)
	b.Set("Off")
	b.Before(func(_ http.ResponseWriter, r *http.Request) bool {
		select {
		case <-release:
		case <-r.Context().Done():
		}
		return true
	})
	defer close(release)
	got := apitest.Decode[apitest.Map](t, h.Do("POST", "/power", `{"nodes":"n0","state":"on","timeout":0.05}`).Raw)
	if why, _ := got["error"].(string); !strings.Contains(why, "in time") {
		t.Error(got)
	}
}

func TestExtras(t *testing.T) {
	h, b := start(t), redfishtest.Start(t)
	uid := h.node(1, b)
	at := "/node/" + uid
	h.OK("PUT", at+"/boot_device", `{"device":"pxe","uefi":true}`)
	h.OK("PUT", at+"/identify", `{"on":true}`)
	h.OK("POST", at+"/bmc/reset", nil)
	h.OK("DELETE", at+"/sel", nil)
	resets, patches := b.Seen()
	if !reflect.DeepEqual(resets, []string{"Manager.Reset ForceRestart", "LogService.ClearLog "}) || len(patches) != 2 ||
		!strings.Contains(patches[0], `"Pxe"`) || !strings.Contains(patches[0], `"UEFI"`) || !strings.Contains(patches[0], `"Once"`) || !strings.Contains(patches[1], "Blinking") {
		t.Error(resets, patches)
	}
	sensors := string(h.OK("GET", at+"/sensors", nil))
	events := string(h.OK("GET", at+"/sel", nil))
	if !strings.Contains(sensors, "41.5") || !strings.Contains(sensors, "212") || !strings.Contains(events, "Fan 1 [31mfailed") {
		t.Error(sensors, events)
	}
	inv := string(h.OK("GET", at+"/inventory", nil))
	if !strings.Contains(inv, `"S1"`) || !strings.Contains(inv, "7.7") || h.made["serial"] != "S1" || h.made["firmware_bios"] != "7.7" {
		t.Error(inv, h.made)
	}
	h.Refused("PUT", at+"/boot_device", `{"device":"floppy"}`)
	h.OK("PATCH", at, apitest.Map{"power_uri": "ssh://root@127.0.0.1/n0"})
	if why := h.Refused("GET", at+"/sensors", nil); !strings.Contains(why, "no sensors") {
		t.Error(why)
	}
}
