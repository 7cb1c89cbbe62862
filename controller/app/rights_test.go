package app_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"muster/controller/app/apptest"
	"muster/shared/object"
)

// want checks an answer's status and a word of its reason.
func want(t *testing.T, what string, a apptest.Answer, status int, reason string) {
	t.Helper()
	if a.Status != status || !strings.Contains(a.Reason, reason) {
		t.Errorf("%s: %d %.300s, want %d and %q", what, a.Status, a.Raw, status, reason)
	}
}

func attributes(t *testing.T, a apptest.Answer) map[string]any {
	t.Helper()
	var node struct{ Attributes map[string]any }
	if err := json.Unmarshal(a.Data, &node); err != nil || a.Status != http.StatusOK {
		t.Fatalf("%d %s: %v", a.Status, a.Raw, err)
	}
	return node.Attributes
}

func TestReservedAttributesAreHiddenAndKept(t *testing.T) {
	h := apptest.Start(t, nil)
	h.OK("POST", "/nodes", `{"mac":"52:54:00:00:00:01","attributes":{"_ipmi_pass":"hush","rack":"7"}}`)
	h.OK("POST", "/attribs", `{"name":"g","attributes":{"_boot_config":"Other","x":"1"}}`)
	_, reader := h.NewAdmin("reader", object.RoleAuthUser)
	_, engineer := h.NewAdmin("engineer", object.RoleOnsiteEngineer)
	_, imager := h.NewAdmin("imager", object.RoleImagingAdmin)
	_, operator := h.NewAdmin("operator", object.RoleProductionAdmin)

	for _, path := range []string{"/node/n0", "/nodes", "/node/n0/attributes", "/attrib/g", "/attribs", "/attrib/g/attributes", "/attrib/DefaultAttribs"} {
		for who, sees := range map[string]struct {
			token    string
			reserved bool
		}{"reader": {reader.Access, false}, "engineer": {engineer.Access, false}, "imager": {imager.Access, true}, "operator": {operator.Access, true}} {
			a := h.As(sees.token, "GET", path, nil)
			if a.Status != http.StatusOK || strings.Contains(string(a.Raw), `"_`) != sees.reserved {
				t.Errorf("%s reads %s: %d %s", who, path, a.Status, a.Raw)
			}
		}
	}

	guess := "/nodes/select?selector=" + url.QueryEscape(`up or not (a[_ipmi_pass] =~ "^h")`)
	want(t, "guessing by selector", h.As(reader.Access, "GET", guess, nil), http.StatusForbidden, "_ipmi_pass is a reserved attribute")
	want(t, "selecting by what may be seen", h.As(imager.Access, "GET", guess, nil), http.StatusOK, "")

	const n0 = "/node/n0"
	as := func(method, path, body string) apptest.Answer { return h.As(engineer.Access, method, path, body) }
	for _, c := range [][3]string{
		{"PATCH", n0, `{"attributes":{"_boot_config":"Other"}}`},
		{"PUT", n0, `{"mac":"52:54:00:00:00:01","attributes":{"_new":"1"}}`},
		{"PATCH", n0 + "/attributes", `{"_ipmi_pass":"mine"}`},
		{"POST", n0 + "/attributes", `{"_x":1}`},
		{"PUT", n0 + "/attributes", `{"_x":1}`},
		{"DELETE", n0 + "/attributes", `["rack","_ipmi_pass"]`},
		{"DELETE", n0 + "/attributes", `"_not_there"`},
		{"POST", "/nodes", `{"mac":"52:54:00:00:00:02","attributes":{"_boot_config":"Other"}}`},
		{"POST", "/node/putattribs", `{"uid":"n0","_boot_config":"Other"}`},
	} {
		want(t, c[0]+" "+c[1]+" "+c[2], as(c[0], c[1], c[2]), http.StatusForbidden, "ReservedAttribWrite")
	}
	// What he cannot see stays where he replaces what he can.
	for _, c := range []struct{ method, path, body, rack string }{
		{"PUT", n0 + "/attributes", `{"rack":"8"}`, "8"},
		{"PATCH", n0, `{"attributes":{"rack":"9"}}`, "9"},
		{"PUT", n0, `{"mac":"52:54:00:00:00:01","attributes":{"rack":"10"}}`, "10"},
		{"PATCH", n0 + "/attributes", `{"rack":"11","_ipmi_pass":"hush"}`, "11"},
	} {
		want(t, c.method+" "+c.path, as(c.method, c.path, c.body), http.StatusOK, "")
		if got := attributes(t, h.As(h.Token(), "GET", n0, nil)); got["rack"] != c.rack || got["_ipmi_pass"] != "hush" {
			t.Errorf("after %s %s %s: %v", c.method, c.path, c.body, got)
		}
	}
	// Sending back what was read makes nothing inherited the node's own.
	seen := h.As(engineer.Access, "GET", n0, nil)
	want(t, "PUT of what was read", as("PUT", n0, string(seen.Data)), http.StatusOK, "")
	if got := attributes(t, h.As(h.Token(), "GET", n0, nil)); got["_ipmi_pass"] != "hush" || got["_boot_config"] != "DefaultBoot" {
		t.Errorf("after a PUT of what was read: %v", got)
	}
	// Who may, may.
	op := func(method, path, body string) apptest.Answer { return h.As(operator.Access, method, path, body) }
	want(t, "operator", op("PATCH", n0+"/attributes", `{"_boot_config":"Other"}`), http.StatusOK, "")
	want(t, "operator", op("DELETE", n0+"/attributes", `["_ipmi_pass","_boot_config"]`), http.StatusOK, "")
	if got := attributes(t, h.As(h.Token(), "GET", n0, nil)); got["_ipmi_pass"] != nil {
		t.Errorf("deleted, and still there: %v", got)
	}
}

