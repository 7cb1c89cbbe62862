package events_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"muster/controller/api"
	"muster/controller/api/apitest"
	"muster/controller/events"
	"muster/controller/selection"
	"muster/shared/kind"
	"muster/shared/object"
)

// fake states: the fleet is a feature of its own.
type states struct {
	mu   sync.Mutex
	all  []events.State
	next chan struct{}
}

func (s *states) StatesAfter(seq uint64) ([]events.State, uint64, <-chan struct{}, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	seq = min(seq, uint64(len(s.all)))
	return slices.Clone(s.all[seq:]), uint64(len(s.all)), s.next, true
}

func (s *states) Known() []events.State {
	s.mu.Lock()
	defer s.mu.Unlock()
	newest := map[string]events.State{}
	for _, st := range s.all {
		newest[st.UID] = st
	}
	return slices.Collect(maps.Values(newest))
}

func (s *states) set(uid, state string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, events.State{UID: uid, State: state, Since: 1})
	close(s.next)
	s.next = make(chan struct{})
}

// What the selection asks of the fleet is nothing here.
func (s *states) Status(string) (map[string]any, error) { return map[string]any{}, nil }
func (s *states) StatesOf(_, _ []string)                {}
func (s *states) Reported(string) (status, hardware json.RawMessage, at time.Time) {
	return nil, nil, time.Time{}
}

// callers restricts what the test's callers may do, and can throw them out.
type callers struct {
	mu  sync.Mutex
	can map[kind.Permission]bool
	err error
}

func (c *callers) Authenticate(*http.Request, kind.Permission) (*api.Caller, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return api.NewCaller("jo", "", nil, c.can), c.err
}

func (c *callers) set(can map[kind.Permission]bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.can, c.err = can, err
}

type head struct {
	*apitest.Head
	events  *events.Events
	states  *states
	callers *callers
	stop    func()           // of the events
	server  *httptest.Server // where callers are asked who they are
}

func start(t *testing.T, opt events.Options) *head {
	h := &head{states: &states{next: make(chan struct{})}, callers: &callers{can: object.NewRights(object.All()).Of([]string{object.RoleFullAdmin})}}
	h.Head = apitest.Start(t, apitest.Options{Routes: func(inner *apitest.Head) [][]api.Route {
		nodes := &selection.Selection{Objects: inner.Registry, Live: h.states}
		opt.Objects, opt.States, opt.Auth, opt.Matcher, opt.Log = inner.Registry, h.states, h.callers, nodes.Matcher, slog.New(slog.DiscardHandler)
		h.events = events.New(opt)
		return [][]api.Route{h.events.Routes()}
	}})
	handler, err := api.New(h.callers, h.Logger, h.events.Routes())
	if err != nil {
		t.Fatal(err)
	}
	h.server = httptest.NewServer(handler)
	ctx, cancel := context.WithCancel(context.Background())
	if err := h.events.Listen(ctx); err != nil {
		t.Fatal(err)
	}
	go h.events.Run(ctx)
	h.stop = cancel
	t.Cleanup(h.server.Close)
	t.Cleanup(cancel) // before that, which waits for the streams to end
	return h
}

// down returns when no more than so many clients are served.
func (h *head) down(to int) {
	h.Helper()
	for end := time.Now().Add(time.Minute); h.events.Count() > to; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			h.Fatalf("%d clients are still served", h.events.Count())
		}
	}
}

// event is one as it came.
type event struct {
	id, name string
	data     map[string]any
}

// follow opens a stream and gives its events as they come; the channel closes
// at the stream's end.
func (h *head) follow(query string, header ...string) (<-chan event, context.CancelFunc) {
	h.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	h.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, "GET", h.server.URL+"/api/v1/events"+query, nil)
	if err != nil {
		h.Fatal(err)
	}
	for i := 0; i+1 < len(header) && header[i] != ""; i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := h.server.Client().Do(req)
	if err != nil {
		h.Fatal(err)
	}
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" {
		h.Fatalf("status %d, %s", resp.StatusCode, resp.Header)
	}
	out, alive := make(chan event, 1000), make(chan struct{})
	go func() {
		defer close(out)
		defer resp.Body.Close()
		var e event
		var once sync.Once
		for in := bufio.NewScanner(resp.Body); in.Scan(); {
			switch key, value, _ := strings.Cut(in.Text(), ": "); {
			case in.Text() == "":
				if e.data != nil {
					out <- e
				}
				e = event{}
			case key == "id":
				e.id = value
			case key == "event":
				e.name = value
			case key == "data":
				if json.Unmarshal([]byte(value), &e.data) != nil {
					e.data = map[string]any{"broken": value}
				}
			default:
				once.Do(func() { close(alive) })
			}
		}
	}()
	apitest.Receive(h, alive) // from here on nothing is missed
	return out, cancel
}

