package discover

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"muster/controller/power/bmc"
	"muster/controller/power/ipmi"
	"muster/controller/power/redfish"
	"muster/shared/object"
)

// found is what is known of a BMC, or of a machine of several behind one.
type found struct {
	Addr                       netip.Addr
	MAC, Vendor, Model, Serial string
	by                         []string
	uuids                      []string // that its machine may have
	named                      string   // the serial number in its name
	port                       string   // of the switch
	note                       string

	ipmi    bool
	redfish *service
	path    string // of the machine among several
	known   *object.Node
}

// look finds BMCs and makes the proposals, those with a node first.
func (d *Discover) look(ctx context.Context, a area) ([]Proposal, error) {
	c := d.take()
	all, err := d.gather(ctx, a, c)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	var machines []*found
	for _, f := range all {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			probe, cancel := context.WithTimeout(ctx, probeTime)
			defer cancel()
			got := d.probe(probe, a, c, f)
			mu.Lock()
			defer mu.Unlock()
			machines = append(machines, got...)
		})
	}
	wg.Wait()
	return propose(a, c, machines), nil
}

// gather finds addresses that may be BMCs', and what is known of them without
// asking each.
func (d *Discover) gather(ctx context.Context, a area, c *census) (map[string]*found, error) {
	all := map[string]*found{} // by address, or by MAC where there is none
	at := func(addr netip.Addr, how string) *found {
		f := all[addr.String()]
		if f == nil {
			f = &found{Addr: addr}
			all[addr.String()] = f
		}
		f.by = append(f.by, how)
		return f
	}
	for addr, nodes := range c.addr {
		at(netip.MustParseAddr(addr), "known").known = nodes[0]
	}
	services, err := d.search(ctx, a)
	if err != nil {
		return nil, err
	}
	for _, s := range services {
		f := at(s.Addr, "ssdp")
		f.redfish = &s
	}
	sights := d.seen.list(time.Now())
	for _, s := range sights {
		f := all[s.MAC]
		if s.Addr.IsValid() && (d.onLink(s.Addr) || a.has(s.Addr)) {
			f = at(s.Addr, "dhcp")
		} else {
			f = &found{by: []string{"dhcp"}}
			all[s.MAC] = f
		}
		f.MAC, f.Vendor, f.named, f.port = s.MAC, s.Vendor, serialIn(s.Hostname), s.at()
	}
	ask := slices.Clone(a.hosts)
	for _, f := range all {
		if f.Addr.IsValid() && !a.has(f.Addr) {
			ask = append(ask, f.Addr)
		}
	}
	answered, err := ipmi.Ask(ctx, ask, d.IPMIPort, d.Patience)
	if err != nil {
		return nil, err
	}
	for _, x := range answered {
		f := at(x.Addr, "ipmi")
		f.ipmi, f.uuids = true, readings(x.GUID)
	}
	d.addMACs(all)
	return all, nil
}

// search looks for Redfish services on the boot interface's networks, or where
// there is none but networks are named, where the kernel leads.
func (d *Discover) search(ctx context.Context, a area) ([]service, error) {
	if d.Interface == "" && len(a.nets) == 0 {
		return nil, nil
	}
	out, err := search(ctx, d.Group, d.Interface, d.Patience, func(addr netip.Addr) bool { return d.onLink(addr) || a.has(addr) })
	if err != nil && ctx.Err() == nil {
		d.Log.Warn("no Redfish services can be searched", "interface", d.Interface, "error", err)
		err = nil
	}
	return out, err
}

func (d *Discover) onLink(a netip.Addr) bool {
	return slices.ContainsFunc(d.OnLink, func(p netip.Prefix) bool { return p.Contains(a) })
}

// addMACs fills in MACs that the system knows, and makes one of a BMC that was
// seen by its MAC and by its address.
func (d *Discover) addMACs(all map[string]*found) {
	macs := d.Neighbors()
	for _, f := range all {
		if m, ok := macs[f.Addr]; ok && f.Addr.IsValid() && f.MAC == "" {
			f.MAC = m.String()
		}
	}
	for _, f := range all {
		if seen := all[f.MAC]; seen != nil && seen != f {
			f.Vendor, f.named, f.port, f.by = seen.Vendor, seen.named, seen.port, append(f.by, seen.by...)
			delete(all, f.MAC)
		}
	}
}

