// Package dns answers DNS queries: names and addresses of nodes, heads and
// hostname records from the registry, everything else by asking others.
//
// The registry's change feed drives it: each change is turned into packed
// records once, and a query is answered by copying them. Queries take no lock.
//
// Names are answered short and in the domain of their network. For the
// networks' domains and the reverse zones of their prefixes this server is the
// authority: what it does not know there does not exist. Only the cluster's own
// networks and this host get other names looked up for them. Of a name with
// several addresses those in the asker's network come first. Zones are not
// transferred, and ANY is answered by one record that says nothing (RFC 8482).
//
// It must not write to the registry, and knows nothing of DHCP: who is told to
// ask here is controller/boot's.
package dns

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"iter"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"muster/controller/registry"
	"muster/shared/kind"
	"muster/shared/service"
)

const nameServer = dns.TypeNS

// Objects is what the package needs of the registry.
type Objects interface {
	Look() kind.Look
	All(kindName string) []kind.Object
	Changes(ctx context.Context, after uint64) iter.Seq2[registry.Change, error]
	Revision() uint64
	Wait(ctx context.Context, revision uint64) error
}

// Host is a head: its name, and the addresses at which others reach it. Nodes
// get those of all heads that are registered, and this one's in any case.
type Host struct {
	Name  string
	Addrs []netip.Addr
}

// Config is what a server needs.
type Config struct {
	Addr    string // to listen on, by UDP and TCP: "0.0.0.0:53"; ":53" is IPv6 as well
	Objects Objects
	// Self gives this head. It is asked again when networks or heads change.
	Self func() Host
	// Upstreams gives the resolvers for all other names; without any they are
	// refused. It may be called often, and must be quick.
	Upstreams func() []netip.AddrPort
	Log       *slog.Logger
	Published func(revision uint64) // called when answers have followed the registry to a revision; may be nil
}

// Server is one DNS server.
type Server struct {
	Config
	zone    *zone
	site    atomic.Pointer[site]
	forward *forwarder // nil: other names are not looked up
	limit   limiter
	udp     []*socket
	tcp     []*net.TCPListener
}

// New makes a server; nothing is opened yet.
func New(c Config) *Server {
	s := &Server{Config: c, zone: newZone(), limit: limiter{seed: maphash.MakeSeed()}}
	if c.Upstreams != nil {
		s.forward = newForwarder(s.upstreams)
	}
	return s
}

// Part gives the server to a service group.
func (s *Server) Part() service.Part {
	return service.Part{Name: "dns", Doc: "Answers for nodes, heads and host names, and forwards the rest.", Stage: service.Front, Listen: s.listen, Run: s.run}
}

// maxReaders bounds the sockets that share one address: beyond these the
// kernel's own work is what takes the time.
const maxReaders = 8

// listen opens the ports. TCP comes first: unlike the UDP sockets, which share
// a port among themselves, it cannot share one with another DNS server of ours.
func (s *Server) listen(ctx context.Context) error {
	s.udp, s.tcp = nil, nil // what an earlier run left is closed
	addr, err := net.ResolveUDPAddr("udp", s.Addr)
	if err != nil {
		return fmt.Errorf("the address %q: %w", s.Addr, err)
	}
	families := []string{"4"}
	switch {
	case addr.IP == nil:
		families = []string{"4", "6"}
	case addr.IP.To4() == nil:
		families = []string{"6"}
	}
	for _, family := range families {
		if err := s.listenOn(ctx, family, addr); err != nil {
			s.close()
			return fmt.Errorf("cannot listen on %s; another DNS server may be there (`ss -lnp sport = :%d`): %w", s.Addr, addr.Port, err)
		}
	}
	return nil
}

