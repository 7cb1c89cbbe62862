package naming_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"muster/controller/api/apitest"
)

// TestHostnameTypes: the type follows from what is given, and what is given
// must go with the type.
func TestHostnameTypes(t *testing.T) {
	h := start(t)
	for i, tt := range []struct{ in, want string }{
		{`{"name":"nfsserver","ip":"10.1.1.10"}`, "arec"},
		{`{"name":"six","ip":"fd00::10"}`, "aaaarec"},
		{`{"name":"mapped","ip":"::ffff:10.1.1.10"}`, "arec"},
		{`{"name":"ldap","target":"nfsserver","port":389}`, "srvrec"},
		{`{"name":"full","type":"srvrec","target":"a.b.c.","port":1,"service":"_http","proto":"udp","weight":0,"priority":65535,"domain":"x.y"}`, "srvrec"},
		{`{"name":"with-mac","ip":"10.1.1.11","mac":"52:54:00:00:00:0A"}`, "arec"},
	} {
		uid := h.Create([]string{"hostnames", "hosts"}[i%2], tt.in)
		if got := h.Get("host/" + uid); got["type"] != tt.want {
			t.Errorf("%s has the type %v, want %s", tt.in, got["type"], tt.want)
		}
	}
	full := h.Get("hostname/full")
	for key, want := range map[string]string{"target": "a.b.c", "service": "http", "weight": "0", "priority": "65535", "port": "1"} {
		if got := strings.Trim(strings.TrimSpace(string(mustJSON(t, full[key]))), `"`); got != want {
			t.Errorf("%s is read back as %s, want %s", key, got, want)
		}
	}
	before := string(h.OK("GET", "/hostnames", nil))
	for in, why := range map[string]string{
		`{"name":"x"}`:                                                 "needs: ip, or target and port",
		`{"name":"x","target":"y"}`:                                    "needs: ip, or target and port",
		`{"name":"x","type":"arec"}`:                                   "arec needs: ip",
		`{"name":"x","type":"srvrec"}`:                                 "srvrec needs: target, port",
		`{"name":"x","type":"srvrec","target":"y"}`:                    "srvrec needs: port",
		`{"name":"x","type":"aaaarec","ip":"10.0.0.1"}`:                "aaaarec does not go with the address 10.0.0.1",
		`{"name":"x","type":"arec","ip":"fd00::1"}`:                    "arec does not go with the address fd00::1",
		`{"name":"x","ip":"10.0.0.1","port":5,"weight":1}`:             "no port, weight",
		`{"name":"x","target":"y","port":5,"mac":"52:54:00:00:00:0b"}`: "no mac",
		`{"name":"x","type":"CNAME","ip":"10.0.0.1"}`:                  "none of arec, aaaarec, srvrec",
		`{"name":"a.b","target":"y","port":5}`:                         "service",
		`{"name":"x","target":"10.0.0.1","port":5}`:                    "target",
		`{"name":"x","target":"y","port":0}`:                           "port",
		`{"name":"x","target":"y","port":65536}`:                       "port",
		`{"name":"x","target":"y","port":5,"weight":65536}`:            "weight",
		`{"name":"x","target":"y","port":5,"proto":"sctp"}`:            "proto",
		`{"name":"x","target":"y","port":5,"service":"a.b"}`:           "service",
		`{"name":"x\nserver=/#/6.6.6.6","ip":"10.0.0.1"}`:              "name",
		`{"name":"x","ip":"10.0.0.1","domain":"a b"}`:                  "domain",
		`{"name":"nfsserver","ip":"10.0.0.1"}`:                         "already exists",
		`{"name":"bypart","ip":"10.0.0.1"}`:                            "bypart",
		`{"name":"` + strings.Repeat("a.", 96) + `a","ip":"10.0.0.1"}`: "name",
		`{"name":"x","ip":"10.0.0.1","last_modified_by":"me"}`:         "Unhandled",
	} {
		if reason := h.Refused("POST", "/hostnames", in); !strings.Contains(reason, why) {
			t.Errorf("%s: the reason %q does not say %q", in, reason, why)
		}
	}
	h.Refused("PATCH", "/hostname/nfsserver", `{"ip":"fd00::1"}`)
	h.Refused("PATCH", "/hostname/nfsserver", `{"type":"srvrec"}`)
	h.Refused("PATCH", "/hostname/ldap", `{"target":null}`)
	if after := string(h.OK("GET", "/hosts", nil)); after != before {
		t.Errorf("what was refused has changed something:\n%s%s", before, after)
	}
	h.OK("PATCH", "/hostname/nfsserver", `{"type":"aaaarec","ip":"fd00::1"}`)
	h.OK("PATCH", "/hostname/nfsserver", `{"type":null,"ip":null,"target":"six","port":2049}`)
	if got := h.Get("hostname/nfsserver"); got["type"] != "srvrec" || got["ip"] != nil {
		t.Errorf("it became %v", got)
	}
	h.OK("PUT", "/hostname/nfsserver", `{"name":"nfsserver","ip":"10.1.1.12"}`)
	if got := h.Get("hostname/nfsserver"); got["type"] != "arec" || got["target"] != nil || got["port"] != nil {
		t.Errorf("it became %v", got)
	}
}

