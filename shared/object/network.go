package object

import (
	"net/netip"

	"muster/shared/fault"
	"muster/shared/kind"
)

// Net is a subnet in which nodes get addresses.
type Net struct {
	kind.Meta
	Name        string `json:"name,omitempty"`
	Description string `json:"description,omitempty"`
	FirstIP     string `json:"first_ip"`
	IPCount     int64  `json:"ip_count"`
	MaskBits    int    `json:"mask_bits"`
	FirstIndex  int64  `json:"first_index,omitempty"`
	RouterIP    string `json:"router_ip,omitempty"`
	GatewayIP   string `json:"gateway_ip,omitempty"`
	Domain      string `json:"domain,omitempty"`
	NodeIface   string `json:"node_iface,omitempty"`
}

// DefaultDomain is the domain of nodes whose network names none.
const DefaultDomain = "cluster.local"

// ClusterDomain is the domain of what is in no network of its own: that of the
// default network.
func ClusterDomain(look kind.Look) string {
	if o, ok := look.Oldest(KindNet); ok && o.(*Net).Domain != "" {
		return o.(*Net).Domain
	}
	return DefaultDomain
}

// Prefix is the subnet.
func (n *Net) Prefix() netip.Prefix {
	first, _ := netip.ParseAddr(n.FirstIP)
	p, _ := first.Prefix(n.MaskBits)
	return p
}

// Router is the gateway that nodes use: router_ip, or else gateway_ip.
func (n *Net) Router() string {
	if n.RouterIP != "" {
		return n.RouterIP
	}
	return n.GatewayIP
}

// At is the n-th address for nodes, counted from 0; ok is false outside of the range.
func (n *Net) At(i int64) (netip.Addr, bool) {
	if i < 0 || i >= n.IPCount {
		return netip.Addr{}, false
	}
	return plus(n.FirstIP, i)
}

// Position is the reverse of At.
func (n *Net) Position(a netip.Addr) (int64, bool) {
	first, err := netip.ParseAddr(n.FirstIP)
	if err != nil || first.BitLen() != a.BitLen() || a.Less(first) {
		return 0, false
	}
	d := distance(first, a)
	return d, d >= 0 && d < n.IPCount
}

// edge says whether an address is one that no host of the subnet has: its
// first (RFC 4291 section 2.6.1 in IPv6), and in IPv4 its last. Subnets of two
// addresses have neither (RFC 3021, RFC 6164).
func (n *Net) edge(a netip.Addr) bool {
	first := n.Prefix().Masked().Addr()
	host := first.BitLen() - n.MaskBits
	if host < 2 {
		return false
	}
	if a == first || !a.Is4() {
		return a == first
	}
	last, ok := plus(first.String(), 1<<host-1)
	return ok && a == last
}

func network() *kind.Spec {
	return &kind.Spec{
		Name: KindNet, Plural: "nets", Title: "Net",
		Doc:      "A subnet in which nodes get their addresses.",
		New:      func() kind.Object { return &Net{} },
		Names:    []string{"name"},
		Read:     "NetsRead",
		Write:    "NetsWrite",
		Reserved: []string{"byiface", "byname", "byip", "bykey"},
		Fields: meta(
			nameField(false),
			descriptionField(),
			kind.Field{Path: "first_ip", Summary: "the first address for nodes", Source: kind.User, Format: kind.IP, Required: true},
			kind.Field{Path: "ip_count", Summary: "how many addresses there are for nodes", Source: kind.User, Format: kind.Int(1, 1<<24), Required: true},
			kind.Field{Path: "mask_bits", Summary: "the length of the subnet's prefix", Source: kind.User, Format: kind.Int(1, 128), Required: true},
			kind.Field{Path: "first_index", Summary: "the index of the node that gets first_ip", Source: kind.User, Format: kind.Count},
			kind.Field{Path: "router_ip", Summary: "the nodes' default gateway", Source: kind.User, Format: kind.IP},
			kind.Field{Path: "gateway_ip", Summary: "the default gateway where router_ip is not set", Source: kind.User, Format: kind.IP},
			kind.Field{Path: "domain", Summary: "the nodes' DNS domain; " + DefaultDomain + " when unset", Source: kind.User, Format: domainName},
			kind.Field{Path: "node_iface", Summary: "the interface that nodes boot from", Source: kind.User, Format: kind.Line},
		),
		Columns: []string{"name", "first_ip", "ip_count", "mask_bits", "router_ip", "domain"},
		Check:   checkNet,
		After:   renumber,
	}
}

func checkNet(obj kind.Object) error {
	n := obj.(*Net)
	first := netip.MustParseAddr(n.FirstIP)
	if n.MaskBits > first.BitLen() {
		return fault.Invalidf("mask_bits: %d is more than the %d bits of %s.", n.MaskBits, first.BitLen(), n.FirstIP)
	}
	last, ok := n.At(n.IPCount - 1)
	if !ok || !n.Prefix().Contains(last) {
		return fault.Invalidf("ip_count: %d addresses from %s on do not fit into %s.", n.IPCount, n.FirstIP, n.Prefix())
	}
	return nil
}

var domainName = kind.Parsed("domain", func(s string) (string, error) {
	if !domainPattern.MatchString(s) || len(s) > 253 {
		return "", notDomain(s)
	}
	return s, nil
})
