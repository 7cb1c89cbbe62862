// Package floor is the least that boots a machine from the network: a DHCP,
// TFTP and HTTP server with fixed answers, and an initramfs of busybox that
// asks for an address and makes one HTTP call. What a boot through the head
// takes is measured against it.
//
// It is a yardstick, not a part of muster, and is never used to run one.
package floor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/server4"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/mdlayher/ndp"
	"github.com/pin/tftp/v3"
)

// Config is what the floor hands out.
type Config struct {
	Interface string
	Address   netip.Prefix // of the interface; clients get the addresses from .100
	Kernel    string       // file
	Initrd    string       // file, from Initramfs
	Image     string       // squashfs file, or empty
	Cmdline   string
	Firmware  string // directory of the distribution's iPXE binaries
}

// Event is one request that a machine made of the floor.
type Event struct {
	What string    `json:"what"` // dhcp, script, kernel, initrd, or a path below /mark/
	Time time.Time `json:"time"`
}

const httpPort = 8080

// URL is where the floor's HTTP server is.
func (c Config) URL() string { return fmt.Sprintf("http://%s:%d", c.Address.Addr(), httpPort) }

// Serve serves until ctx ends, writing an Event as a line of JSON for every
// request; the first line, "ready", says that it listens.
func Serve(ctx context.Context, c Config, events io.Writer) error {
	s := &server{Config: c, events: json.NewEncoder(events), leases: map[string]net.IP{}}
	iface, err := net.InterfaceByName(c.Interface)
	if err != nil {
		return err
	}
	dhcp, err := server4.NewServer(c.Interface, &net.UDPAddr{IP: net.IPv4zero, Port: dhcpv4.ServerPort}, s.dhcp)
	if err != nil {
		return fmt.Errorf("DHCP: %w", err)
	}
	defer dhcp.Close()
	files := tftp.NewServer(s.tftp, nil)
	udp, err := net.ListenPacket("udp4", c.Address.Addr().String()+":69")
	if err != nil {
		return fmt.Errorf("TFTP: %w", err)
	}
	defer udp.Close()
	tcp, err := net.Listen("tcp4", fmt.Sprintf("%s:%d", c.Address.Addr(), httpPort))
	if err != nil {
		return fmt.Errorf("HTTP: %w", err)
	}
	defer tcp.Close()
	router, err := advertise(iface)
	if err != nil {
		return fmt.Errorf("router advertisements: %w", err)
	}
	defer router.Close()

	ended := make(chan error, 3)
	go func() { ended <- dhcp.Serve() }()
	go func() { ended <- files.Serve(udp) }()
	go func() { ended <- http.Serve(tcp, s.http()) }()
	s.event("ready")
	select {
	case <-ctx.Done():
		return nil
	case err := <-ended:
		return errors.Join(errors.New("the floor ended by itself"), err)
	}
}

type server struct {
	Config
	mu     sync.Mutex
	events *json.Encoder
	leases map[string]net.IP
}

func (s *server) event(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.events.Encode(Event{What: what, Time: time.Now()}) // who does not listen has ended
}

// lease is the address of a MAC, always the same one.
func (s *server) lease(mac net.HardwareAddr) net.IP {
	s.mu.Lock()
	defer s.mu.Unlock()
	ip, ok := s.leases[mac.String()]
	if !ok {
		base := s.Address.Addr().As4()
		ip = net.IPv4(base[0], base[1], base[2], byte(100+len(s.leases)))
		s.leases[mac.String()] = ip
	}
	return ip
}

// iPXE's own option, and in it the word that there is no proxy DHCP server to
// wait for, which saves two seconds.
const (
	optionIPXE  = 175
	noProxyDHCP = 176
)

func (s *server) dhcp(conn net.PacketConn, _ net.Addr, req *dhcpv4.DHCPv4) {
	s.event("dhcp")
	answer := dhcpv4.MessageTypeOffer
	if req.MessageType() == dhcpv4.MessageTypeRequest {
		answer = dhcpv4.MessageTypeAck
	}
	server := net.IP(s.Address.Addr().AsSlice())
	resp, err := dhcpv4.NewReplyFromRequest(req,
		dhcpv4.WithMessageType(answer),
		dhcpv4.WithYourIP(s.lease(req.ClientHWAddr)),
		dhcpv4.WithServerIP(server),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(server)),
		dhcpv4.WithNetmask(net.CIDRMask(s.Address.Bits(), 32)),
		dhcpv4.WithLeaseTime(3600),
		dhcpv4.WithGeneric(dhcpv4.GenericOptionCode(optionIPXE), []byte{noProxyDHCP, 1, 1}))
	if err != nil {
		return
	}
	if file := s.bootFile(req); file != "" {
		resp.BootFileName = file
		resp.UpdateOption(dhcpv4.OptBootFileName(file))
	}
	// It has no address yet to send to.
	_, _ = conn.WriteTo(resp.ToBytes(), &net.UDPAddr{IP: net.IPv4bcast, Port: dhcpv4.ClientPort})
}

func (s *server) bootFile(req *dhcpv4.DHCPv4) string {
	for _, class := range req.UserClass() {
		if class == "iPXE" {
			return s.URL() + "/script"
		}
	}
	arch := req.ClientArch()
	if len(arch) == 0 {
		return ""
	}
	if arch[0] == iana.INTEL_X86PC {
		return "undionly.kpxe"
	}
	return "snponly.efi"
}

func (s *server) tftp(name string, to io.ReaderFrom) error {
	f, err := os.Open(filepath.Join(s.Firmware, filepath.Base(name)))
	if err != nil {
		return err
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil {
		to.(tftp.OutgoingTransfer).SetSize(info.Size())
	}
	_, err = to.ReadFrom(f)
	return err
}

func (s *server) http() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /script", func(w http.ResponseWriter, _ *http.Request) {
		s.event("script")
		fmt.Fprintf(w, "#!ipxe\nkernel %[1]s/kernel initrd=initrd %[2]s\ninitrd --name initrd %[1]s/initrd\nboot\n", s.URL(), s.Cmdline)
	})
	for path, file := range map[string]string{"kernel": s.Kernel, "initrd": s.Initrd, "image": s.Image} {
		mux.HandleFunc("GET /"+path, func(w http.ResponseWriter, r *http.Request) {
			s.event(path)
			http.ServeFile(w, r, file)
		})
	}
	mux.HandleFunc("GET /mark/{what}", func(_ http.ResponseWriter, r *http.Request) { s.event(r.PathValue("what")) })
	return mux
}

// advertise answers router solicitations on the interface, in which iPXE would
// otherwise wait for IPv6 for 16 s. The lifetime of 0 says: no router here.
func advertise(iface *net.Interface) (io.Closer, error) {
	conn, _, err := ndp.Listen(iface, ndp.LinkLocal)
	if err != nil {
		return nil, err
	}
	if err := conn.JoinGroup(netip.MustParseAddr("ff02::2")); err != nil {
		conn.Close()
		return nil, err
	}
	go func() {
		for {
			msg, _, _, err := conn.ReadFrom()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if _, ok := msg.(*ndp.RouterSolicitation); ok {
				_ = conn.WriteTo(&ndp.RouterAdvertisement{}, nil, netip.MustParseAddr("ff02::1"))
			}
		}
	}()
	return conn, nil
}