// probe asks a BMC what it is. Several machines may be behind it.
func (d *Discover) probe(ctx context.Context, a area, c *census, f *found) []*found {
	if !f.Addr.IsValid() {
		return []*found{f}
	}
	s := service{Addr: f.Addr}
	if f.redfish != nil {
		s = *f.redfish
	}
	root, err := redfish.ReadRoot(ctx, s.target())
	if f.redfish = nil; err == nil {
		f.redfish, f.by = &s, append(f.by, "redfish")
		f.Vendor = cmp.Or(root.Vendor, f.Vendor)
		f.Model = root.Product
	}
	if !f.ipmi && f.redfish == nil && len(f.by) == 1 && f.by[0] == "known" {
		f.note = "it does not answer"
	}
	user, password := d.credentials(f)
	switch {
	case !f.ipmi && f.redfish == nil:
	case !a.has(f.Addr) && f.known == nil:
		f.note = "it was not given the password: name its network to ask it as a user"
	case !a.secrets:
		f.note = "it was not given the password, which you may not read"
	case user == "":
		f.note = "there is no user to ask it as: set the attributes " + object.AttrBMCUser + " and " + object.AttrBMCPass
	case f.redfish != nil && !s.HTTP:
		return d.systems(ctx, f, user, password)
	case f.redfish != nil && !f.ipmi:
		f.note = "it was not given the password, as its Redfish service is not encrypted"
	default:
		d.inventory(ctx, f, user, password)
	}
	return []*found{f}
}

// credentials are those of the node whose BMC it is known to be, else those
// that hold in general.
func (d *Discover) credentials(f *found) (user, password string) {
	return d.Attribute(f.known, object.AttrBMCUser), d.Attribute(f.known, object.AttrBMCPass)
}

func (s service) target() bmc.Target {
	t := bmc.Target{Scheme: "redfish", Host: s.Addr.String(), Port: s.Port}
	if s.HTTP {
		t.Transport = "http"
	}
	return t
}

// systems asks a Redfish service for its machines.
func (d *Discover) systems(ctx context.Context, f *found, user, password string) []*found {
	t := f.redfish.target()
	t.User, t.Password = user, password
	systems, err := redfish.ReadSystems(ctx, t)
	if err != nil {
		f.note = "Redfish: " + reason(err, t)
		return []*found{f}
	}
	var out []*found
	for _, s := range systems {
		m := *f
		m.by, m.uuids = slices.Clone(f.by), nil
		if u := tidyUUID(s.UUID); u != "" {
			m.uuids = []string{u}
		} else if len(systems) == 1 {
			m.uuids = f.uuids
		}
		if m.Serial = s.Serial; len(systems) > 1 {
			m.path, m.ipmi, m.named, m.port = s.Path, false, "", "" // which are the BMC's, not the machine's
		}
		m.Vendor, m.Model = cmp.Or(s.Vendor, m.Vendor), cmp.Or(s.Model, m.Model)
		out = append(out, &m)
	}
	return out
}

// inventory asks a BMC by IPMI.
func (d *Discover) inventory(ctx context.Context, f *found, user, password string) {
	t := bmc.Target{Scheme: "ipmi", Host: f.Addr.String(), Port: ipmiPort(d.IPMIPort), User: user, Password: password}
	m, err := d.Schemes["ipmi"].Open(ctx, t)
	if err != nil {
		f.note = "IPMI: " + reason(err, t)
		return
	}
	defer m.Close()
	if k, ok := m.(bmc.Knowing); ok {
		inv, err := k.Inventory(ctx)
		if err != nil {
			f.note = "IPMI: " + reason(err, t)
			return
		}
		f.Serial = inv.Serial
		f.Vendor, f.Model = cmp.Or(inv.Vendor, inv.BMC, f.Vendor), cmp.Or(inv.Model, f.Model)
	}
}

func reason(err error, t bmc.Target) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return "it did not answer in time"
	}
	return bmc.Clean(strings.TrimSuffix(t.Hide(err.Error()), "."))
}
