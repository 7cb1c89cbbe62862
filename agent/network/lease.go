package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A first packet is easily lost: the port of a switch that just came up does
// not forward yet. So the first repetition comes soon, and each waits twice as
// long as the one before; after the last (at 8 s) it begins anew.
const (
	firstWait = 250 * time.Millisecond
	attempts  = 5
)

// Lease is what a DHCP server gave to an interface.
type Lease struct {
	Interface string
	MAC       net.HardwareAddr
	Address   net.IPNet
	Server    net.IP
	Routes    []Route
	DNS       []net.IP
	Domain    string
	Hostname  string
	MTU       int           // 0: as it is
	Time      time.Duration // 0: for good
	ack       *dhcpv4.DHCPv4
}

// Route is a static one; Gateway is nil for a network on the link.
type Route struct {
	To      net.IPNet
	Gateway net.IP
}

// ask asks until there is an answer or ctx ends, then gives nil.
func ask(ctx context.Context, name string, mac net.HardwareAddr, log *slog.Logger) *Lease {
	said := ""
	for ctx.Err() == nil {
		lease, err := once(ctx, name, mac)
		if err == nil {
			return lease
		}
		if ctx.Err() == nil && err.Error() != said {
			log.Warn("no address yet", "interface", name, "mac", mac, "error", err)
			said = err.Error()
		}
		if errors.Is(err, nclient4.ErrNoResponse) {
			continue // it has waited long enough already
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
	return nil
}

func once(ctx context.Context, name string, mac net.HardwareAddr) (*Lease, error) {
	c, err := nclient4.New(name, nclient4.WithHWAddr(mac), nclient4.WithTimeout(firstWait), nclient4.WithRetry(attempts))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	got, err := c.Request(ctx, options(mac)...)
	if err != nil {
		return nil, err
	}
	return parse(name, mac, got.ACK)
}

// Announce asks for the same address as firmware does. The head takes it for a
// new boot of this machine, in which a new one-time key can be had.
func (l *Lease) Announce(ctx context.Context) error {
	c, err := nclient4.New(l.Interface, nclient4.WithHWAddr(l.MAC), nclient4.WithTimeout(firstWait), nclient4.WithRetry(attempts))
	if err != nil {
		return err
	}
	defer c.Close()
	got, err := c.Request(ctx, append(options(l.MAC), dhcpv4.WithUserClass("iPXE", false))...)
	if err != nil {
		return err
	}
	if !got.ACK.YourIPAddr.Equal(l.Address.IP) {
		return fmt.Errorf("the DHCP server now gives the address %v instead of %v", got.ACK.YourIPAddr, l.Address.IP)
	}
	return nil
}

// options are those of every message. The client identifier is the one that
// iPXE sends: hardware type and address.
func options(mac net.HardwareAddr) []dhcpv4.Modifier {
	return []dhcpv4.Modifier{
		dhcpv4.WithOption(dhcpv4.OptClientIdentifier(append([]byte{1}, mac...))),
		dhcpv4.WithRequestedOptions(
			dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionClasslessStaticRoute, dhcpv4.OptionDomainNameServer,
			dhcpv4.OptionDomainName, dhcpv4.OptionHostName, dhcpv4.OptionInterfaceMTU, dhcpv4.OptionIPAddressLeaseTime),
	}
}

// parse takes an acknowledgement apart and refuses what cannot be used.
func parse(name string, mac net.HardwareAddr, ack *dhcpv4.DHCPv4) (*Lease, error) {
	ip := ack.YourIPAddr.To4()
	if ip == nil || !ip.IsGlobalUnicast() && !ip.IsLinkLocalUnicast() {
		return nil, fmt.Errorf("the DHCP server gave the address %v, which no machine can have", ack.YourIPAddr)
	}
	mask := ack.SubnetMask()
	if ones, bits := mask.Size(); bits != 32 || ones == 0 {
		mask = ip.DefaultMask()
	}
	l := &Lease{
		Interface: name, MAC: mac, Address: net.IPNet{IP: ip, Mask: mask}, Server: ack.ServerIdentifier(),
		DNS: ack.DNS(), Domain: clean(ack.DomainName()), Hostname: clean(ack.HostName()), ack: ack,
	}
	if seconds := ack.IPAddressLeaseTime(0) / time.Second; seconds > 0 && seconds < math.MaxUint32 {
		l.Time = seconds * time.Second
	}
	if mtu, err := dhcpv4.GetUint16(dhcpv4.OptionInterfaceMTU, ack.Options); err == nil && mtu >= 576 {
		l.MTU = int(mtu)
	}
	// RFC 3442: with option 121, option 3 does not count.
	if routes := ack.ClasslessStaticRoute(); len(routes) > 0 {
		for _, r := range routes {
			route := Route{To: *r.Dest, Gateway: r.Router}
			if r.Router.IsUnspecified() {
				route.Gateway = nil
			}
			l.Routes = append(l.Routes, route)
		}
	} else if routers := ack.Router(); len(routers) > 0 {
		l.Routes = []Route{{To: net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}, Gateway: routers[0]}}
	}
	return l, nil
}

// clean drops a name that has no business in a file of lines.
func clean(s string) string {
	s = strings.TrimRight(s, "\x00.")
	if strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return ""
	}
	return s
}

// apply configures the interface.
func (l *Lease) apply() error {
	link, err := netlink.LinkByName(l.Interface)
	if err != nil {
		return err
	}
	if l.MTU != 0 && l.MTU != link.Attrs().MTU {
		if err := netlink.LinkSetMTU(link, l.MTU); err != nil {
			return fmt.Errorf("%s: MTU %d: %w", l.Interface, l.MTU, err)
		}
	}
	if err := netlink.AddrReplace(link, &netlink.Addr{IPNet: &l.Address}); err != nil {
		return fmt.Errorf("%s: address %v: %w", l.Interface, &l.Address, err)
	}
	for _, r := range l.Routes {
		route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: &r.To, Gw: r.Gateway, Protocol: unix.RTPROT_DHCP}
		if r.Gateway == nil {
			route.Scope = netlink.SCOPE_LINK
		} else if !l.Address.Contains(r.Gateway) {
			route.SetFlag(netlink.FLAG_ONLINK)
		}
		if err := netlink.RouteReplace(route); err != nil {
			return fmt.Errorf("%s: route to %v by %v: %w", l.Interface, &r.To, r.Gateway, err)
		}
	}
	return nil
}
