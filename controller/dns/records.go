package dns

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"muster/shared/kind"
	"muster/shared/object"
)

// maxAddresses bounds how many addresses one name has.
const maxAddresses = 64

// names collects an object's records.
type names struct {
	zones map[string]bool
	out   []record
}

// add adds a record at a dotted name. A name that DNS cannot hold has none.
func (n *names) add(name string, typ uint16, data string) {
	wire, ok := wireName(name)
	if !ok {
		return
	}
	n.put(wire, typ, data)
	// Names between it and its zone exist too (RFC 8020): "not there" would
	// mean that nothing is below.
	var between []record
	for up, _ := parent(wire); up[0] != 0; up, _ = parent(up) {
		if n.zones[up] {
			n.out = append(n.out, between...)
			return
		}
		between = append(between, record{name: up})
	}
}

func (n *names) put(wire string, typ uint16, data string) {
	n.out = append(n.out, record{wire, typ, data})
}

// host gives a name its addresses, and each of them the name.
func (n *names) host(full []string, addrs []netip.Addr) {
	for i, a := range addrs {
		if i == maxAddresses {
			return
		}
		typ := dns.TypeAAAA
		if a.Is4() {
			typ = dns.TypeA
		}
		for _, name := range full {
			n.add(name, typ, string(a.AsSlice()))
		}
		if target, ok := wireName(full[0]); ok {
			n.put(reverseName(a), dns.TypePTR, target)
		}
	}
}

// forms are the names that something has in a domain: the full one, and the
// short one.
func forms(name, domain string) []string {
	if domain == "" {
		return []string{name}
	}
	return []string{name + "." + domain, name}
}

func nodeRecords(s *site, look kind.Look, n *object.Node) []record {
	var addrs []netip.Addr
	if n.IP != nil {
		if a, err := netip.ParseAddr(*n.IP); err == nil {
			addrs = append(addrs, a)
		}
	}
	addrs = append(addrs, further(n)...)
	out := names{zones: s.zones}
	if n.Name != "" {
		out.host(forms(n.Name, object.NodeDomain(look, n)), addrs)
	}
	return out.out
}

// further reads a node's further addresses. What is no address is passed over,
// and so is the BMC's: who looks for the node does not look for that.
func further(n *object.Node) (addrs []netip.Addr) {
	text, ok := n.Attributes[object.AttrIPs]
	if !ok {
		return nil
	}
	for _, p := range object.Interfaces(fmt.Sprint(text)) {
		word, _, _ := strings.Cut(p[1], "/")
		a, err := netip.ParseAddr(word)
		if err == nil && a.Zone() == "" && p[0] != object.BMCInterface && len(addrs) < maxAddresses {
			addrs = append(addrs, a.Unmap())
		}
	}
	return addrs
}

// hostRecords are those of a hostname. Its domain is the one that it says, or
// that of the network with its address; a name with dots is whole without. A
// service that names no domain is in the cluster's and in this head's.
func hostRecords(s *site, h *object.Hostname) []record {
	out := names{zones: s.zones}
	if h.Type == object.RecordSRV {
		domains := []string{h.Domain}
		if h.Domain == "" {
			domains = slices.Compact([]string{s.domain, s.own})
		}
		for _, domain := range domains {
			out.service(h, domain, s.domain)
		}
		return out.out
	}
	a, err := netip.ParseAddr(h.IP)
	if err != nil {
		return nil
	}
	domain := h.Domain
	if domain == "" && !strings.Contains(h.Name, ".") {
		domain = cmp.Or(s.domainOf(a), s.domain)
	}
	out.host(forms(h.Name, domain), []netip.Addr{a})
	return out.out
}

// service adds a SRV record (RFC 2782).
func (n *names) service(h *object.Hostname, domain, targets string) {
	target := h.Target
	if !strings.Contains(target, ".") {
		target += "." + targets
	}
	wire, ok := wireName(target)
	if !ok {
		return
	}
	service, proto := h.Service, h.Proto
	if service == "" {
		service = strings.TrimPrefix(h.Name, "_")
	}
	if proto == "" {
		proto = "tcp"
	}
	var data []byte
	for _, v := range []uint16{value(h.Priority), value(h.Weight), h.Port} {
		data = binary.BigEndian.AppendUint16(data, v)
	}
	n.add("_"+service+"._"+proto+"."+domain, dns.TypeSRV, string(data)+wire)
}

func value(n *uint16) uint16 {
	if n == nil {
		return 0
	}
	return *n
}

// headRecords name a head in the domain of each network that it is in.
func headRecords(s *site, h Host) []record {
	out := names{zones: s.zones}
	short, _, qualified := strings.Cut(h.Name, ".")
	full := []string{h.Name}
	if qualified {
		full = append(full, short)
	} else {
		full = append([]string{short + "." + s.domain}, full...)
		for _, a := range h.Addrs {
			if d := s.domainOf(a); d != "" && d != s.domain {
				out.host([]string{short + "." + d}, []netip.Addr{a})
			}
		}
	}
	own := names{zones: s.zones}
	own.host(full, h.Addrs)
	return append(own.out, out.out...)
}

// localhost is answered here and never asked of others (RFC 6761).
func localhost() []record {
	var out names
	out.host([]string{"localhost"}, []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()})
	return out.out
}
