package boot

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

var (
	head    = netip.MustParseAddr("10.0.0.1")
	nodeIP  = netip.MustParseAddr("10.0.0.9")
	farIP   = netip.MustParseAddr("10.7.0.9")
	relay   = netip.MustParseAddr("10.7.0.254")
	nodeMAC = net.HardwareAddr{0x52, 0x54, 0, 0, 0, 9}
	nobody  = netip.AddrPortFrom(netip.IPv4Unspecified(), 68)
	onLAN   = link.String()
)

func site() Site {
	return Site{
		Head: Head{
			Addr: head, OnLink: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/16")},
			MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, HTTPPort: 8080, Programs: "/usr/lib/ipxe",
		},
		Networks: []Network{
			{Name: "wide", Prefix: netip.MustParsePrefix("10.0.0.0/8")},
			{Name: "near", Prefix: netip.MustParsePrefix("10.0.0.0/16"), Domain: "near.example"},
			{Name: "far", Prefix: netip.MustParsePrefix("10.7.0.0/16"), Domain: "far.example"},
		},
		Have: func(name string) bool {
			return slices.Contains([]string{"undionly.kpxe", "snponly.efi", "ipxe.efi"}, name)
		},
	}
}

func node(addr netip.Addr) *Machine {
	return &Machine{UID: "u9", Name: "n9", Hostname: "n9", MAC: nodeMAC, IP: addr}
}

func printer() *Machine {
	m := node(nodeIP)
	m.NotBooted = true
	return m
}

// Requests of each sort of client.
func ask(mod ...func(*Request)) Request {
	r := Request{Source: nobody, Type: TypeDiscover, MAC: nodeMAC, Arch: -1}
	for _, m := range mod {
		m(&r)
	}
	return r
}

func pxe(arch int) func(*Request) {
	return func(r *Request) { r.VendorClass, r.Arch = "PXEClient:Arch:00000:UNDI:002001", arch }
}

func httpBoot(arch int) func(*Request) {
	return func(r *Request) { r.VendorClass, r.Arch = "HTTPClient:Arch:00016:UNDI:003001", arch }
}

func ipxe(r *Request) {
	pxe(0)(r)
	r.UserClass, r.IPXE = "iPXE", []byte{0x13, 1, 1, 0x18, 1, 1}
}

func selecting(r *Request) { r.Type, r.ServerID, r.Requested = TypeRequest, head, nodeIP }

func relayed(r *Request) { r.GIAddr, r.Source = relay, netip.AddrPortFrom(relay, 67) }

func proxied(s Site) Site { s.Proxy = true; return s }

