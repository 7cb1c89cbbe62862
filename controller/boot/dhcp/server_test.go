package dhcp

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"

	"muster/controller/boot"
	"muster/controller/boot/boottest"
	"muster/shared/service"
)

var (
	headAddr = netip.MustParseAddr("10.0.0.1")
	nodeAddr = netip.MustParseAddr("10.0.0.9")
)

// output is a log that a test can read while it is written.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// lab is a server at one end of a cable.
type lab struct {
	*boottest.Cable
	*boottest.Registry
	log output
}

func start(t *testing.T, proxy bool) *lab {
	t.Helper()
	l := &lab{Cable: boottest.Connect(t, "10.0.0.1/16"), Registry: &boottest.Registry{
		Nets: []boot.Network{{
			Name: "lan", Prefix: netip.MustParsePrefix("10.0.0.0/16"), Router: netip.MustParseAddr("10.0.0.254"),
			DNS: []netip.Addr{headAddr}, Domain: "cluster.local",
		}},
	}}
	dir := t.TempDir()
	onLink, mac, err := boot.AddressesOf(l.Cable.Head)
	if err != nil {
		t.Fatal(err)
	}
	s := New(Config{
		Interface: l.Cable.Head, Directory: l, Journal: l, Log: slog.New(slog.NewTextHandler(&l.log, nil)),
		Head: boot.Head{Addr: headAddr, OnLink: onLink, MAC: mac, HTTPPort: 80, Proxy: proxy, Programs: boot.Dir(dir)},
	})
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- service.Run(ctx, slog.New(slog.DiscardHandler), []service.Part{s.Part()}, func() { close(ready) })
	}()
	select {
	case <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l
}

func (l *lab) node() boot.Machine {
	m := boot.Machine{UID: "u9", Name: "n9", Hostname: "n9", MAC: l.MAC, IP: nodeAddr}
	l.Put(m)
	return m
}

// client is a DHCP client on the machine's end, with another MAC if one is given.
func (l *lab) client(t *testing.T, opts ...nclient4.ClientOpt) *nclient4.Client {
	t.Helper()
	var c *nclient4.Client
	var err error
	l.Far(func() {
		c, err = nclient4.New(l.Machine, append([]nclient4.ClientOpt{nclient4.WithTimeout(time.Second), nclient4.WithRetry(3)}, opts...)...)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func ipxeClient(p *dhcpv4.DHCPv4) {
	p.UpdateOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00000:UNDI:002001"))
	p.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionUserClassInformation, []byte("iPXE")))
	p.UpdateOption(dhcpv4.OptGeneric(optIPXE, []byte{0x13, 1, 1, 0x18, 1, 1}))
	p.UpdateOption(dhcpv4.OptGeneric(optGUID, append([]byte{0}, "0123456789abcdef"...)))
}

func TestLease(t *testing.T) {
	if !boottest.Inside(t) {
		return
	}
	l := start(t, false)
	l.node()
	c := l.client(t)
	lease, err := c.Request(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	a := lease.ACK
	if !a.YourIPAddr.Equal(nodeAddr.AsSlice()) || a.HostName() != "n9" || a.DomainName() != "cluster.local" ||
		a.SubnetMask().String() != "ffff0000" || !a.Router()[0].Equal(net.IP{10, 0, 0, 254}) || !a.DNS()[0].Equal(net.IP{10, 0, 0, 1}) ||
		!a.BroadcastAddress().Equal(net.IP{10, 0, 255, 255}) || a.IPAddressLeaseTime(0) != boot.DefaultLease ||
		a.IPAddressRenewalTime(0) != 12*time.Hour || a.IPAddressRebindingTime(0) != 21*time.Hour || a.BootFileName != "" {
		t.Errorf("lease: %s", a.Summary())
	}
	if s := l.Stamps(); len(s) != 0 || l.Opened(nodeAddr) != "" {
		t.Errorf("an operating system's lease opened a boot: %q", s)
	}
}

func TestFirmwareOpensBoot(t *testing.T) {
	if !boottest.Inside(t) {
		return
	}
	l := start(t, false)
	l.node()
	lease, err := l.client(t).Request(t.Context(), ipxeClient)
	if err != nil {
		t.Fatal(err)
	}
	a := lease.ACK
	if a.BootFileName != "http://10.0.0.1/boot/v1/script" || !a.ServerIPAddr.Equal(net.IP{10, 0, 0, 1}) ||
		!bytes.Equal(a.Options.Get(optIPXE), []byte{176, 1, 1}) || len(a.Options.Get(optGUID)) != 17 {
		t.Errorf("ack: %s", a.Summary())
	}
	if s := l.Stamps(); len(s) != 1 || s[0] != "u9 dhcp 10.0.0.9, iPXE, BIOS" || l.Opened(nodeAddr) != "u9" {
		t.Errorf("stamps %q, open %q", s, l.Opened(nodeAddr))
	}
}

func TestRequestsOfTheWrongAddress(t *testing.T) {
	if !boottest.Inside(t) {
		return
	}
	l := start(t, false)
	m := l.node()
	c := l.client(t)
	offer, err := c.DiscoverOffer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m.IP = netip.MustParseAddr("10.0.0.10")
	l.Put(m)
	_, err = c.RequestFromOffer(t.Context(), offer)
	if nak, ok := err.(*nclient4.ErrNak); !ok || !strings.Contains(nak.Nak.Message(), "10.0.0.10") {
		t.Errorf("after the address moved: %v, want a NAK that says the new one", err)
	}
	// DECLINE is marked where the admin looks.
	d, err := dhcpv4.New(dhcpv4.WithHwAddr(l.MAC), dhcpv4.WithMessageType(dhcpv4.MessageTypeDecline),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(headAddr.AsSlice())), dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(m.IP.AsSlice())))
	if err != nil {
		t.Fatal(err)
	}
	l.send(t, 68, d.ToBytes())
	l.wait(t, func() bool {
		s := l.Stamps()
		return len(s) == 1 && strings.HasPrefix(s[0], "u9 dhcp address conflict: the machine found 10.0.0.10 in use")
	})
}

