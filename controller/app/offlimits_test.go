package app_test

import (
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"muster/controller/app/apptest"
	"muster/shared/object"
)

// TestSendingTheHeadToItself: what comes from the head's own address may do more
// than those who name remotes and configurations, so only who may do everything
// sends it there.
func TestSendingTheHeadToItself(t *testing.T) {
	h := apptest.Start(t, nil)
	_, jo := h.NewAdmin("jo", object.RoleImagingAdmin, object.RoleProductionAdmin)
	h.OK("POST", "/nodes", `{"mac":"52:54:00:00:00:01"}`)
	h.OK("POST", "/attribs", `{"name":"g"}`)
	h.OK("POST", "/heads", `{"uid":"0123456789abcdef0123456789abcdef","ssh_public":"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ+WGWcLHB3iGcLnEsLnmTx4Tkvz2bmC9sb2UCq9Sk6x other","name":"other","addresses":["203.0.113.9"]}`)
	as := func(token string, want int, method, path string, body any) string {
		t.Helper()
		a := h.As(token, method, path, body)
		if a.Status != want {
			t.Errorf("%s %s %v: %d %s, want %d", method, path, body, a.Status, a.Raw, want)
		}
		return a.Reason
	}
	hosts := []string{"127.0.0.1:80", "localhost", "x.LocalHost", "127.9.9.9", "127.1", "0x7f000001", "2130706433", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254", "[fe80::1]", "0.0.0.0", "203.0.113.9"}
	own, _ := net.InterfaceAddrs()
	for _, a := range own {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() {
			hosts = append(hosts, p.Addr().String())
		}
	}
	for _, host := range hosts {
		url := "http://" + host + "/x.git"
		as(jo.Access, 403, "POST", "/gitrepos", map[string]string{"name": "r", "upstream": url})
		as(jo.Access, 403, "PATCH", "/node/n0/attributes", map[string]string{"_ignition": url})
		as(jo.Access, 403, "PATCH", "/attrib/g", map[string]any{"attributes": map[string]string{"_ignition": url}})
	}
	as(jo.Access, 403, "POST", "/gitrepos", `{"name":"r","url":"git@localhost:x"}`)
	as(jo.Access, 403, "POST", "/gitrepos", `{"name":"r","url":"ssh://git@127.0.0.1/x"}`)
	as(jo.Access, 200, "PATCH", "/node/n0/attributes", `{"_ignition":"http://192.0.2.1/x"}`)
	h.OK("PATCH", "/node/n0/attributes", `{"_ignition":"`+h.HTTP+`/x"}`)

	// What one who may named stays while others change the rest.
	h.OK("POST", "/gitrepos", `{"name":"r","upstream":"`+h.HTTP+`/x.git"}`)
	confined := func() bool {
		return strings.Contains(string(h.OK("GET", "/gitrepo/r", nil)), `"confined":true`)
	}
	as(jo.Access, 200, "PATCH", "/gitrepo/r", `{"description":"x","upstream":"`+h.HTTP+`/x.git"}`)
	if as(jo.Access, 502, "POST", "/gitrepo/r/sync", `{"action":"pull"}`); confined() {
		t.Error("a change of its description confined the remote")
	}
	as(jo.Access, 403, "PATCH", "/gitrepo/r", `{"url":"`+h.HTTP+`/x.git","upstream":null}`)
	as(jo.Access, 400, "PATCH", "/gitrepo/r", `{"confined":true}`)
	as(jo.Access, 200, "PATCH", "/gitrepo/r", `{"upstream":"http://192.0.2.1/x.git"}`)
	if !confined() {
		t.Error("the remote of one who may not do everything is not confined")
	}
	as(jo.Access, 400, "PATCH", "/gitrepo/r", `{"confined":false}`)
	as(jo.Access, 200, "PATCH", "/gitrepo/r", `{"upstream":null}`)
	if confined() {
		t.Error("confined without a remote")
	}
	// A name says where it leads only when it is looked up.
	name, err := os.Hostname()
	if _, lookup := net.LookupHost(name); err != nil || lookup != nil {
		t.Logf("this machine cannot look itself up, which is left out: %v %v", err, lookup)
		return
	}
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(h.HTTP, "http://"))
	as(jo.Access, 200, "PATCH", "/gitrepo/r", `{"upstream":"http://`+name+`:`+port+`/x.git"}`)
	if reason := as(jo.Access, 403, "POST", "/gitrepo/r/sync", `{"action":"pull"}`); !strings.Contains(reason, "the head itself") {
		t.Error(reason)
	}
	as(jo.Access, 200, "PATCH", "/node/n0/attributes", `{"_ignition":"http://`+name+`:`+port+`/x"}`)
	if reason := as("", 502, "GET", "/ignition/n0", nil); !strings.Contains(reason, "not fetched from") {
		t.Error(reason)
	}
}
