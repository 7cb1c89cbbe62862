package api_test

import (
	"net/http"
	"strings"
	"testing"

	"muster/controller/api"
	"muster/controller/api/apitest"
)

func TestDocumentOfAKind(t *testing.T) {
	h := start(t)
	doc := apitest.Decode[apitest.Map](t, h.Do("GET", "/openapi.json", nil).Raw)
	schemas := doc["components"].(apitest.Map)["schemas"].(apitest.Map)
	create := schemas["nodeCreate"].(apitest.Map)
	if r := create["required"].([]any); len(r) != 1 || r[0] != "mac" {
		t.Errorf("required to create a node: %v", r)
	}
	properties := create["properties"].(apitest.Map)
	if properties["index"] == nil || properties["name"] != nil || properties["status"] != nil {
		t.Errorf("to create a node: %v", properties)
	}
	list := doc["paths"].(apitest.Map)["/api/v1/nodes"].(apitest.Map)["get"].(apitest.Map)
	if list["x-permission"] != "NodesRead" || list["security"] != nil {
		t.Errorf("GET /nodes: %v", list)
	}
	meta := doc["paths"].(apitest.Map)["/api/v1/nodes/meta"].(apitest.Map)["get"].(apitest.Map)
	if s, ok := meta["security"].([]any); !ok || len(s) != 0 {
		t.Errorf("GET /nodes/meta needs no token, and is described as %v", meta["security"])
	}
}

func TestDocsPage(t *testing.T) {
	h := start(t)
	a := h.Do("GET", "/docs", nil)
	if a.Status != http.StatusOK || !strings.HasPrefix(a.Header.Get("Content-Type"), "text/html") {
		t.Fatalf("status %d, %s", a.Status, a.Header)
	}
	for _, want := range []string{"/api/v1/node/{id}/attributes", "PATCH", "NodesWrite", api.PathOpenAPI} {
		if !strings.Contains(string(a.Raw), want) {
			t.Errorf("the page lacks %s", want)
		}
	}
	if strings.Contains(string(a.Raw), "<script") {
		t.Error("the page has a script")
	}
}

// The helper that holds others to the document must itself see what is wrong.
func TestContract(t *testing.T) {
	h := start(t)
	c := apitest.ContractOf(t, h.Server.Client(), h.Server.URL)
	jsonHeader := http.Header{"Content-Type": {"application/json"}}
	for _, tc := range []struct {
		method, path, sent string
		status             int
		header             http.Header
		answer, wrong      string
	}{
		{"POST", "/nodes", `{"mac":"52:54:00:00:00:01"}`, 200, jsonHeader, `{"success":true,"data":"0123456789abcdef0123456789abcdef"}`, ""},
		{"POST", "/nodes", `{"mac":"x","name":"y"}`, 200, jsonHeader, `{"success":true,"data":"0123456789abcdef0123456789abcdef"}`, "name"},
		{"POST", "/nodes", `{"mac":"x","type":"pony"}`, 200, jsonHeader, `{"success":true,"data":"0123456789abcdef0123456789abcdef"}`, "type"},
		{"POST", "/nodes", `{"mac":"x"}`, 200, jsonHeader, `{"success":true,"data":"1"}`, "data"},
		{"POST", "/nodes", `{"mac":"x"}`, 201, jsonHeader, `{"success":true,"data":"1"}`, "status"},
		{"POST", "/nodes", `{"mac":"x"}`, 200, http.Header{}, `{"success":true,"data":"1"}`, "media type"},
		{"POST", "/nodes", `{"name":"y"}`, 400, jsonHeader, `{"success":false,"reason":"Unhandled parameter(s): name"}`, ""},
		{"POST", "/nodes", `{}`, 400, jsonHeader, `{"success":false}`, "reason"},
		{"POST", "/nodes", `{}`, 400, jsonHeader, `{"success":true,"reason":"x"}`, "success"},
		{"GET", "/node/n0", "", 200, jsonHeader, `{"success":true,"data":{"surprise":1}}`, "surprise"},
		{"GET", "/node/n0", "", 200, jsonHeader, `{"data":{}}`, "success"},
		{"GET", "/node/n0?pony=1", "", 200, jsonHeader, `{"success":true,"data":{}}`, "pony"},
		{"GET", "/nowhere", "", 404, jsonHeader, ``, ""},
		{"GET", "/nowhere", "", 200, jsonHeader, ``, "nowhere"},
		{"GET", "/docs", "", 200, http.Header{"Content-Type": {"text/html"}}, `<p>`, ""},
	} {
		r, err := http.NewRequest(tc.method, api.Root+tc.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		err = c.Check(r, []byte(tc.sent), tc.status, tc.header, []byte(tc.answer))
		if (err == nil) != (tc.wrong == "") || err != nil && !strings.Contains(err.Error(), tc.wrong) {
			t.Errorf("%s %s %s %d: %v, want %q", tc.method, tc.path, tc.sent, tc.status, err, tc.wrong)
		}
	}
}
