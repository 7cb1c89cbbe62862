package api_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"muster/controller/api"
	"muster/controller/api/apitest"
	"muster/controller/naming"
	"muster/shared/object"
)

func start(tb testing.TB) *apitest.Head {
	return apitest.Start(tb, apitest.Options{Routes: func(h *apitest.Head) [][]api.Route {
		return [][]api.Route{(&naming.Naming{Objects: h.Registry}).Routes()}
	}})
}

// without gives an object without what differs from run to run.
func without(obj apitest.Map, keys ...string) apitest.Map {
	out := maps.Clone(obj)
	for _, k := range append(keys, "last_modified", "last_modified_on", "last_modified_by", "created") {
		delete(out, k)
	}
	return out
}

func want(t *testing.T, got, want any) {
	t.Helper()
	a, _ := json.Marshal(got)
	b, _ := json.Marshal(want)
	if string(a) != string(b) {
		t.Errorf("got  %s\nwant %s", a, b)
	}
}

// step is one request of an example: what is sent, and exactly what comes back.
type step struct {
	method, path, body string
	want               string // data as JSON; "" for none, "UID" for a new object's
	refused            string // reason
	status             int    // of a refusal
}

func play(t *testing.T, h *apitest.Head, steps []step) {
	t.Helper()
	for _, s := range steps {
		var body any
		if s.body != "" {
			body = s.body
		}
		a := h.Do(s.method, s.path, body, "Content-Type", "application/x-www-form-urlencoded")
		at := s.method + " " + s.path + " " + s.body
		switch {
		case s.refused != "":
			if a.Status != s.status || a.Success == nil || *a.Success || a.Reason != s.refused {
				t.Errorf("%s: status %d, %s, want %d with %q", at, a.Status, a.Raw, s.status, s.refused)
			}
		case a.Status != http.StatusOK:
			t.Errorf("%s: status %d, %s", at, a.Status, a.Raw)
		case s.want == "UID":
			if len(a.Data) != 34 {
				t.Errorf("%s: %s is no UID", at, a.Data)
			}
		case s.want == "":
			if strings.TrimSpace(string(a.Raw)) != `{"success": true}` {
				t.Errorf("%s: %s", at, a.Raw)
			}
		default:
			got, w := apitest.Decode[any](t, a.Data), apitest.Decode[any](t, []byte(s.want))
			if m, ok := got.(apitest.Map); ok {
				if _, object := m["uid"]; object || m["last_modified"] != nil {
					got = without(m, "uid")
				}
			}
			if !reflect.DeepEqual(got, w) {
				t.Errorf("%s:\ngot  %s\nwant %s", at, a.Data, s.want)
			}
		}
	}
}

// The sequences below are those by which the published API is explained.

func TestExampleAdmins(t *testing.T) {
	h := start(t)
	uid := h.Create("admins", `{"name":"admin2"}`)
	first := h.Get("admin/" + uid)
	want(t, without(first), apitest.Map{"name": "admin2", "roles": []string{"role.authuser", "role.fulladmin"}, "uid": uid})
	want(t, []any{first["last_modified_by"], first["last_modified_on"]}, []any{apitest.Admin, apitest.HeadName})
	play(t, h, []step{
		{"PATCH", "/admin/admin2", `{"description":"Jo Smith, storage"}`, "", "", 0},
		{"PATCH", "/admin/admin2", `{"roles":["role.authuser"]}`, "", "", 0},
		{"GET", "/admin/admin2", "", `{"name":"admin2","roles":["role.authuser"],"description":"Jo Smith, storage"}`, "", 0},
	})
	second := h.Get("admin/admin2")
	if number(t, second["last_modified"]) <= number(t, first["last_modified"]) || second["uid"] != uid {
		t.Errorf("%v became %v", first, second)
	}
	play(t, h, []step{
		{"PATCH", "/admin/admin2", `{"roles":"role.fulladmin, role.authuser"}`, "", "", 0},
		{"GET", "/admin/admin2", "", `{"name":"admin2","roles":["role.fulladmin","role.authuser"],"description":"Jo Smith, storage"}`, "", 0},
		{"PATCH", "/admin/admin2", `{"roles":[]}`, "", "", 0},
		{"GET", "/admin/admin2", "", `{"name":"admin2","roles":[],"description":"Jo Smith, storage"}`, "", 0},
		{"DELETE", "/admin/admin2", "", "", "", 0},
		{"GET", "/admin/admin2", "", "", "No admin found for ID=admin2", 404},
		{"DELETE", "/admin/admin2", "", "", "No admin found for ID=admin2", 404},
	})
}

