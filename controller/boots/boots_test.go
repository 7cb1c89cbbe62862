package boots_test

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"muster/controller/api"
	"muster/controller/api/apitest"
	"muster/controller/boots"
	"muster/controller/selection"
	"muster/shared/wire"
)

var start = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// boot makes one of steps that took so many seconds each.
func boot(steps ...any) boots.Boot {
	b, at := boots.Boot{Number: 1}, start
	for i := 0; i < len(steps); i += 2 {
		at = at.Add(time.Duration(steps[i+1].(int)) * time.Second)
		name, failed, _ := strings.Cut(steps[i].(string), "!")
		b.Steps = append(b.Steps, wire.Step{Step: name, Time: at, Error: failed})
	}
	return b
}

func TestStats(t *testing.T) {
	known := map[string]boots.Boot{}
	h := apitest.Start(t, apitest.Options{Routes: func(h *apitest.Head) [][]api.Route {
		return [][]api.Route{(&boots.Boots{
			Nodes: h.Registry, Now: func() time.Time { return start.Add(100 * time.Second) },
			Select: (&selection.Selection{Objects: h.Registry}).SelectBy,
			Last:   func(uid string) (boots.Boot, bool) { b, ok := known[uid]; return b, ok },
		}).Routes()}
	}})
	for i := range 104 {
		uid := h.Create("nodes", apitest.Map{"mac": fmt.Sprintf("52:54:00:00:00:%02x", i), "attributes": apitest.Map{"rack": fmt.Sprint(i % 2)}})
		switch {
		case i < 98:
			known[uid] = boot("dhcp", 0, "image", 10, "root", 1, "up", 4, "image", 50) // the image comes in while it is up
		case i == 98:
			known[uid] = boot("dhcp", 0, "image", 40, "root", 1, "up", 4)
		case i == 99:
			known[uid] = boot("dhcp", 0, "image!no route", 3, "image", 17, "root", 1, "up", 4)
		case i == 100:
			known[uid] = boot("dhcp", 0, "image!disk full", 30)
		case i == 101:
			known[uid] = boot("dhcp", 0, "firmware", 2)
		case i == 102:
			known[uid] = boot()
		}
	}
	get := func(query string) boots.Stats {
		return apitest.Decode[boots.Stats](t, h.OK("GET", "/nodes/bootstats"+query, nil))
	}
	s := get("")
	if s.Nodes != 104 || s.Up != 100 || s.Failed != 1 || s.UnderWay != 1 || s.Never != 2 {
		t.Errorf("counts: %+v", s)
	}
	if want := (boots.Spread{Step: "total", Count: 100, P50: 15, P90: 15, P95: 15, P99: 25, Max: 45, Slowest: "n98"}); s.Total != want {
		t.Errorf("got  %+v\nwant %+v", s.Total, want)
	}
	names := []string{}
	for _, is := range s.Steps {
		names = append(names, fmt.Sprint(is.Step, is.Count, " ", is.P50, " ", is.Max))
	}
	if got := strings.Join(names, ", "); got != "firmware1 2 2, image100 10 40, root100 1 1, up100 4 4" {
		t.Errorf("steps: %s", got)
	}
	got, _ := json.Marshal(s.Stragglers)
	want := `[{"node":"n100","state":"failed","seconds":100,"step":"image","step_seconds":70,"error":"disk full"},` +
		`{"node":"n101","state":"under_way","seconds":100,"step":"firmware","step_seconds":98},` +
		`{"node":"n98","state":"up","seconds":45,"step":"image","step_seconds":40},{"node":"n99","state":"up","seconds":25,"step":"image","step_seconds":20}]`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if s := get("?nodes=n[0-9,100]&stragglers=0"); s.Nodes != 11 || s.Failed != 1 || len(s.Stragglers) != 0 {
		t.Errorf("of a set: %+v", s)
	}
	if s := get("?selector=a%5Brack%5D%3D%3D%220%22&nodes=n%5B0-3%5D"); s.Nodes != 2 {
		t.Errorf("of a selector and a set: %+v", s)
	}
	for _, bad := range []string{"?nodes=nobody", "?nodes=n[0-", "?selector=%28", "?stragglers=-1", "?stragglers=x", "?other=1"} {
		h.Refused("GET", "/nodes/bootstats"+bad, nil)
	}
}

// TestTraces has a collector that is busy at first.
func TestTraces(t *testing.T) {
	asked, got := 0, make(chan string, 10)
	collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if asked++; asked == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		got <- r.Header.Get("Content-Type") + " " + string(body)
	}))
	defer collector.Close()
	tr := boots.NewTracer(boots.Tracer{URL: collector.URL, Head: "head1", Name: func(string) string { return "n0" }, Log: slog.New(slog.DiscardHandler), Client: collector.Client()})
	go tr.Run(t.Context())
	tr.Note("u", boot("dhcp", 0, "image!no route", 3, "image", 2, "up", 5))
	text := apitest.Receive(t, got)
	var body struct {
		ResourceSpans []struct {
			ScopeSpans []struct {
				Spans []struct {
					TraceID, SpanID, ParentSpanID, Name, StartTimeUnixNano, EndTimeUnixNano string
					Status                                                                  *struct {
						Code    int
						Message string
					}
				}
			}
		}
	}
	kind, raw, _ := strings.Cut(text, " ")
	if err := json.Unmarshal([]byte(raw), &body); err != nil || kind != "application/json" {
		t.Fatal(kind, err)
	}
	spans := body.ResourceSpans[0].ScopeSpans[0].Spans
	out := []string{}
	ids := map[string]bool{}
	for _, s := range spans {
		at := func(ns string) string { return strings.TrimPrefix(ns, fmt.Sprint(start.Unix())[:8]) }
		line := s.Name + " " + at(s.StartTimeUnixNano) + "-" + at(s.EndTimeUnixNano)
		if s.Status != nil {
			line += fmt.Sprint(" ", s.Status.Code, " ", s.Status.Message)
		}
		out = append(out, line)
		if len(s.TraceID) != 32 || len(s.SpanID) != 16 || ids[s.SpanID] || (s.ParentSpanID == "") != strings.HasPrefix(s.Name, "boot") || s.TraceID != spans[0].TraceID {
			t.Errorf("span %+v", s)
		}
		ids[s.SpanID] = true
	}
	want := "boot n0 00000000000-10000000000; image 00000000000-03000000000 2 no route; image 03000000000-05000000000; up 05000000000-10000000000"
	if got := strings.Join(out, "; "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
