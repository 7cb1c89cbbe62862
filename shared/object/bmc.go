package object

import (
	"fmt"
	"net"
	"net/netip"
	"strings"

	"muster/shared/fault"
	"muster/shared/kind"
)

// Attributes of a node that list its further interfaces, with commas or spaces
// between them: "ib0=10.2.0.5/16,bmc=10.3.0.5" and "bmc=0c:c4:7a:00:00:05". The
// interface BMCInterface is the node's BMC, to which DHCP gives that address.
const (
	AttrIPs      = "_ips"
	AttrMACs     = "_macs"
	BMCInterface = "bmc"
)

// Attributes that are the same for many BMCs: who is let in, and to which port
// of which switch a node's BMC is plugged in, as the switch's DHCP relay says it.
const (
	AttrBMCUser = "_bmc_user"
	AttrBMCPass = "_bmc_pass"
	AttrBMCPort = "_bmc_port"
)

// Interfaces takes such a list apart: pairs of an interface, "" where none is
// given, and its value.
func Interfaces(list string) (pairs [][2]string) {
	split := func(r rune) bool { return r == ',' || r == ' ' || r == '\n' || r == '\t' }
	for _, word := range strings.FieldsFunc(list, split) {
		name, value, named := strings.Cut(word, "=")
		if !named {
			name, value = "", word
		}
		pairs = append(pairs, [2]string{name, value})
	}
	return pairs
}

// WithInterface gives the list with another value of an interface.
func WithInterface(list, name, value string) string {
	var words []string
	for _, p := range Interfaces(list) {
		switch p[0] {
		case name:
		case "":
			words = append(words, p[1])
		default:
			words = append(words, p[0]+"="+p[1])
		}
	}
	return strings.Join(append(words, name+"="+value), ",")
}

func (n *Node) listed(attribute, name string) string {
	if v, ok := n.Attributes[attribute]; ok {
		for _, p := range Interfaces(fmt.Sprint(v)) {
			if p[0] == name {
				return p[1]
			}
		}
	}
	return ""
}

// BMC gives the MAC of a node's BMC, in lower case, and its address, as far as
// its attributes say.
func (n *Node) BMC() (mac string, addr netip.Addr) {
	if m, err := net.ParseMAC(n.listed(AttrMACs, BMCInterface)); err == nil && len(m) == 6 {
		mac = m.String()
	}
	text, _, _ := strings.Cut(n.listed(AttrIPs, BMCInterface), "/")
	addr, _ = netip.ParseAddr(text)
	return mac, addr.Unmap()
}

// The keys by which a node is found by its BMC.
const (
	KeyBMCMAC  = "bmc_mac"
	KeyBMCAddr = "bmc_ip"
)

func bmcKeys(n *Node, keys map[string]string) {
	mac, addr := n.BMC()
	if mac != "" {
		keys[KeyBMCMAC] = mac
	}
	if addr.IsValid() {
		keys[KeyBMCAddr] = addr.String()
	}
}

// prepareBMC refuses a BMC that is another machine as well, to DHCP.
func prepareBMC(tx kind.Tx, n *Node, old kind.Object) error {
	keys, were := map[string]string{}, map[string]string{}
	bmcKeys(n, keys)
	if old != nil {
		bmcKeys(old.(*Node), were)
	}
	refuse := func(attribute, value, whose string) error {
		return fault.New(fault.Conflict, "attributes: %s: the BMC's address %s is %s.", attribute, value, whose)
	}
	for _, c := range []struct{ key, attribute, kind, other, whose string }{
		{KeyBMCMAC, AttrMACs, KindNode, KeyBMCMAC, "that of another node's BMC"},
		{KeyBMCMAC, AttrMACs, KindNode, "mac", "a node's"},
		{KeyBMCMAC, AttrMACs, KindHostname, "mac", "a hostname's"},
		{KeyBMCAddr, AttrIPs, KindNode, KeyBMCAddr, "that of another node's BMC"},
		{KeyBMCAddr, AttrIPs, KindNode, "ip", "a node's"},
		{KeyBMCAddr, AttrIPs, KindHostname, "lease", "a hostname's"},
	} {
		value := keys[c.key]
		if value == "" || value == were[c.key] {
			continue
		}
		uid, err := tx.Find(c.kind, c.other, value)
		if err != nil {
			return err
		}
		if uid != "" && (uid != n.UID || c.key != c.other) {
			return refuse(c.attribute, value, c.whose)
		}
	}
	if value := keys[KeyBMCAddr]; value != "" && value != were[KeyBMCAddr] && tx.Taken(value) {
		return refuse(AttrIPs, value, "this head's own")
	}
	return nil
}