func next(t *testing.T, from <-chan event) event {
	t.Helper()
	select {
	case e, ok := <-from:
		if !ok {
			t.Fatal("the stream ended")
		}
		return e
	case <-time.After(20 * time.Second):
		t.Fatal("no event came")
	}
	return event{}
}

func want(t *testing.T, e event, change, kindName, name string) {
	t.Helper()
	if e.data["change"] != change || e.data["kind"] != kindName || e.data["name"] != name || e.data["uid"] == "" {
		t.Fatalf("got %v, want %s of %s %s", e.data, change, kindName, name)
	}
}

func TestFollow(t *testing.T) {
	h := start(t, events.Options{})
	in, _ := h.follow("")
	uid := h.Create("attribs", `{"name":"g","attributes":{"a":1}}`)
	e := next(t, in)
	want(t, e, "create", "attrib", "g")
	if e.id == "" || e.id != fmt.Sprint(e.data["revision"]) || e.data["object"].(map[string]any)["attributes"].(map[string]any)["a"] != 1.0 {
		t.Errorf("%+v", e)
	}
	h.OK("PATCH", "/attrib/g", `{"name":"g2"}`)
	want(t, next(t, in), "change", "attrib", "g2")
	h.OK("DELETE", "/attrib/"+uid, nil)
	e = next(t, in)
	want(t, e, "delete", "attrib", "g2")
	if e.data["uid"] != uid || e.data["object"] != nil {
		t.Errorf("%v", e.data)
	}
	node := h.Create("nodes", `{"mac":"52:54:00:00:00:01"}`)
	want(t, next(t, in), "create", "node", "n0")
	h.states.set(node, "up")
	e = next(t, in)
	want(t, e, "state", "node", "n0")
	if e.data["state"] != "up" || e.data["since"] != 1.0 {
		t.Errorf("%v", e.data)
	}
}

func TestResume(t *testing.T) {
	h := start(t, events.Options{})
	in, cancel := h.follow("")
	h.Create("attribs", `{"name":"g0"}`)
	first := next(t, in)
	cancel()
	for i := 1; i < 6; i++ {
		h.Create("attribs", fmt.Sprintf(`{"name":"g%d"}`, i))
	}
	node := h.Create("nodes", `{"mac":"52:54:00:00:00:01"}`)
	h.states.set(node, "down")
	h.states.set(node, "booting")
	for _, how := range [][3]string{{"", "Last-Event-ID", first.id}, {"?after=" + first.id}} {
		again, _ := h.follow(how[0], how[1], how[2])
		for i := 1; i < 6; i++ {
			want(t, next(t, again), "create", "attrib", fmt.Sprintf("g%d", i))
		}
		want(t, next(t, again), "create", "node", "n0")
		if e := next(t, again); e.data["state"] != "booting" || e.data["change"] != "state" {
			t.Errorf("the missed state: %v", e.data)
		}
	}
	for _, bad := range []string{"x", "-1", "1.5", "99999999999999999999999"} {
		h.Refused("GET", "/events?after="+bad, nil)
	}
	if a := h.Do("GET", "/events?after=999999", nil); a.Status != http.StatusGone || a.Reason == "" {
		t.Errorf("a revision that is not held: %d %s", a.Status, a.Raw)
	}
}

// A commit that changes several objects is resumed from as a whole.
func TestCommitOfMany(t *testing.T) {
	h := start(t, events.Options{})
	group := h.Create("attribs", `{"name":"g"}`)
	for i := range 3 {
		h.Create("nodes", fmt.Sprintf(`{"mac":"52:54:00:00:00:%02x","groups":["g"]}`, i+1))
	}
	in, _ := h.follow("")
	h.OK("DELETE", "/attrib/"+group, nil)
	ids := 0
	for i := range 4 {
		e := next(t, in)
		if e.id != "" {
			ids++
		}
		if more := e.data["more"] == true; more != (i < 3) || more != (e.id == "") {
			t.Errorf("event %d: %+v", i, e)
		}
	}
	if ids != 1 {
		t.Errorf("%d of the commit's events can be resumed from", ids)
	}
}