// TestHostnameShared: records of different types share a name. Who reads by it
// goes on getting the same record; who writes must say which one he means.
func TestHostnameShared(t *testing.T) {
	h := start(t)
	four := h.Create("hostnames", `{"name":"both","ip":"10.1.1.20"}`)
	six := h.Create("hosts", `{"name":"both","ip":"fd00::20"}`)
	web := h.Create("hostnames", `{"name":"both","target":"both","port":80}`)
	if got := h.Get("host/both")["uid"]; got != four {
		t.Errorf("the name gives %v, not the record that had it first", got)
	}
	before := string(h.OK("GET", "/hostnames", nil))
	for _, method := range []string{"PATCH", "PUT", "DELETE"} {
		a := h.Do(method, "/hostname/both", `{"name":"both","ip":"10.1.1.21"}`)
		if a.Status != 409 || !strings.Contains(a.Reason, "arec "+four+", aaaarec "+six+", srvrec "+web) {
			t.Errorf("%s: %d %s", method, a.Status, a.Raw)
		}
	}
	for _, again := range []string{`{"name":"both","ip":"10.1.1.22"}`, `{"name":"both","ip":"fd00::22"}`, `{"name":"both","target":"x","port":81}`} {
		if a := h.Do("POST", "/hostnames", again); a.Status != 409 || a.Reason != "Hostname with name=both already exists." {
			t.Errorf("%s: %d %s", again, a.Status, a.Raw)
		}
	}
	h.Refused("PATCH", "/hostname/"+six, `{"type":"arec","ip":"10.1.1.23"}`)
	if after := string(h.OK("GET", "/hostnames", nil)); after != before {
		t.Errorf("what was refused has changed something:\n%s%s", before, after)
	}
	h.OK("PATCH", "/hostname/"+six, `{"ip":"fd00::21"}`)
	h.OK("DELETE", "/hostname/"+four, nil)
	h.OK("PATCH", "/hostname/"+six, `{"type":"arec","ip":"10.1.1.24"}`) // the place is free
	h.OK("DELETE", "/hostname/"+web, nil)
	h.OK("PATCH", "/hostname/both", `{"description":"the only one"}`)
	if got := h.Get("hostname/both"); got["uid"] != six || got["ip"] != "10.1.1.24" {
		t.Errorf("the name gives %v", got)
	}
	h.OK("DELETE", "/hostname/both", nil)
	h.Refused("GET", "/hostname/both", nil)
}

func TestHostnameSearch(t *testing.T) {
	h := start(t)
	a := h.Create("hostnames", `{"name":"a","ip":"10.0.0.1"}`)
	b := h.Create("hostnames", `{"name":"b","ip":"10.0.0.1"}`)
	for part, want := range map[string][]string{a: {a}, a[4:20]: {a}, b[31:]: nil, "zzz": {}} {
		for _, word := range []string{"hostnames", "hosts"} {
			got := apitest.Decode[[]string](t, h.OK("GET", "/"+word+"/bypart/"+part, nil))
			if want == nil { // a single character: at least the one it is from
				if !slices.Contains(got, b) {
					t.Errorf("%s gives %v, without %s", part, got, b)
				}
			} else if !slices.Equal(got, want) {
				t.Errorf("%s gives %v, want %v", part, got, want)
			}
		}
	}
	h.Refused("GET", "/hosts/bypart/"+strings.Repeat("x", 1000), nil)
}

// TestNothingIsGivenTwice: no MAC and no address by DHCP both to a node and to
// another machine, and no node's address that somebody else is known to have.
func TestNothingIsGivenTwice(t *testing.T) {
	h := start(t)
	h.Create("nets", `{"first_ip":"10.0.0.10","ip_count":50,"mask_bits":24}`)
	h.Create("hostnames", `{"name":"printer","ip":"10.0.0.10","mac":"52:54:00:00:00:01"}`)
	h.Create("hostnames", `{"name":"nfs","ip":"10.0.0.11"}`)
	h.Create("hostnames", `{"name":"nfs-too","ip":"10.0.0.11"}`)
	h.Refused("POST", "/nodes", `{"mac":"52:54:00:00:00:01"}`)
	h.Create("nodes", `{"mac":"52:54:00:00:00:02"}`)
	if ip := h.Get("node/n0")["ip"]; ip != "10.0.0.12" {
		t.Errorf("the first node gets %v, which is not the first free address", ip)
	}
	h.OK("DELETE", "/hostname/nfs", nil)
	h.Create("nodes", `{"mac":"52:54:00:00:00:03"}`)
	h.OK("PATCH", "/hostname/nfs-too", `{"ip":"10.0.0.100"}`)
	h.OK("DELETE", "/node/n1", nil)
	h.Create("nodes", `{"mac":"52:54:00:00:00:03"}`)
	if ip := h.Get("node/n1")["ip"]; ip != "10.0.0.11" {
		t.Errorf("an address that nobody has any more is not given out: the node has %v", ip)
	}
	h.Create("hostnames", `{"name":"alias","ip":"10.0.0.12"}`)
	for _, in := range []string{
		`{"name":"x","ip":"10.0.0.12","mac":"52:54:00:00:00:09"}`, `{"name":"x","ip":"10.0.0.10","mac":"52:54:00:00:00:09"}`,
		`{"name":"x","ip":"10.0.0.99","mac":"52:54:00:00:00:01"}`, `{"name":"x","ip":"10.0.0.99","mac":"52:54:00:00:00:02"}`,
	} {
		if a := h.Do("POST", "/hostnames", in); a.Status != 409 {
			t.Errorf("%s: %d %s", in, a.Status, a.Raw)
		}
	}
	h.Refused("PATCH", "/node/n0", `{"mac":"52:54:00:00:00:01"}`)
	h.OK("PATCH", "/hostname/printer", `{"mac":null}`)
	h.OK("PATCH", "/node/n0", `{"mac":"52:54:00:00:00:01"}`)
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
