package discover_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"muster/controller/api"
	"muster/controller/api/apitest"
	"muster/controller/power"
	"muster/controller/power/discover"
	"muster/controller/power/ipmi/ipmitest"
	"muster/controller/power/redfish/redfishtest"
	"muster/shared/kind"
	"muster/shared/object"
	"muster/shared/template"
)

// room is a head with what it may find.
type room struct {
	*apitest.Head
	discover *discover.Discover
	hardware map[string]string // by the node's UID
	audit    []string
}

// enter makes a room whose IPMI port is this and whose services listen to
// searches at group.
func enter(t *testing.T, port uint16, group netip.AddrPort) *room {
	out := &room{hardware: map[string]string{}}
	out.Head = apitest.Start(t, apitest.Options{Routes: func(h *apitest.Head) [][]api.Route {
		out.discover = &discover.Discover{
			Objects: h.Registry, Schemes: power.Schemes(), Log: h.Logger, Interface: "lo", Group: group, IPMIPort: port, Patience: 300 * time.Millisecond,
			OnLink:   []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
			Hardware: func(uid string) json.RawMessage { return json.RawMessage(out.hardware[uid]) },
			Attribute: func(n *object.Node, name string) string {
				if n == nil {
					n = &object.Node{}
				}
				return object.Attribute(h.Registry.Look(), n, name)
			},
			Neighbors: func() map[netip.Addr]net.HardwareAddr {
				return map[netip.Addr]net.HardwareAddr{netip.MustParseAddr("127.0.0.2"): {2, 0, 0, 0, 0xb, 2}}
			},
			Record: func(_ context.Context, by kind.Author, detail map[string]string) error {
				out.audit = append(out.audit, by.Name+" "+detail["networks"])
				return nil
			},
		}
		p := &power.Power{
			Objects: h.Registry, Agents: noAgents{}, Schemes: power.Schemes(), Log: h.Logger,
			Values: func(n *object.Node) func(template.Section, string) (any, bool) {
				return func(s template.Section, key string) (any, bool) {
					v, ok := object.Effective(h.Registry.Look(), n)[key]
					return v, ok && s == template.Attribute
				}
			},
		}
		return [][]api.Route{out.discover.Routes(), p.Routes()}
	}})
	group1 := out.Create("attribs", apitest.Map{"name": "all", "attributes": apitest.Map{object.AttrBMCUser: ipmitest.User, object.AttrBMCPass: ipmitest.Password}})
	out.OK("PATCH", "/cluster", apitest.Map{"default_group": group1})
	return out
}

type noAgents struct{}

func (noAgents) Connected(string) bool                             { return false }
func (noAgents) Run(context.Context, string, string, string) error { return nil }

// node makes a node that reported this hardware.
func (r *room) node(i int, hardware string) string {
	r.Helper()
	uid := r.Create("nodes", apitest.Map{"mac": fmt.Sprintf("02:00:00:00:0a:%02x", i), "attributes": apitest.Map{"rack": "7", object.AttrIPs: "ib0=10.9.0.1"}})
	r.hardware[uid] = hardware
	return uid
}

// find looks for BMCs; they come by their addresses, or MACs.
func (r *room) find(body string) map[string]discover.Proposal {
	r.Helper()
	out := map[string]discover.Proposal{}
	for _, p := range apitest.Decode[[]discover.Proposal](r, r.OK("POST", "/nodes/discover", body)) {
		key := p.Address
		if key == "" {
			key = p.MAC
		}
		if _, twice := out[key]; twice {
			r.Errorf("%s twice", key)
		}
		out[key] = p
	}
	return out
}

// responder answers searches at an address of loopback until the test ends.
func responder(t *testing.T, answers ...string) netip.AddrPort {
	t.Helper()
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { conn.Close(); <-done })
	go func() {
		defer close(done)
		for buf := make([]byte, 2048); ; {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			q := string(buf[:n])
			if !strings.HasPrefix(q, "M-SEARCH * HTTP/1.1\r\n") || !strings.Contains(q, `MAN: "ssdp:discover"`) || !strings.Contains(q, "ST: urn:dmtf-org:service:redfish-rest:1\r\n") {
				continue
			}
			for _, a := range answers {
				conn.WriteTo([]byte(strings.ReplaceAll(a, "\n", "\r\n")), from)
			}
		}
	}()
	return netip.MustParseAddrPort(conn.LocalAddr().String())
}

