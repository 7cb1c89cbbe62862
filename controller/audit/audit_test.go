package audit_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"muster/controller/api"
	"muster/controller/api/apitest"
	"muster/controller/audit"
	"muster/controller/registry"
	"muster/shared/kind"
)

func start(t *testing.T) *apitest.Head {
	return apitest.Start(t, apitest.Options{Routes: func(h *apitest.Head) [][]api.Route {
		return [][]api.Route{(&audit.Audit{Trail: h.Registry}).Routes()}
	}})
}

func entries(t *testing.T, h *apitest.Head, query string) []registry.Entry {
	t.Helper()
	return apitest.Decode[[]registry.Entry](t, h.OK("GET", "/audit"+query, nil))
}

// line is an entry as a test compares it.
func line(e registry.Entry) string {
	var changes []string
	for path, d := range e.Changes {
		changes = append(changes, path+":"+string(d.From)+">"+string(d.To))
	}
	slices.Sort(changes)
	return strings.Join(append([]string{e.Admin, e.Action, e.Kind, e.Name}, changes...), " ")
}

func TestTrail(t *testing.T) {
	h := start(t)
	uid := h.Create("attribs", `{"name":"g","attributes":{"a":1,"ipmi_pass":"geheim"}}`)
	h.OK("PATCH", "/attrib/g", `{"description":"x"}`, apitest.AsAdmin, "jo")
	h.OK("PATCH", "/attrib/g/attributes", `{"a":2,"b":"new","ipmi_pass":"neu","url":"ipmi://root:p@ss/w@10.0.0.1"}`)
	h.OK("DELETE", "/attrib/g/attributes", `"a"`)
	h.OK("PATCH", "/cluster", `{"influx_token":"geheim"}`)
	h.Refused("PATCH", "/attrib/g", `{"name":""}`)
	h.Create("nodes", `{"mac":"52:54:00:00:00:01","groups":["g"],"power_uri":"ipmi://root:geheim@10.0.0.9"}`)
	h.OK("DELETE", "/attrib/g", nil)
	got := entries(t, h, "?since=1")
	var lines []string
	for _, e := range got {
		if e.Admin == "muster" {
			continue // what the head began with
		}
		lines = append(lines, line(e))
		if e.From != "127.0.0.1" || e.Head != apitest.HeadName || e.UID == "" || e.Time < 1e9 {
			t.Errorf("%+v", e)
		}
	}
	want := []string{
		`admin1 create attrib g attributes.a:>1 attributes.ipmi_pass:>"(secret)" name:>"g"`,
		`jo change attrib g description:>"x"`,
		`admin1 change attrib g attributes.a:1>2 attributes.b:>"new" attributes.ipmi_pass:"(secret)">"(secret)" attributes.url:>"ipmi://root:(secret)@10.0.0.1"`,
		`admin1 change attrib g attributes.a:2>`,
		`admin1 change cluster  influx_token:>"(secret)"`,
		fmt.Sprintf(`admin1 create node n0 groups:>["%s"] index:>0 mac:>"52:54:00:00:00:01" name:>"n0" power_uri:>"ipmi://root:(secret)@10.0.0.9" type:>"compute"`, uid),
		`admin1 delete attrib g`,
		fmt.Sprintf(`admin1 change node n0 groups:["%s"]>`, uid),
	}
	for i, w := range want {
		if i >= len(lines) || !strings.HasPrefix(lines[i], w) {
			t.Errorf("record %d\n got %s\nwant %s", i, lines[min(i, len(lines)-1)], w)
		}
	}
	if len(lines) != len(want) {
		t.Errorf("%d records, want %d: %q", len(lines), len(want), lines)
	}
	if raw := string(h.OK("GET", "/audit", nil)); strings.Contains(raw, "geheim") || strings.Contains(raw, "neu\"") || strings.Contains(raw, "p@ss") {
		t.Errorf("the trail tells secrets: %s", raw)
	}
}

func TestFilters(t *testing.T) {
	h := start(t)
	for i := range 5 {
		h.Create("attribs", fmt.Sprintf(`{"name":"g%d"}`, i))
	}
	uid := h.Create("nodes", `{"mac":"52:54:00:00:00:01"}`)
	h.OK("DELETE", "/node/n0", nil, apitest.AsAdmin, "jo")
	if err := h.Registry.Record(t.Context(), kind.Author{Name: "jo", From: "::1"}, registry.Entry{Action: "exec", Kind: "node", UID: uid, Name: "n0", Detail: map[string]string{"cmd": "mount -o password=geheim /x"}}); err != nil {
		t.Fatal(err)
	}
	for query, want := range map[string]int{"?kind=attrib": 5, "?kind=node": 3, "?uid=" + uid: 3, "?name=n0&admin=jo": 2, "?action=exec": 1, "?admin=nobody": 0, "?kind=attrib&limit=2": 2, "?since=9e9": 0} {
		if got := entries(t, h, query); len(got) != want {
			t.Errorf("%s gave %d records, want %d", query, len(got), want)
		}
	}
	newest := entries(t, h, "?kind=attrib&limit=2")
	if newest[0].Name != "g3" || newest[1].Name != "g4" {
		t.Errorf("%v", newest)
	}
	older := entries(t, h, "?kind=attrib&limit=2&before="+newest[0].ID)
	if len(older) != 2 || older[0].Name != "g1" || older[1].Name != "g2" {
		t.Errorf("%v", older)
	}
	if cmd := entries(t, h, "?action=exec")[0].Detail["cmd"]; cmd != "mount -o password=(secret) /x" {
		t.Error(cmd)
	}
	for _, bad := range []string{"?limit=0", "?limit=x", "?limit=10001", "?since=yesterday", "?since=NaN", "?before=zz", "?kind=pony"} {
		h.Refused("GET", "/audit"+bad, nil)
	}
}