func TestLastFullAdmin(t *testing.T) {
	h := start(t)
	const why = "admin1 is the last admin with role.fulladmin: give that role to another admin first."
	play(t, h, []step{
		{"DELETE", "/admin/admin1", "", "", why, 409},
		{"PATCH", "/admin/admin1", `{"roles":["role.authuser"]}`, "", why, 409},
		{"PUT", "/admin/admin1", `{"name":"admin1","roles":[]}`, "", why, 409},
		{"POST", "/admins", `{"name":"admin2","roles":["role.fulladmin"]}`, "UID", "", 0},
		{"DELETE", "/admin/admin1", "", "", "", 0},
	})
}

func TestExampleNodes(t *testing.T) {
	h := start(t)
	play(t, h, []step{
		{"POST", "/nets", `{"first_ip":"192.168.122.100","ip_count":100,"mask_bits":24}`, "UID", "", 0},
		{"POST", "/attribs", `{"name":"DefaultAttribs","attributes":{"_boot_config":"DefaultBoot"}}`, "UID", "", 0},
		{"PATCH", "/cluster", `{"default_group":"DefaultAttribs"}`, "", "", 0},
		{"POST", "/nodes", `{"mac":"52:54:00:00:00:00"}`, "UID", "", 0},
		{"POST", "/nodes", `{"mac":"52:54:00:00:00:01"}`, "UID", "", 0},
		{"POST", "/nodes", `{"mac":"52:54:00:00:00:03"}`, "UID", "", 0},
		{"POST", "/nodes", `{"mac":"52:54:00:00:00:03"}`, "", "Node with MAC=52:54:00:00:00:03 already exists.", 409},
	})
	uid := h.Create("nodes", `{"mac":"11:22:33:44:55:66"}`)
	node := apitest.Map{
		"mac": "11:22:33:44:55:66", "attributes": apitest.Map{"_boot_config": "DefaultBoot"}, "index": 3, "ip": "192.168.122.103",
		"type": "compute", "uid": uid, "groups": []string{}, "hardware": apitest.Map{}, "power_uri": nil, "name": "n3", "hostname": "n3", "domain": "cluster.local",
	}
	for _, id := range []string{uid, "11:22:33:44:55:66", "11-22-33-44-55-66", "n3", "192.168.122.103"} {
		want(t, without(h.Get("node/"+id)), node)
		want(t, without(h.Get("nodes/"+id)), node)
	}
	play(t, h, []step{
		{"PATCH", "/node/n3/attributes", `{"ipmi_user":"service","ipmi_pass":"secret"}`, "", "", 0},
		{"GET", "/node/n3/attributes", "", `{"_boot_config":"DefaultBoot","ipmi_user":"service","ipmi_pass":"secret"}`, "", 0},
		{"PATCH", "/node/n3", `{"power_uri":"ipmi://<ipmi_user>:<ipmi_pass>@10.10.1.3/ipmi"}`, "", "", 0},
		{"PATCH", "/node/" + uid, `{"description":"another one"}`, "", "", 0},
		{"PATCH", "/node/" + uid, `{"description":"x","colour":"red","wheels":4}`, "", "Unhandled parameter(s): colour, wheels", 400},
		{"GET", "/node/n123", "", "", "No node found for ID=n123", 404},
		{"PATCH", "/node/n123", "{}", "", "No node found for ID=n123", 404},
		{"PUT", "/node/n123", "{}", "", "No node found for ID=n123", 404},
		{"DELETE", "/node/n123", "", "", "No node found for ID=n123", 404},
	})
	got := h.Get("node/n3")
	want(t, []any{got["power_uri"], got["description"], got["ip"]}, []any{"ipmi://<ipmi_user>:<ipmi_pass>@10.10.1.3/ipmi", "another one", "192.168.122.103"})
	if list := h.List("nodes"); len(list) != 4 || !reflect.DeepEqual(list[uid], got) {
		t.Errorf("the list has %d nodes, and of n3 %v", len(list), list[uid])
	}
}

