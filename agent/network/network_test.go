package network

import (
	"context"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/server4"
	"github.com/vishvananda/netlink"
)

// The tests make interfaces, so they run in a network of their own.
func TestMain(m *testing.M) {
	if os.Getenv("MUSTER_PRIVATE") != "" || os.Getuid() != 0 {
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), "MUSTER_PRIVATE=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	cmd.Run()
	os.Exit(cmd.ProcessState.ExitCode())
}

var (
	clientMAC = net.HardwareAddr{0x52, 0x54, 0, 0, 0, 1}
	serverIP  = net.IPv4(10, 5, 0, 1).To4()
)

// cable makes a cable between eth0, which is the machine's, and srv0.
func cable(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("makes interfaces as root")
	}
	pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0", HardwareAddr: clientMAC}, PeerName: "srv0"}
	try(t, netlink.LinkAdd(pair))
	t.Cleanup(func() { netlink.LinkDel(pair) })
	srv, err := netlink.LinkByName("srv0")
	try(t, err)
	try(t, netlink.AddrAdd(srv, &netlink.Addr{IPNet: &net.IPNet{IP: serverIP, Mask: net.CIDRMask(24, 32)}}))
	try(t, netlink.LinkSetUp(srv))
}

// classes is the user class of the newest request.
var classes atomic.Value

func try(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// serve answers on srv0 after having ignored some messages.
func serve(t *testing.T, ignore int32, more ...dhcpv4.Modifier) *atomic.Int32 {
	t.Helper()
	var seen atomic.Int32
	s, err := server4.NewServer("srv0", &net.UDPAddr{IP: net.IPv4zero, Port: 67}, func(conn net.PacketConn, _ net.Addr, m *dhcpv4.DHCPv4) {
		if seen.Add(1) <= ignore {
			return
		}
		kind := dhcpv4.MessageTypeOffer
		if m.MessageType() == dhcpv4.MessageTypeRequest {
			kind = dhcpv4.MessageTypeAck
		}
		classes.Store(string(m.Options.Get(dhcpv4.OptionUserClassInformation)))
		if id := m.Options.Get(dhcpv4.OptionClientIdentifier); len(id) != 7 || id[0] != 1 {
			t.Errorf("client identifier %x", id)
		}
		reply, err := dhcpv4.NewReplyFromRequest(m, append([]dhcpv4.Modifier{
			dhcpv4.WithMessageType(kind), dhcpv4.WithYourIP(net.IPv4(10, 5, 0, 7)), dhcpv4.WithNetmask(net.CIDRMask(24, 32)),
			dhcpv4.WithRouter(serverIP), dhcpv4.WithServerIP(serverIP), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(serverIP)),
			dhcpv4.WithDNS(serverIP), dhcpv4.WithLeaseTime(600), dhcpv4.WithOption(dhcpv4.OptDomainName("cluster.local")),
		}, more...)...)
		if err != nil {
			t.Error(err)
			return
		}
		conn.WriteTo(reply.ToBytes(), &net.UDPAddr{IP: net.IPv4bcast, Port: 68})
	})
	try(t, err)
	go s.Serve()
	t.Cleanup(func() { s.Close() })
	return &seen
}

func up(t *testing.T, mac net.HardwareAddr) *Lease {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	l, err := Up(ctx, mac, slog.New(slog.DiscardHandler))
	try(t, err)
	return l
}

func TestUp(t *testing.T) {
	cable(t)
	serve(t, 2, dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionInterfaceMTU, []byte{5, 0x78}))) // the first packets are lost
	began := time.Now()
	l := up(t, clientMAC)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("two lost packets cost %v", took)
	}
	if l.Interface != "eth0" || l.Address.String() != "10.5.0.7/24" || l.Domain != "cluster.local" || l.Time != 10*time.Minute || len(l.DNS) != 1 {
		t.Errorf("lease %+v", l)
	}
	link, err := netlink.LinkByName("eth0")
	try(t, err)
	addrs, err := netlink.AddrList(link, netlink.FAMILY_V4)
	if err != nil || len(addrs) != 1 || addrs[0].IPNet.String() != "10.5.0.7/24" || link.Attrs().MTU != 1400 {
		t.Errorf("%v, MTU %d, %v", addrs, link.Attrs().MTU, err)
	}
	routes, err := netlink.RouteList(link, netlink.FAMILY_V4)
	try(t, err)
	found := false
	for _, r := range routes {
		found = found || r.Gw.Equal(serverIP)
	}
	if !found {
		t.Errorf("no default route in %v", routes)
	}
	if _, err := netlink.LinkByName("lo"); err != nil {
		t.Error(err)
	}
	up(t, clientMAC) // again, as after a failure
}

func TestUpWithoutMAC(t *testing.T) {
	cable(t)
	serve(t, 0)
	if l := up(t, nil); l.Interface != "eth0" {
		t.Errorf("lease %+v", l)
	}
}

