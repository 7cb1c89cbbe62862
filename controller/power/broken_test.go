package power_test

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"muster/controller/api/apitest"
	"muster/controller/power/ipmi/ipmitest"
	"muster/controller/power/redfish/redfishtest"
)

// secretless fails where a password is told, in the log, the audit trail or a text.
func (h *head) secretless(password string, texts ...string) {
	h.Helper()
	for _, text := range append(texts, h.said(), strings.Join(h.audit, " ")) {
		if strings.Contains(text, password) || strings.Contains(text, url.QueryEscape(password)) {
			h.Errorf("the password is told: %s", text)
		}
	}
}

// TestBrokenIPMI: each fault of a BMC by IPMI has its reason, in the time that
// there is, and tells no password.
func TestBrokenIPMI(t *testing.T) {
	h := start(t)
	gone, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	good := ipmitest.Start(t, ipmitest.Options{})
	for i, c := range []struct {
		word, uri string
		options   ipmitest.Options
	}{
		{"user or password refused", "ipmi://<user>:wrong@HOST/?cipher=3", ipmitest.Options{}},
		{"user or password refused", "ipmi://nobody:<pass>@HOST/?cipher=3", ipmitest.Options{}},
		{"user or password refused", "ipmi://<user>:wrong@HOST/", ipmitest.Options{}},
		{"nothing listens there", "ipmi://<user>:<pass>@" + gone.LocalAddr().String() + "/", ipmitest.Options{}},
		{"did not answer in time", "ipmi://<user>:<pass>@HOST/", ipmitest.Options{Silent: true}},
		{"did not answer in time", "ipmi://<user>:<pass>@HOST/?cipher=3", ipmitest.Options{HalfOpen: true}},
		{"cipher", "ipmi://<user>:<pass>@HOST/?cipher=17", ipmitest.Options{}},
		{"cipher", "ipmi://<user>:<pass>@HOST/?cipher=3%20-v", ipmitest.Options{}},
		{"no option", "ipmi://<user>:<pass>@HOST/?cipher=3&command=reboot", ipmitest.Options{}},
		{"no such host", "ipmi://<user>:<pass>@$(reboot)/", ipmitest.Options{}},
		{"cannot be used", "ipmi://<user>:<pass>@a b/", ipmitest.Options{}},
		{"control character", "ipmi://<user>:<lines>@HOST/", ipmitest.Options{}},
		{"<gone>", "ipmi://<gone>:<pass>@HOST/", ipmitest.Options{}},
		{"20", "ipmi://<user>:<long>@HOST/", ipmitest.Options{}},
	} {
		b := ipmitest.Start(t, c.options)
		h.Create("nodes", apitest.Map{"mac": net.HardwareAddr{2, 0, 0, 0, 0, byte(i)}.String(), "attributes": apitest.Map{
			"user": ipmitest.User, "pass": ipmitest.Password, "lines": ipmitest.Password + "\n-x", "long": ipmitest.Password + strings.Repeat("x", 20)}})
		name := fmt.Sprintf("n%d", i)
		h.OK("PATCH", "/node/"+name, apitest.Map{"power_uri": strings.ReplaceAll(c.uri, "HOST", b.Host())})
		a := apitest.Decode[struct {
			State, Error string
			Seconds      float64
		}](t, h.Do("GET", "/power?timeout=1.5&nodes="+name, nil).Raw)
		why := a.Error
		if a.State != "unknown" || !strings.Contains(why, c.word) || a.Seconds > 10 {
			t.Errorf("%s: %+v", c.uri, a)
		}
		order := apitest.Decode[struct{ Error string }](t, h.Do("POST", "/power", fmt.Sprintf(`{"nodes":%q,"state":"off","force":true,"timeout":1.5}`, name)).Raw)
		if !strings.Contains(order.Error, c.word) || len(b.Orders()) > 0 {
			t.Errorf("%s: switched %v, %s", c.uri, b.Orders(), order.Error)
		}
		h.secretless(ipmitest.Password, why, order.Error)
	}
	h.Refused("PATCH", "/node/n0", apitest.Map{"power_uri": "ipmi://a:b@" + good.Host() + "/\n"})
}

