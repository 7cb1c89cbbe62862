package boot

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"muster/shared/wire"
)

// Site is what Plan knows beside the machine: the head, the networks, and
// which iPXE binaries are there.
type Site struct {
	Head
	Networks []Network
	Have     func(program string) bool
}

// Action is what to do about a request.
type Action int

// The actions.
const (
	Ignore   Action = iota // say nothing
	DoOffer                // DHCPOFFER
	DoAck                  // DHCPACK
	DoNak                  // DHCPNAK
	DoAdmit                // ask Directory.Admit for a machine, then plan again
	Conflict               // say nothing; the machine found its address in use
)

// Answer is what to send, and why.
type Answer struct {
	Action  Action
	Reason  string         // why nothing is sent, or why NAK, for the log
	Problem string         // the reason, when it is one that an admin must do something about
	To      netip.AddrPort // where to; 255.255.255.255 for the link

	Address  netip.Addr // yiaddr; zero when the answer gives none
	Network  Network
	Hostname string
	Domain   string
	Lease    time.Duration // 0: none, as in the answer to INFORM

	NextServer  netip.Addr // siaddr
	BootFile    string     // a name for TFTP, or a URL
	VendorClass string     // option 60
	Vendor      []byte     // option 43
	NoProxy     bool       // tell iPXE not to wait for a proxyDHCP server (option 175.176)

	// Boots is set when this exchange gives firmware its address, which it is:
	// the moment to open a boot. In proxyDHCP mode nothing need be sent.
	Boots netip.Addr
}

const (
	serverPort     = 67
	clientPort     = 68
	privilegedPort = 1023 // the last one that takes a privilege to send from
)

// Plan says what to answer. m is nil when no node has the request's MAC. The
// first rule that applies decides.
func Plan(site Site, m *Machine, r Request) Answer {
	for _, rule := range []func(Site, *Machine, Request) (Answer, bool){
		notForUs, goodbye, stranger, proxy, elsewhere, unplaced, unbootable, lease,
	} {
		if a, ok := rule(site, m, r); ok {
			return a
		}
	}
	return ignore("message type %d is not a client's", r.Type)
}

func ignore(format string, args ...any) Answer {
	return Answer{Reason: fmt.Sprintf(format, args...)}
}

func problem(format string, args ...any) Answer {
	text := fmt.Sprintf(format, args...)
	return Answer{Reason: text, Problem: text}
}

// notForUs drops what no client of ours would send.
func notForUs(site Site, _ *Machine, r Request) (Answer, bool) {
	src := r.Source.Addr().Unmap()
	switch {
	case r.Reply:
		return ignore("a server's reply"), true
	case r.Type == 0:
		return ignore("BOOTP without a DHCP message type"), true
	case !goodMAC(r.MAC):
		return ignore("no Ethernet address of a machine: %s", r.MAC), true
	case src == site.Addr, r.MAC.String() == site.MAC.String():
		return ignore("the head's own"), true
	case r.Source.Port() > privilegedPort && !r.BootServer: // there UEFI sends from 4011; it opens and admits nothing
		return ignore("from port %d, which any user may send from", r.Source.Port()), true
	case r.GIAddr.IsValid() && !src.IsValid(), r.GIAddr == site.Addr:
		return ignore("relayed by nobody"), true
	case r.BootServer && (!site.Proxy || r.Client() == OS || !src.IsValid() || src.IsUnspecified()):
		return ignore("not a PXE client of a proxyDHCP site"), true
	}
	return Answer{}, false
}

func goodMAC(mac net.HardwareAddr) bool {
	return len(mac) == 6 && mac[0]&1 == 0 && mac.String() != "00:00:00:00:00:00"
}

// goodbye handles the messages that want no answer.
func goodbye(site Site, m *Machine, r Request) (Answer, bool) {
	switch {
	case r.Type == TypeRelease:
		return ignore("released; the address stays reserved"), true
	case r.Type == TypeDecline && m != nil && r.ServerID == site.Addr && r.Requested == m.IP:
		a := problem("address conflict: the machine found %s in use by another one; find that one (`arping %s`) or give the node another address", m.IP, m.IP)
		a.Action = Conflict
		return a, true
	case r.Type == TypeDecline:
		return ignore("declined %s, which is not ours to give", r.Requested), true
	}
	return Answer{}, false
}

