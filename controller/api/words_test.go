package api_test

import (
	"net/http"
	"testing"

	"muster/controller/api"
	"muster/controller/api/apitest"
	"muster/shared/kind"
)

// What is wrong with a body is said in the words of JSON and of the API: who
// reads it does not know what the head is written in.
func TestBodyErrorsInTheWordsOfTheAPI(t *testing.T) {
	type request struct {
		Text   string         `json:"text"`
		Count  int            `json:"count"`
		Size   uint8          `json:"size"`
		Share  float64        `json:"share"`
		Force  bool           `json:"force"`
		List   []string       `json:"list"`
		Values map[string]any `json:"values"`
		Inner  struct {
			Deep *int `json:"deep"`
		} `json:"inner"`
	}
	take := func(w http.ResponseWriter, r *http.Request) error {
		var in request
		if err := api.Decode(w, r, &in); err != nil {
			return err
		}
		return api.OK(w)
	}
	h := apitest.Start(t, apitest.Options{Routes: func(*apitest.Head) [][]api.Route {
		return [][]api.Route{{{Method: "POST", Path: api.Root + "/take", Permission: kind.LoggedIn, Doc: "x", Handler: take, Answer: api.Nothing{}}}}
	}})
	h.Create("attribs", `{"name":"g"}`)
	for _, tc := range [][3]string{
		{"/take", `{"text":5}`, "text: must be a string, not a number."},
		{"/take", `{"count":"5"}`, "count: must be a whole number, not a string."},
		{"/take", `{"count":1.5}`, "count: must be a whole number, not 1.5."},
		{"/take", `{"count":99999999999999999999}`, "count: 99999999999999999999 is out of range."},
		{"/take", `{"size":-1}`, "size: -1 is out of range."},
		{"/take", `{"share":1e999}`, "share: 1e999 is out of range."},
		{"/take", `{"share":[]}`, "share: must be a number, not a list."},
		{"/take", `{"force":"yes"}`, "force: must be true or false, not a string."},
		{"/take", `{"list":true}`, "list: must be a list, not true or false."},
		{"/take", `{"list":[{}]}`, "list: must be a string, not a JSON object."},
		{"/take", `{"values":[]}`, "values: must be a JSON object, not a list."},
		{"/take", `{"inner":{"deep":"x"}}`, "inner.deep: must be a whole number, not a string."},
		{"/take", `[1]`, "The body: must be a JSON object, not a list."},
		{"/take", `{"other":1}`, "Unhandled parameter(s): other"},
		{"/take", `{"text":"x"`, "The body is not valid JSON: it ends too early."},
		{"/take", `{"a":{"b":1,"b":2}}`, `The body is not valid JSON: the key "b" is there twice.`},
		{"/take", `{text:1}`, "The body is not valid JSON: invalid character 'e' in literal true (expecting 'r'), at byte 3."},
		{"/take", `text=1`, "The body is not valid JSON: invalid character 'e' in literal true (expecting 'r'), at byte 2."},
		{"/attribs", `{}`, "An attrib needs: name"},
		{"/nodes", `{}`, "A node needs: mac"},
	} {
		if reason := h.Refused("POST", tc[0], tc[1]); reason != tc[2] {
			t.Errorf("%s %s: %s, want %s", tc[0], tc[1], reason, tc[2])
		}
	}
}
