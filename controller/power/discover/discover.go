// Package discover finds BMCs and proposes which node each belongs to: those
// that ask for an address by DHCP, Redfish services that answer a search by
// SSDP, and whatever speaks IPMI in networks that the admin names. It proposes;
// the admin confirms, and only ordinary changes of nodes write anything.
//
// Whoever answers may lie. So an address is where an answer came from, never
// what it says; texts are cleaned and bounded; and a user and a password, those
// of the attributes _bmc_user and _bmc_pass, go only to addresses in the
// networks that the admin named in the request, or that a node's _ips already
// says to be its BMC. All others are asked only what needs no password, and
// never over plain HTTP even there.
package discover

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"muster/controller/api"
	"muster/controller/power/bmc"
	"muster/shared/fault"
	"muster/shared/kind"
	"muster/shared/object"
)

// Objects is what the package needs of the registry.
type Objects interface {
	All(kindName string) []kind.Object
}

// Discover serves the endpoint. All exported fields are required.
type Discover struct {
	Objects Objects
	// Hardware is what a node last reported to be made of, nil for nothing.
	Hardware func(uid string) json.RawMessage
	// Attribute gives an effective attribute of a node, or where that is nil one
	// that holds for nodes in general.
	Attribute func(n *object.Node, name string) string
	Schemes   map[string]bmc.Scheme
	// Interface is where services are searched, OnLink its networks; empty where
	// this head boots nobody.
	Interface string
	OnLink    []netip.Prefix
	Group     netip.AddrPort // SSDPGroup
	IPMIPort  uint16
	// Patience is how long answers of unknown hosts are waited for; searched
	// services may take a second before they answer.
	Patience time.Duration
	// Neighbors gives the MACs that the system knows of addresses on its links.
	Neighbors func() map[netip.Addr]net.HardwareAddr
	// Record notes in the audit trail who looked where.
	Record func(ctx context.Context, by kind.Author, detail map[string]string) error
	Log    *slog.Logger

	busy sync.Mutex
	seen sightings
}

// Bounds of a request.
const (
	maxAddresses = 4096 // that are asked
	maxFound     = 1024
	atOnce       = 64
	probeTime    = 8 * time.Second // of one BMC
	discoverTime = 50 * time.Second
)

// Routes are the endpoints.
func (d *Discover) Routes() []api.Route {
	return []api.Route{{Method: "POST", Path: api.Root + "/nodes/discover", Permission: "NodesWrite", Handler: d.post, Body: where{}, Answer: []Proposal{},
		Doc: "Look for BMCs, and propose which node each belongs to and what to set there; nothing is changed. Addresses in networks are all asked, and only those, beside the BMCs that nodes have already, with the user and password of the attributes " + object.AttrBMCUser + " and " + object.AttrBMCPass + "."}}
}

// where is the body.
type where struct {
	Networks []string `json:"networks,omitempty"` // such as 10.3.0.0/22, or an address
	FirstIP  string   `json:"first_ip,omitempty"` // a BMC without an address gets this one plus its node's index
}

// Proposal is a BMC, and what would be set at the node that it belongs to.
type Proposal struct {
	Address string   `json:"address,omitempty"`
	MAC     string   `json:"mac,omitempty"`
	Vendor  string   `json:"vendor,omitempty"`
	Model   string   `json:"model,omitempty"`
	Serial  string   `json:"serial,omitempty"`
	UUID    string   `json:"uuid,omitempty"` // of the machine, as far as known
	By      []string `json:"by"`             // how it was found: dhcp, ssdp, ipmi, redfish, known
	Node    string   `json:"node,omitempty"`
	Why     string   `json:"why,omitempty"` // by what it is that node's
	Set     *Change  `json:"set,omitempty"`
	Note    string   `json:"note,omitempty"`
}

// Change is what would be set: attributes by PATCH /node/NAME/attributes, which
// leaves the others, and what else there is by PATCH /node/NAME.
type Change struct {
	Attributes map[string]string `json:"attributes,omitempty"`
	PowerURI   string            `json:"power_uri,omitempty"`
	RedfishURI string            `json:"redfish_uri,omitempty"`
}

// area is where is asked, checked.
type area struct {
	nets    []netip.Prefix
	hosts   []netip.Addr
	first   netip.Addr
	secrets bool // who asks may have the password sent there
	port    uint16
}

func (w where) check() (a area, err error) {
	for _, text := range w.Networks {
		p, err := netip.ParsePrefix(text)
		if one, bad := netip.ParseAddr(text); bad == nil {
			p, err = netip.PrefixFrom(one, one.BitLen()), nil
		}
		if err != nil || p.Addr().Zone() != "" || p.Addr().IsMulticast() {
			return a, fault.Invalidf("networks: %q is no network such as 10.3.0.0/22 and no address.", bmc.Clean(text))
		}
		p = p.Masked()
		if p.Addr().BitLen()-p.Bits() > 12 {
			return a, fault.Invalidf("networks: %s has more than %d addresses; name smaller ones.", p, maxAddresses)
		}
		for at := p.Addr(); at.IsValid() && p.Contains(at); at = at.Next() {
			a.hosts = append(a.hosts, at)
		}
		a.nets = append(a.nets, p)
	}
	if len(a.hosts) > maxAddresses {
		return a, fault.Invalidf("networks: they have %d addresses, at most %d are asked at once.", len(a.hosts), maxAddresses)
	}
	if w.FirstIP != "" {
		if a.first, err = netip.ParseAddr(w.FirstIP); err != nil || !a.first.Is4() {
			return a, fault.Invalidf("first_ip: %q is no IPv4 address.", bmc.Clean(w.FirstIP))
		}
	}
	return a, nil
}

func (a area) has(addr netip.Addr) bool {
	for _, p := range a.nets {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

func (d *Discover) post(w http.ResponseWriter, r *http.Request) error {
	var in where
	raw, err := api.Body(w, r)
	if err == nil && raw != nil {
		err = api.Strict(raw, &in)
	}
	if err != nil {
		return err
	}
	a, err := in.check()
	if err != nil {
		return err
	}
	by := api.By(r)
	a.secrets, a.port = by.May(kind.ReservedAttribRead), d.IPMIPort
	if !d.busy.TryLock() {
		return fault.New(fault.Conflict, "BMCs are being looked for already; ask again in a minute.")
	}
	defer d.busy.Unlock()
	if err := d.Record(r.Context(), by, detail(a)); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), discoverTime)
	defer cancel()
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(2 * discoverTime)) // where there is none, the connection's own bounds hold
	out, err := d.look(ctx, a)
	if err != nil {
		return err
	}
	return api.Data(w, out)
}

func detail(a area) map[string]string {
	text := ""
	for i, p := range a.nets {
		if i > 0 {
			text += " "
		}
		text += p.String()
	}
	return map[string]string{"networks": bmc.Clean(text)}
}
