package app

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"muster/controller/auth"
	"muster/controller/boot"
	"muster/controller/fleet"
	"muster/controller/heads"
	"muster/controller/library"
	"muster/controller/provision"
	"muster/controller/registry"
	"muster/shared/fault"
	"muster/shared/kind"
	"muster/shared/object"
	"muster/shared/wire"
)

// headAuthor is the author of changes that the head makes by itself.
var headAuthor = kind.Author{Name: "muster"}

// directory answers for the objects and the fleet what other packages ask:
// which machine boots what, who is an admin, which address is whose.
type directory struct {
	reg       *registry.Registry
	fleet     *fleet.Fleet
	library   *library.Library
	blobs     *library.Blobs
	agent     *agentArchive
	provision *provision.Provision
	now       func() time.Time
	heads     []netip.Addr // of this head, on the boot interface
	head      string       // host name
	boot      bootHead
	iscsi     netip.AddrPort // of the target; not valid where there is none
	dns       string         // where the DNS server listens; empty: there is none
}

// ByMAC implements boot.Directory.
func (d *directory) ByMAC(mac net.HardwareAddr) (boot.Machine, bool) {
	if o, ok := d.reg.Look().Find(object.KindNode, "mac", mac.String()); ok {
		return d.machine(o.(*object.Node)), true
	}
	if o, ok := d.reg.Look().Find(object.KindHostname, "mac", mac.String()); ok {
		return hostMachine(o.(*object.Hostname)), true
	}
	if o, ok := d.reg.Look().Find(object.KindNode, object.KeyBMCMAC, mac.String()); ok {
		return bmcMachine(o.(*object.Node)), true
	}
	return boot.Machine{}, false
}

// ByAddr implements boot.Directory.
func (d *directory) ByAddr(addr netip.Addr) (boot.Machine, bool) {
	look := d.reg.Look()
	o, ok := kind.Object(nil), false
	if uid, open := d.fleet.OpenAt(addr); open {
		o, ok = look.Get(object.KindNode, uid)
	}
	if !ok {
		o, ok = look.Find(object.KindNode, "ip", addr.String())
	}
	if !ok {
		return boot.Machine{}, false
	}
	return d.machine(o.(*object.Node)), true
}

// Networks implements boot.Directory.
func (d *directory) Networks() []boot.Network {
	var out []boot.Network
	for _, o := range d.reg.All(object.KindNet) {
		n := o.(*object.Net)
		if !n.Prefix().Addr().Is4() {
			continue
		}
		router, _ := netip.ParseAddr(n.Router())
		domain := n.Domain
		if domain == "" {
			domain = object.DefaultDomain
		}
		out = append(out, boot.Network{Name: n.Label(), Prefix: n.Prefix().Masked(), Router: router, DNS: d.resolvers(n.Prefix()), Domain: domain})
	}
	return out
}

// Admit implements boot.Directory: this is how machines register themselves.
func (d *directory) Admit(ctx context.Context, mac net.HardwareAddr, arch string) (boot.Machine, error) {
	c, ok := d.reg.Look().Oldest(object.KindCluster)
	if !ok || !c.(*object.Cluster).AcceptNewNodes {
		return boot.Machine{}, boot.ErrNotAccepted
	}
	text, err := json.Marshal(mac.String())
	if err != nil {
		return boot.Machine{}, err
	}
	_, err = d.reg.Create(ctx, headAuthor, object.KindNode, registry.Input{"mac": text})
	if err != nil && !fault.Is(err, fault.Conflict) {
		return boot.Machine{}, err
	}
	// On a conflict another packet of the same machine may have been first.
	if m, ok := d.ByMAC(mac); ok {
		return m, nil
	}
	return boot.Machine{}, err
}

func (d *directory) machine(n *object.Node) boot.Machine {
	shown := d.reg.Show(object.KindNode, n).(*object.Node)
	mac, _ := net.ParseMAC(n.MAC)
	m := boot.Machine{UID: n.UID, Name: n.Name, MAC: mac, Hostname: shown.Hostname, Domain: shown.Domain}
	if n.IP != nil {
		m.IP, _ = netip.ParseAddr(*n.IP)
	}
	if err := d.next(&m.Config, n); err != nil {
		m.Problem = err.Error()
	}
	return m
}