// stranger handles machines that no node has the MAC of.
func stranger(_ Site, m *Machine, r Request) (Answer, bool) {
	switch {
	case m != nil:
		return Answer{}, false
	case r.Type == TypeDiscover && r.Client() != OS && !r.BootServer:
		return Answer{Action: DoAdmit, Reason: "no node has the MAC " + r.MAC.String()}, true
	}
	return ignore("no node has the MAC %s", r.MAC), true
}

// proxy is the whole conversation at a site with a DHCP server of its own: an
// offer without an address, and on port 4011 an answer with the boot file.
func proxy(site Site, m *Machine, r Request) (Answer, bool) {
	if !site.Proxy {
		return Answer{}, false
	}
	c := r.Client()
	a, bad := program(site, r)
	switch {
	case c == OS, m.NotBooted:
		return ignore("proxyDHCP: the site's server gives addresses"), true
	case r.Type == TypeRequest && !r.BootServer:
		// The client tells all servers which offer it took: the only place
		// where its address can be learned.
		return Answer{Reason: "proxyDHCP: took " + r.Requested.String(), Boots: opened(r, r.Requested)}, true
	case r.Type != TypeDiscover && !r.BootServer:
		return ignore("proxyDHCP: not a discovery"), true
	case bad != "":
		return problem("%s", bad), true
	}
	a.VendorClass = "PXEClient"
	if c == HTTPBoot {
		a.VendorClass = "HTTPClient"
	}
	if r.BootServer {
		a.Action = DoAck
		a.To = r.Source
		if len(r.BootItem) > 0 {
			a.Vendor = append([]byte{71, byte(len(r.BootItem))}, r.BootItem...)
		}
		return a, true
	}
	a.Action = DoOffer
	a.To = destination(r)
	if c == PXE && r.arch() == archBIOS {
		// PXE 2.1: discovery control, bit 3: load the file named here without
		// looking for boot servers. UEFI must not get it: without it, it asks
		// on port 4011, which all of its versions can do.
		a.Vendor = []byte{6, 1, 8, 255}
	}
	return a, true
}

// elsewhere drops requests that are meant for another server, and machines that
// no address was given.
func elsewhere(site Site, m *Machine, r Request) (Answer, bool) {
	if r.ServerID.IsValid() && r.ServerID != site.Addr {
		return ignore("meant for the DHCP server %s", r.ServerID), true
	}
	if !m.IP.IsValid() {
		return problem("node %s has no IP address: create a net for it (`muster net create`) or set its ip", m.Name), true
	}
	return Answer{}, false
}

// unplaced drops machines whose address does not belong where they ask from.
func unplaced(site Site, m *Machine, r Request) (Answer, bool) {
	n, ok := site.network(m.IP)
	if !ok {
		return problem("the address %s of node %s is in no network: create a net that holds it, or change the node's ip", m.IP, m.Name), true
	}
	link := r.Link
	if !link.IsValid() {
		link = r.GIAddr
	}
	if link.IsValid() && !n.Prefix.Contains(link) {
		return problem("node %s asks through the relay %s, but its address %s belongs to %s: move the machine, or change the node's ip", m.Name, link, m.IP, n.Prefix), true
	}
	if !link.IsValid() && !site.onLink(n.Prefix) {
		return problem("node %s asks on the boot interface, but its address %s belongs to %s, which is not there: change the node's ip, or set up a DHCP relay", m.Name, m.IP, n.Prefix), true
	}
	return Answer{}, false
}

// network is the smallest one that holds the address; the boot interface's own
// counts when no net object does.
func (s Site) network(addr netip.Addr) (Network, bool) {
	best := Network{}
	for _, n := range s.Networks {
		if n.Prefix.Contains(addr) && (!best.Prefix.IsValid() || n.Prefix.Bits() > best.Prefix.Bits()) {
			best = n
		}
	}
	if best.Prefix.IsValid() {
		return best, true
	}
	for _, p := range s.OnLink {
		if p.Contains(addr) {
			return Network{Prefix: p.Masked()}, true
		}
	}
	return Network{}, false
}

func (s Site) onLink(p netip.Prefix) bool {
	for _, l := range s.OnLink {
		if l.Overlaps(p) {
			return true
		}
	}
	return false
}

