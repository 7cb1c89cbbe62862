package fleet_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"muster/controller/api/apitest"
	"muster/controller/fleet/fleettest"
	"muster/shared/wire"
)

// TestDifferences has a node send what changed only.
func TestDifferences(t *testing.T) {
	dir := t.TempDir()
	h := fleettest.Start(t, dir)
	uid := h.Node(1)
	send := func(body string) { h.OK("PUT", "/node/putstatus", body, apitest.AsNode, uid) }
	conflict := func(body string) {
		t.Helper()
		if a := h.Do("PUT", "/node/putstatus", body, apitest.AsNode, uid); a.Status != 409 {
			t.Errorf("%s: status %d, %s", body, a.Status, a.Reason)
		}
	}
	show := func() string {
		s := apitest.Decode[apitest.Map](t, h.OK("GET", "/node/n0/status", nil))
		for _, key := range []string{"state", "since", "reported"} {
			delete(s, key)
		}
		raw, _ := json.Marshal(s)
		return string(raw)
	}
	conflict(`{"report":"a.1","since":"a.0","status":{"x":1}}`)
	long := strings.Repeat("p", 5000) // kept apart on disk
	send(`{"report":"a.1","status":{"x":1,"y":2,"long":"` + long + `"}}`)
	send(`{"report":"a.2","since":"a.1","status":{"x":3,"z":4},"drop":["y"]}`)
	conflict(`{"report":"a.4","since":"a.3","status":{"x":9}}`)
	conflict(`{"report":"a.4","since":"a.1","status":{"x":9}}`)
	want := `{"long":"` + long + `","x":3,"z":4}`
	expect(t, show(), want)
	h.Stop()

	h = fleettest.Start(t, dir)
	expect(t, show(), want)
	conflict(`{"report":"a.3","since":"a.2","status":{"x":5}}`) // another head, which may have an older status
	send(`{"report":"a.4","keep":["long"],"status":{"x":6}}`)
	send(`{"report":"a.5","since":"a.4","status":{}}`)
	expect(t, show(), `{"long":"`+long+`","x":6}`)
	h.OK("POST", "/node/putstatus", `{"uid":"n0","status":{"by":"hand"}}`)
	conflict(`{"report":"a.6","since":"a.5","status":{"x":7}}`)
	h.Stop()
	h = fleettest.Start(t, dir)
	expect(t, show(), `{"by":"hand"}`) // and the long entry did not come back
}

// TestRefusalsAreTold has their reasons on the timeline, once each.
func TestRefusalsAreTold(t *testing.T) {
	dir := t.TempDir()
	h := fleettest.Start(t, dir)
	uid := h.Node(1)
	h.Link(uid, wire.Hello{BootID: "a", InImage: true}, nil)
	h.WaitState("n0", "up")
	h.Clock.Add(time.Second)
	now := float64(h.Clock.Now().Unix())
	h.OK("PUT", "/node/putstatus", fmt.Sprintf(`{"status":{"time":%f}}`, now-20*3600), apitest.AsNode, uid)
	keys := map[string]int{}
	for i := range 100_000 {
		keys[fmt.Sprint(i)] = i
	}
	many, _ := json.Marshal(apitest.Map{"status": keys})
	for _, c := range []struct{ body, want string }{
		{`{"status":{"a":NaN}}`, "NaN"}, {string(many), "at most 1048576"}, {`{"status":{"a":"` + strings.Repeat("x", 9<<20) + `"}}`, "large"},
		{fmt.Sprintf(`{"status":{"time":%f,"evil":1}}`, now+90_000), "90000 s from the head's"}, {`{"status":{"time":1e99}}`, "s from the head's"}, {`{"status":{"time":"noon"}}`, "not a number"},
	} {
		for range 2 {
			if reason := h.Refused("PUT", "/node/putstatus", c.body, apitest.AsNode, uid); !strings.Contains(reason, c.want) && c.want != "NaN" && c.want != "large" {
				t.Errorf("%.60s is refused with %q, want %q", c.body, reason, c.want)
			}
		}
	}
	h.OK("POST", wire.PathStep, `{"step":"init","detail":"10-mount","error":"exit status 1"}`, apitest.AsNode, uid)
	expect(t, state(h, "n0"), "up") // a script that fails is no boot that does
	got := steps(h, "n0")
	if n := strings.Count(got, "1 report!"); n != 6 || !strings.HasPrefix(got, "1 up, ") || !strings.HasSuffix(got, "1 init!exit status 1") {
		t.Errorf("%d refusals: %s", n, got)
	}
	h.Stop()
	h = fleettest.Start(t, dir)
	expect(t, steps(h, "n0"), got)
	if s := apitest.Decode[apitest.Map](t, h.OK("GET", "/node/n0/status", nil)); s["evil"] != nil || s["time"] == nil {
		t.Errorf("status %v", s)
	}
}

