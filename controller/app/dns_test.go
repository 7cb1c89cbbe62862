package app

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"muster/shared/object"
)

// TestResolvers: nodes are sent to this head's DNS server where they can reach
// it, and nowhere else.
func TestResolvers(t *testing.T) {
	lan, ib := netip.MustParsePrefix("10.1.0.1/24"), netip.MustParsePrefix("10.2.0.1/16")
	far := netip.MustParsePrefix("10.9.0.0/24")
	for _, tt := range []struct {
		dns     string
		network netip.Prefix
		want    string
	}{
		{"", lan, ""}, {"0.0.0.0:53", lan, "10.1.0.1"}, {":53", ib, "10.2.0.1"}, {"0.0.0.0:53", far, "10.1.0.1"},
		{"0.0.0.0:5353", lan, ""}, {"127.0.0.1:53", lan, ""}, {"10.2.0.1:53", lan, "10.2.0.1"}, {"10.3.0.1:53", lan, ""}, {"[::]:53", lan, ""},
	} {
		d := &directory{dns: tt.dns, boot: bootHead{Addr: lan.Addr(), OnLink: []netip.Prefix{lan, ib}}}
		got := ""
		if r := d.resolvers(tt.network.Masked()); len(r) == 1 {
			got = r[0].String()
		}
		if got != tt.want {
			t.Errorf("--dns %q: nodes in %s are told to ask %q, want %q", tt.dns, tt.network, got, tt.want)
		}
	}
	if r := (&directory{dns: "0.0.0.0:53"}).resolvers(lan); r != nil {
		t.Errorf("a head that boots nothing names %v", r)
	}
}

func TestHostMachine(t *testing.T) {
	m := hostMachine(&object.Hostname{Name: "printer.lan.example", IP: "10.1.0.9", MAC: "52:54:00:00:00:01"})
	if !m.NotBooted || m.Hostname != "printer" || m.IP.String() != "10.1.0.9" || m.MAC.String() != "52:54:00:00:00:01" {
		t.Errorf("%+v", m)
	}
	if m := hostMachine(&object.Hostname{Name: "p", IP: "fd00::9", MAC: "52:54:00:00:00:01"}); m.IP.IsValid() {
		t.Errorf("DHCPv4 would give out %s", m.IP)
	}
}

func TestUpstreams(t *testing.T) {
	c := Config{DNSUpstreams: "192.0.2.1, [2001:db8::1]:5353 192.0.2.2:54 2001:db8::2"}
	got, err := c.upstreams()
	want := []netip.AddrPort{
		netip.MustParseAddrPort("192.0.2.1:53"), netip.MustParseAddrPort("[2001:db8::1]:5353"),
		netip.MustParseAddrPort("192.0.2.2:54"), netip.MustParseAddrPort("[2001:db8::2]:53"),
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"dns.example.org", "192.0.2.1:", "192.0.2.1:99999", "1.2.3"} {
		c := Config{DNSUpstreams: bad}
		if got, err := c.upstreams(); err == nil {
			t.Errorf("%q is read as %v", bad, got)
		}
	}
}

func TestResolvConf(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	r := &resolvConf{path: path}
	if got := r.servers(); got != nil {
		t.Errorf("without a file: %v", got)
	}
	write := func(text string, changed time.Time) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, changed, changed); err != nil {
			t.Fatal(err)
		}
		r.checked = time.Time{} // as if it were long ago
	}
	write("# nameserver 192.0.2.9\nsearch example.org\nnameserver 192.0.2.1\nnameserver  2001:db8::1 \nnameserver nonsense\nnameserver\n", time.Unix(1000, 0))
	want := []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:53"), netip.MustParseAddrPort("[2001:db8::1]:53")}
	if got := r.servers(); !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
	write("nameserver 192.0.2.2\n", time.Unix(2000, 0))
	if got := r.servers(); !slices.Equal(got, []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte(net.IPv4(192, 0, 2, 2).To4())), 53)}) {
		t.Errorf("after a change: %v", got)
	}
}