// unbootable drops firmware that there is no program for.
func unbootable(site Site, m *Machine, r Request) (Answer, bool) {
	if m.NotBooted {
		return Answer{}, false
	}
	if _, bad := program(site, r); bad != "" {
		return problem("%s", bad), true
	}
	return Answer{}, false
}

// program says what the client is to load: nothing for an operating system.
func program(site Site, r Request) (a Answer, bad string) {
	c := r.Client()
	switch c {
	case OS:
		return Answer{}, ""
	case IPXE:
		return Answer{NextServer: site.Addr, BootFile: site.HTTP() + wire.PathScript, NoProxy: !site.Proxy}, ""
	}
	names := r.programs()
	for _, name := range names {
		if !site.Have(name) {
			continue
		}
		if c == HTTPBoot {
			return Answer{BootFile: site.HTTP() + PathProgram + name, VendorClass: "HTTPClient"}, ""
		}
		return Answer{NextServer: site.Addr, BootFile: name}, ""
	}
	if names == nil {
		return Answer{}, fmt.Sprintf("no iPXE is known for this machine's firmware (DHCP option 93: %d)", r.arch())
	}
	note := missingProgram(site.Programs, strings.Join(names, " or "))
	if r.arch() == archUEFIarm64 || r.arch() == archHTTParm64 {
		note += ` (Debian's package has none for arm64: build iPXE's bin-arm64-efi/snponly.efi and put it there by that name)`
	}
	return Answer{}, note
}

// PathProgram is the URL path of an iPXE binary, for UEFI HTTP boot.
const PathProgram = "/boot/v1/ipxe/"

// lease gives the machine its address.
func lease(site Site, m *Machine, r Request) (Answer, bool) {
	a := Answer{}
	if !m.NotBooted {
		a, _ = program(site, r)
	}
	a.Network, _ = site.network(m.IP)
	a.To, a.Hostname, a.Domain = destination(r), m.Hostname, m.Domain
	if a.Domain == "" {
		a.Domain = a.Network.Domain
	}
	a.Address, a.Lease = m.IP, site.Lease
	if a.Lease == 0 {
		a.Lease = DefaultLease
	}
	switch r.Type {
	case TypeDiscover:
		a.Action = DoOffer
		return a, true
	case TypeInform:
		a.Action, a.Address, a.Lease = DoAck, netip.Addr{}, 0
		return a, true
	case TypeRequest:
		return request(m, r, a), true
	}
	return Answer{}, false
}

// request answers DHCPREQUEST (RFC 2131 §4.3.2): it confirms an offer, or a
// lease after a restart (option 50), or renews one (ciaddr).
func request(m *Machine, r Request, a Answer) Answer {
	wants := r.Requested
	if !wants.IsValid() {
		wants = r.CIAddr
	}
	switch {
	case !wants.IsValid():
		return ignore("a request for no address")
	case wants != m.IP:
		to := link
		if r.GIAddr.IsValid() {
			to = netip.AddrPortFrom(r.GIAddr, serverPort)
		}
		return Answer{Action: DoNak, To: to, Reason: fmt.Sprintf("%s is not the address of node %s, which is %s", wants, m.Name, m.IP)}
	}
	a.Action = DoAck
	if r.Client() != OS && r.ServerID.IsValid() && !m.NotBooted {
		a.Boots = opened(r, m.IP)
	}
	return a
}

// opened is the address that firmware boots from, if it is believable: an
// exchange of a machine without an address, on the link or through a relay.
// From a running node such a packet takes the right to write raw ones.
func opened(r Request, addr netip.Addr) netip.Addr {
	src := r.Source.Addr()
	if r.CIAddr.IsValid() || !r.GIAddr.IsValid() && src.IsValid() && !src.IsUnspecified() {
		return netip.Addr{}
	}
	return addr
}

var link = netip.AddrPortFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), clientPort)

// destination follows RFC 2131 §4.1. To a client without an address it always
// broadcasts: a unicast would need an entry in the kernel's ARP table.
func destination(r Request) netip.AddrPort {
	switch {
	case r.GIAddr.IsValid():
		return netip.AddrPortFrom(r.GIAddr, serverPort)
	case r.CIAddr.IsValid():
		return netip.AddrPortFrom(r.CIAddr, clientPort)
	}
	return link
}