func TestExampleAttribs(t *testing.T) {
	h := start(t)
	play(t, h, []step{
		{"POST", "/attribs", `{"name":"MyAttribs"}`, "UID", "", 0},
		{"GET", "/attrib/MyAttribs", "", `{"name":"MyAttribs","attributes":{}}`, "", 0},
		{"PATCH", "/attrib/MyAttribs", `{"attributes":{"foo":"bar"}}`, "", "", 0},
		{"GET", "/attrib/MyAttribs", "", `{"name":"MyAttribs","attributes":{"foo":"bar"}}`, "", 0},
		{"GET", "/attrib/MyAttribs/attributes", "", `{"foo":"bar"}`, "", 0},
		{"PATCH", "/attrib/MyAttribs/attributes", `{"abc":"def"}`, "", "", 0},
		{"GET", "/attrib/MyAttribs/attributes", "", `{"foo":"bar","abc":"def"}`, "", 0},
		{"DELETE", "/attrib/MyAttribs/attributes", `["abc"]`, "", "", 0},
		{"GET", "/attrib/MyAttribs/attributes", "", `{"foo":"bar"}`, "", 0},
		{"POST", "/attribs/MyAttribs/attributes", `{"n":12345678901234567890,"x":1e400,"b":true}`, "", "", 0},
		{"DELETE", "/attrib/MyAttribs/attributes", `"foo"`, "", "", 0},
		{"DELETE", "/attrib/MyAttribs/attributes", `"never was"`, "", "", 0},
		{"GET", "/attrib/MyAttribs/attributes", "", `{"n":12345678901234567890,"x":1e400,"b":true}`, "", 0},
		{"PUT", "/attrib/MyAttribs/attributes", `{"only":"this"}`, "", "", 0},
		{"GET", "/attrib/MyAttribs/attributes", "", `{"only":"this"}`, "", 0},
		{"DELETE", "/attrib/MyAttribs", "", "", "", 0},
	})
}

func TestExampleBootconfigs(t *testing.T) {
	h := start(t)
	play(t, h, []step{
		{"DELETE", "/image/DefaultImage", "", "", "No image found for ID=DefaultImage", 404},
		{"POST", "/images", `{"name":"DefaultImage"}`, "UID", "", 0},
		{"GET", "/image/DefaultImage", "", `{"name":"DefaultImage","parent":null}`, "", 0},
		{"POST", "/bootconfigs", `{"name":"NewBoot","image":"DefaultImage"}`, "UID", "", 0},
		{"GET", "/bootconfig/NewBoot", "", `{"name":"NewBoot","image":"DefaultImage"}`, "", 0},
		{"PATCH", "/bootconfig/NewBoot", `{"frozen":true}`, "", "", 0},
		{"PATCH", "/bootconfig/NewBoot", `{"description":"new"}`, "", "Cannot modify frozen boot configuration.", 409},
		{"GET", "/bootconfig/NewBoot", "", `{"name":"NewBoot","image":"DefaultImage","frozen":true}`, "", 0},
		{"PATCH", "/bootconfig/NewBoot", `{"frozen":false}`, "", "", 0},
		{"PATCH", "/bootconfig/NewBoot", `{"description":"new"}`, "", "", 0},
		{"GET", "/bootconfig/NewBoot", "", `{"name":"NewBoot","image":"DefaultImage","description":"new"}`, "", 0},
		{"POST", "/images", `{"name":"NewImage"}`, "UID", "", 0},
		{"PATCH", "/image/NewImage", `{"frozen":true,"parent":"DefaultImage"}`, "", "", 0},
		{"GET", "/image/NewImage", "", `{"name":"NewImage","parent":"DefaultImage","frozen":true}`, "", 0},
		{"DELETE", "/image/NewImage", "", "", "Cannot modify frozen image.", 409},
		{"PATCH", "/image/DefaultImage", `{"name":"Renamed"}`, "", "", 0},
		{"GET", "/bootconfig/NewBoot", "", `{"name":"NewBoot","image":"Renamed","description":"new"}`, "", 0},
		{"DELETE", "/image/Renamed", "", "", "", 0},
	})
	// A deleted image leaves its UID behind, so that it can be seen that one was meant.
	left, _ := h.Get("bootconfig/NewBoot")["image"].(string)
	if len(left) != 32 {
		t.Errorf("image is %q", left)
	}
}

