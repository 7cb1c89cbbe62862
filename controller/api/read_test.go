package api_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"muster/controller/api/apitest"
)

func etag(t *testing.T, h *apitest.Head, path string) string {
	t.Helper()
	tag := h.Do("GET", path, nil).Header.Get("ETag")
	if len(tag) < 8 || tag[0] != '"' {
		t.Fatalf("GET %s: ETag %q", path, tag)
	}
	return tag
}

func TestETag(t *testing.T) {
	var status sync.Map
	h := apitest.Start(t, apitest.Options{Live: func(uid string) ([]byte, []byte) {
		s, _ := status.LoadOrStore(uid, []byte(`{"state":"down"}`))
		return nil, s.([]byte)
	}})
	pool := h.Create("namingpools", `{"name":"p","pattern":"a{}"}`)
	group := h.Create("attribs", `{"name":"g","attributes":{"a":1}}`)
	uid := h.Create("nodes", `{"mac":"52:54:00:00:00:01","naming_pool":"p","groups":["g"]}`)
	h.Create("nets", `{"first_ip":"10.0.0.1","ip_count":100,"mask_bits":24}`)
	unchanged := func(path, tag string, want int) {
		t.Helper()
		a := h.Do("GET", path, nil, "If-None-Match", tag)
		if a.Status != want || want == http.StatusNotModified && (len(a.Raw) > 0 || a.Header.Get("ETag") == "") {
			t.Errorf("GET %s with the tag %s: status %d, %d bytes", path, tag, a.Status, len(a.Raw))
		}
	}
	// Whatever a node shows changes its tag, and that of the list.
	for name, change := range map[string]func(){
		"itself":      func() { h.OK("PATCH", "/node/"+uid, `{"description":"x"}`) },
		"its group":   func() { h.OK("PATCH", "/attrib/"+group, `{"attributes":{"a":2}}`) },
		"its pool":    func() { h.OK("PATCH", "/namingpool/"+pool, `{"name":"q"}`) },
		"the default": func() { h.OK("PATCH", "/cluster", `{"default_group":"g2"}`) },
		"its state":   func() { status.Store(uid, []byte(`{"state":"up"}`)) },
		"the network": func() { h.OK("PATCH", "/net/"+slices.Collect(maps.Keys(h.List("nets")))[0], `{"domain":"other.site"}`) },
	} {
		if name == "the default" {
			h.Create("attribs", `{"name":"g2","attributes":{"z":2}}`)
		}
		one, all := etag(t, h, "/node/"+uid), etag(t, h, "/nodes")
		unchanged("/node/"+uid, one, 304)
		unchanged("/node/"+uid, `"other", W/`+one, 304)
		unchanged("/node/"+uid, `*`, 304)
		unchanged("/nodes", all, 304)
		change()
		if a := etag(t, h, "/node/"+uid); a == one {
			t.Errorf("%s changed, and the node's tag did not", name)
		}
		unchanged("/node/"+uid, one, 200)
		unchanged("/nodes", all, 200)
	}
}

func TestIfMatch(t *testing.T) {
	h := start(t)
	uid := h.Create("attribs", `{"name":"g","attributes":{"a":1}}`)
	at := "/attrib/" + uid
	for _, r := range [][3]string{
		{"PATCH", at, `{"description":"mine"}`}, {"PUT", at, `{"name":"g"}`}, {"PATCH", at + "/attributes", `{"b":2}`}, {"DELETE", at + "/attributes", `"b"`}, {"DELETE", at, ""},
	} {
		old := etag(t, h, at)
		h.OK("PATCH", at, `{"description":"somebody else's"}`)
		before := string(h.OK("GET", at, nil))
		a := h.Do(r[0], r[1], r[2], "If-Match", old)
		if a.Status != http.StatusPreconditionFailed || a.Success == nil || *a.Success || !strings.Contains(a.Reason, apitest.Admin) {
			t.Errorf("%s %s on what has changed: %d %s", r[0], r[1], a.Status, a.Raw)
		}
		if after := string(h.OK("GET", at, nil)); after != before {
			t.Errorf("%s %s was refused, and changed %s to %s", r[0], r[1], before, after)
		}
		h.Do(r[0], r[1], r[2], "If-Match", `"nonsense"`)
		h.OK(r[0], r[1], r[2], "If-Match", `"nonsense", `+etag(t, h, at))
	}
}

// Of many who change what they have read, no change gets lost.
func TestIfMatchCounts(t *testing.T) {
	h := start(t)
	h.Create("attribs", `{"name":"count","attributes":{"n":0}}`)
	const each, workers = 10, 4
	together(workers, func(int) {
		for done := 0; done < each; {
			a := h.Do("GET", "/attrib/count", nil)
			n := apitest.Decode[struct{ Attributes struct{ N int } }](t, a.Data).Attributes.N
			b := h.Do("PATCH", "/attrib/count", fmt.Sprintf(`{"attributes":{"n":%d}}`, n+1), "If-Match", a.Header.Get("ETag"))
			switch b.Status {
			case http.StatusOK:
				done++
			case http.StatusPreconditionFailed:
			default:
				t.Errorf("status %d", b.Status)
				return
			}
		}
	})
	if n := fmt.Sprint(h.Get("attrib/count")["attributes"].(apitest.Map)["n"]); n != fmt.Sprint(each*workers) {
		t.Errorf("counted to %s", n)
	}
}

