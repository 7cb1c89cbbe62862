package boot

import (
	"net"
	"testing"
)

func TestMaybeBMC(t *testing.T) {
	super := net.HardwareAddr{0x0c, 0xc4, 0x7a, 1, 2, 3}
	for _, c := range []struct {
		name string
		r    Request
		want bool
	}{
		{"Dell's by its class", ask(func(r *Request) { r.VendorClass = "iDRAC" }), true},
		{"HPE's by its class", ask(func(r *Request) { r.VendorClass = "CPQRIB3" }), true},
		{"by its name", ask(func(r *Request) { r.Hostname = "ILOCZ12345678" }), true},
		{"by its maker", ask(func(r *Request) { r.MAC = super; r.VendorClass = "udhcp 1.23.1" }), true},
		{"the maker's firmware boots a machine", ask(pxe(7), func(r *Request) { r.MAC = super }), false},
		{"an operating system", ask(func(r *Request) { r.VendorClass = "android-dhcp-14"; r.Hostname = "phone" }), false},
		{"without a MAC", ask(func(r *Request) { r.MAC = nil; r.VendorClass = "iDRAC" }), false},
	} {
		if got := c.r.MaybeBMC(); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
	// It is never made a node.
	if a := Plan(site(), nil, ask(func(r *Request) { r.VendorClass = "iDRAC" })); a.Action != Ignore {
		t.Errorf("a stranger's BMC: %+v", a)
	}
}
