package app_test

import (
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"muster/controller/app/apptest"
	"muster/shared/kind"
	"muster/shared/object"
)

// TestReservedStaysHidden asks in roundabout ways for a reserved attribute, as
// an admin who may change nodes but not see it.
func TestReservedStaysHidden(t *testing.T) {
	h := apptest.Start(t, nil)
	_, racks := h.NewAdmin("racks", object.RoleOnsiteEngineer)
	h.Into(new(string), "POST", "/nodes", `{"mac":"52:54:00:00:00:01","attributes":{"_pass":"hidden","shown":"10.0.0.9"}}`)
	guess := url.QueryEscape(`a[_pass] =~ "^h"`)
	want(t, "events of a guess", h.As(racks.Access, "GET", "/events?selector="+guess, ""), http.StatusForbidden, "_pass")
	want(t, "a guess", h.As(racks.Access, "GET", "/nodes/select?selector="+guess, ""), http.StatusForbidden, "_pass")
	for name, text := range map[string]string{"installer.ks": "rootpw <a[_pass]>\n", "outer.ks": "<include(installer.ks)>"} {
		if err := os.WriteFile(filepath.Join(h.Data, "kickstarts", name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h.OK("POST", "/bootconfigs", `{"name":"KS","kickstart":"outer.ks"}`)
	want(t, "a kickstart", h.As(racks.Access, "GET", "/bootconfig/KS/kickstart?node=n0", ""), http.StatusForbidden, "_pass")
	want(t, "a kickstart", h.As(h.Token(), "GET", "/bootconfig/KS/kickstart?node=n0", ""), http.StatusOK, "")
	for _, uri := range []string{"ssh://root@127.0.0.1/x?command=/bin/sh", "qemu:///run/docker.sock", "virsh:///vm", "<a[shown]>://x", "SSH://root@h/x", "qemu+ssh://root@h/vm"} {
		want(t, uri, h.As(racks.Access, "PATCH", "/node/n0", `{"power_uri":"`+uri+`"}`), http.StatusForbidden, "power_uri")
	}
	for _, uri := range []string{"https://<a[_pass]>@10.0.0.9", "<_pass>://10.0.0.9", "ssh://root@h/x"} {
		want(t, uri, h.As(racks.Access, "PATCH", "/node/n0", `{"redfish_uri":"`+uri+`"}`), http.StatusForbidden, "redfish_uri")
	}
	for uri, status := range map[string]int{
		"ipmi://<a[_pass]>@10.0.0.9": http.StatusForbidden,
		"ipmi://<_pass>@10.0.0.9":    http.StatusForbidden,
		"ipmi://admin@<a[shown]>":    http.StatusOK,
		"redfish+https://10.0.0.9/":  http.StatusOK,
	} {
		want(t, uri, h.As(racks.Access, "PATCH", "/node/n0", `{"power_uri":"`+uri+`"}`), status, "")
		h.OK("PATCH", "/node/n0", `{"power_uri":"`+uri+`"}`)
		want(t, uri, h.As(racks.Access, "GET", "/node/n0/power_uri", ""), status, "")
		want(t, uri, h.As(h.Token(), "GET", "/node/n0/power_uri", ""), http.StatusOK, "")
	}
	for _, uri := range []string{"ipmi://<n[attributes._pass]>@10.0.0.9", "ipmi://<n[attributes.shown]>@10.0.0.9"} {
		h.As(racks.Access, "PATCH", "/node/n0", `{"power_uri":"`+uri+`"}`)
		if a := h.As(racks.Access, "GET", "/node/n0/power_uri", ""); a.Status != http.StatusConflict || strings.Contains(string(a.Raw), "hidden") {
			t.Errorf("%s: %d %s", uri, a.Status, a.Raw)
		}
	}
	// A node cannot supply a reserved value where it has none.
	h.OK("POST", "/node/putstatus", `{"uid":"n0","status":{"_bmc":"10.6.6.6"}}`)
	h.OK("PATCH", "/node/n0", `{"power_uri":"ipmi://admin:<_pass>@<_bmc>"}`)
	want(t, "what a node reports", h.As(h.Token(), "GET", "/node/n0/power_uri", ""), http.StatusConflict, "_bmc")
	// Nor does it go where somebody says who may not see it.
	_, runs := h.NewAdmin("runs", object.RoleProductionAdmin)
	for uri, status := range map[string]int{
		"ipmi://admin:<a[_pass]>@<a[shown]>": http.StatusBadRequest, "ipmi://admin:<_pass>@<shown>/ipmi": http.StatusBadRequest, "ipmi://<shown>:<_pass>@10.0.0.9:<h[port]>": http.StatusBadRequest,
		"<shown>://admin:<_pass>@10.0.0.9": http.StatusForbidden, "ipmi://admin:<_pass>@x<n[mac]>": http.StatusBadRequest, "ipmi://admin:<_pass>@<name>": http.StatusBadRequest,
		"ipmi://<shown>:<a[_pass]>@<a[_pass]>": http.StatusOK, "ipmi://admin:<_pass>@<n[name]>-bmc": http.StatusOK, "redfish://admin:<_pass>@10.0.0.9/<shown>": http.StatusOK,
	} {
		want(t, uri, h.As(runs.Access, "PATCH", "/node/n0", map[string]string{"power_uri": uri}), status, "")
		want(t, uri, h.As(runs.Access, "PATCH", "/node/n0", map[string]string{"redfish_uri": uri}), status, "")
	}
	// So does one of a set of states, which only its maker and those who run nodes may forget.
	h.OK("POST", "/nodes/waitfor", `{"name":"set","states":{"secret":"a[_pass] == \"hidden\"","open":"a[shown] == 1"}}`)
	_, reader := h.NewAdmin("reader", object.RoleAuthUser)
	if got := string(h.As(reader.Access, "GET", "/waitfor/set", "").Raw); strings.Contains(got, "_pass") || !strings.Contains(got, "a[shown]") {
		t.Errorf("a set of states: %s", got)
	}
	if got := string(h.OK("GET", "/waitfor/set", "")); !strings.Contains(got, "_pass") {
		t.Errorf("a set of states lacks a selector: %s", got)
	}
	want(t, "forgetting another's set", h.As(reader.Access, "DELETE", "/waitfor/set", ""), http.StatusForbidden, "NodesWrite")
	// A group's selector tells the value that it looks for.
	h.OK("POST", "/dyngroups", `{"name":"secret","selector":"a[_pass] == \"hidden\""}`)
	h.OK("POST", "/dyngroups", `{"name":"open","selector":"a[shown] == 1"}`)
	_, clerk := h.NewAdmin("clerk", object.RoleAuthUser, string(kind.AuditRead), "DyngroupsWrite")
	for path, want := range map[string]string{
		"/dyngroup/secret": "secret", "/dyngroup/open": "shown", "/dyngroups": "shown", "/dyngroup/secret/nodes": `["`, "/audit?kind=dyngroup": "shown", "/audit?uid=x": "",
	} {
		if got := string(h.As(clerk.Access, "GET", path, "").Raw); strings.Contains(got, "_pass") || !strings.Contains(got, want) {
			t.Errorf("%s: %s", path, got)
		}
		if full := string(h.OK("GET", path, "")); strings.Contains(path, "dyngroup") && !strings.Contains(path, "open") && !strings.Contains(path, "nodes") && !strings.Contains(full, "_pass") {
			t.Errorf("%s lacks the selector for those who may see it: %s", path, full)
		}
	}
	want(t, "a group that guesses", h.As(clerk.Access, "POST", "/dyngroups", `{"name":"x","selector":"a[_pass] =~ \"^h\""}`), http.StatusForbidden, "_pass")
	want(t, "a group that guesses", h.As(clerk.Access, "PATCH", "/dyngroup/open", `{"selector":"a[_pass] =~ \"^h\""}`), http.StatusForbidden, "_pass")
	want(t, "another field of the group", h.As(clerk.Access, "PATCH", "/dyngroup/secret", `{"description":"x"}`), http.StatusOK, "")
	if got := string(h.OK("GET", "/dyngroup/secret", "")); !strings.Contains(got, "_pass") {
		t.Errorf("who could not see the selector has changed it: %s", got)
	}
}
