package selection_test

import (
	"net/url"
	"slices"
	"strings"
	"testing"

	"muster/controller/api/apitest"
	"muster/controller/fleet/fleettest"
)

// picked gives the names of the nodes that a selector picks.
func picked(t *testing.T, h *fleettest.Head, selector string) string {
	t.Helper()
	var names []string
	for _, n := range apitest.Decode[[]map[string]string](t, h.OK("GET", "/nodes/select?selector="+url.QueryEscape(selector), nil)) {
		if len(n["uid"]) != 32 {
			t.Errorf("%s gives %v", selector, n)
		}
		names = append(names, n["name"])
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

func start(t *testing.T) *fleettest.Head {
	h := fleettest.Start(t, "")
	h.Create("nets", `{"first_ip":"10.0.0.10","ip_count":50,"mask_bits":24}`)
	h.Create("attribs", `{"name":"gpu","attributes":{"cards":4}}`)
	h.Create("namingpools", `{"name":"pool","pattern":"x{}"}`)
	h.Create("nodes", `{"mac":"52:54:00:00:00:01","groups":["gpu"],"description":"first"}`)
	h.Create("nodes", `{"mac":"52:54:00:00:00:02","attributes":{"cards":"2"}}`)
	h.Create("nodes", `{"mac":"52:54:00:00:00:03","naming_pool":"pool","type":"head"}`)
	for uid, body := range map[string]string{
		"n0": `{"uid":"n0","hardware":{"ram_total":200000000},"status":{"load_avg":[9,1,1],"modules":["nvidia","ext4"]}}`,
		"n1": `{"uid":"n1","hardware":{"ram_total":1000},"status":{"load_avg":[0.5,1,1]}}`,
	} {
		if h.OK("POST", "/node/putstatus", body); uid == "" {
			t.Fatal("no uid")
		}
	}
	return h
}

func TestSelect(t *testing.T) {
	h := start(t)
	h.Create("dyngroups", `{"name":"big","selector":"h[ram_total] > 100GB"}`)
	for selector, want := range map[string]string{
		"unknown":                              "n0 n1 x0",
		"up":                                   "",
		"h[ram_total] > 100GB":                 "n0",
		"h[ram_total] > 100000":                "n0 n1",
		"not (h[ram_total] > 100GB)":           "n1 x0",
		"a[cards] >= 3":                        "n0",
		"a[cards] == 2":                        "n1",
		"%gpu":                                 "n0",
		"@big":                                 "n0",
		"not @big and name in n[0-5]":          "n1",
		"@nobody":                              "",
		"index == 0":                           "n0 x0",
		`ip == "10.0.0.11"`:                    "n1",
		`naming_pool == "pool"`:                "x0",
		`type == "head" or description =~ "f"`: "n0 x0",
		"s[load_avg.0] > 8":                    "n0",
		`"nvidia" in s[modules]`:               "n0",
	} {
		if got := picked(t, h, selector); got != want {
			t.Errorf("%s picks %q, want %q", selector, got, want)
		}
	}
	for _, wrong := range []string{"", "up and", "(", "h[ram_total] > 5m"} {
		h.Refused("GET", "/nodes/select?selector="+url.QueryEscape(wrong), nil)
	}
}

func TestDyngroup(t *testing.T) {
	h := start(t)
	uid := h.Create("dyngroups", `{"name":"big","selector":"h[ram_total] > 100GB"}`)
	if reason := h.Refused("POST", "/dyngroups", `{"name":"bad","selector":"s[x] =="}`); !strings.HasPrefix(reason, "selector: ") || strings.HasSuffix(reason, "..") {
		t.Error(reason)
	}
	g := h.Get("dyngroup/big")
	if g["selector"] != "h[ram_total] > 100GB" || g["parsed"] != `(hardware["ram_total"] > 100GB)` {
		t.Errorf("the group is shown as %v", g)
	}
	n0 := h.Get("node/n0")["uid"]
	for _, id := range []string{"big", uid} {
		if got := apitest.Decode[[]string](t, h.OK("GET", "/dyngroup/"+id+"/nodes", nil)); len(got) != 1 || got[0] != n0 {
			t.Errorf("%s has the members %v, want %v", id, got, n0)
		}
	}
	h.OK("PATCH", "/dyngroup/big", `{"selector":"h[ram_total] > 900TB"}`)
	if got := string(h.OK("GET", "/dyngroup/big/nodes", nil)); got != "[]" {
		t.Errorf("nobody is big enough, and the members are %s", got)
	}
	h.Create("dyngroups", `{"name":"two","selector":"@big or up"}`)
	for _, circle := range []string{"@two", "@big", "up and not @" + uid} {
		h.Refused("PATCH", "/dyngroup/big", apitest.Map{"selector": circle})
	}
	h.Refused("GET", "/dyngroup/nobody/nodes", nil)
	h.OK("DELETE", "/dyngroup/two", nil)
}