// TestStateHistory has the reason of each change.
func TestStateHistory(t *testing.T) {
	dir := t.TempDir()
	h := fleettest.Start(t, dir)
	uid := h.Node(1)
	h.Fleet.Stamp(uid, wire.Step{Step: "dhcp"})
	h.Fleet.Stamp(uid, wire.Step{Step: "image", Error: "no route"})
	a := h.Link(uid, wire.Hello{BootID: "a", InImage: true}, nil)
	h.WaitState("n0", "up")
	a.Socket.Close()
	h.WaitState("n0", "down")
	history := func() string {
		out := []string{}
		for _, c := range apitest.Decode[struct {
			Changes []struct{ State, Reason string }
		}](t, h.OK("GET", "/node/n0/state", nil)).Changes {
			out = append(out, c.State+": "+c.Reason)
		}
		return strings.Join(out, "; ")
	}
	want := "booting: step dhcp; failed: image: no route; up: its agent is linked, from the image; down: the link to its agent ended"
	expect(t, history(), want)
	h.Stop()
	h = fleettest.Start(t, dir)
	want += "; unknown: the head started, and its agent is not back yet"
	expect(t, history(), want)
	h.Clock.Add(time.Minute)
	expect(t, history(), want+"; down: its agent did not come back after the head's start")
	h.Refused("GET", "/node/nobody/state", nil)
}

// TestAttributesReachTheNode over the link: at once, after a change, and only
// then.
func TestAttributesReachTheNode(t *testing.T) {
	h := fleettest.Start(t, "")
	go func() { // as the head does
		for change, err := range h.Registry.Changes(t.Context(), h.Registry.Revision()) {
			if err != nil {
				return
			}
			h.Fleet.AttributesChanged(change.Kind, change.UID)
		}
	}()
	uid := h.Node(1)
	h.Create("attribs", apitest.Map{"name": "g", "attributes": apitest.Map{"role": "group", "_ipmi_pass": "secret", "_status_secs": 20}})
	h.OK("PATCH", "/node/n0", `{"groups":["g"],"attributes":{"own":1.50}}`)
	got := make(chan wire.Attributes, 10)
	serve := func(_ net.Conn, header wire.Header) {
		if header.Attributes != nil {
			got <- *header.Attributes
		}
	}
	h.Link(uid, wire.Hello{Version: 2, InImage: true}, serve)
	a := apitest.Receive(t, got)
	raw, _ := json.Marshal(a)
	expect(t, string(raw), `{"uid":"`+uid+`","name":"n0","values":{"_status_secs":20,"own":1.50,"role":"group"}}`) // no certificate, no secrets
	h.OK("PATCH", "/node/n0", `{"description":"nothing to the node"}`)
	h.OK("PATCH", "/attrib/g", `{"attributes":{"role":"other"}}`)
	if a := apitest.Receive(t, got); string(a.Values["role"]) != `"other"` || len(a.Values) != 2 {
		t.Errorf("after a change of the group: %v", a)
	}
	h.OK("PATCH", "/node/n0", `{"groups":[]}`)
	if a := apitest.Receive(t, got); len(a.Values) != 1 {
		t.Errorf("out of the group: %v", a)
	}
}

// FuzzReport sends anything as a report. What is taken can be read again, and
// what is refused changes nothing.
func FuzzReport(f *testing.F) {
	for _, s := range []string{
		`{"status":{"a":1}}`, `{"status":{"a":NaN}}`, `{"report":"a","since":"","status":{},"drop":["a","a"],"keep":["b"]}`, `{"status":null,"hardware":[]}`, `{"status":{"a":1,"a":2},"keep":["a"]}`,
		`{"report":"r","since":"r","status":{"\ud800":"\u0000"}}`, `{"status":` + strings.Repeat(`{"a":`, 5000), `{"uid":"x","status":{}}`, `{"status":{"time":-1e308}}`, `{"hardware":{"":[[[]]]}} x`, "\xff", `{"Status":{"a":1},"status":{"b":1}}`,
	} {
		f.Add([]byte(s))
	}
	h := fleettest.Start(f, "")
	uid := h.Node(1)
	f.Fuzz(func(t *testing.T, body []byte) {
		h := h.For(t)
		read := func() (all string) {
			for _, path := range []string{"/node/n0/status", "/node/n0"} {
				raw := h.OK("GET", path, nil)
				if !json.Valid(raw) {
					t.Errorf("after %q %s is %q", body, path, raw)
				}
				all += string(raw)
			}
			return all
		}
		before := read()
		req, err := http.NewRequest("PUT", h.Server.URL+wire.PathStatus, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set(apitest.AsNode, uid)
		resp, err := http.DefaultClient.Do(req) // what does not fit the document is wanted here
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if after := read(); resp.StatusCode >= 500 || resp.StatusCode != 200 && before != after {
			t.Errorf("%q: %s; before %s, after %s", body, resp.Status, before, after)
		}
	})
}
