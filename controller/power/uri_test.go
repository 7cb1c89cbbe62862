package power_test

import (
	"encoding/json"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"muster/controller/api/apitest"
	"muster/controller/power"
	"muster/shared/template"
)

func TestPublishedExample(t *testing.T) {
	h := start(t)
	uid := h.Create("nodes", `{"mac":"11:22:33:44:55:66"}`)
	h.OK("PATCH", "/node/"+uid+"/attributes", `{"ipmi_user":"service","ipmi_pass":"servicepass"}`)
	const raw = "ipmi://<ipmi_user>:<ipmi_pass>@10.10.1.3/ipmi"
	h.OK("PATCH", "/node/"+uid, apitest.Map{"power_uri": raw})
	got := apitest.Decode[apitest.Map](t, h.OK("GET", "/node/"+uid+"/power_uri", nil))
	want := apitest.Decode[apitest.Map](t, []byte(`{"unparsed":"ipmi://service:servicepass@10.10.1.3/ipmi","parsed":{"scheme":"ipmi","schemes":"",
		"server":"10.10.1.3","path":"ipmi","server_username":"service:servicepass","username":null,"password":null,"host":"ipmi"}}`))
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if h.Get("node/" + uid)["power_uri"] != raw {
		t.Error("the node does not show the template any more")
	}
}

func TestURI(t *testing.T) {
	h := start(t)
	uid := h.Create("nodes", `{"mac":"11:22:33:44:55:66"}`)
	if reason := h.Refused("GET", "/node/"+uid+"/power_uri", nil); !strings.Contains(reason, "no power_uri") {
		t.Error(reason)
	}
	h.OK("PATCH", "/node/"+uid+"/attributes", apitest.Map{"pass": "p@s:s/w%rd ä", "host": "10.0.0.9", "port": 623, "whole": "redfish://u:p@bmc7:443/redfish/v1",
		"lines": "a\nb", "space": "a b"})
	for uri, want := range map[string]power.URI{
		"ipmi://admin:<pass>@<a[host]>:<port>": {Text: "ipmi://admin:p%40s%3As%2Fw%25rd%20%C3%A4@10.0.0.9:623", Scheme: "ipmi", Server: "10.0.0.9:623", ServerUsername: ptr("admin:p@s:s/w%rd ä")},
		"<whole>":                              {Text: "redfish://u:p@bmc7:443/redfish/v1", Scheme: "redfish", Server: "bmc7:443", Path: "redfish/v1", ServerUsername: ptr("u:p"), Host: ptr("redfish/v1")},
		"qemu+ssh://root@vmhost/admin:pw@vm7":  {Text: "qemu+ssh://root@vmhost/admin:pw@vm7", Scheme: "qemu", Schemes: "ssh", Server: "vmhost", Path: "admin:pw@vm7", ServerUsername: ptr("root"), Username: ptr("admin"), Password: ptr("pw"), Host: ptr("vm7")},
		"ipmi://[fe80::1]/x":                   {Text: "ipmi://[fe80::1]/x", Scheme: "ipmi", Server: "[fe80::1]", Path: "x", Host: ptr("x")},
	} {
		h.OK("PATCH", "/node/"+uid, apitest.Map{"power_uri": uri})
		got := apitest.Decode[struct {
			Unparsed string
			Parsed   power.URI
		}](t, h.OK("GET", "/node/"+uid+"/power_uri", nil))
		got.Parsed.Text = got.Unparsed
		if a, b := text(got.Parsed), text(want); a != b {
			t.Errorf("%s: %s, want %s", uri, a, b)
		}
	}
	for uri, word := range map[string]string{
		"ipmi://<gone>@x/":         "<gone>",
		"ipmi://u:<lines>@x/":      "control character",
		"ipmi://u@<space>/":        "%20",
		"ipmi://u:p/w@10.0.0.9/":   "%2F",
		"10.0.0.9":                 "no URI",
		"ipmi:10.0.0.9":            "no URI",
		"ipmi://<quote(pass)>@x/":  "no functions",
		"ipmi://<include(a.ks)>@x": "no functions",
	} {
		h.OK("PATCH", "/node/"+uid, apitest.Map{"power_uri": uri})
		reason := h.Refused("GET", "/node/"+uid+"/power_uri", nil)
		if !strings.Contains(reason, word) || strings.Contains(reason, "w%rd") {
			t.Errorf("%s: %s", uri, reason)
		}
	}
	h.Refused("GET", "/node/nobody/power_uri", nil)
}

func text(u power.URI) string {
	raw, _ := json.Marshal(u)
	return u.Text + " " + string(raw)
}

func ptr(s string) *string { return &s }

// FuzzParse: a value before the @ must never move to another part of the URI.
func FuzzParse(f *testing.F) {
	f.Add("ipmi://u:<x>@10.0.0.9/ipmi", "p@s/s:w%41")
	f.Add("ipmi://<x>/<x>@<x>", "a")
	f.Fuzz(func(t *testing.T, uri, value string) {
		values := func(template.Section, string) (any, bool) { return value, true }
		got, err := power.Parse(uri, values)
		if uri != "ipmi://u:<x>@10.0.0.9/ipmi" || err != nil {
			return
		}
		u, err := url.Parse(got.Text)
		if password, _ := u.User.Password(); err != nil || u.Host != "10.0.0.9" || u.Path != "/ipmi" || password != value {
			t.Fatalf("%q became %s", value, got.Text)
		}
	})
}