const ssdpAnswer = "HTTP/1.1 200 OK\nCACHE-CONTROL: max-age=1800\nST: urn:dmtf-org:service:redfish-rest:1:6\nUSN: uuid:00000000-0000-0000-0000-000000000001::urn:dmtf-org:service:redfish-rest:1:6\nAL: <%s>\nEXT:\n\n"

// bmcs are those by IPMI, on 127.0.0.2 and so on at one port.
func bmcs(t *testing.T, options ...ipmitest.Options) (all []*ipmitest.BMC, port uint16) {
	for i, o := range options {
		b, err := ipmitest.Listen(fmt.Sprintf("127.0.0.%d:%d", i+2, port), o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(b.Close)
		all, port = append(all, b), netip.MustParseAddrPort(b.Host()).Port()
	}
	return all, port
}

// TestDiscover finds BMCs by IPMI, by Redfish and by DHCP, and sets one up.
func TestDiscover(t *testing.T) {
	guid := [16]byte{0x0f, 0x0e, 0x0d, 0x0c, 0x0b, 0x0a, 0x09, 0x08, 0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01, 0x4c} // from the last byte to the first
	twin := [16]byte{9: 7, 15: 9}
	_, port := bmcs(t, ipmitest.Options{GUID: guid}, ipmitest.Options{GUID: twin}, ipmitest.Options{GUID: twin}, ipmitest.Options{})
	service := redfishtest.Start(t)
	var told atomic.Int32
	service.Before(func(w http.ResponseWriter, q *http.Request) bool {
		if _, _, ok := q.BasicAuth(); ok {
			told.Add(1)
			if q.URL.Path == "/redfish/v1/Systems/1" && q.Method == "GET" {
				fmt.Fprint(w, `{"SerialNumber":"SN-\u001b[31m77\n","UUID":{"odd":1},"Manufacturer":["x"],"PowerState":"On","Model":"M1"}`)
				return true
			}
		}
		return false
	})
	group := responder(t, "HTTP/1.1 200 OK\nST: upnp:rootdevice\nAL: <https://127.0.0.1:1/>\n\n", "garbage", fmt.Sprintf(ssdpAnswer, "https://192.0.2.1:"+strings.Split(service.Host(), ":")[1]+"/redfish/v1"))
	r := enter(t, port, group)
	r.node(0, `{"system_uuid":"4C010203-0405-0607-0809-0a0b0c0d0e0f","serial":"To be filled by O.E.M."}`)
	r.node(1, `{"system_uuid":"00000000-0000-0000-0000-000000000000","serial":"sn-[31m77"}`)
	r.node(2, `{"system_uuid":"09000000-0000-0700-0000-000000000000"}`)
	r.node(3, `{"serial":"CTR9XYZ","chassis_serial":7}`)
	r.discover.Seen(discover.Sighting{MAC: "0c:c4:7a:00:00:03", Hostname: "idrac-CTR9XYZ", Vendor: "iDRAC\x1b]0;x\x07"})
	r.discover.Seen(discover.Sighting{MAC: "0c:c4:7a:00:00:09", Addr: netip.MustParseAddr("192.0.2.9"), Switch: []byte{1, 4, 's', 'w', '1', '0'}, Port: []byte("eth7")})
	n4 := r.node(4, "")
	r.OK("PATCH", "/node/"+n4+"/attributes", apitest.Map{object.AttrBMCPort: "SW10/eth7"})

	// Nothing is named: nobody gets the password.
	got := r.find("")
	if told.Load() != 0 || len(got) != 3 || got["127.0.0.1"].Node != "" || !strings.Contains(got["127.0.0.1"].Note, "not given the password") {
		t.Errorf("%d times with the password: %+v", told.Load(), got)
	}
	if p := got["0c:c4:7a:00:00:09"]; p.Node != "n4" || p.Why != "switch port sw10/eth7" || p.Set == nil || p.Set.Attributes[object.AttrIPs] != "" {
		t.Errorf("by the switch port: %+v", p)
	}

	got = r.find(`{"networks":["127.0.0.0/29"],"first_ip":"10.3.0.10"}`)
	first := got["127.0.0.2"]
	if first.Node != "n0" || !strings.HasPrefix(first.Why, "system UUID 4c010203-0405-0607-0809-0a0b0c0d0e0f") || first.Set.Attributes[object.AttrMACs] != "bmc=02:00:00:00:0b:02" || first.Set.Attributes[object.AttrIPs] != "ib0=10.9.0.1,bmc=127.0.0.2" {
		t.Errorf("by IPMI: %+v", first)
	}
	if p := got["127.0.0.1"]; p.Node != "n1" || p.Why != "serial number SN-[31m77" || p.Set.RedfishURI != "https://<a[_bmc_user]>:<a[_bmc_pass]>@"+service.Host()+"/" || !strings.HasPrefix(p.Set.PowerURI, "redfish://") || !slices.Equal(p.By, []string{"redfish", "ssdp"}) {
		t.Errorf("by Redfish: %+v", p)
	}
	for _, at := range []string{"127.0.0.3", "127.0.0.4"} {
		if p := got[at]; p.Node != "n2" || p.Set != nil || !strings.Contains(p.Note, "more than one") {
			t.Errorf("twins: %+v", p)
		}
	}
	if p := got["127.0.0.5"]; p.Node != "" || p.Set != nil {
		t.Errorf("a BMC of nobody: %+v", p)
	}
	if p := got["0c:c4:7a:00:00:03"]; p.Node != "n3" || p.Vendor != "iDRAC]0;x" || p.Set.Attributes[object.AttrIPs] != "ib0=10.9.0.1,bmc=10.3.0.13" || p.Set.PowerURI != "" {
		t.Errorf("by DHCP: %+v", p)
	}
	if raw, _ := json.Marshal(got); strings.Contains(string(raw), "s/w%rd") {
		t.Errorf("the password is told: %s", raw)
	}

	// What is proposed is set as anybody sets it, and works then.
	r.OK("PATCH", "/node/n0/attributes", first.Set.Attributes)
	r.OK("PATCH", "/node/n0", apitest.Map{"power_uri": first.Set.PowerURI})
	if a := r.Get("node/n0")["attributes"].(map[string]any); a["rack"] != "7" || a[object.AttrIPs] != "ib0=10.9.0.1,bmc=127.0.0.2" {
		t.Errorf("n0 has %v", a)
	}
	if a := r.Do("GET", "/node/n0/power_state", nil); string(a.Data) != `"on"` {
		t.Errorf("n0 is %s", a.Raw)
	}
	if p := r.find("")["127.0.0.2"]; p.Node != "n0" || p.Set != nil || !strings.Contains(p.Why, object.AttrIPs) {
		t.Errorf("once more: %+v", p)
	}
	if len(r.audit) != 3 || r.audit[1] != "admin1 127.0.0.0/29" {
		t.Error(r.audit)
	}
}

// TestBMCOfTwo: an address belongs to one BMC, and to no node beside.
func TestBMCOfTwo(t *testing.T) {
	r := enter(t, 623, netip.MustParseAddrPort("127.0.0.1:1"))
	r.node(0, "")
	r.node(1, "")
	r.OK("PATCH", "/node/n0", apitest.Map{"attributes": apitest.Map{object.AttrMACs: "bmc=0C:C4:7A:00:00:01", object.AttrIPs: "bmc=10.3.0.1/16"}})
	for _, attributes := range []apitest.Map{{object.AttrMACs: "eth1=02:00:00:00:00:77,bmc=0c:c4:7a:00:00:01"}, {object.AttrIPs: "bmc=10.3.0.1"}, {object.AttrMACs: "bmc=02:00:00:00:0a:00"}} {
		if why := r.Refused("PATCH", "/node/n1", apitest.Map{"attributes": attributes}); !strings.Contains(why, "the BMC's address") {
			t.Error(why)
		}
	}
	if why := r.Refused("POST", "/nodes", apitest.Map{"mac": "0c:c4:7a:00:00:01"}); !strings.Contains(why, "a node's BMC") {
		t.Error(why)
	}
	r.OK("PATCH", "/node/n0", apitest.Map{"attributes": apitest.Map{object.AttrMACs: "bmc=0c:c4:7a:00:00:02"}})
	r.OK("PATCH", "/node/n1", apitest.Map{"attributes": apitest.Map{object.AttrMACs: "bmc=0c:c4:7a:00:00:01"}})
}

func TestRefused(t *testing.T) {
	r := enter(t, 623, netip.MustParseAddrPort("127.0.0.1:1"))
	for _, body := range []string{`{"networks":["10.0.0.0/8"]}`, `{"networks":["x"]}`, `{"networks":["224.0.0.0/24"]}`, `{"networks":["::/64"]}`, `{"first_ip":"::1"}`, `{"user":"x"}`,
		`{"networks":["10.0.0.0/20","10.1.0.0/20"]}`} {
		r.Refused("POST", "/nodes/discover", body)
	}
}