func TestExampleNamingpools(t *testing.T) {
	h := start(t)
	play(t, h, []step{
		{"POST", "/namingpools", `{"name":"gpu","pattern":"gpu{}"}`, "UID", "", 0},
		{"GET", "/namingpool/gpu", "", `{"name":"gpu","pattern":"gpu{}","first_index":0}`, "", 0},
		{"GET", "/namingpools/info/gpu0", "", "", "No node found for ID=gpu0", 404},
		{"POST", "/nodes", `{"mac":"52:54:00:00:00:01","naming_pool":"gpu"}`, "UID", "", 0},
		{"GET", "/namingpools/info/gpu0", "", `{"index":0,"pattern":"gpu{}"}`, "", 0},
		{"GET", "/namingpools/info/52:54:00:00:00:01", "", `{"index":0,"pattern":"gpu{}"}`, "", 0},
		{"PATCH", "/cluster", `{"naming":"gpu"}`, "", "", 0},
		{"POST", "/nodes", `{"mac":"52:54:00:00:00:02"}`, "UID", "", 0},
		{"GET", "/namingpools/info/gpu1", "", `{"index":1,"pattern":"gpu{}"}`, "", 0},
	})
}

func TestMetaNeedsNoToken(t *testing.T) {
	h := start(t)
	for _, spec := range object.All() {
		path := "/" + spec.Plural + "/meta"
		if spec.Singleton {
			path = "/" + spec.Name + "/meta"
		}
		resp, err := http.Get(h.Server.URL + api.Root + path)
		if err != nil {
			t.Fatal(err)
		}
		var body struct {
			Success bool
			Data    []struct{ Path, Summary, Source, Format string }
		}
		err = json.NewDecoder(resp.Body).Decode(&body)
		resp.Body.Close()
		if err != nil || !body.Success {
			t.Fatalf("%s: %v", path, err)
		}
		var paths []string
		for _, f := range body.Data {
			if f.Path == "" || f.Summary == "" || f.Source == "" || f.Format == "" {
				t.Errorf("%s: %+v lacks something", path, f)
			}
			paths = append(paths, f.Path)
		}
		for _, f := range spec.Fields {
			if !slices.Contains(paths, f.Path) {
				t.Errorf("%s does not tell of %s", path, f.Path)
			}
		}
	}
	for _, r := range api.Generic(h.Registry) {
		if (r.Permission == "public") != strings.HasSuffix(r.Path, "/meta") {
			t.Errorf("%s %s has permission %s", r.Method, r.Path, r.Permission)
		}
	}
}

func number(t *testing.T, v any) float64 {
	t.Helper()
	n, ok := v.(json.Number)
	f, err := n.Float64()
	if !ok || err != nil {
		t.Fatalf("%v is no number", v)
	}
	return f
}
