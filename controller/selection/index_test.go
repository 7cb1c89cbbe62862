package selection_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"muster/controller/api/apitest"
	"muster/controller/fleet/fleettest"
	"muster/controller/selection"
	"muster/shared/object"
	"muster/shared/selector"
	"muster/shared/wire"
)

var (
	names     = rapid.SampledFrom([]string{"a", "b", "c"})
	values    = rapid.SampledFrom([]string{`"x"`, `"y"`, `1`, `"1"`, `1.0`, `true`, `""`, `2048`})
	macs      = rapid.Map(rapid.IntRange(1, 5), func(n int) string { return fmt.Sprintf("52:54:00:00:00:%02x", n) })
	pools     = rapid.SampledFrom([]string{"", "p", "q"})
	selectors = rapid.SampledFrom([]string{
		`a[a] == "x"`, `a[a] == 1`, `a[b] == "x" or a[c] == 1`, `a[a] == "x" and a[b] == "y"`, `not a[a] == "x"`, `a[a] in ["x", 1]`, `a[b] != "x"`, `a[c] > 0`,
		`%a`, `%b and not a[a] == "y"`, `%a or %c`, `@one`, `not @two`, `@three or a[a] == 1`, `naming_pool == "p"`, `naming_pool == "q"`, `name in n[0-3]`, `index == 1`,
		`s[a] == "x"`, `s[a] in ["x", "y"] and not up`, `h[ram_total] >= 2MiB`, `h[ram_total] == 2MiB`, `s[l.0] == 1`, `unknown`, `down`, `booting or failed`, `s[state] != "unknown"`,
		`groups == "x"`, `mac =~ "[1-3]$"`, `type == "head"`,
	})
	groupNames = rapid.SampledFrom([]string{"one", "two", "three"})
)

// change makes a random one through the API; some are refused, which is fine.
func change(t *rapid.T, h *fleettest.Head) {
	do := func(method, path string, body any) { h.Do(method, path, body) }
	key, value, name, mac := names.Draw(t, "key"), json.RawMessage(values.Draw(t, "value")), names.Draw(t, "name"), macs.Draw(t, "mac")
	groups := rapid.SliceOfNDistinct(names, 0, 2, rapid.ID[string]).Draw(t, "groups")
	pool := any(pools.Draw(t, "pool"))
	if pool == "" {
		pool = nil
	}
	switch rapid.IntRange(0, 15).Draw(t, "change") {
	case 0, 1:
		do("POST", "/nodes", apitest.Map{"mac": mac, "naming_pool": pool, "groups": groups})
	case 2:
		do("DELETE", "/node/"+mac, nil)
	case 3, 4:
		do("PATCH", "/node/"+mac+"/attributes", apitest.Map{key: value})
	case 5:
		do("DELETE", "/node/"+mac+"/attributes", `"`+key+`"`)
	case 6:
		do("PATCH", "/node/"+mac, apitest.Map{"groups": groups, "naming_pool": pool})
	case 7:
		if rapid.Bool().Draw(t, "new group") {
			do("POST", "/attribs", apitest.Map{"name": name, "attributes": apitest.Map{key: value}})
		}
	case 8:
		do("PATCH", "/attrib/"+name+"/attributes", apitest.Map{key: value})
	case 9:
		do(rapid.SampledFrom([]string{"DELETE", "PATCH"}).Draw(t, "method"), "/attrib/"+name, apitest.Map{"name": names.Draw(t, "new name")})
	case 10:
		do("PATCH", "/cluster", apitest.Map{"default_group": name, "naming": pool})
	case 11:
		do("POST", "/namingpools", apitest.Map{"name": pool, "pattern": fmt.Sprint(pool, "{}"), "group": name})
	case 12:
		do("PATCH", "/namingpool/p", apitest.Map{"group": name, "parent": rapid.SampledFrom([]any{nil, "q"}).Draw(t, "parent")})
	case 13:
		body := apitest.Map{"name": groupNames.Draw(t, "dyngroup"), "selector": selectors.Draw(t, "selector")}
		do("POST", "/dyngroups", body)
		do("PATCH", "/dyngroup/"+body["name"].(string), body)
	case 14:
		do("DELETE", "/dyngroup/"+groupNames.Draw(t, "dyngroup"), nil)
	case 15:
		report(t, h, mac, key, value)
	}
}

// report is what reaches the fleet: a report, a step of a boot, or time.
func report(t *rapid.T, h *fleettest.Head, mac, key string, value json.RawMessage) {
	o, err := h.Registry.Find(object.KindNode, mac)
	switch {
	case err != nil:
	case rapid.Bool().Draw(t, "step"):
		h.Fleet.Stamp(o.Base().UID, wire.Step{Step: rapid.SampledFrom([]string{wire.StepDHCP, wire.StepUp}).Draw(t, "step"), Error: rapid.SampledFrom([]string{"", "no"}).Draw(t, "error")})
	default:
		h.Do("POST", "/node/putstatus", apitest.Map{"uid": mac, "status": apitest.Map{key: value, "l": []any{value}}, "hardware": apitest.Map{"ram_total": value}})
	}
	h.Clock.Add(time.Duration(rapid.SampledFrom([]int{0, 0, 10, 3600}).Draw(t, "seconds")) * time.Second)
}