func TestGroupsTakeTheirOwnPermission(t *testing.T) {
	h := apptest.Start(t, nil)
	h.OK("POST", "/nodes", `{"mac":"52:54:00:00:00:01"}`)
	h.OK("POST", "/attribs", `{"name":"g"}`)
	_, engineer := h.NewAdmin("engineer", object.RoleOnsiteEngineer)
	_, grouper := h.NewAdmin("grouper", object.RoleAuthUser, "NodesWriteGroups")
	for _, c := range [][3]string{
		{"PATCH", "/node/n0", `{"groups":["g"]}`},
		{"PUT", "/node/n0", `{"mac":"52:54:00:00:00:01","groups":["g"]}`},
		{"POST", "/nodes", `{"mac":"52:54:00:00:00:02","groups":["g"]}`},
		{"POST", "/node/n0/groups", `"g"`},
	} {
		want(t, "engineer "+c[0]+" "+c[1], h.As(engineer.Access, c[0], c[1], c[2]), http.StatusForbidden, "NodesWriteGroups")
	}
	want(t, "engineer, same groups", h.As(engineer.Access, "PATCH", "/node/n0", `{"groups":[],"description":"x"}`), http.StatusOK, "")
	want(t, "engineer, no groups", h.As(engineer.Access, "POST", "/nodes", `{"mac":"52:54:00:00:00:03","groups":[]}`), http.StatusOK, "")
	want(t, "grouper", h.As(grouper.Access, "POST", "/node/n0/groups", `"g"`), http.StatusOK, "")
	want(t, "grouper", h.As(grouper.Access, "PATCH", "/node/n0", `{"description":"y"}`), http.StatusForbidden, "NodesWrite")
	want(t, "engineer, groups as they are", h.As(engineer.Access, "PATCH", "/node/n0", `{"groups":["g"]}`), http.StatusOK, "")
}

func TestRolesThatMayBeGiven(t *testing.T) {
	h := apptest.Start(t, nil)
	for roles, stored := range map[string]string{
		`"role.authuser, role.imagingadmin"`:      `["role.authuser","role.imagingadmin"]`,
		`["authuser","NodesExecCommand"]`:         `["role.authuser","NodesExecCommand"]`,
		`["role.fulladmin","-NodesPowerControl"]`: `["role.fulladmin","-NodesPowerControl"]`,
		`[]`: `[]`,
	} {
		var uid string
		h.Into(&uid, "POST", "/admins", `{"name":"x","roles":`+roles+`}`)
		if got := h.OK("GET", "/admin/"+uid, nil); !strings.Contains(string(got), `"roles":`+stored) {
			t.Errorf("%s became %s", roles, got)
		}
		h.OK("DELETE", "/admin/"+uid, nil)
	}
	for _, bad := range []string{`["role.nosuch"]`, `["NodesFly"]`, `["--NodesRead"]`, `["-role.authuser"]`, `["public"]`, `["logged-in"]`, `["ROLE.FULLADMIN"]`, `[""]`} {
		a := h.As(h.Token(), "POST", "/admins", `{"name":"x","roles":`+bad+`}`)
		want(t, bad, a, http.StatusBadRequest, "role.productionadmin")
	}
	var all struct {
		Roles []struct {
			Name        string
			Permissions []string
		}
		Permissions []string
	}
	h.Into(&all, "GET", "/roles", nil)
	if len(all.Roles) != len(object.Roles()) || len(all.Roles[0].Permissions) != len(all.Permissions) || len(all.Permissions) < 20 {
		t.Errorf("GET /roles: %+v", all)
	}
}

