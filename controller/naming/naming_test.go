package naming_test

import (
	"slices"
	"strings"
	"testing"

	"muster/controller/api"
	"muster/controller/api/apitest"
	"muster/controller/naming"
)

func start(t *testing.T) *apitest.Head {
	return apitest.Start(t, apitest.Options{Routes: func(h *apitest.Head) [][]api.Route {
		return [][]api.Route{(&naming.Naming{Objects: h.Registry}).Routes()}
	}})
}

func TestNetworkSearch(t *testing.T) {
	h := start(t)
	lan := h.Create("nets", `{"name":"lan","first_ip":"10.0.0.10","ip_count":50,"mask_bits":24,"router_ip":"10.0.0.1","node_iface":"eth0"}`)
	h.Create("nets", `{"name":"fast lane","first_ip":"10.5.0.10","ip_count":50,"mask_bits":16,"gateway_ip":"10.5.0.254","node_iface":"ib0"}`)
	h.Create("nets", `{"first_ip":"fd00::10","ip_count":50,"mask_bits":64}`)
	for path, names := range map[string]string{
		"byname/lan": "fast lane, lan", "byname/fast%20lane": "fast lane", "byname/LAN": "", "byname/nobody": "",
		"byiface/eth0": "lan", "byiface/0": "fast lane, lan", "byiface/eth1": "",
		"byip/10.0.0.77": "lan", "byip/10.5.200.1": "fast lane", "byip/10.": "fast lane, lan", "byip/10.0.0.1": "lan", "byip/10.6.0.1": "", "byip/.254": "fast lane",
		"byip/fd00::99": "<nil>", "byip/fd00": "<nil>",
		"bykey/" + lan: "lan", "bykey/" + lan[3:20]: "lan", "bykey/zzz": "",
	} {
		var got []string
		for _, n := range apitest.Decode[[]apitest.Map](t, h.OK("GET", "/nets/"+path, nil)) {
			if n["name"] == nil {
				got = append(got, "<nil>")
			} else {
				got = append(got, n["name"].(string))
			}
			if len(n["uid"].(string)) != 32 || n["first_ip"] == nil {
				t.Errorf("%s gives %v", path, n)
			}
		}
		slices.Sort(got)
		if strings.Join(got, ", ") != names {
			t.Errorf("%s gives %v, want %s", path, got, names)
		}
	}
	if h.Do("GET", "/nets/byiface/x", nil).Header.Get("Deprecation") == "" || h.Do("GET", "/nets/byname/x", nil).Header.Get("Deprecation") != "" {
		t.Error("byiface, and it alone, is deprecated")
	}
	h.Refused("GET", "/nets/byname/"+strings.Repeat("x", 1000), nil)
}

// TestRenaming: nodes are named anew when somebody asks for it, not before.
func TestRenaming(t *testing.T) {
	h := start(t)
	h.Create("namingpools", `{"name":"p","pattern":"a{}x"}`)
	for _, mac := range []string{"52:54:00:00:00:01", "52:54:00:00:00:02"} {
		h.Create("nodes", apitest.Map{"mac": mac, "naming_pool": "p"})
	}
	h.OK("PATCH", "/namingpool/p", `{"pattern":"a{:03d}x"}`)
	h.Get("node/a0x") // nothing is renamed by itself
	if info := h.Get("namingpools/info/a1x"); info["pattern"] != "a{:03d}x" {
		t.Errorf("info %v", info)
	}
	h.OK("PUT", "/namingpool/p/push", nil)
	h.Get("node/a000x")
	h.Refused("GET", "/node/a0x", nil)
	h.OK("PUT", "/namingpool/p/push", nil) // again: nothing to do
	h.Get("node/a001x")
}