// TestStuckOn: firmware that takes every order and says on forever.
func TestStuckOn(t *testing.T) {
	h, b := start(t), ipmitest.Start(t, ipmitest.Options{Stuck: true})
	h.Create("nodes", apitest.Map{"mac": "02:00:00:00:00:01", "attributes": apitest.Map{"user": ipmitest.User, "pass": ipmitest.Password}})
	h.OK("PATCH", "/node/n0", apitest.Map{"power_uri": "ipmi://<user>:<pass>@" + b.Host() + "/"})
	a := h.Do("PUT", "/node/n0/power_state", `{"state":"off","steps":[{"step":"soft","timeout":0.2},{"step":"hard","timeout":0.2}]}`)
	if a.Status != http.StatusGatewayTimeout || !strings.Contains(a.Reason, "says on") || string(b.Orders()) != "\x05\x00" {
		t.Errorf("%d %s, told %v", a.Status, a.Reason, b.Orders())
	}
	h.secretless(ipmitest.Password, a.Reason)
}

// TestOddRedfish: members that are missing or of other types have a reason or do no harm.
func TestOddRedfish(t *testing.T) {
	h, b := start(t), redfishtest.Start(t)
	uid := h.node(0, b)
	answers := map[string]string{}
	b.Before(func(w http.ResponseWriter, r *http.Request) bool {
		text, odd := answers[r.Method+" "+strings.TrimSuffix(r.URL.Path, "/")]
		if odd {
			fmt.Fprint(w, text)
		}
		return odd
	})
	const system = "GET /redfish/v1/Systems/1"
	for _, c := range []struct{ at, text, ask, word string }{
		{system, `{"PowerState":null}`, "power_state", "does not tell a PowerState"},
		{system, `{"PowerState":["On"]}`, "power_state", "no JSON of a Redfish service"},
		{system, `{"PowerState":"\u001b[31mMaybe"}`, "power_state", `[31mMaybe`},
		{system, `[]`, "power_state", "no JSON of a Redfish service"},
		{"GET /redfish/v1/Systems", `{"Members":{"@odata.id":"/x"}}`, "power_state", "no JSON of a Redfish service"},
		{"GET /redfish/v1/Systems", `{"Members":[null,{},{"@odata.id":""}]}`, "power_state", "no system"},
		{"GET /redfish/v1/Chassis/1/Thermal", `{"Temperatures":[{"Name":null,"ReadingCelsius":{"x":1}}],"Fans":null}`, "sensors", ""},
		{"GET /redfish/v1/Chassis/1/Power", `{"PowerControl":"212 W"}`, "sensors", "no JSON of a Redfish service"},
		{system, `{"@odata.id":7,"SerialNumber":{},"PowerState":"On"}`, "inventory", ""},
	} {
		clear(answers)
		answers[c.at] = c.text
		h.OK("PATCH", "/node/"+uid, apitest.Map{"power_uri": "redfish://<user>:<pass>@" + b.Host() + "/?verify=false"})
		a := h.Do("GET", "/node/"+uid+"/"+c.ask, nil)
		if !strings.Contains(a.Reason, c.word) || c.word == "" && a.Status != http.StatusOK || strings.Contains(a.Reason, "\x1b") {
			t.Errorf("%s: %d %s", c.text, a.Status, a.Raw)
		}
		h.secretless(redfishtest.Password, string(a.Raw))
		h.OK("PATCH", "/node/"+uid, apitest.Map{"power_uri": "redfish://<user>:<pass>@" + b.Host()}) // another session
		clear(answers)
	}
	answers[system] = `{"PowerState":"On","Actions":{"#ComputerSystem.Reset":{"target":"http://192.0.2.1/","ResetType@Redfish.AllowableValues":["ForceOff"]}}}`
	if a := h.Do("PUT", "/node/"+uid+"/power_state", `{"state":"off","force":true}`); a.Status != http.StatusBadGateway || !strings.Contains(a.Reason, "which is no path") {
		t.Errorf("%d %s", a.Status, a.Raw)
	}
}