func TestWhatIsTakenAway(t *testing.T) {
	h := apptest.Start(t, nil)
	_, careful := h.NewAdmin("careful", object.RoleFullAdmin, "-NodesExecCommand", "-AdminsWrite")
	_, banned := h.NewAdmin("banned", object.RoleFullAdmin, object.RoleNoAccess)
	want(t, "taken away", h.As(careful.Access, "PUT", "/node/n0/exec", `{"cmd":"true"}`), http.StatusForbidden, "NodesExecCommand")
	want(t, "taken away", h.As(careful.Access, "POST", "/admins", `{"name":"y"}`), http.StatusForbidden, "AdminsWrite")
	want(t, "left", h.As(careful.Access, "PATCH", "/cluster", `{"cluster_name":"x"}`), http.StatusOK, "")
	want(t, "no access", h.As(banned.Access, "GET", "/nodes", nil), http.StatusForbidden, object.RoleNoAccess)
	want(t, "no access", h.As(banned.Access, "GET", "/whoami", nil), http.StatusForbidden, "")
	want(t, "no access", h.As(banned.Refresh, "GET", "/newtoken", nil), http.StatusForbidden, "")
	// Neither of them counts as the one who can undo everything.
	want(t, "the last one", h.As(h.Token(), "PATCH", "/admin/"+h.Admin, `{"roles":["role.fulladmin","role.noaccess"]}`), http.StatusConflict, "last admin")
	want(t, "the last one", h.As(h.Token(), "PATCH", "/admin/"+h.Admin, `{"roles":["role.fulladmin","-AdminsWrite"]}`), http.StatusConflict, "last admin")
}

// Whoever may write admins must not become, or make, somebody who may do more.
func TestNobodyRaisesHimself(t *testing.T) {
	h := apptest.Start(t, nil)
	_, clerk := h.NewAdmin("clerk", object.RoleAuthUser, "AdminsWrite", "AdminsMintTokens")
	key := `"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ+WGWcLHB3iGcLnEsLnmTx4Tkvz2bmC9sb2UCq9Sk6x clerk"`
	for _, c := range [][3]string{
		{"POST", "/admins", `{"name":"new","roles":["role.fulladmin"]}`},
		{"POST", "/admins", `{"name":"new","roles":["NodesWrite"]}`},
		{"PATCH", "/admin/clerk", `{"roles":["role.authuser","AdminsWrite","role.productionadmin"]}`},
		{"PUT", "/admin/clerk", `{"name":"clerk","roles":["role.fulladmin"]}`},
		{"PATCH", "/admin/" + h.Admin, `{"keys":[` + key + `]}`},
		{"POST", "/admin/" + h.Admin + "/keys", key},
		{"PATCH", "/admin/" + h.Admin, `{"name":"somebody"}`},
		{"PATCH", "/admin/" + h.Admin, `{"roles":[]}`},
		{"DELETE", "/admin/" + h.Admin, ``},
		{"POST", "/admin/" + h.Admin + "/newtoken", ``},
	} {
		want(t, strings.Join(c[:], " "), h.As(clerk.Access, c[0], c[1], c[2]), http.StatusForbidden, "")
	}
	for _, c := range [][3]string{
		{"POST", "/admins", `{"name":"new"}`},
		{"PATCH", "/admin/new", `{"roles":["role.authuser"]}`},
		{"POST", "/admin/new/keys", key},
		{"POST", "/admin/new/newtoken", ``},
		{"DELETE", "/admin/new", ``},
	} {
		want(t, strings.Join(c[:], " "), h.As(clerk.Access, c[0], c[1], c[2]), http.StatusOK, "")
	}
}