func (s *Server) listenOn(ctx context.Context, family string, addr *net.UDPAddr) error {
	host := ""
	if addr.IP != nil {
		host = addr.IP.String()
	}
	tcp, err := (&net.ListenConfig{}).Listen(ctx, "tcp"+family, net.JoinHostPort(host, fmt.Sprint(addr.Port)))
	if err != nil {
		return err
	}
	s.tcp = append(s.tcp, tcp.(*net.TCPListener))
	addr.Port = tcp.Addr().(*net.TCPAddr).Port // chosen by now, where 0 was asked for
	for range min(runtime.GOMAXPROCS(0), maxReaders) {
		socket, err := openUDP(ctx, family, host, addr.Port)
		if err != nil {
			return err
		}
		s.udp = append(s.udp, socket)
	}
	return nil
}

func (s *Server) close() {
	for _, c := range s.udp {
		c.conn.Close()
	}
	for _, l := range s.tcp {
		l.Close()
	}
}

func (s *Server) run(ctx context.Context) error {
	revision := s.Objects.Revision()
	s.load(revision)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, s.close)
	defer stop()
	var parts []func() error
	parts = append(parts, func() error { return s.follow(ctx, revision) })
	for _, c := range s.udp {
		parts = append(parts, func() error { return s.readUDP(ctx, c) })
	}
	streams := newStreams()
	for _, l := range s.tcp {
		parts = append(parts, func() error { return s.accept(ctx, l, streams) })
	}
	ended := make(chan error, len(parts))
	for _, part := range parts {
		go func() { ended <- part() }()
	}
	var first error
	for range parts { // the first to end ends the others
		err := <-ended
		if ctx.Err() == nil {
			first = errors.Join(err, errors.New("stopped"))
		}
		cancel()
	}
	streams.wait()
	if s.forward != nil {
		s.forward.wait()
	}
	return first
}

// upstreams leaves out this server itself, which would go round for ever.
func (s *Server) upstreams() []netip.AddrPort {
	var out []netip.AddrPort
	for _, up := range s.Upstreams() {
		if !s.itself(up) {
			out = append(out, up)
		}
	}
	return out
}

// itself says whether a query sent there comes back here.
func (s *Server) itself(up netip.AddrPort) bool {
	for _, l := range s.tcp {
		at := l.Addr().(*net.TCPAddr).AddrPort()
		if at.Port() == up.Port() && (at.Addr().Unmap() == up.Addr() || at.Addr().IsUnspecified() && s.own(up.Addr())) {
			return true
		}
	}
	return false
}

// own says whether an address is this host's.
func (s *Server) own(a netip.Addr) bool {
	if a.IsLoopback() || a.IsUnspecified() {
		return true
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, o := range addrs {
		if p, err := netip.ParsePrefix(o.String()); err == nil && p.Addr() == a.WithZone("") {
			return true
		}
	}
	return false
}

// serve answers one packet. answer is nil for none; later is true where the
// answer takes asking others, which serveForward then does.
func (s *Server) serve(q *query, raw, out []byte, from asker, udp bool) (answer []byte, later bool) {
	rcode := q.parse(raw, udp)
	if rcode == silent {
		return nil, false
	}
	var r reply
	r.begin(out, q)
	r.rcode = rcode
	if rcode == dns.RcodeSuccess && s.decide(&r, q, from, s.site.Load()) {
		key := keyOf(q)
		if found := s.forward.cache.get(key, time.Now()); found != nil {
			found.write(&r, q, time.Now())
			return r.finish(q), false
		}
		return nil, true
	}
	return r.finish(q), false
}

// serveForward asks others and answers.
func (s *Server) serveForward(ctx context.Context, raw []byte, from asker, udp bool) []byte {
	var q query
	if q.parse(raw, udp) != dns.RcodeSuccess {
		return nil
	}
	var r reply
	r.begin(nil, &q)
	r.available = true
	found, err := s.forward.resolve(ctx, keyOf(&q))
	if err != nil {
		s.Log.Debug("dns: no answer from elsewhere", "name", printable(q.name()), "error", err)
		r.rcode = dns.RcodeServerFailure
	} else {
		found.write(&r, &q, time.Now())
	}
	return r.finish(&q)
}

// printable is a name for the log.
func printable(wire []byte) string {
	name, _, err := dns.UnpackDomainName(wire, 0)
	if err != nil {
		return "?"
	}
	return name
}