// The link comes later than the machine is ready for it.
func TestUpWaitsForLink(t *testing.T) {
	cable(t)
	srv, err := netlink.LinkByName("srv0")
	try(t, err)
	try(t, netlink.LinkSetDown(srv))
	serve(t, 0)
	got := make(chan *Lease)
	go func() { got <- up(t, clientMAC) }()
	select {
	case <-got:
		t.Fatal("an address without a link")
	case <-time.After(300 * time.Millisecond):
	}
	try(t, netlink.LinkSetUp(srv))
	if l := <-got; l == nil || l.Interface != "eth0" {
		t.Errorf("lease %+v", l)
	}
}

func TestUpEnds(t *testing.T) {
	cable(t)
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	if _, err := Up(ctx, clientMAC, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("an address without a server")
	}
}

func TestRenew(t *testing.T) {
	cable(t)
	serve(t, 0)
	l := up(t, clientMAC)
	ack, err := renew(context.Background(), "eth0", clientMAC, l.ack)
	if err != nil || !ack.YourIPAddr.Equal(l.Address.IP) {
		t.Errorf("%v, %v", ack, err)
	}
	state := t.TempDir()
	try(t, l.Keep(state))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	try(t, Renew(ctx, state, slog.New(slog.DiscardHandler)))
	try(t, Renew(context.Background(), t.TempDir(), slog.New(slog.DiscardHandler))) // without a lease it is over at once
}

func TestParse(t *testing.T) {
	ack := func(more ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
		m, err := dhcpv4.New(append([]dhcpv4.Modifier{dhcpv4.WithYourIP(net.IPv4(10, 5, 0, 7))}, more...)...)
		try(t, err)
		return m
	}
	l, err := parse("eth0", clientMAC, ack(dhcpv4.WithRouter(serverIP), dhcpv4.WithOption(dhcpv4.OptClasslessStaticRoute(
		&dhcpv4.Route{Dest: &net.IPNet{IP: net.IPv4(10, 6, 0, 0).To4(), Mask: net.CIDRMask(16, 32)}, Router: net.IPv4zero},
	))))
	if err != nil || len(l.Routes) != 1 || l.Routes[0].Gateway != nil || l.Routes[0].To.String() != "10.6.0.0/16" {
		t.Errorf("RFC 3442: %+v, %v", l, err)
	}
	if l, err := parse("eth0", clientMAC, ack(dhcpv4.WithLeaseTime(0xffffffff))); err != nil || l.Time != 0 || l.Address.String() != "10.5.0.7/8" {
		t.Errorf("an endless lease without a mask: %+v, %v", l, err)
	}
	if l, err := parse("eth0", clientMAC, ack(dhcpv4.WithOption(dhcpv4.OptDomainName("evil\nnameserver 6.6.6.6")))); err != nil || l.Domain != "" {
		t.Errorf("a name of two lines: %+v, %v", l, err)
	}
	for _, ip := range []net.IP{nil, net.IPv4zero, net.IPv4bcast, net.IPv4(127, 0, 0, 1), net.IPv4(224, 0, 0, 1)} {
		if l, err := parse("eth0", clientMAC, ack(dhcpv4.WithYourIP(ip))); err == nil {
			t.Errorf("%v gives %+v", ip, l)
		}
	}
}

// FuzzAck: whatever a server sends is refused or usable.
func FuzzAck(f *testing.F) {
	m, err := dhcpv4.New(dhcpv4.WithYourIP(net.IPv4(10, 5, 0, 7)), dhcpv4.WithRouter(serverIP), dhcpv4.WithNetmask(net.CIDRMask(24, 32)), dhcpv4.WithDNS(serverIP))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(m.ToBytes())
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := dhcpv4.FromBytes(raw)
		if err != nil {
			return
		}
		if l, err := parse("eth0", clientMAC, m); err == nil {
			if ones, bits := l.Address.Mask.Size(); bits != 32 || ones == 0 {
				t.Errorf("mask %v", l.Address.Mask)
			}
		}
	})
}

// Announcing is what firmware does, so that the head opens a new boot; another
// address than the one in use is an error.
func TestAnnounce(t *testing.T) {
	cable(t)
	var firmware atomic.Int32
	serve(t, 0, func(reply *dhcpv4.DHCPv4) {
		if reply.MessageType() == dhcpv4.MessageTypeAck && classes.Load() == "iPXE" {
			firmware.Add(1)
		}
	})
	l := up(t, clientMAC)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if firmware.Load() != 0 {
		t.Error("the agent's own request passes for firmware's")
	}
	try(t, l.Announce(ctx))
	if firmware.Load() == 0 {
		t.Error("the announcement does not pass for firmware's")
	}
	l.Address.IP = net.IPv4(10, 5, 0, 8)
	if err := l.Announce(ctx); err == nil {
		t.Error("another address was taken for the same")
	}
}
