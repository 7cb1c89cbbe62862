package registry_test

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"muster/controller/api/apitest"
	"muster/controller/registry"
	"muster/shared/fault"
	"muster/shared/kind"
	"muster/shared/object"
)

var author = kind.Author{Name: "tester"}

func input(t testing.TB, body string) registry.Input {
	t.Helper()
	var in registry.Input
	if err := json.Unmarshal([]byte(body), &in); err != nil {
		t.Fatal(err)
	}
	return in
}

// TestChangesComeOnceAndInOrder: the feed, replayed, is what the registry holds.
func TestChangesComeOnceAndInOrder(t *testing.T) {
	h := apitest.Start(t, apitest.Options{})
	const writers, each = 8, 30
	from := h.Registry.Revision()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	type result struct {
		state    map[string]string
		sequence map[string][]int
	}
	live := make(chan result)
	replay := func(until func(registry.Change) bool) result {
		r := result{map[string]string{}, map[string][]int{}}
		last := from
		for c, err := range h.Registry.Changes(ctx, from) {
			if err != nil {
				t.Error(err)
				break
			}
			if c.Revision < last {
				t.Errorf("revision %d after %d", c.Revision, last)
			}
			last = c.Revision
			if until(c) {
				break
			}
			if c.New == nil {
				delete(r.state, c.UID)
				continue
			}
			raw, _ := json.Marshal(c.New)
			r.state[c.UID] = string(raw)
			if a, ok := c.New.(*object.Attrib); ok {
				var n int
				fmt.Sscan(a.Description, &n)
				r.sequence[c.UID] = append(r.sequence[c.UID], n)
			}
		}
		return r
	}
	end := func(c registry.Change) bool { return c.Kind == object.KindImage }
	go func() { live <- replay(end) }()
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			uid, err := h.Registry.Create(ctx, author, object.KindAttrib, input(t, fmt.Sprintf(`{"name":"a%d","description":"0"}`, w)))
			for i := 1; i < each && err == nil; i++ {
				err = h.Registry.Patch(ctx, author, object.KindAttrib, uid, input(t, fmt.Sprintf(`{"description":"%d"}`, i)))
			}
			if err == nil && w%2 == 0 {
				err = h.Registry.Delete(ctx, author, object.KindAttrib, uid)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if _, err := h.Registry.Create(ctx, author, object.KindImage, input(t, `{"name":"the end"}`)); err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]result{"as it happened": <-live, "afterwards": replay(end)} {
		if len(r.sequence) != writers {
			t.Errorf("%s: changes of %d objects", name, len(r.sequence))
		}
		for uid, seen := range r.sequence {
			if len(seen) != each {
				t.Errorf("%s: %d changes of %s: %v", name, len(seen), uid, seen)
			}
			for i, n := range seen {
				if n != i {
					t.Errorf("%s: change %d of %s is number %d", name, i, uid, n)
					break
				}
			}
		}
		held := h.Registry.All(object.KindAttrib)
		if len(held) != writers/2 || len(r.state) != len(held) {
			t.Errorf("%s: %d objects on the feed, %d held", name, len(r.state), len(held))
		}
		for _, o := range held {
			if raw, _ := json.Marshal(o); r.state[o.Base().UID] != string(raw) {
				t.Errorf("%s: %s is not %s", name, r.state[o.Base().UID], raw)
			}
		}
	}
}

// TestWritesAreSeenAtOnce: who was told that a change is made sees it.
func TestWritesAreSeenAtOnce(t *testing.T) {
	h := apitest.Start(t, apitest.Options{})
	var all sync.WaitGroup
	for w := range 8 {
		all.Go(func() {
			uid := h.Create("attribs", fmt.Sprintf(`{"name":"a%d"}`, w))
			for i := range 20 {
				value := fmt.Sprint(i)
				h.OK("PATCH", "/attrib/"+uid, apitest.Map{"description": value})
				if got := h.Get("attrib/" + uid)["description"]; got != value {
					t.Errorf("wrote %s, read %v", value, got)
				}
			}
			h.OK("DELETE", "/attrib/"+uid, nil)
			h.Refused("GET", "/attrib/"+uid, nil)
		})
	}
	all.Wait()
}

// TestRestart: what was acknowledged is there byte for byte when the store is
// opened again, and writing goes on.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	h := apitest.Start(t, apitest.Options{Dir: dir})
	h.Create("nets", `{"first_ip":"10.0.0.1","ip_count":50,"mask_bits":24}`)
	h.Create("attribs", `{"name":"g","attributes":{"n":1.50,"big":123456789012345678901234567890,"<é>":"\u2028&"}}`)
	h.Create("images", `{"name":"i"}`)
	h.Create("bootconfigs", `{"name":"b","image":"i","cmdline":"a=\"b\" <c>"}`)
	for i := range 20 {
		h.Create("nodes", fmt.Sprintf(`{"mac":"52:54:00:00:00:%02x","groups":["g"],"attributes":{"i":%d}}`, i, i))
	}
	h.OK("DELETE", "/node/n7", nil)
	h.OK("DELETE", "/image/i", nil)
	read := func(h *apitest.Head) (out string) {
		for _, s := range object.All() {
			path := "/" + s.Plural
			if s.Singleton {
				path = "/" + s.Name
			}
			out += string(h.OK("GET", path, nil))
		}
		return out
	}
	before, revision := read(h), h.Registry.Revision()
	h.Stop()
	h = apitest.Start(t, apitest.Options{Dir: dir})
	if after := read(h); after != before {
		t.Errorf("before %s\nafter  %s", before, after)
	}
	if h.Registry.Revision() != revision {
		t.Errorf("revision %d became %d", revision, h.Registry.Revision())
	}
	h.Create("nodes", `{"mac":"52:54:00:00:01:00"}`)
	if n := h.Get("node/52:54:00:00:01:00"); n["name"] != "n7" {
		t.Errorf("the next node is %v, not the lowest that is free", n["name"])
	}
}