func TestPlan(t *testing.T) {
	const script = "http://10.0.0.1:8080/boot/v1/script"
	for _, tt := range []struct {
		name string
		site Site
		m    *Machine
		r    Request
		want string // "action to address file class boots", "-" for nothing
		why  string // part of Reason
	}{
		// What each client is told to load.
		{"bios", site(), node(nodeIP), ask(pxe(0)), "offer " + onLAN + " 10.0.0.9 undionly.kpxe - -", ""},
		{"uefi 7", site(), node(nodeIP), ask(pxe(7)), "offer " + onLAN + " 10.0.0.9 snponly.efi - -", ""},
		{"uefi 9", site(), node(nodeIP), ask(pxe(9)), "offer " + onLAN + " 10.0.0.9 snponly.efi - -", ""},
		{"arch in the vendor class only", site(), node(nodeIP), ask(func(r *Request) { r.VendorClass = "PXEClient:Arch:00007:UNDI:003016" }),
			"offer " + onLAN + " 10.0.0.9 snponly.efi - -", ""},
		{"arm64", site(), node(nodeIP), ask(pxe(11)), "problem", "snponly-arm64.efi or ipxe-arm64.efi is not in /usr/lib/ipxe"},
		{"arm64 says why", site(), node(nodeIP), ask(pxe(11)), "problem", "Debian's package has none for arm64"},
		{"arm64 there", func() Site { s := site(); s.Have = func(n string) bool { return n == "ipxe-arm64.efi" }; return s }(), node(nodeIP), ask(pxe(11)),
			"offer " + onLAN + " 10.0.0.9 ipxe-arm64.efi - -", ""},
		{"ipxe.efi alone", func() Site { s := site(); s.Have = func(n string) bool { return n == "ipxe.efi" }; return s }(), node(nodeIP), ask(pxe(7)),
			"offer " + onLAN + " 10.0.0.9 ipxe.efi - -", ""},
		{"nothing installed", func() Site { s := site(); s.Have = func(string) bool { return false }; return s }(), node(nodeIP), ask(pxe(0)),
			"problem", "install the package ipxe"},
		{"ia32 uefi", site(), node(nodeIP), ask(pxe(6)), "problem", "option 93: 6"},
		{"uefi http x64", site(), node(nodeIP), ask(httpBoot(16)), "offer " + onLAN + " 10.0.0.9 http://10.0.0.1:8080/boot/v1/ipxe/snponly.efi HTTPClient -", ""},
		{"uefi http arm64", site(), node(nodeIP), ask(httpBoot(19)), "problem", "snponly-arm64.efi"},
		{"ipxe", site(), node(nodeIP), ask(ipxe), "offer " + onLAN + " 10.0.0.9 " + script + " - -", ""},
		{"ipxe by user class", site(), node(nodeIP), ask(pxe(7), func(r *Request) { r.UserClass = "iPXE" }), "offer " + onLAN + " 10.0.0.9 " + script + " - -", ""},
		{"ipxe without http", site(), node(nodeIP), ask(pxe(0), func(r *Request) { r.UserClass, r.IPXE = "iPXE", []byte{0x11, 1, 1} }),
			"offer " + onLAN + " 10.0.0.9 undionly.kpxe - -", ""},
		{"operating system", site(), node(nodeIP), ask(), "offer " + onLAN + " 10.0.0.9 - - -", ""},

		// Who is answered.
		{"unknown firmware", site(), nil, ask(pxe(0)), "admit", "no node has the MAC"},
		{"unknown ipxe", site(), nil, ask(ipxe), "admit", ""},
		{"unknown http", site(), nil, ask(httpBoot(16)), "admit", ""},
		{"unknown laptop", site(), nil, ask(), "ignore", "no node has the MAC 52:54:00:00:00:09"},
		{"unknown firmware's request", site(), nil, ask(ipxe, selecting), "ignore", "no node"},
		{"null ip", site(), node(netip.Addr{}), ask(pxe(0)), "problem", "create a net"},
		{"ip in no net", func() Site { s := site(); s.Networks = nil; return s }(), node(farIP), ask(pxe(0)), "problem", "in no network"},
		{"own network without a net object", func() Site { s := site(); s.Networks = nil; return s }(), node(nodeIP), ask(pxe(0)),
			"offer " + onLAN + " 10.0.0.9 undionly.kpxe - -", ""},
		{"bootp", site(), node(nodeIP), ask(func(r *Request) { r.Type = 0 }), "ignore", "BOOTP"},
		{"a reply", site(), node(nodeIP), ask(func(r *Request) { r.Reply = true }), "ignore", "server's reply"},
		{"the head itself", site(), node(nodeIP), ask(func(r *Request) { r.MAC = net.HardwareAddr{2, 0, 0, 0, 0, 1} }), "ignore", "own"},
		{"from the head's address", site(), node(nodeIP), ask(func(r *Request) { r.Source = netip.AddrPortFrom(head, 68) }), "ignore", "own"},
		{"multicast mac", site(), node(nodeIP), ask(func(r *Request) { r.MAC = net.HardwareAddr{1, 0, 0, 0, 0, 1} }), "ignore", "no Ethernet"},
		{"no mac", site(), node(nodeIP), ask(func(r *Request) { r.MAC = nil }), "ignore", "no Ethernet"},
		{"a user of a node", site(), node(nodeIP), ask(ipxe, selecting, func(r *Request) { r.Source = netip.AddrPortFrom(nodeIP, 40000) }), "ignore", "any user"},
		{"an offer as a request", site(), node(nodeIP), ask(func(r *Request) { r.Type = TypeOffer }), "ignore", "not a client's"},
		{"type 200", site(), node(nodeIP), ask(func(r *Request) { r.Type = 200 }), "ignore", "message type 200"},

		// Leases.
		{"selecting", site(), node(nodeIP), ask(selecting), "ack " + onLAN + " 10.0.0.9 - - -", ""},
		{"firmware selecting opens a boot", site(), node(nodeIP), ask(ipxe, selecting), "ack " + onLAN + " 10.0.0.9 " + script + " - 10.0.0.9", ""},
		{"firmware's class from a used address opens none", site(), node(nodeIP), ask(ipxe, selecting, func(r *Request) { r.Source = netip.AddrPortFrom(nodeIP, 68) }),
			"ack " + onLAN + " 10.0.0.9 " + script + " - -", ""},
		{"firmware's class renewing opens none", site(), node(nodeIP), ask(ipxe, selecting, func(r *Request) { r.CIAddr = nodeIP }),
			"ack 10.0.0.9:68 10.0.0.9 " + script + " - -", ""},
		{"another server's", site(), node(nodeIP), ask(selecting, func(r *Request) { r.ServerID = relay }), "ignore", "DHCP server 10.7.0.254"},
		{"wrong address", site(), node(nodeIP), ask(selecting, func(r *Request) { r.Requested = head.Next().Next() }), "nak " + onLAN + " - - - -", "10.0.0.3 is not the address of node n9"},
		{"after a restart", site(), node(nodeIP), ask(func(r *Request) { r.Type, r.Requested = TypeRequest, nodeIP }), "ack " + onLAN + " 10.0.0.9 - - -", ""},
		{"after a restart, elsewhere before", site(), node(nodeIP), ask(func(r *Request) { r.Type, r.Requested = TypeRequest, farIP }), "nak " + onLAN + " - - - -", ""},
		{"renewing", site(), node(nodeIP), ask(func(r *Request) { r.Type, r.CIAddr = TypeRequest, nodeIP }), "ack 10.0.0.9:68 10.0.0.9 - - -", ""},
		{"renewing an old address", site(), node(nodeIP), ask(func(r *Request) { r.Type, r.CIAddr = TypeRequest, farIP }), "nak " + onLAN + " - - - -", ""},
		{"request for nothing", site(), node(nodeIP), ask(func(r *Request) { r.Type = TypeRequest }), "ignore", "no address"},
		{"inform", site(), node(nodeIP), ask(func(r *Request) { r.Type, r.CIAddr = TypeInform, nodeIP }), "ack 10.0.0.9:68 - - - -", ""},
		{"release", site(), node(nodeIP), ask(func(r *Request) { r.Type = TypeRelease }), "ignore", "reserved"},
		{"decline", site(), node(nodeIP), ask(func(r *Request) { r.Type, r.ServerID, r.Requested = TypeDecline, head, nodeIP }), "conflict", "address conflict"},
		{"decline of another server", site(), node(nodeIP), ask(func(r *Request) { r.Type, r.ServerID, r.Requested = TypeDecline, relay, nodeIP }), "ignore", ""},

		// Machines that are no nodes get their address and nothing else.
		{"not booted, firmware", site(), printer(), ask(pxe(0)), "offer " + onLAN + " 10.0.0.9 - - -", ""},
		{"not booted, unknown firmware", site(), printer(), ask(pxe(6)), "offer " + onLAN + " 10.0.0.9 - - -", ""},
		{"not booted, opens nothing", site(), printer(), ask(ipxe, selecting), "ack " + onLAN + " 10.0.0.9 - - -", ""},
		{"not booted, operating system", site(), printer(), ask(selecting), "ack " + onLAN + " 10.0.0.9 - - -", ""},
		{"not booted, proxyDHCP", proxied(site()), printer(), ask(pxe(0)), "ignore", "the site's server"},

		// Relays.
		{"relayed", site(), node(farIP), ask(pxe(0), relayed), "offer 10.7.0.254:67 10.7.0.9 undionly.kpxe - -", ""},
		{"relayed, opens", site(), node(farIP), ask(ipxe, relayed, selecting, func(r *Request) { r.Requested = farIP }), "ack 10.7.0.254:67 10.7.0.9 " + script + " - 10.7.0.9", ""},
		{"relayed nak", site(), node(farIP), ask(relayed, selecting), "nak 10.7.0.254:67 - - - -", ""},
		{"relayed from another net", site(), node(nodeIP), ask(pxe(0), relayed), "problem", "through the relay 10.7.0.254"},
		{"link selection", site(), node(farIP), ask(pxe(0), relayed, func(r *Request) { r.GIAddr, r.Link = netip.MustParseAddr("10.0.0.250"), relay }),
			"offer 10.0.0.250:67 10.7.0.9 undionly.kpxe - -", ""},
		{"far node on the boot interface", site(), node(farIP), ask(pxe(0)), "problem", "asks on the boot interface"},
		{"relayed unknown", site(), nil, ask(pxe(0), relayed), "admit", ""},

		// proxyDHCP.
		{"proxy bios", proxied(site()), node(nodeIP), ask(pxe(0)), "offer " + onLAN + " - undionly.kpxe PXEClient -", ""},
		{"proxy uefi", proxied(site()), node(nodeIP), ask(pxe(7)), "offer " + onLAN + " - snponly.efi PXEClient -", ""},
		{"proxy http", proxied(site()), node(nodeIP), ask(httpBoot(16)), "offer " + onLAN + " - http://10.0.0.1:8080/boot/v1/ipxe/snponly.efi HTTPClient -", ""},
		{"proxy ipxe", proxied(site()), node(nodeIP), ask(ipxe), "offer " + onLAN + " - " + script + " PXEClient -", ""},
		{"proxy null ip", proxied(site()), node(netip.Addr{}), ask(ipxe), "offer " + onLAN + " - " + script + " PXEClient -", ""},
		{"proxy relayed", proxied(site()), node(nodeIP), ask(ipxe, relayed), "offer 10.7.0.254:67 - " + script + " PXEClient -", ""},
		{"proxy os", proxied(site()), node(nodeIP), ask(), "ignore", "site's server"},
		{"proxy os request", proxied(site()), node(nodeIP), ask(selecting), "ignore", ""},
		{"proxy unknown", proxied(site()), nil, ask(pxe(0)), "admit", ""},
		{"proxy arm64", proxied(site()), node(nodeIP), ask(pxe(11)), "problem", "arm64"},
		{"proxy sees the choice", proxied(site()), node(nodeIP), ask(ipxe, selecting, func(r *Request) { r.ServerID, r.Requested = relay, farIP }), "ignore - - - - 10.7.0.9", ""},
		{"proxy never refuses", proxied(site()), node(nodeIP), ask(ipxe, selecting, func(r *Request) { r.Requested = farIP }), "ignore - - - - 10.7.0.9", ""},
		{"boot server", proxied(site()), node(nodeIP), ask(pxe(7), func(r *Request) {
			r.Type, r.BootServer, r.CIAddr, r.Source = TypeRequest, true, farIP, netip.AddrPortFrom(farIP, 4011)
		}), "ack 10.7.0.9:4011 - snponly.efi PXEClient -", ""},
		{"boot server, without proxy", site(), node(nodeIP), ask(pxe(7), func(r *Request) { r.Type, r.BootServer, r.Source = TypeRequest, true, netip.AddrPortFrom(farIP, 4011) }), "ignore", ""},
		{"boot server admits nobody", proxied(site()), nil, ask(pxe(7), func(r *Request) { r.BootServer, r.Source = true, netip.AddrPortFrom(farIP, 4011) }), "ignore", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := Plan(tt.site, tt.m, tt.r)
			if got := brief(a); got != tt.want && strings.TrimSuffix(got, " - - - - -") != tt.want {
				t.Errorf("got  %s\nwant %s (%s)", got, tt.want, a.Reason)
			}
			if !strings.Contains(a.Reason, tt.why) {
				t.Errorf("reason %q does not say %q", a.Reason, tt.why)
			}
		})
	}
}

