package discover

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"muster/controller/power/bmc"
	"muster/shared/object"
)

// tidyUUID gives a UUID in its usual form, "" for what is none and for those
// that boards have whose maker gave them none.
func tidyUUID(s string) string {
	raw, err := hex.DecodeString(strings.ReplaceAll(strings.ToLower(strings.TrimSpace(s)), "-", ""))
	if err != nil || len(raw) != 16 {
		return ""
	}
	return uuidOf([16]byte(raw))
}

func uuidOf(b [16]byte) string {
	if same := slices.IndexFunc(b[:], func(c byte) bool { return c != b[0] }) < 0; same {
		return ""
	}
	s := fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
	if s == "03000200-0400-0500-0006-000700080009" { // of boards whose maker left it so
		return ""
	}
	return s
}

// readings are the UUIDs that a GUID may mean: it goes over the wire from its
// last byte to its first, or as SMBIOS or as RFC 4122 write it, by firmware
// (IPMI 2.0 §20.8 with errata).
func readings(guid [16]byte) (out []string) {
	reversed := guid
	slices.Reverse(reversed[:])
	for _, b := range [][16]byte{reversed, guid, mixed(guid), mixed(reversed)} {
		if s := uuidOf(b); s != "" && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// mixed turns the first three fields around, as SMBIOS does (DSP0134 §7.2.1).
func mixed(b [16]byte) [16]byte {
	slices.Reverse(b[:4])
	slices.Reverse(b[4:6])
	slices.Reverse(b[6:8])
	return b
}

// tidySerial gives a serial number as it is compared, "" for what is none.
func tidySerial(s string) string {
	s = strings.ToLower(strings.TrimSpace(bmc.Clean(s)))
	if len(s) < minSerial || strings.Trim(s, s[:1]) == "" || strings.Contains("0123456789abcdef", s) {
		return ""
	}
	for _, filler := range []string{"o.e.m", "oem", "default", "unknown", "not specified", "none", "serial", "system", "n/a", "empty"} {
		if strings.Contains(s, filler) {
			return ""
		}
	}
	return s
}

const minSerial = 5 // characters; shorter ones are of no use

// census is who the nodes are, by all that a BMC may say of its machine.
type census struct {
	uuid, serial, mac, port, addr map[string][]*object.Node
}

// take makes the census.
func (d *Discover) take() *census {
	c := &census{map[string][]*object.Node{}, map[string][]*object.Node{}, map[string][]*object.Node{}, map[string][]*object.Node{}, map[string][]*object.Node{}}
	add := func(to map[string][]*object.Node, key string, n *object.Node) {
		if key != "" && !slices.Contains(to[key], n) {
			to[key] = append(to[key], n)
		}
	}
	for _, o := range d.Objects.All(object.KindNode) {
		n := o.(*object.Node)
		var h struct {
			UUID    word `json:"system_uuid"`
			Serial  word `json:"serial"`
			Chassis word `json:"chassis_serial"`
			Board   word `json:"board_serial"`
		}
		if raw := d.Hardware(n.UID); raw != nil && json.Unmarshal(raw, &h) == nil {
			add(c.uuid, tidyUUID(string(h.UUID)), n)
			for _, s := range []word{h.Serial, h.Chassis, h.Board} {
				add(c.serial, tidySerial(string(s)), n)
			}
		}
		mac, addr := n.BMC()
		add(c.mac, mac, n)
		if addr.IsValid() {
			add(c.addr, addr.String(), n)
		}
		add(c.port, tidyPort(d.Attribute(n, object.AttrBMCPort)), n)
	}
	return c
}

// word is a text of a node's report, or nothing where it reported otherwise.
type word string

func (w *word) UnmarshalJSON(raw []byte) error {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		*w = word(s)
	}
	return nil
}

func tidyPort(s string) string { return strings.ToLower(bmc.Clean(s)) }

// match finds the node that a BMC belongs to, and says by what; node is nil
// where none or more than one is meant, and why says so then.
func (c *census) match(f *found) (node *object.Node, why string) {
	type clue struct {
		what  string
		nodes []*object.Node
	}
	var clues []clue
	add := func(what string, nodes []*object.Node) {
		if len(nodes) > 0 {
			clues = append(clues, clue{what, nodes})
		}
	}
	for _, u := range f.uuids {
		add("system UUID "+u, c.uuid[u])
	}
	add("serial number "+f.Serial, c.serial[tidySerial(f.Serial)])
	add("serial number in its name "+f.named, c.serial[f.named])
	add("its MAC in "+object.AttrMACs, c.mac[f.MAC])
	if f.Addr.IsValid() {
		add("its address in "+object.AttrIPs, c.addr[f.Addr.String()])
	}
	add("switch port "+f.port, c.port[tidyPort(f.port)])
	var names []string
	for _, cl := range clues {
		if len(cl.nodes) > 1 {
			continue
		}
		switch n := cl.nodes[0]; {
		case node == nil:
			node, why = n, cl.what
		case node != n:
			return nil, fmt.Sprintf("%s is that of %s, but %s that of %s", why, node.Name, cl.what, n.Name)
		default:
			why += ", " + cl.what
		}
	}
	if node == nil && len(clues) > 0 {
		for _, n := range clues[0].nodes {
			names = append(names, n.Name)
		}
		return nil, fmt.Sprintf("%s is that of %s", clues[0].what, strings.Join(names[:min(len(names), 5)], ", "))
	}
	return node, why
}

// serialIn finds a serial number in the name by which BMCs ask for an address:
// idrac-SERIAL, ILOSERIAL.
func serialIn(hostname string) string {
	name := strings.ToLower(bmc.Clean(hostname))
	for _, prefix := range []string{"idrac-", "ilo", "xcc-", "imm2-", "irmc"} {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			return tidySerial(rest)
		}
	}
	return ""
}

// host writes an address as it stands in a URI.
func host(a netip.Addr, port string) string {
	text := a.String()
	if a.Is6() {
		text = "[" + text + "]"
	}
	if port != "" {
		text += ":" + port
	}
	return text
}