func TestFields(t *testing.T) {
	h := start(t)
	uid := h.Create("nodes", `{"mac":"52:54:00:00:00:01"}`)
	if got := string(h.OK("GET", "/node/n0?fields=name,mac,name,hardware", nil)); got != `{"name":"n0","mac":"52:54:00:00:00:01","hardware":{}}` {
		t.Error(got)
	}
	if got := string(h.OK("GET", "/nodes?fields=mac", nil)); got != `{"`+uid+`":{"mac":"52:54:00:00:00:01"}}` {
		t.Error(got)
	}
	if got := string(h.OK("GET", "/cluster?fields=accept_new_nodes", nil)); got != `{"accept_new_nodes":false}` {
		t.Error(got)
	}
	for _, bad := range []string{"/nodes?fields=", "/nodes?fields=pony", "/node/n0?fields=mac,pony", "/cluster?fields=name", "/nodes?fields=status.state", "/nodes?fields=mac,,name"} {
		h.Refused("GET", bad, nil)
	}
}

func TestPages(t *testing.T) {
	h := start(t)
	for i := range 7 {
		h.Create("nodes", apitest.Map{"mac": mac(i)})
	}
	all := h.List("nodes")
	got, path := map[string]json.RawMessage{}, "/nodes?limit=3&fields=mac"
	for sizes := []int{3, 3, 1}; len(sizes) > 0; sizes = sizes[1:] {
		a := h.Do("GET", path, nil)
		part := apitest.Decode[map[string]json.RawMessage](t, a.Data)
		if len(part) != sizes[0] {
			t.Fatalf("%s gave %d nodes", path, len(part))
		}
		maps.Copy(got, part)
		link := a.Header.Get("Link")
		if (link == "") != (len(sizes) == 1) {
			t.Fatalf("Link: %q", link)
		}
		path = strings.TrimSuffix(strings.TrimPrefix(link, "</api/v1"), `>; rel="next"`)
	}
	if len(got) != len(all) {
		t.Errorf("%d of %d nodes", len(got), len(all))
	}
	for _, bad := range []string{"0", "-1", "x", "", "1e9", "99999999999999999999"} {
		h.Refused("GET", "/nodes?limit="+bad, nil)
	}
}

// A misspelt filter must not look as if it had been applied.
func TestQueryIsTakenOrRefused(t *testing.T) {
	h := start(t)
	h.Create("nodes", `{"mac":"52:54:00:00:00:01"}`)
	for path, says := range map[string]string{
		"/nodes?selector=up":                 "Unhandled parameter(s): selector; the query takes fields, limit, after.",
		"/nodes?limit=1&Fields=mac&x":        "Unhandled parameter(s): Fields, x; the query takes fields, limit, after.",
		"/node/n0?limit=1":                   "Unhandled parameter(s): limit; the query takes fields.",
		"/node/n0/attributes?fields=a":       "Unhandled parameter(s): fields; this endpoint takes none in the query.",
		"/nodes/meta?x=%0a":                  "Unhandled parameter(s): x; this endpoint takes none in the query.",
		"/nodes?limit=1&limit=2":             "limit: given 2 times in the query, and only one value is taken.",
		"/nodes?limit=1;fields=mac":          "The query cannot be read:",
		"/nodes?%6cimit=1&fields=%zz":        "The query cannot be read:",
		"/nodes?" + strings.Repeat("a", 900): "Unhandled parameter(s): " + strings.Repeat("a", 80) + ";",
	} {
		if a := h.Do("GET", path, nil); a.Status != 400 || !strings.HasPrefix(a.Reason, says) {
			t.Errorf("GET %.80s: %d %s, want %s", path, a.Status, a.Reason, says)
		}
	}
	for _, r := range [][3]string{{"POST", "/nodes", `{"mac":"52:54:00:00:00:02"}`}, {"PATCH", "/node/n0", `{"description":"x"}`}, {"PUT", "/node/n0", `{"mac":"52:54:00:00:00:03"}`}, {"DELETE", "/node/n0", ""}, {"PATCH", "/node/n0/attributes", `{"a":1}`}} {
		before := string(h.OK("GET", "/nodes", nil))
		h.Refused(r[0], r[1]+"?dry_run=1", r[2])
		if after := string(h.OK("GET", "/nodes", nil)); after != before {
			t.Errorf("%s %s was refused, and changed %s to %s", r[0], r[1], before, after)
		}
	}
	h.OK("GET", "/nodes?", nil)
	h.OK("GET", "/nodes?%6cimit=1", nil)
}