// Boot implements fleet.Planner: what the agent in the initramfs is told.
func (d *directory) Boot(uid, config, image string) (wire.Boot, error) {
	o, err := d.reg.Find(object.KindNode, uid)
	if err != nil {
		return wire.Boot{}, err
	}
	n := d.reg.Show(object.KindNode, o).(*object.Node)
	b := wire.Boot{UID: n.UID, Name: n.Name, Domain: n.Domain, Time: d.now()}
	for _, a := range d.heads {
		b.Hosts = append(b.Hosts, a.String()+" "+d.head)
	}
	bc, err := d.chosen(o.(*object.Node), config, image)
	if err != nil {
		b.Problem = err.Error()
		return b, nil
	}
	b.Style = bc.Style()
	if b.Style == object.StyleDisked {
		if b.Disk, err = d.disk(o.(*object.Node)); err != nil {
			b.Problem = err.Error()
			return b, nil
		}
	}
	problems := d.library.Problems(bc)
	if bc.Installs() {
		problems = []string{"it starts an installer now: boot the machine again"}
	}
	if !bc.BootsImage() && !bc.Installs() {
		problems = []string{"its style is " + b.Style + " now, which boots no image: boot the machine again"}
	}
	// What was an image a moment ago may be deleted by now.
	img, ok := d.reg.Look().Get(object.KindImage, bc.Image)
	var version *object.Version
	if ok {
		version, err = img.(*object.Image).VersionOf(bc.ImageVersion)
	}
	if len(problems) == 0 && (!ok || err != nil) {
		problems = []string{"its image is being changed"}
	}
	if len(problems) > 0 {
		b.Problem = "boot configuration " + bc.Name + ": " + strings.Join(problems, "; ")
		return b, nil
	}
	b.Image = d.library.Wire(img.(*object.Image), version)
	if b.Style == object.StyleISCSI && b.Image != nil {
		if b.Target, err = d.target(b.Image.SHA256); err != nil {
			b.Image, b.Problem = nil, err.Error()
		}
	}
	return b, nil
}

// chosen is the boot configuration that a node boots by: what its command line
// names, or else its attribute.
func (d *directory) chosen(n *object.Node, config, image string) (*object.Bootconfig, error) {
	look := d.reg.Look()
	if config == "" {
		return object.BootconfigOf(look, n)
	}
	o, ok := look.Get(object.KindBootconfig, config)
	if !ok {
		return nil, fmt.Errorf("the boot configuration %s that the machine was started with is gone: make a new ISO", config)
	}
	bc := *o.(*object.Bootconfig)
	if image != "" {
		bc.Image, bc.ImageVersion = image, ""
	}
	// The node's own style holds for it too, where an image is what it boots.
	if styled, err := bc.StyledFor(look, n); err != nil {
		return nil, err
	} else if styled.BootsImage() && bc.BootsImage() {
		return styled, nil
	}
	return &bc, nil
}

// Stamp, OpenBoot and Mint implement boot.Journal.
func (d *directory) Stamp(uid string, s wire.Step)                { d.fleet.Stamp(uid, s) }
func (d *directory) OpenBoot(uid string, addr netip.Addr)         { d.fleet.OpenBoot(uid, addr) }
func (d *directory) Mint(uid string, a netip.Addr) (string, bool) { return d.fleet.Mint(uid, a) }

// AdminByName and AdminByUID implement auth.Admins.
func (d *directory) AdminByName(name string) (auth.Admin, bool) {
	return admin(d.reg.Look().Find(object.KindAdmin, "name", name))
}

func (d *directory) AdminByUID(uid string) (auth.Admin, bool) {
	return admin(d.reg.Look().Get(object.KindAdmin, uid))
}

func admin(o kind.Object, ok bool) (auth.Admin, bool) {
	if !ok {
		return auth.Admin{}, false
	}
	a := o.(*object.Admin)
	return auth.Admin{UID: a.UID, Name: a.Name, Roles: a.Roles, Keys: a.Keys, Generation: a.Generation}, true
}

// RevokeTokens implements auth.Admins.
func (d *directory) RevokeTokens(ctx context.Context, by kind.Author, uid string) error {
	return d.reg.Modify(ctx, by, object.KindAdmin, uid, func(_ kind.Tx, obj kind.Object) error {
		obj.(*object.Admin).Generation++
		return nil
	})
}

// NodeByAddr implements auth.Nodes, with the two below.
func (d *directory) NodeByAddr(addr netip.Addr) (string, bool) {
	if uid, ok := d.fleet.OpenAt(addr); ok {
		return uid, true
	}
	o, ok := d.reg.Look().Find(object.KindNode, "ip", addr.String())
	if !ok {
		return "", false
	}
	return o.Base().UID, true
}

func (d *directory) Enrolled(uid string) bool { return d.fleet.Enrolled(uid) }

func (d *directory) CertValid(uid, serial string) bool {
	_, ok := d.reg.Look().Get(object.KindNode, uid)
	return ok && d.fleet.CertValid(uid, serial)
}

// IsHead implements auth.Heads.
func (d *directory) IsHead(addr netip.Addr) bool {
	return auth.OwnAddress(addr) || slices.Contains(d.heads, addr) || heads.IsHead(d.reg, addr)
}

// taken says whether no node may get an address: one of a head, which may do
// what nodes may not. Loopback addresses may be given: simulated nodes live there.
func (d *directory) taken(addr string) bool {
	a, err := netip.ParseAddr(addr)
	return err == nil && !a.IsLoopback() && d.IsHead(a)
}