func TestUnknownMachines(t *testing.T) {
	if !boottest.Inside(t) {
		return
	}
	l := start(t, false)
	short := []nclient4.ClientOpt{nclient4.WithTimeout(300 * time.Millisecond), nclient4.WithRetry(1)}
	if o, err := l.client(t, short...).DiscoverOffer(t.Context(), ipxeClient); err == nil {
		t.Fatalf("not accepted, and yet: %s", o.Summary())
	}
	l.wait(t, func() bool { return strings.Contains(l.log.String(), "accept_new_nodes") })
	l.Accept.Store(true)
	if o, err := l.client(t, short...).DiscoverOffer(t.Context()); err == nil {
		t.Fatalf("an operating system became a node: %s", o.Summary())
	}
	lease, err := l.client(t).Request(t.Context(), ipxeClient)
	if err != nil || lease.ACK.YourIPAddr.String() != "10.0.1.1" {
		t.Fatalf("accepted, and yet: %v, %v", lease, err)
	}
}

// send sends a packet as firmware without an address does, or from any port.
func (l *lab) send(t *testing.T, port int, packets ...[]byte) {
	t.Helper()
	l.Far(func() {
		c, err := nclient4.NewRawUDPConn(l.Machine, port)
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		for _, b := range packets {
			if _, err := c.WriteTo(b, &net.UDPAddr{IP: net.IPv4bcast, Port: 67}); err != nil {
				t.Error(err)
			}
		}
	})
}

func (l *lab) wait(t *testing.T, ok func() bool) {
	t.Helper()
	for range 300 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("it did not happen; log:\n%s\nstamps: %q", l.log.String(), l.Stamps())
}

func TestGarbageAndForgeries(t *testing.T) {
	if !boottest.Inside(t) {
		return
	}
	l := start(t, false)
	l.node()
	request, err := dhcpv4.New(dhcpv4.WithHwAddr(l.MAC), dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), ipxeClient,
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(headAddr.AsSlice())), dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(nodeAddr.AsSlice())))
	if err != nil {
		t.Fatal(err)
	}
	good := request.ToBytes()
	for n := 0; n < len(good); n += 7 {
		l.send(t, 68, good[:n]) // truncated everywhere
	}
	l.send(t, 68, bytes.Repeat([]byte{0xff}, 1400), append([]byte{2}, good[1:]...))
	l.send(t, 40000, good) // what a user of a node could send
	// The server is still there, and none of that opened a boot.
	if _, err := l.client(t).DiscoverOffer(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := l.Stamps(); len(s) != 0 || l.Opened(nodeAddr) != "" {
		t.Errorf("stamps %q", s)
	}
	l.send(t, 68, good)
	l.wait(t, func() bool { return l.Opened(nodeAddr) == "u9" })
}

