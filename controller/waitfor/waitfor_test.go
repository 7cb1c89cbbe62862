package waitfor_test

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"testing"
	"time"

	"muster/controller/api"
	"muster/controller/api/apitest"
	"muster/controller/registry"
	"muster/controller/selection"
	"muster/controller/waitfor"
)

// live is a fleet that knows nothing: sets of attributes are enough here.
type live struct{}

func (live) Status(string) (map[string]any, error) { return map[string]any{}, nil }
func (live) StatesOf(_, _ []string)                {}
func (live) Reported(string) (status, hardware json.RawMessage, at time.Time) {
	return nil, nil, time.Time{}
}

func start(t *testing.T) *apitest.Head {
	var w *waitfor.Waitfor
	h := apitest.Start(t, apitest.Options{Routes: func(h *apitest.Head) [][]api.Route {
		nodes := &selection.Selection{Objects: h.Registry, Live: live{}}
		w = waitfor.New(waitfor.Options{Select: nodes.SelectBy, Now: time.Now, Commits: func(ctx context.Context) iter.Seq2[registry.Commit, error] {
			return h.Registry.Commits(ctx, h.Registry.Revision())
		}})
		return [][]api.Route{w.Routes()}
	}})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := apitest.Receive(t, done); err != nil {
			t.Error(err)
		}
	})
	return h
}

func decode(t *testing.T, raw json.RawMessage) (v any) {
	t.Helper()
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestSet(t *testing.T) {
	h := start(t)
	n0 := h.Create("nodes", `{"mac":"52:54:00:00:00:01","attributes":{"rack":"r1"}}`)
	n1 := h.Create("nodes", `{"mac":"52:54:00:00:00:02"}`)
	h.OK("POST", "/nodes/waitfor", `{"name":"move","states":{"there":"a[rack] == \"r1\"","not":"not (a[rack] == \"r1\")"}}`)
	members := func() string {
		return fmt.Sprint(decode(t, h.OK("GET", "/nodes/waitfor/move/nodes", nil)))
	}
	if got, want := members(), fmt.Sprintf("map[not:[%s] there:[%s]]", n1, n0); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	set := decode(t, h.OK("GET", "/waitfor/move", nil)).(map[string]any)
	since := set["members"].(map[string]any)["there"].([]any)[0].(map[string]any)["since"]
	h.OK("PATCH", "/node/n1/attributes", `{"rack":"r1"}`)
	for len(set["members"].(map[string]any)["not"].([]any)) > 0 { // each answer is one change further
		set = decode(t, h.OK("GET", fmt.Sprintf("/waitfor/move?after=%.0f", set["seq"]), nil)).(map[string]any)
	}
	for _, m := range set["members"].(map[string]any)["there"].([]any) {
		m := m.(map[string]any)
		if (m["since"] == since) != (m["name"] == "n0") || m["seconds"].(float64) < 0 {
			t.Errorf("%v; n0 was there since %v", m, since)
		}
	}
	if got := fmt.Sprint(decode(t, h.OK("GET", "/nodes/waitfor", nil))); got != "[move]" {
		t.Error(got)
	}
	for _, b := range []string{``, `{}`, `{"states":{}}`, `{"states":{"a":"(("}}`, `{"states":{"":"up"}}`, `{"states":{"a b":"up"}}`, `{"name":"a/b","states":{"a":"up"}}`, `{"name":"move","states":{"a":"up"}}`, `{"states":{"a":5}}`, `{"states":{"a":"up"},"x":1}`} {
		h.Refused("POST", "/nodes/waitfor", b)
	}
	h.Refused("GET", "/waitfor/move?after=x", nil)
	h.OK("DELETE", "/waitfor/move", nil)
	h.Refused("GET", "/nodes/waitfor/move/nodes", nil)
	h.Refused("DELETE", "/waitfor/move", nil)
}

// TestForgotten: who waits for a set that another deletes hears of it then, not
// when his time is up.
func TestForgotten(t *testing.T) {
	h := start(t)
	for range 5 { // the wait may begin before the deletion, or after it
		seq := decode(t, h.OK("POST", "/nodes/waitfor", `{"name":"s","states":{"up":"up"}}`)).(map[string]any)["seq"]
		answer := make(chan apitest.Answer, 1)
		go func() { answer <- h.Do("GET", fmt.Sprintf("/waitfor/s?after=%.0f", seq), nil) }()
		time.Sleep(5 * time.Millisecond) // so that mostly it has begun; nothing tells
		h.OK("DELETE", "/waitfor/s", nil)
		if a := apitest.Receive(t, answer); a.Status != 404 {
			t.Fatalf("%d %s", a.Status, a.Raw)
		}
	}
}
