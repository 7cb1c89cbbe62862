// Package boot decides what a machine that boots from its network card is
// told, and holds the types that the transports around that decision share.
//
// Plan is the decision for DHCP: a pure function of the site, the machine and
// the request. The folders dhcp, tftp, ipxe and ra are thin: they parse, ask,
// and send. Nothing here reads the store, and nothing knows where machines
// come from: a Directory tells, a Journal remembers.
//
// Four decisions that shape the rest:
//
//   - Only firmware (PXE, iPXE, UEFI HTTP boot) of an unknown machine is
//     offered to Directory.Admit. A laptop that somebody plugs in asks for an
//     address too, and must not become a node.
//   - Packets from UDP source ports above 1023 are ignored. A user of a running
//     node could otherwise send a DHCP request for it and so open a boot, which
//     is what a one-time key is minted for.
//   - Addresses are reservations: one per machine, found by MAC, unique in the
//     registry. There is no pool, so no address can be given twice, and an offer
//     needs no state that a restart could lose.
//   - A boot script is found by the source address of the TCP connection that
//     asks for it, never by something in the URL that anybody could write.
package boot

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"muster/shared/wire"
)

// Head is what does not change while the head runs.
type Head struct {
	Addr      netip.Addr       // IPv4 on the boot interface: DHCP server identifier, TFTP, HTTP
	OnLink    []netip.Prefix   // the boot interface's own networks, as AddressesOf gives them
	MAC       net.HardwareAddr // of the boot interface; its own requests are never answered
	HTTPPort  uint16           // of plain HTTP, which firmware uses
	HTTPSPort uint16
	CA        string        // lower-case hex SHA-256 of the CA certificate's DER, for wire.CmdlineCA
	Proxy     bool          // another DHCP server gives the addresses; only say what to boot
	Lease     time.Duration // of an address; 0 means DefaultLease
	Programs  Dir           // the iPXE binaries
}

// DefaultLease is long because addresses are reservations: a short lease would
// only make nodes depend on the head's being up.
const DefaultLease = 24 * time.Hour

// HTTP is the head's plain URL without a path, as firmware and agents use it.
func (h Head) HTTP() string { return origin("http", h.Addr, h.HTTPPort, 80) }

// HTTPS is the head's TLS URL without a path.
func (h Head) HTTPS() string { return origin("https", h.Addr, h.HTTPSPort, 443) }

func origin(scheme string, addr netip.Addr, port, usual uint16) string {
	if port == usual {
		return scheme + "://" + addr.String()
	}
	return scheme + "://" + netip.AddrPortFrom(addr, port).String()
}

// Network is an IPv4 network that nodes have addresses in.
type Network struct {
	Name   string
	Prefix netip.Prefix
	Router netip.Addr // zero: none
	DNS    []netip.Addr
	Domain string
}

// Machine is a node as far as booting goes.
type Machine struct {
	UID       string
	Name      string
	MAC       net.HardwareAddr
	IP        netip.Addr // IPv4; zero when the node has none
	Hostname  string
	Domain    string // empty: the network's
	Config    Config
	NotBooted bool   // only its address is known: it gets that, and nothing to boot
	Problem   string // why it cannot boot now, in words for an admin; it then gets no kernel
}

// Config is what to boot. Style "next" means the machine's next boot device.
type Config struct {
	Kernel  File
	Initrds []File // unpacked in this order; each must be padded to 4 bytes
	Cmdline string // of the boot config; see ipxe for what it must not hold
	Style   string
	San     *San   // boots this disk, and nothing else of Config counts
	Once    string // what it is for this boot alone, to be handed to Journal.Served
	Foreign bool   // no initramfs of muster: it gets no key, and no arguments beside Cmdline
}

// StyleNext leaves the machine to its next boot device.
const StyleNext = "next"

// File is a file that wire.PathFile serves. Name is only for people to read.
type File struct {
	Name   string
	SHA256 string // lower-case hex
	Path   string // on the head instead, escaped for a URL
}

// Directory is where machines come from. All its methods may be called at
// once, on the path of every packet: they must not touch a disk, but for Admit.
type Directory interface {
	ByMAC(net.HardwareAddr) (Machine, bool)
	// ByAddr finds the machine at an address: first the one whose boot is
	// open there (see Journal.OpenBoot; with proxyDHCP a machine may boot from
	// another address than its own), then the one whose IP it is.
	ByAddr(netip.Addr) (Machine, bool)
	Networks() []Network
	// Admit makes a node for a MAC that none has, or returns ErrNotAccepted.
	// It must give the same node to callers that come at once with one MAC.
	Admit(ctx context.Context, mac net.HardwareAddr, arch string) (Machine, error)
}

// ErrNotAccepted is what Admit returns when new nodes are not wanted.
var ErrNotAccepted = errors.New("new nodes are not accepted: set accept_new_nodes on the cluster, or create the node")

// Journal remembers how far each machine has come. It drops stamps that repeat
// the one before, and the stamps firmware and kernel of a machine that is up
// and has no open boot: any user of a running node can ask for its script.
type Journal interface {
	// OpenBoot says that firmware got the address by DHCP: from now on one key
	// may be minted for the node at this address. Again before that, it only
	// renews.
	OpenBoot(uid string, addr netip.Addr)
	// Mint gives the one key of an open boot; not ok when none is open there or
	// its key was used. Asked again before that it may give the same one, for an
	// answer that was lost. Letters, digits, - and _ only.
	Mint(uid string, addr netip.Addr) (key string, ok bool)
	Stamp(uid string, s wire.Step)
	// Served says that a machine was told to boot what it boots Once: the next
	// time it is told something else.
	Served(ctx context.Context, uid, once string) error
}

// AddressesOf gives the IPv4 networks of an interface, each with the
// interface's own address in it, and its MAC.
func AddressesOf(name string) ([]netip.Prefix, net.HardwareAddr, error) {
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return nil, nil, fmt.Errorf("boot interface %s: %w; `ip link` lists those there are", name, err)
	}
	addrs, err := ifi.Addrs()
	if err != nil {
		return nil, nil, fmt.Errorf("boot interface %s: %w", name, err)
	}
	var out []netip.Prefix
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err == nil && p.Addr().Is4() {
			out = append(out, p)
		}
	}
	if len(out) == 0 {
		return nil, nil, fmt.Errorf("boot interface %s has no IPv4 address: give it one (`ip addr add 10.0.0.1/16 dev %s`)", name, name)
	}
	return out, ifi.HardwareAddr, nil
}