func TestTwoMachinesWithOneMAC(t *testing.T) {
	if !boottest.Inside(t) {
		return
	}
	l := start(t, false)
	l.node()
	if _, err := l.client(t).Request(t.Context(), ipxeClient); err != nil {
		t.Fatal(err)
	}
	other := func(p *dhcpv4.DHCPv4) {
		ipxeClient(p)
		p.UpdateOption(dhcpv4.OptGeneric(optGUID, append([]byte{0}, "another machine "...)))
	}
	if o, err := l.client(t, nclient4.WithTimeout(300*time.Millisecond), nclient4.WithRetry(1)).DiscoverOffer(t.Context(), other); err == nil {
		t.Fatalf("the second was answered: %s", o.Summary())
	}
	if s := l.Stamps(); !slices.ContainsFunc(s, func(s string) bool { return strings.Contains(s, "two machines have the MAC") }) {
		t.Errorf("stamps %q", s)
	}
	if _, err := l.client(t).Request(t.Context(), ipxeClient); err != nil {
		t.Errorf("the first is no longer answered: %v", err)
	}
}

func TestRelayAndRenewal(t *testing.T) {
	if !boottest.Inside(t) {
		return
	}
	l := start(t, false)
	l.node()
	l.Addr(t, "10.0.0.9/16")
	l.Addr(t, "10.0.0.8/16")
	ask := func(from string, port int, mods ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
		t.Helper()
		p, err := dhcpv4.New(append([]dhcpv4.Modifier{dhcpv4.WithHwAddr(l.MAC)}, mods...)...)
		if err != nil {
			t.Fatal(err)
		}
		var c *net.UDPConn
		l.Far(func() { c, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(from), Port: port}) })
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(3 * time.Second))
		if _, err := c.WriteTo(p.ToBytes(), &net.UDPAddr{IP: net.IP{10, 0, 0, 1}, Port: 67}); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 1500)
		n, err := c.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		a, err := dhcpv4.FromBytes(buf[:n])
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	a := ask("10.0.0.9", 68, dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), dhcpv4.WithClientIP(net.IP{10, 0, 0, 9}))
	if a.MessageType() != dhcpv4.MessageTypeAck || !a.YourIPAddr.Equal(net.IP{10, 0, 0, 9}) || !a.ClientIPAddr.Equal(net.IP{10, 0, 0, 9}) {
		t.Errorf("renewal: %s", a.Summary())
	}
	a = ask("10.0.0.8", 67, dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover), dhcpv4.WithGatewayIP(net.IP{10, 0, 0, 8}),
		dhcpv4.WithGeneric(dhcpv4.OptionRelayAgentInformation, []byte{1, 4, 'p', 'o', 'r', 't'}))
	if a.MessageType() != dhcpv4.MessageTypeOffer || !a.GatewayIPAddr.Equal(net.IP{10, 0, 0, 8}) ||
		string(a.Options.Get(dhcpv4.OptionRelayAgentInformation)) != "\x01\x04port" {
		t.Errorf("relayed: %s", a.Summary())
	}
	a = ask("10.0.0.9", 68, dhcpv4.WithMessageType(dhcpv4.MessageTypeInform), dhcpv4.WithClientIP(net.IP{10, 0, 0, 9}))
	if a.MessageType() != dhcpv4.MessageTypeAck || !a.YourIPAddr.Equal(net.IPv4zero) || a.Options.Has(dhcpv4.OptionIPAddressLeaseTime) {
		t.Errorf("inform: %s", a.Summary())
	}
}

func TestProxy(t *testing.T) {
	if !boottest.Inside(t) {
		return
	}
	l := start(t, true)
	l.node()
	o, err := l.client(t).DiscoverOffer(t.Context(), ipxeClient)
	if err != nil {
		t.Fatal(err)
	}
	if !o.YourIPAddr.Equal(net.IPv4zero) || o.ClassIdentifier() != "PXEClient" || o.BootFileName != "http://10.0.0.1/boot/v1/script" ||
		o.Options.Has(dhcpv4.OptionIPAddressLeaseTime) || o.Options.Has(dhcpv4.OptionSubnetMask) {
		t.Errorf("proxy offer: %s", o.Summary())
	}
	request, _ := dhcpv4.New(dhcpv4.WithHwAddr(l.MAC), dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), ipxeClient,
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IP{10, 0, 0, 2})), dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.IP{10, 0, 7, 7})))
	l.send(t, 68, request.ToBytes())
	l.wait(t, func() bool { return l.Opened(netip.MustParseAddr("10.0.7.7")) == "u9" })
}

func TestPortTaken(t *testing.T) {
	if !boottest.Inside(t) {
		return
	}
	l := start(t, false)
	s := New(Config{Interface: l.Cable.Head, Log: slog.New(slog.DiscardHandler)})
	if err := s.Part().Listen(t.Context()); err == nil || !strings.Contains(err.Error(), "stop the other DHCP server") {
		t.Errorf("second server: %v", err)
	}
}
