package app

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"muster/controller/boot"
	"muster/controller/power"
	"muster/controller/power/discover"
	"muster/controller/registry"
	"muster/shared/kind"
	"muster/shared/object"
)

const (
	ipmiPort         = 623
	discoverPatience = 2 * time.Second
)

// newDiscover connects what finds BMCs.
func (h *Head) newDiscover(bh bootHead) *discover.Discover {
	return &discover.Discover{
		Objects: h.reg, Schemes: power.Schemes(), Log: h.log,
		Hardware: func(uid string) json.RawMessage { hardware, _ := h.fleet.Live(uid); return hardware },
		Attribute: func(n *object.Node, name string) string {
			if n == nil {
				n = &object.Node{} // which inherits what all do
			}
			return object.Attribute(h.reg.Look(), n, name)
		},
		Interface: h.cfg.BootInterface, OnLink: bh.OnLink, Group: discover.SSDPGroup, IPMIPort: ipmiPort,
		Patience: discoverPatience, Neighbors: neighbors,
		Record: func(ctx context.Context, by kind.Author, detail map[string]string) error {
			return h.reg.Record(ctx, by, registry.Entry{Action: "discover", Kind: object.KindNode, Detail: detail})
		},
	}
}

// sawBMC hands a BMC's request for an address on.
func (h *Head) sawBMC(r boot.Request) {
	addr := r.CIAddr
	if !addr.IsValid() {
		addr = r.Requested
	}
	h.discover.Seen(discover.Sighting{MAC: r.MAC.String(), Addr: addr, Vendor: r.VendorClass, Hostname: r.Hostname, Switch: r.Remote, Port: r.Circuit})
}

// neighbors is the kernel's ARP table.
func neighbors() map[netip.Addr]net.HardwareAddr {
	f, err := os.Open("/proc/net/arp")
	if err != nil {
		return nil
	}
	defer f.Close()
	return arpTable(f)
}

// arpTable reads lines of IP address, type, flags, MAC, mask and device.
func arpTable(in io.Reader) map[netip.Addr]net.HardwareAddr {
	out := map[netip.Addr]net.HardwareAddr{}
	for lines := bufio.NewScanner(in); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 {
			continue
		}
		addr, err := netip.ParseAddr(fields[0])
		mac, bad := net.ParseMAC(fields[3])
		if cmp.Or(err, bad) == nil && fmt.Sprint(mac) != "00:00:00:00:00:00" {
			out[addr] = mac
		}
	}
	return out
}