func TestFilters(t *testing.T) {
	h := start(t, events.Options{})
	kinds, _ := h.follow("?kind=attrib,net")
	picked, _ := h.follow("?selector=" + `a[rack]=="r1"`)
	h.Create("images", `{"name":"i"}`)
	h.Create("nodes", `{"mac":"52:54:00:00:00:01","attributes":{"rack":"r2"}}`)
	h.Create("nodes", `{"mac":"52:54:00:00:00:02","attributes":{"rack":"r1"}}`)
	want(t, next(t, picked), "create", "node", "n1")
	h.OK("PATCH", "/node/n0/attributes", `{"rack":"r1"}`)
	want(t, next(t, picked), "change", "node", "n0")
	h.OK("PATCH", "/node/n0/attributes", `{"rack":"r3"}`)
	want(t, next(t, picked), "change", "node", "n0") // it leaves
	h.OK("PATCH", "/node/n0/attributes", `{"rack":"r4"}`)
	h.OK("DELETE", "/node/n1", nil)
	want(t, next(t, picked), "delete", "node", "n1")
	h.Create("attribs", `{"name":"g"}`)
	want(t, next(t, kinds), "create", "attrib", "g")
	for _, bad := range []string{"?kind=pony", "?selector=((", "?kind=image&selector=up"} {
		h.Refused("GET", "/events"+bad, nil)
	}
}

func TestOnlyWhatMayBeRead(t *testing.T) {
	h := start(t, events.Options{Heartbeat: 10 * time.Millisecond})
	h.callers.set(map[kind.Permission]bool{kind.LoggedIn: true, "AttribsRead": true}, nil)
	in, _ := h.follow("")
	node := h.Create("nodes", `{"mac":"52:54:00:00:00:01"}`)
	h.states.set(node, "up")
	h.Create("attribs", `{"name":"g","attributes":{"_secret":"x","a":1}}`)
	e := next(t, in)
	want(t, e, "create", "attrib", "g")
	if text := fmt.Sprint(e.data["object"]); strings.Contains(text, "_secret") || !strings.Contains(text, "a:1") {
		t.Errorf("shown to one who may not read reserved attributes: %s", text)
	}
	resp, err := http.Get(h.server.URL + "/api/v1/events?kind=node")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden {
		t.Errorf("asked for what may not be read: status %d", resp.StatusCode)
	}
	h.callers.set(nil, errors.New("thrown out"))
	if e := next(t, in); e.name != "end" || e.data["reason"] == "" {
		t.Errorf("%+v", e)
	}
	if _, more := <-in; more {
		t.Error("the stream goes on")
	}
}

func TestWebsocket(t *testing.T) {
	h := start(t, events.Options{})
	dial := func(query string) *websocket.Conn {
		ws, _, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(h.server.URL, "http")+"/api/v1/events"+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ws.Close() })
		ws.SetReadDeadline(time.Now().Add(20 * time.Second))
		return ws
	}
	read := func(ws *websocket.Conn) (e event) {
		t.Helper()
		if err := ws.ReadJSON(&e.data); err != nil {
			t.Fatal(err)
		}
		return e
	}
	before := h.Registry.Revision()
	h.Create("attribs", `{"name":"g"}`)
	ws := dial(fmt.Sprintf("?after=%d", before))
	want(t, read(ws), "create", "attrib", "g")
	h.Create("attribs", `{"name":"g2"}`)
	want(t, read(ws), "create", "attrib", "g2")
	ws.Close()
	h.down(0) // it notices that the client has left
	_, resp, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(h.server.URL, "http")+"/api/v1/events?after=99999", nil)
	if err == nil || resp.StatusCode != http.StatusGone {
		t.Errorf("%v", err)
	}
}

func TestNotTooMany(t *testing.T) {
	h := start(t, events.Options{Each: 2})
	_, cancel := h.follow("")
	h.follow("")
	resp, err := http.Get(h.server.URL + "/api/v1/events")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusTooManyRequests {
		t.Errorf("status %d", resp.StatusCode)
	}
	cancel()
	h.down(1)
	h.follow("")
}

// A client that takes nothing is cut off, and holds nobody up.
func TestSlowReader(t *testing.T) {
	h := start(t, events.Options{Stall: 200 * time.Millisecond, Heartbeat: time.Hour})
	req, err := http.NewRequest("GET", h.server.URL+"/api/v1/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := h.server.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	quick, _ := h.follow("?kind=net")
	long := strings.Repeat("x", 60_000)
	h.Create("attribs", `{"name":"g"}`)
	for i := 0; h.events.Count() > 1; i++ {
		h.OK("PATCH", "/attrib/g", fmt.Sprintf(`{"description":"%d %s"}`, i, long))
		if i > 2000 {
			t.Fatal("a client that reads nothing is still served")
		}
	}
	h.Create("nets", `{"name":"n","first_ip":"10.0.0.1","ip_count":10,"mask_bits":24}`)
	want(t, next(t, quick), "create", "net", "n")
}

func TestEndOfTheHead(t *testing.T) {
	h := start(t, events.Options{})
	in, _ := h.follow("")
	h.stop()
	if e := next(t, in); e.name != "end" || !strings.Contains(fmt.Sprint(e.data["reason"]), "shutting down") {
		t.Errorf("%+v", e)
	}
}