func uids(nodes []*object.Node) []string {
	out := []string{}
	for _, n := range nodes {
		out = append(out, n.UID)
	}
	return out
}

// TestIndexIsAsGoodAsLooking: whatever changes, the index says the same as a
// look at all nodes.
func TestIndexIsAsGoodAsLooking(t *testing.T) {
	h := fleettest.Start(t, "")
	look := &selection.Selection{Objects: h.Registry, Live: h.Fleet}
	rapid.Check(t, func(rt *rapid.T) {
		begin(rt, h)
		asked := rapid.SliceOfN(selectors, 3, 8).Draw(rt, "asked")
		for range rapid.IntRange(1, 20).Draw(rt, "changes") {
			for _, text := range asked {
				e, err := selector.Parse(text)
				if err != nil {
					rt.Fatal(err)
				}
				got, err := h.Index.Select(context.Background(), e)
				agree(rt, look, text, uids(got), err)
			}
			for _, o := range h.Registry.All(object.KindDyngroup) {
				got, err := h.Index.Members(context.Background(), o.Base().UID)
				agree(rt, look, o.(*object.Dyngroup).Selector, got, err)
			}
			change(rt, h)
		}
	})
}

// begin makes a small cluster of what was before.
func begin(t *rapid.T, h *fleettest.Head) {
	for _, plural := range []string{"nodes", "attribs", "namingpools", "dyngroups"} {
		for uid := range h.List(plural) {
			h.OK("DELETE", "/"+plural+"/"+uid, nil)
		}
	}
	for _, name := range []string{"a", "b", "c"} {
		h.Create("attribs", apitest.Map{"name": name, "attributes": apitest.Map{names.Draw(t, "key"): json.RawMessage(values.Draw(t, "value"))}})
	}
	h.Create("namingpools", `{"name":"q","pattern":"q{}","group":"a"}`)
	h.Create("namingpools", `{"name":"p","pattern":"p{}","group":"b"}`)
	for n, groups := range []string{`["a"]`, `["b","c"]`, `[]`, `[]`} {
		pool := []string{`null`, `"p"`, `null`, `"q"`}[n]
		h.Create("nodes", fmt.Sprintf(`{"mac":"52:54:00:00:00:%02x","groups":%s,"naming_pool":%s}`, n+1, groups, pool))
	}
	for _, name := range []string{"one", "two", "three"} { // each may refer to those before
		h.Do("POST", "/dyngroups", apitest.Map{"name": name, "selector": selectors.Draw(t, name)})
	}
}

func agree(t *rapid.T, look *selection.Selection, text string, got []string, err error) {
	if err != nil {
		t.Fatal(err)
	}
	want, err := look.Select(context.Background(), text)
	if err != nil {
		t.Fatal(err)
	}
	if got == nil || !slices.Equal(got, uids(want)) {
		t.Fatalf("%s picks %v, the index %v", text, uids(want), got)
	}
}

// TestManyKeys asks for more keys than the index keeps columns.
func TestManyKeys(t *testing.T) {
	h := start(t)
	for _, form := range []string{"a[k%d] == 1", "a[k%d] > 1"} {
		var terms []string
		for i := range 1500 {
			terms = append(terms, fmt.Sprintf(form, i))
		}
		e, err := selector.Parse(strings.Join(terms, " or ") + " or a[cards] == 2")
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if got, err := h.Index.Select(t.Context(), e); err != nil || len(got) != 1 || got[0].Name != "n1" {
				t.Errorf("%s: %v, %v", form, got, err)
			}
		}
	}
}

// members counts the nodes of a dynamic group.
func members(t *testing.T, h *fleettest.Head, name string) int {
	t.Helper()
	return len(apitest.Decode[[]string](t, h.OK("GET", "/dyngroup/"+name+"/nodes", nil)))
}

// TestTimeAlone: a state that turns without anybody saying so.
func TestTimeAlone(t *testing.T) {
	h := start(t)
	h.Create("dyngroups", `{"name":"boots","selector":"booting"}`)
	h.Fleet.Stamp(h.Get("node/n0")["uid"].(string), wire.Step{Step: wire.StepDHCP})
	if n := members(t, h, "boots"); n != 1 {
		t.Errorf("%d nodes boot, not 1", n)
	}
	h.Clock.Add(24 * time.Hour)
	if n := members(t, h, "boots"); n != 0 {
		t.Errorf("%d nodes boot a day later", n)
	}
}

// TestRenamedGroup: membership goes by the name that a group has now.
func TestRenamedGroup(t *testing.T) {
	h := start(t)
	h.Create("dyngroups", `{"name":"with","selector":"%gpu"}`)
	for _, step := range []struct {
		name string
		want int
	}{{"gpu", 1}, {"other", 0}, {"gpu", 1}} {
		uid := h.Get("node/n0")["groups"].([]any)[0].(string)
		h.OK("PATCH", "/attrib/"+uid, apitest.Map{"name": step.name})
		if n := members(t, h, "with"); n != step.want {
			t.Errorf("named %s, the group gives %d nodes, not %d", step.name, n, step.want)
		}
	}
}
