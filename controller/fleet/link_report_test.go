package fleet_test

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"

	"muster/controller/api/apitest"
	"muster/controller/fleet/fleettest"
	"muster/shared/wire"
)

// over sends a body over a link, as an agent does, and gives what the head says
// of it.
func over(t *testing.T, a *fleettest.Agent, body string) wire.Taken {
	t.Helper()
	stream, err := a.Session.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if err := wire.WriteHeader(stream, wire.Header{Type: wire.StreamReport}); err != nil {
		t.Fatal(err)
	}
	go stream.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...))
	taken, err := wire.ReadTaken(stream)
	if err != nil {
		t.Fatal(err)
	}
	return taken
}

// TestReportsOverTheLink has them taken, and refused, as those by a request.
func TestReportsOverTheLink(t *testing.T) {
	h := fleettest.Start(t, "")
	uid := h.Node(1)
	a := h.Link(uid, wire.Hello{Version: wire.Version, BootID: "a", InImage: true}, nil)
	if got := over(t, a, `{"report":"a.1","status":{"x":1,"y":2},"hardware":{"cpu_count":4}}`); got.Status != 200 || got.Clock() != h.Clock.Now().Local() {
		t.Errorf("a report: %+v", got)
	}
	if got := over(t, a, `{"report":"a.2","since":"a.1","status":{"x":3},"drop":["y"]}`); got.Status != 200 {
		t.Errorf("what changed since: %+v", got)
	}
	status := apitest.Decode[apitest.Map](t, h.OK("GET", "/node/n0/status", nil))
	if fmt.Sprint(status["x"]) != "3" || status["y"] != nil || status["reported"] == nil {
		t.Errorf("the head has %v", status)
	}
	big := strings.Repeat("x", 1<<20)
	for body, want := range map[string]int{
		`{"report":"a.9","since":"a.8","status":{}}`: 409,
		``:                         400,
		`{"status":{"x":1}`:        400,
		`{"status":{"x":NaN}}`:     400,
		`{"status":{"x":1,"x":2}}`: 400,
		`{"status":{"x":1}} more`:  400,
		`{"state":{"x":1}}`:        400,
		`{"uid":"n0","status":{}}`: 400,
		`{"status":[]}`:            400,
		`{}`:                       400,
		`{"status":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`: 400,
		`{"status":{"x":"` + big + `"}}`:                                         413,
		`{"status":` + many(2000) + `}`:                                          413,
	} {
		request := h.Do("PUT", "/node/putstatus", body, apitest.AsNode, uid)
		got := over(t, a, body)
		if got.Status != want || request.Status != want || got.Reason == "" {
			t.Errorf("%.60s: over the link %d (%s), by a request %d (%s), want %d", body, got.Status, got.Reason, request.Status, request.Reason, want)
		}
	}
	noted := 0
	for _, e := range h.Fleet.Timeline(uid) {
		if e.Step == "report" {
			noted++
		}
	}
	if noted == 0 {
		t.Error("no refusal is on the timeline")
	}
}

// many is a status with as many keys.
func many(keys int) string {
	all := map[string]int{}
	for i := range keys {
		all[fmt.Sprint("k", i)] = i
	}
	raw, _ := json.Marshal(all)
	return string(raw)
}

// TestAgentsStreams has those refused that are no reports, or too many, and the
// link live on.
func TestAgentsStreams(t *testing.T) {
	h := fleettest.Start(t, "")
	a := h.Link(h.Node(1), wire.Hello{Version: wire.Version, BootID: "a", InImage: true}, nil)
	for _, garbage := range []string{"", "\xff\xff\xff\xff", "\x00\x00\x00\x02{]", "\x00\x00\x00\x10{\"type\":\"other\"}", "\x00\x00\x00\x11{\"type\":\"report\"}\xff\xff\xff\xff"} {
		stream, err := a.Session.Open()
		if err != nil {
			t.Fatal(err)
		}
		stream.Write([]byte(garbage))
		stream.Close()
		io.Copy(io.Discard, stream) // until the head has ended it
	}
	for range 4 { // as many as may be open, which say nothing
		stream, err := a.Session.Open()
		if err != nil {
			t.Fatal(err)
		}
		defer stream.Close()
	}
	stream, err := a.Session.Open()
	if err != nil {
		t.Fatal(err)
	}
	stream.Write([]byte{0})
	if _, err := stream.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("one too many: %v", err)
	}
	if _, err := a.Session.Ping(); err != nil {
		t.Error("the link broke:", err)
	}
}
