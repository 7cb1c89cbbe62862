package dns

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"muster/shared/kind"
	"muster/shared/object"
)

// site is what there is to know about networks and domains. It is never
// changed, only replaced.
type site struct {
	nets    []network      // the cluster's, longest prefix first
	friends []netip.Prefix // who may have other names looked up
	zones   map[string]bool
	domain  string // the cluster's
	own     string // that of this head's name
	server  string // wire form: the name of this server
	soa     []byte // of every zone, without its name
}

type network struct {
	prefix netip.Prefix
	domain string
}

// newSite reads the networks. own are this head's addresses, of which the
// first host has the name that zones give as their server.
func newSite(look kind.Look, nets []kind.Object, heads []Host, serial uint64) *site {
	s := &site{zones: map[string]bool{}, domain: object.ClusterDomain(look)}
	for _, o := range nets {
		n := o.(*object.Net)
		s.nets = append(s.nets, network{n.Prefix().Masked(), cmp.Or(n.Domain, object.DefaultDomain)})
	}
	slices.SortStableFunc(s.nets, func(a, b network) int { return b.prefix.Bits() - a.prefix.Bits() })
	s.friends = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	for _, n := range s.nets {
		s.friends = append(s.friends, n.prefix)
		s.zone(n.domain)
	}
	s.zone(s.domain)
	name := "localhost"
	for i, h := range heads {
		if i == 0 {
			name = h.Name
		}
		for _, a := range h.Addrs {
			s.friends = append(s.friends, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	if labelled, ok := wireName(name); ok && labels(labelled) == 1 {
		name += "." + s.domain
	}
	_, s.own, _ = strings.Cut(name, ".")
	s.server, _ = wireName(name)
	if s.server == "" {
		s.server = "\x00"
	}
	s.setSerial(serial)
	return s
}

func (s *site) zone(domain string) {
	if wire, ok := wireName(domain); ok {
		s.zones[wire] = true
	}
}

// setSerial makes the SOA record (RFC 1035 section 3.3.13), which goes with
// every "no" and says how long that may be remembered (RFC 2308).
func (s *site) setSerial(serial uint64) {
	mail, _ := wireName("hostmaster." + s.domain)
	data := []byte(s.server + mail)
	for _, v := range []uint32{uint32(serial), 3600, 600, 86400, ttlNegative} {
		data = binary.BigEndian.AppendUint32(data, v)
	}
	s.soa = appendRecord(nil, 0, dns.TypeSOA, ttlNegative, string(data))[2:]
}

// withSerial is the same site at a later state.
func (s *site) withSerial(serial uint64) *site {
	next := *s
	next.setSerial(serial)
	return &next
}

// near is the cluster's network that an address is in.
func (s *site) near(a netip.Addr) netip.Prefix {
	for i := range s.nets {
		if s.nets[i].prefix.Contains(a) {
			return s.nets[i].prefix
		}
	}
	return netip.Prefix{}
}

func (s *site) domainOf(a netip.Addr) string {
	for _, n := range s.nets {
		if n.prefix.Contains(a) {
			return n.domain
		}
	}
	return ""
}

// friend says whether an asker belongs to the cluster.
func (s *site) friend(a netip.Addr) bool {
	for _, p := range s.friends {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// place is where a name that no record has belongs.
type place struct {
	local  bool
	exists bool // there are names below it
	apex   bool // it is the zone's own name
	skip   int  // bytes before the zone's name in it
}

// place finds the zone of a name: a domain, the part of a reverse tree that a
// network has, or none.
func (s *site) place(wire string) place {
	for rest, skip := wire, 0; rest[0] != 0; {
		if s.zones[rest] {
			return place{local: true, apex: skip == 0, exists: skip == 0, skip: skip}
		}
		var n int
		rest, n = parent(rest)
		skip += n
	}
	r, ok := parseReverse(wire)
	if !ok {
		return place{}
	}
	for _, n := range s.nets {
		if !n.prefix.Contains(r.prefix.Addr()) || n.prefix.Bits() > r.prefix.Bits() {
			continue
		}
		apex := (n.prefix.Bits() + r.step - 1) / r.step // labels of the network's reverse zone
		p := place{local: true, exists: r.prefix.Bits() < r.prefix.Addr().BitLen()}
		rest := wire
		for labels(rest) > apex+2 { // and the two of the tree itself
			var skipped int
			rest, skipped = parent(rest)
			p.skip += skipped
		}
		p.apex = p.skip == 0
		return p
	}
	return place{}
}