// brief is an answer in a line.
func brief(a Answer) string {
	words := []string{[...]string{"ignore", "offer", "ack", "nak", "admit", "conflict"}[a.Action], "-", "-", "-", "-", "-"}
	if a.Action == Ignore && a.Problem != "" {
		words[0] = "problem"
	}
	if a.To.IsValid() {
		words[1] = a.To.String()
	}
	if a.Address.IsValid() {
		words[2] = a.Address.String()
	}
	if a.BootFile != "" {
		words[3] = a.BootFile
	}
	if a.VendorClass != "" {
		words[4] = a.VendorClass
	}
	if a.Boots.IsValid() {
		words[5] = a.Boots.String()
	}
	return strings.Join(words, " ")
}

func TestPlanDetails(t *testing.T) {
	a := Plan(site(), node(nodeIP), ask(ipxe))
	if !a.NoProxy || a.Lease != DefaultLease || a.Network.Name != "near" || a.Domain != "near.example" || a.Hostname != "n9" || a.NextServer != head {
		t.Errorf("offer to iPXE: %+v", a)
	}
	if a := Plan(proxied(site()), node(nodeIP), ask(ipxe)); a.NoProxy {
		t.Error("with proxyDHCP iPXE is told not to wait for proxyDHCP")
	}
	if a := Plan(proxied(site()), node(nodeIP), ask(pxe(0))); string(a.Vendor) != "\x06\x01\x08\xff" {
		t.Errorf("discovery control for a PXE ROM: % x", a.Vendor)
	}
	if a := Plan(proxied(site()), node(nodeIP), ask(pxe(7))); a.Vendor != nil {
		t.Errorf("option 43 for UEFI: % x", a.Vendor)
	}
	if a := Plan(site(), node(nodeIP), ask(func(r *Request) { r.Type, r.CIAddr = TypeInform, nodeIP })); a.Lease != 0 {
		t.Error("INFORM is answered with a lease")
	}
	m := node(nodeIP)
	m.Domain = "own.example"
	if a := Plan(site(), m, ask()); a.Domain != "own.example" {
		t.Errorf("domain %q", a.Domain)
	}
}

func TestIdentity(t *testing.T) {
	id := func(b ...byte) string { return Request{GUID: append([]byte{0}, b...)}.Identity() }
	big := id(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16)
	little := id(4, 3, 2, 1, 6, 5, 8, 7, 9, 10, 11, 12, 13, 14, 15, 16)
	other := id(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 17)
	if big == "" || big != little || big == other {
		t.Errorf("% x, % x, % x", big, little, other)
	}
	if id(make([]byte, 16)...) != "" || id(slices.Repeat([]byte{255}, 16)...) != "" || id(1, 2) != "" {
		t.Error("a filler counts as an identifier")
	}
}

func TestURLs(t *testing.T) {
	h := Head{Addr: head, HTTPPort: 80, HTTPSPort: 8443}
	if h.HTTP() != "http://10.0.0.1" || h.HTTPS() != "https://10.0.0.1:8443" {
		t.Error(h.HTTP(), h.HTTPS())
	}
}
