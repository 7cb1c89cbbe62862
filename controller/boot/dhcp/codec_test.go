package dhcp

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"muster/controller/boot"
)

// FuzzAnswer takes any bytes through parsing, planning and serialising. What
// comes out must parse, be a reply to what came in, and fit a packet.
func FuzzAnswer(f *testing.F) {
	mac := net.HardwareAddr{0x52, 0x54, 0, 0, 0, 9}
	for _, mods := range [][]dhcpv4.Modifier{
		{dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover)},
		{dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover), ipxeClient},
		{dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), dhcpv4.WithGatewayIP(net.IP{10, 0, 0, 254})},
		{dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), dhcpv4.WithClientIP(net.IP{10, 0, 0, 9}),
			dhcpv4.WithGeneric(dhcpv4.OptionClassIdentifier, []byte("HTTPClient:Arch:00016"))},
		{dhcpv4.WithMessageType(dhcpv4.MessageTypeInform), dhcpv4.WithGeneric(dhcpv4.OptionVendorSpecificInformation, []byte{71, 4, 0, 0, 0, 0, 255}),
			dhcpv4.WithGeneric(dhcpv4.OptionClassIdentifier, []byte("PXEClient:Arch:00007"))},
	} {
		p, err := dhcpv4.New(append(mods, dhcpv4.WithHwAddr(mac))...)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(p.ToBytes(), false, true)
		f.Add(p.ToBytes(), true, true)
		f.Add(p.ToBytes(), false, false)
	}
	f.Add([]byte("garbage"), false, true)
	m := &boot.Machine{UID: "u", Name: "n", MAC: mac, IP: nodeAddr}
	f.Fuzz(func(t *testing.T, b []byte, proxy, known bool) {
		q, err := dhcpv4.FromBytes(b)
		if err != nil || len(b) > maxSize {
			return
		}
		site := boot.Site{
			Head: boot.Head{Addr: headAddr, OnLink: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/16")}, HTTPPort: 80, Proxy: proxy},
			Have: func(string) bool { return true },
		}
		machine := m
		if !known {
			machine = nil
		}
		r := read(q, netip.AddrPortFrom(netip.IPv4Unspecified(), 68), proxy)
		_, _ = r.Identity(), r.ArchName()
		a := boot.Plan(site, machine, r)
		if a.Action != boot.DoOffer && a.Action != boot.DoAck && a.Action != boot.DoNak {
			return
		}
		if machine == nil {
			t.Fatal("a machine that nobody knows is answered")
		}
		out := write(q, a, headAddr)
		p, err := dhcpv4.FromBytes(out)
		if err != nil {
			t.Fatalf("the answer does not parse: %v", err)
		}
		if p.OpCode != dhcpv4.OpcodeBootReply || p.TransactionID != q.TransactionID || !a.To.IsValid() {
			t.Fatalf("no reply to the request: %s", p.Summary())
		}
		if y := addr(p.YourIPAddr); y.IsValid() && (y != m.IP || proxy) {
			t.Fatalf("somebody else's address: %s", y)
		}
	})
}

func TestUserClass(t *testing.T) {
	for _, v := range []string{"iPXE", "\x04iPXE"} {
		p, _ := dhcpv4.New(dhcpv4.WithGeneric(dhcpv4.OptionUserClassInformation, []byte(v)))
		if r := read(p, netip.AddrPort{}, false); r.Client() != boot.IPXE {
			t.Errorf("%q is not iPXE", v)
		}
	}
}

func TestLimiter(t *testing.T) {
	var l limiter
	now := time.Unix(1000, 0)
	for i := range perMAC {
		if !l.allow("a", now) {
			t.Fatalf("packet %d refused", i)
		}
	}
	if l.allow("a", now) || !l.allow("b", now) || !l.allow("a", now.Add(time.Second)) {
		t.Error("the bound is not per key and second")
	}
	for i := range 2 * maxMACs {
		l.allow(fmt.Sprint(i), now)
	}
	if len(l.count) > maxMACs {
		t.Errorf("%d keys remembered", len(l.count))
	}
}

func TestTwins(t *testing.T) {
	var w twins
	now := time.Unix(1000, 0)
	if w.check("m", "a", now) || !w.check("m", "b", now.Add(twinFor-1)) || w.check("m", "a", now.Add(twinFor-1)) {
		t.Error("the first does not keep the MAC")
	}
	if w.check("m", "b", now.Add(3*twinFor)) {
		t.Error("an exchanged board is refused for ever")
	}
}