// TestClockGoesBack: what changed later says so, whatever the clock says.
func TestClockGoesBack(t *testing.T) {
	var mu sync.Mutex
	now := time.Unix(1_700_000_000, 0)
	h := apitest.Start(t, apitest.Options{Now: func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		now = now.Add(-time.Hour)
		return now
	}})
	uid := h.Create("attribs", `{"name":"a"}`)
	last := 0.0
	for range 5 {
		h.OK("PATCH", "/attrib/"+uid, `{}`)
		at, _ := h.Get("attrib/" + uid)["last_modified"].(json.Number).Float64()
		if at <= last {
			t.Errorf("last_modified went from %f to %f", last, at)
		}
		last = at
	}
}

// TestStoppedRegistry: a write whose result nobody will see says so instead of
// waiting for ever.
func TestStoppedRegistry(t *testing.T) {
	h := apitest.Start(t, apitest.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	second, err := registry.Open(ctx, h.Store, object.All(), registry.Options{Head: "x", Now: time.Now, Log: h.Logger})
	if err != nil {
		t.Fatal(err)
	}
	ran := make(chan error)
	go func() { ran <- second.Run(ctx) }()
	cancel()
	if err := <-ran; err != nil {
		t.Fatal(err)
	}
	_, err = second.Create(t.Context(), author, object.KindAttrib, input(t, `{"name":"a"}`))
	if !fault.Is(err, fault.Unavailable) {
		t.Errorf("the answer is %v", err)
	}
}

// TestEffectiveAttributes: the cluster's group comes first, then the pool's
// where a node has no groups, then the node's groups in order, then its own.
func TestEffectiveAttributes(t *testing.T) {
	h := apitest.Start(t, apitest.Options{})
	for _, g := range []string{"default", "pool", "first", "second"} {
		h.Create("attribs", fmt.Sprintf(`{"name":%q,"attributes":{"who":%q,"%s":true}}`, g, g, g))
	}
	h.Create("namingpools", `{"name":"above","pattern":"a{}","group":"pool"}`)
	h.Create("namingpools", `{"name":"p","pattern":"p{}","parent":"above"}`)
	h.Create("nodes", `{"mac":"52:54:00:00:00:01","naming_pool":"p"}`)
	check := func(expected string) {
		t.Helper()
		got := string(h.OK("GET", "/node/p0/attributes", nil))
		whole, _ := json.Marshal(h.Get("node/p0")["attributes"])
		if got != expected || string(whole) != expected {
			t.Errorf("got %s and %s, want %s", got, whole, expected)
		}
	}
	check(`{"pool":true,"who":"pool"}`)
	h.OK("PATCH", "/cluster", `{"default_group":"default"}`)
	check(`{"default":true,"pool":true,"who":"pool"}`)
	h.OK("POST", "/node/p0/groups", `"first"`)
	check(`{"default":true,"first":true,"who":"first"}`)
	h.OK("POST", "/node/p0/groups", `["second"]`)
	check(`{"default":true,"first":true,"second":true,"who":"second"}`)
	h.OK("PATCH", "/node/p0", `{"groups":["second","first"]}`)
	check(`{"default":true,"first":true,"second":true,"who":"first"}`)
	h.OK("PATCH", "/node/p0/attributes", `{"who":"me","first":0}`)
	check(`{"default":true,"first":0,"second":true,"who":"me"}`)
	// What is read and sent back does not become the node's own.
	node := h.Get("node/p0")
	node["description"] = "edited"
	h.OK("PUT", "/node/p0", node)
	h.OK("DELETE", "/node/p0/attributes", `["who","first"]`)
	check(`{"default":true,"first":true,"second":true,"who":"first"}`)
	h.OK("PATCH", "/attrib/first/attributes", `{"who":"first, later"}`)
	check(`{"default":true,"first":true,"second":true,"who":"first, later"}`)
	h.OK("DELETE", "/attrib/first", nil)
	check(`{"default":true,"second":true,"who":"second"}`)
	if groups := h.Get("node/p0")["groups"].([]any); len(groups) != 1 {
		t.Errorf("a deleted group is still among %v", groups)
	}
	h.OK("DELETE", "/node/p0/groups", `"second"`)
	check(`{"default":true,"pool":true,"who":"pool"}`)
	h.OK("DELETE", "/attrib/default", nil)
	h.OK("DELETE", "/namingpool/p", nil)
	check(`{}`)
}
