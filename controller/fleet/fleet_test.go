package fleet_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"muster/controller/api/apitest"
	"muster/controller/fleet"
	"muster/controller/fleet/fleettest"
	"muster/shared/wire"
)

var addr = netip.MustParseAddr("10.0.0.1")

func steps(h *fleettest.Head, id string) string {
	h.Helper()
	var out []string
	for _, e := range apitest.Decode[[]fleet.Entry](h, h.OK("GET", "/node/"+id+"/timeline", nil)) {
		text := fmt.Sprint(e.Boot, " ", e.Step)
		if e.Error != "" {
			text += "!" + e.Error
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}

func expect[T comparable](t testing.TB, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func state(h *fleettest.Head, id string) string {
	h.Helper()
	short, _ := h.Get("node/" + id)["status"].(apitest.Map)
	long := apitest.Decode[apitest.Map](h, h.OK("GET", "/node/"+id+"/status", nil))
	if short["state"] != long["state"] || short["reason"] != long["reason"] {
		h.Errorf("the node shows %v, its status %v", short, long)
	}
	if reason, ok := short["reason"]; ok {
		return fmt.Sprint(short["state"], ": ", reason)
	}
	return fmt.Sprint(short["state"])
}

func TestTimeline(t *testing.T) {
	h := fleettest.Start(t, "")
	uid := h.Node(1)
	stamp := func(step, detail, err string) {
		h.Clock.Add(time.Second)
		h.Fleet.Stamp(uid, wire.Step{Step: step, Detail: detail, Error: err})
	}
	expect(t, steps(h, "n0"), "")
	expect(t, state(h, "n0"), "unknown")
	stamp("dhcp", "firmware", "")
	stamp("dhcp", "iPXE", "") // the same machine, a stage later
	stamp("firmware", "", "")
	stamp("firmware", "", "")
	stamp("kernel", "", "")
	expect(t, steps(h, "n0"), "1 dhcp, 1 firmware, 1 kernel")
	expect(t, state(h, "n0"), "booting")
	send := func(body string) {
		h.Clock.Add(time.Second)
		h.OK("POST", wire.PathStep, body, apitest.AsNode, uid)
	}
	send(`{"step":"agent"}`)
	send(`{"step":"image","error":"no route to head"}`)
	send(`{"step":"image","error":"no route to head"}`) // tried again: nothing new
	expect(t, steps(h, "n0"), "1 dhcp, 1 firmware, 1 kernel, 1 agent, 1 image!no route to head")
	expect(t, state(h, "n0"), "failed: image: no route to head")
	send(`{"step":"image"}`)
	send(`{"step":"root"}`)
	expect(t, state(h, "n0"), "booting")
	h.Link(uid, wire.Hello{InImage: true, BootID: "a"}, nil)
	h.WaitState("n0", "up")
	send(`{"step":"image","error":"piece 3 is damaged"}`) // it was still being read
	send(`{"step":"image","detail":"there after all"}`)
	expect(t, state(h, "n0"), "up")
	stamp("firmware", "wget", "") // a user of the node asks for its script
	stamp("kernel", "", "there is none")
	h.Fleet.OpenBoot(uid, addr)
	stamp("dhcp", "", "")
	expect(t, steps(h, "n0"), "1 dhcp, 1 firmware, 1 kernel, 1 agent, 1 image!no route to head, 1 image, 1 root, 1 up, 1 image!piece 3 is damaged, 1 image, 2 dhcp")
	for _, body := range []string{`{}`, `{"step":"up"}`, `{"step":"dhcp"}`, `{"step":"agent","time":5}`, `{"step":"agent","boot":1}`, `[]`, `null`, ``, `{"step":5}`} {
		h.Refused("POST", wire.PathStep, body, apitest.AsNode, uid)
	}
	h.Refused("POST", wire.PathStep, `{"step":"agent"}`)
	h.Refused("GET", "/node/nobody/timeline", nil)
	entries := apitest.Decode[[]fleet.Entry](t, h.OK("GET", "/node/n0/timeline", nil))
	for i := 1; i < len(entries); i++ {
		if entries[i].Time < entries[i-1].Time {
			t.Errorf("%+v is before %+v", entries[i], entries[i-1])
		}
	}
}

func TestTimelineIsBounded(t *testing.T) {
	h := fleettest.Start(t, "")
	uid := h.Node(1)
	for i := range 1000 {
		h.Fleet.Stamp(uid, wire.Step{Step: "image", Error: fmt.Sprint(i), Detail: strings.Repeat("x", 10_000)})
	}
	entries := h.Fleet.Timeline(uid)
	if len(entries) != 64 || entries[0].Error != "0" || entries[63].Error != "999" || len(entries[5].Detail) > 1100 {
		t.Errorf("%d steps of one boot, the last %.50v", len(entries), entries[len(entries)-1])
	}
	for range 50 {
		h.Fleet.Stamp(uid, wire.Step{Step: "dhcp"})
		h.Fleet.Stamp(uid, wire.Step{Step: "firmware"})
	}
	entries = h.Fleet.Timeline(uid)
	if len(entries) != 40 || entries[0].Boot != 32 || entries[39].Boot != 51 {
		t.Errorf("%d steps are kept, from boot %d to %d", len(entries), entries[0].Boot, entries[len(entries)-1].Boot)
	}
}

func TestStates(t *testing.T) {
	dir := t.TempDir()
	h := fleettest.Start(t, dir)
	uid := h.Node(1)
	expect(t, state(h, "n0"), "unknown")
	a := h.Link(uid, wire.Hello{BootID: "a"}, nil) // in the initramfs, without our DHCP
	h.WaitState("n0", "booting")
	b := h.Link(uid, wire.Hello{BootID: "a", InImage: true}, nil)
	h.WaitState("n0", "up")
	expect(t, b.Answer, wire.Hello{Version: wire.Version, Node: uid, Name: "n0", Every: 7, Back: 1})
	apitest.Receive(t, a.Session.CloseChan()) // the newer link replaced it
	expect(t, state(h, "n0"), "up")
	b.Socket.Close()
	h.WaitState("n0", "down")
	h.Link(uid, wire.Hello{BootID: "a", InImage: true}, nil)
	h.WaitState("n0", "up")
	expect(t, steps(h, "n0"), "1 up") // a link made again is no new boot
	h.Link(uid, wire.Hello{BootID: "b", InImage: true}, nil)
	for steps(h, "n0") != "1 up, 2 up" { // the second link is the same state: nothing else to wait for
		time.Sleep(time.Millisecond)
	}
	h.Stop()

	h = fleettest.Start(t, dir)
	expect(t, state(h, "n0"), "unknown")
	h.Clock.Add(31 * time.Second)
	expect(t, state(h, "n0"), "down")
	h.Fleet.Stamp(uid, wire.Step{Step: "dhcp"})
	expect(t, state(h, "n0"), "booting")
	h.Clock.Add(31 * time.Minute) // no sign since
	expect(t, state(h, "n0"), "down")
	h.OK("DELETE", "/node/n0", nil)
	h.Fleet.Forget(uid)
	h.Stop()
	h = fleettest.Start(t, dir)
	expect(t, len(h.Fleet.Timeline(uid)), 0)
}

func TestForgetCutsTheLink(t *testing.T) {
	h := fleettest.Start(t, "")
	uid := h.Node(1)
	a := h.Link(uid, wire.Hello{InImage: true}, nil)
	h.WaitState("n0", "up")
	h.OK("DELETE", "/node/n0", nil)
	h.Fleet.Prune()
	apitest.Receive(t, a.Session.CloseChan())
	if _, _, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(h.Server.URL, "http")+wire.PathLink, http.Header{apitest.AsNode: {uid}}); err == nil {
		t.Error("a node that is no more has a link")
	}
}

// TestLateHello has agents that said nothing yet when their node was disowned,
// or deleted: what cut the node's links could not see theirs.
func TestLateHello(t *testing.T) {
	h := fleettest.Start(t, "")
	for i, path := range []string{"/node/n0/identity", "/node/n1"} {
		uid := h.Node(byte(i))
		h.Fleet.OpenBoot(uid, addr)
		key, _ := h.Fleet.Mint(uid, addr)
		if _, err := h.Fleet.Enrol(t.Context(), uid, addr, wire.Enrol{Key: key, CSR: []byte("1")}); err != nil {
			t.Fatal(err)
		}
		ws := h.Dial(uid)
		h.OK("DELETE", path, nil)
		h.Fleet.Prune()
		if err := ws.WriteJSON(wire.Hello{InImage: true}); err != nil {
			t.Fatal(err)
		}
		ws.SetReadDeadline(time.Now().Add(5 * time.Second)) // pings come every ten
		for err := error(nil); err == nil; {
			if _, _, err = ws.ReadMessage(); websocket.IsUnexpectedCloseError(err, websocket.CloseAbnormalClosure) {
				break
			}
			if e, ok := err.(interface{ Timeout() bool }); ok && e.Timeout() {
				t.Fatalf("after DELETE %s the link stands", path)
			}
		}
	}
}

func TestLongPoll(t *testing.T) {
	h := fleettest.Start(t, "")
	uid := h.Node(1)
	type answer struct {
		Seq    uint64
		States map[string]string
	}
	get := func(after string) answer {
		return apitest.Decode[answer](t, h.OK("GET", "/nodes/states"+after, nil))
	}
	first := get("")
	expect(t, first.States["n0"], "unknown")
	waited := make(chan answer, 10)
	for range cap(waited) {
		go func() { waited <- get(fmt.Sprint("?after=", first.Seq)) }()
	}
	h.Link(uid, wire.Hello{InImage: true}, nil)
	for range cap(waited) {
		a := apitest.Receive(t, waited)
		expect(t, a.States["n0"], "up")
		if a.Seq <= first.Seq {
			t.Errorf("seq %d after %d", a.Seq, first.Seq)
		}
	}
	get("?after=0") // long past: answers at once
	for _, bad := range []string{"x", "-1", "1.5", "99999999999999999999999"} {
		h.Refused("GET", "/nodes/states?after="+bad, nil)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	h.Fleet.WaitChange(ctx, get("").Seq) // returns although nothing happens
}

func TestReports(t *testing.T) {
	dir := t.TempDir()
	h := fleettest.Start(t, dir)
	uid := h.Node(1)
	own := func(body string) { h.OK("PUT", "/node/putstatus", body, apitest.AsNode, uid) }
	own(`{"status":{"load_avg":[0.1,0.2],"ram_free":1e400,"modules":["a"]},"hardware":{"ram_total":123456789012345678901}}`)
	own(`{"status":{"ram_free":5}}`) // replaces the section whole, and leaves the other
	status := apitest.Decode[apitest.Map](t, h.OK("GET", "/node/n0/status", nil))
	if fmt.Sprint(status["ram_free"]) != "5" || status["load_avg"] != nil || fmt.Sprint(h.Get("node/n0")["hardware"]) != "map[ram_total:123456789012345678901]" {
		t.Errorf("status %v, hardware %v", status, h.Get("node/n0")["hardware"])
	}
	h.OK("POST", "/node/putstatus", `{"uid":"n0","hardware":{"x":1e400}}`)
	h.OK("POST", "/node/putstatus", `{"uid":"52:54:00:00:00:01","status":{"y":1e400}}`)
	h.OK("GET", "/node/n0/status", nil)
	before := string(h.OK("GET", "/node/n0", nil)) + string(h.OK("GET", "/node/n0/status", nil))
	keys := map[string]int{}
	for i := range 1001 {
		keys[fmt.Sprint(i)] = i
	}
	many, _ := json.Marshal(apitest.Map{"status": keys})
	for _, body := range []string{
		`{}`, `[]`, `null`, ``, `{"status":null}`, `{"status":[]}`, `{"status":5}`, `{"hardware":"x"}`, `{"other":{}}`, `{"status":{"a":1},"hardware":[]}`,
		`{"uid":"n0","status":{"evil":1}}`, `{"UID":"n0","status":{"evil":1}}`, `{"uid":null,"status":{"evil":1}}`, string(many), `{"status":{"a":"` + strings.Repeat("x", 1<<20) + `"}}`, `{"status":{"a":1,"a":2}}`,
	} {
		h.Refused("PUT", "/node/putstatus", body, apitest.AsNode, uid)
	}
	for _, body := range []string{`{"status":{}}`, `{"uid":"nobody","status":{}}`, `{"uid":5,"status":{}}`, `{"uid":"n0"}`, `{"uid":"","status":{}}`} {
		h.Refused("POST", "/node/putstatus", body)
	}
	h.Refused("PUT", "/node/putstatus", `{"status":{}}`) // no node at this address
	if after := string(h.OK("GET", "/node/n0", nil)) + string(h.OK("GET", "/node/n0/status", nil)); after != before {
		t.Errorf("before %s\nafter  %s", before, after)
	}
	h.Stop()
	h = fleettest.Start(t, dir)
	if got := fmt.Sprint(h.Get("node/n0")["hardware"]); got != "map[x:1e400]" {
		t.Errorf("after a restart the hardware is %s", got)
	}
}

func TestPutAttributes(t *testing.T) {
	h := fleettest.Start(t, "")
	uid := h.Node(1)
	h.OK("PATCH", "/node/n0", `{"attributes":{"a":"1"}}`)
	h.OK("PUT", "/node/putattribs", `{"b":"2"}`, apitest.AsNode, uid)
	h.OK("POST", "/node/putattribs", `{"uid":"n0","c":3.50}`)
	expect(t, string(h.OK("GET", "/node/n0/attributes", nil)), `{"a":"1","b":"2","c":3.50}`)
	for _, body := range []string{`{"uid":"n0","evil":1}`, `{"uid":null}`, `[]`, `null`, ``, `{"a":{}}`, `{"a":null}`} {
		h.Refused("PUT", "/node/putattribs", body, apitest.AsNode, uid)
	}
	for _, body := range []string{`{"a":1}`, `{"uid":5}`, `{"uid":"nobody","a":1}`, `"n0"`} {
		h.Refused("POST", "/node/putattribs", body)
	}
	expect(t, string(h.OK("GET", "/node/n0/attributes", nil)), `{"a":"1","b":"2","c":3.50}`)
}

// TestManyLinks has agents come, go and report at once.
func TestManyLinks(t *testing.T) {
	h := fleettest.Start(t, "")
	var all sync.WaitGroup
	for i := range byte(20) {
		uid := h.Node(i)
		all.Go(func() {
			for range 5 {
				a := h.Link(uid, wire.Hello{InImage: true}, nil)
				h.OK("PUT", "/node/putstatus", `{"status":{"a":1}}`, apitest.AsNode, uid)
				h.OK("GET", "/nodes", nil)
				a.Socket.Close()
			}
		})
	}
	all.Wait()
	for i := range 20 {
		h.WaitState(fmt.Sprint("n", i), "down")
	}
}

// FuzzLink says anything on an agent's link. The head drops what it does not
// understand and goes on.
func FuzzLink(f *testing.F) {
	for _, hello := range []string{`{"version":1}`, ``, `{`, `[]`, `null`, `{"version":"x"}`, `{"version":1e99}`, strings.Repeat("[", 10_000), "\xff\xfe", `{"in_image":true,"boot_id":"` + strings.Repeat("x", 60_000) + `"}`, strings.Repeat("x", 100_000)} {
		for _, frames := range []string{"", "\x00\x00\x00\x00", "\x00\x01\x00\x01\x00\x00\x00\x02\xff\xff\xff\xff", "\x00\x00\x00\x01\x00\x00\x00\x02\x00\x00\x00\x00", strings.Repeat("\x00", 2000), strings.Repeat("\xff", 100)} {
			f.Add(hello, []byte(frames), len(frames)%2 == 0)
		}
	}
	h := fleettest.Start(f, "")
	uid := h.Node(1)
	f.Fuzz(func(t *testing.T, hello string, frames []byte, binary bool) {
		h := fleettest.Head{Head: h.For(t), Fleet: h.Fleet}
		ws := h.Dial(uid)
		ws.WriteMessage(websocket.TextMessage, []byte(hello))
		kind := websocket.TextMessage
		if binary {
			kind = websocket.BinaryMessage
		}
		ws.WriteMessage(kind, frames)
		ws.WriteControl(websocket.CloseMessage, nil, time.Now().Add(time.Second))
		ws.SetReadDeadline(time.Now().Add(10 * time.Second))
		for {
			if _, _, err := ws.ReadMessage(); err != nil {
				if e, ok := err.(interface{ Timeout() bool }); ok && e.Timeout() {
					t.Fatal("the head keeps a link on which nonsense was said")
				}
				break
			}
		}
		h.OK("GET", "/node/n0", nil)
	})
}
