package discover

import (
	"cmp"
	"encoding/binary"
	"math"
	"net/netip"
	"slices"
	"strconv"

	"muster/controller/power/ipmi"
	"muster/shared/object"
)

// propose says which node each BMC belongs to, and what to set there.
func propose(a area, c *census, machines []*found) []Proposal {
	nodes, why := make([]*object.Node, len(machines)), make([]string, len(machines))
	claims := map[*object.Node]int{}
	for i, f := range machines {
		if nodes[i], why[i] = c.match(f); nodes[i] != nil {
			claims[nodes[i]]++
		}
	}
	out := make([]Proposal, 0, len(machines))
	for i, f := range machines {
		slices.Sort(f.by)
		p := Proposal{MAC: f.MAC, Vendor: f.Vendor, Model: f.Model, Serial: f.Serial, By: slices.Compact(f.by), Why: why[i], Note: f.note}
		if f.Addr.IsValid() {
			p.Address = f.Addr.String()
		}
		if len(f.uuids) > 0 {
			p.UUID = f.uuids[0]
		}
		for _, u := range f.uuids {
			if len(c.uuid[u]) > 0 {
				p.UUID = u
			}
		}
		if n := nodes[i]; n != nil {
			p.Node = n.Name
			if claims[n] > 1 {
				p.Note = "more than one BMC is this node's by what they say; look which one it is, and set that by hand"
			} else {
				p.set(a, n, f)
			}
		}
		out = append(out, p)
	}
	last := func(p Proposal) int { return map[bool]int{true: 1}[p.Node == ""] } // those of no node
	slices.SortFunc(out, func(x, y Proposal) int {
		return cmp.Or(last(x)-last(y), cmp.Compare(x.Node, y.Node), cmp.Compare(x.Address, y.Address), cmp.Compare(x.MAC, y.MAC))
	})
	return out[:min(len(out), maxFound)]
}

// who stands for the user and the password in a URI.
const who = "<a[" + object.AttrBMCUser + "]>:<a[" + object.AttrBMCPass + "]>@"

// set fills in what of a node would be another than it is. What an admin has
// written is left.
func (p *Proposal) set(a area, n *object.Node, f *found) {
	s := Change{Attributes: map[string]string{}}
	mac, addr := n.BMC()
	if f.MAC != "" && f.MAC != mac {
		s.Attributes[object.AttrMACs] = with(n, object.AttrMACs, f.MAC)
	}
	at := f.Addr
	if !at.IsValid() && !addr.IsValid() {
		if at = placed(a, n); !at.IsValid() {
			p.Note = "it has no address: give first_ip, or set bmc= in " + object.AttrIPs
		}
	}
	if at.IsValid() && at != addr {
		s.Attributes[object.AttrIPs] = with(n, object.AttrIPs, at.String())
	}
	encrypted := f.redfish != nil && !f.redfish.HTTP
	if n.PowerURI == nil || *n.PowerURI == "" {
		switch {
		case f.ipmi && f.path == "":
			s.PowerURI = "ipmi://" + who + host(f.Addr, ipmiPort(a.port)) + "/"
		case encrypted:
			s.PowerURI = "redfish://" + who + host(f.Addr, f.redfish.Port) + "/" + trim(f.path)
		}
	}
	if encrypted && n.RedfishURI == "" {
		s.RedfishURI = "https://" + who + host(f.Addr, f.redfish.Port) + "/" + trim(f.path)
	}
	if len(s.Attributes) > 0 || s.PowerURI != "" || s.RedfishURI != "" {
		p.Set = &s
	}
}

func trim(path string) string {
	if path == "" {
		return ""
	}
	return path[1:]
}

// with is a node's list of interfaces with another value of its BMC's.
func with(n *object.Node, attribute, value string) string {
	list, _ := n.Attributes[attribute].(string)
	return object.WithInterface(list, object.BMCInterface, value)
}

// placed is the address that a BMC gets which has none.
func placed(a area, n *object.Node) netip.Addr {
	if !a.first.IsValid() || n.Index == nil {
		return netip.Addr{}
	}
	first := a.first.As4()
	at := int64(binary.BigEndian.Uint32(first[:])) + *n.Index
	if at < 0 || at > math.MaxUint32 {
		return netip.Addr{}
	}
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, uint32(at))))
}

// ipmiPort is a port as a URI has it: IPMI's own is left out.
func ipmiPort(port uint16) string {
	if text := strconv.Itoa(int(port)); text != ipmi.DefaultPort {
		return text
	}
	return ""
}
