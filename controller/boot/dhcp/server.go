// Package dhcp speaks DHCPv4 on one interface for boot.Plan: it parses, asks
// the plan, and sends what it says (RFC 2131; PXE 2.1 with proxyDHCP).
//
// It must not decide anything about machines. What is here is about packets:
// bounds on their number, refusing garbage, and where to send the answer.
package dhcp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"muster/controller/boot"
	"muster/shared/service"
	"muster/shared/wire"
)

const (
	workers = 8
	backlog = 1024 // packets waiting for a worker; more are dropped, clients repeat
	maxSize = 1500 // bytes; no client sends fragments
	admits  = 50   // new nodes a second, and four times that at once
	portDHC = 67   // servers and relays
	portPXE = 4011 // PXE boot servers, with proxyDHCP
	perLog  = time.Minute
)

// Config is what a server needs. All fields but BMC are required.
type Config struct {
	Interface string // served, and the only one
	Head      boot.Head
	Directory boot.Directory
	Journal   boot.Journal
	// BMC is told of requests that a BMC seems to have sent. It must return at once.
	BMC func(r boot.Request)
	Log *slog.Logger
}

// Server answers on one interface.
type Server struct {
	Config
	index  int
	conns  []*net.UDPConn
	queue  chan packet
	limit  limiter
	once   once
	twins  twins
	admits *rate.Limiter
	bad    atomic.Int64 // malformed packets since the last log line
	lost   atomic.Int64 // dropped for want of a worker
}

type packet struct {
	data       []byte
	from       netip.AddrPort
	conn       *net.UDPConn
	bootServer bool
}

// New makes a server; nothing is opened yet.
func New(c Config) *Server {
	return &Server{Config: c, admits: rate.NewLimiter(admits, 4*admits)}
}

// Part gives the server to a service group.
func (s *Server) Part() service.Part {
	return service.Part{Name: "dhcp", Doc: "Gives nodes their addresses and tells them what to boot.", Stage: service.Front, Listen: s.listen, Run: s.run}
}

// listen opens the ports, bound to the interface, so that a DHCP server on
// another one of the same machine is no conflict but one on this is.
func (s *Server) listen(ctx context.Context) error {
	ifi, err := net.InterfaceByName(s.Interface)
	if err != nil {
		return fmt.Errorf("boot interface %s: %w", s.Interface, err)
	}
	s.index = ifi.Index
	s.conns, s.queue = nil, make(chan packet, backlog) // what an earlier run left is closed
	ports := []int{portDHC}
	if s.Head.Proxy {
		ports = append(ports, portPXE)
	}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if cerr := c.Control(func(fd uintptr) {
			err = unix.SetsockoptString(int(fd), unix.SOL_SOCKET, unix.SO_BINDTODEVICE, s.Interface)
		}); cerr != nil {
			return cerr
		}
		return err
	}}
	for _, port := range ports {
		c, err := lc.ListenPacket(ctx, "udp4", fmt.Sprintf("0.0.0.0:%d", port))
		if err != nil {
			s.close()
			if errors.Is(err, unix.EADDRINUSE) {
				err = fmt.Errorf("UDP port %d on %s is taken: stop the other DHCP server there, or see `ss -lunp`: %w", port, s.Interface, err)
			}
			return err
		}
		s.conns = append(s.conns, c.(*net.UDPConn))
	}
	return nil
}

func (s *Server) close() {
	for _, c := range s.conns {
		c.Close()
	}
}

func (s *Server) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, s.close)
	defer stop()
	var readers, rest sync.WaitGroup
	errs := make(chan error, len(s.conns))
	for i, c := range s.conns {
		readers.Go(func() { errs <- s.receive(ctx, c, i == 1) })
	}
	for range workers {
		rest.Go(func() {
			for p := range s.queue {
				s.serve(ctx, p)
			}
		})
	}
	done := make(chan struct{})
	rest.Go(func() { s.report(done) })
	err := <-errs
	s.close()
	readers.Wait()
	close(s.queue)
	close(done)
	rest.Wait()
	return err
}

// receive queues packets until the socket closes.
func (s *Server) receive(ctx context.Context, c *net.UDPConn, bootServer bool) error {
	buf := make([]byte, maxSize+1)
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil: // an ICMP error, or the link is down for now
			s.Log.Debug("dhcp: receive", "error", err)
			select { // never a tight loop
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
			continue
		case n > maxSize:
			s.bad.Add(1)
			continue
		}
		select {
		case s.queue <- packet{append([]byte(nil), buf[:n]...), from, c, bootServer}:
		default:
			s.lost.Add(1)
		}
	}
}

// report logs what was dropped, at most once a minute.
func (s *Server) report(done <-chan struct{}) {
	tick := time.NewTicker(perLog)
	defer tick.Stop()
	for {
		if bad, lost := s.bad.Swap(0), s.lost.Swap(0); bad+lost > 0 {
			s.Log.Warn("dhcp: packets dropped", "malformed", bad, "too_many", lost, "interface", s.Interface)
		}
		select {
		case <-done:
			return
		case <-tick.C:
		}
	}
}

// serve answers one packet.
func (s *Server) serve(ctx context.Context, p packet) {
	q, err := dhcpv4.FromBytes(p.data)
	if err != nil {
		s.bad.Add(1)
		return
	}
	r := read(q, p.from, p.bootServer)
	if !s.limit.allow(r.MAC.String(), time.Now()) {
		s.lost.Add(1)
		return
	}
	a, m := s.plan(ctx, r)
	s.note(a, m, r)
	if a.Action != boot.DoOffer && a.Action != boot.DoAck && a.Action != boot.DoNak {
		return
	}
	out := write(q, a, s.Head.Addr)
	cm := &ipv4.ControlMessage{Src: s.Head.Addr.AsSlice(), IfIndex: s.index}
	if _, err := ipv4.NewPacketConn(p.conn).WriteTo(out, cm, net.UDPAddrFromAddrPort(a.To)); err != nil && ctx.Err() == nil {
		s.Log.Warn("dhcp: could not answer", "mac", r.MAC.String(), "to", a.To, "error", err)
	}
}

// plan finds the machine, admitting it where that is wanted, and asks Plan.
func (s *Server) plan(ctx context.Context, r boot.Request) (boot.Answer, *boot.Machine) {
	site := boot.Site{Head: s.Head, Networks: s.Directory.Networks(), Have: s.Head.Programs.Have}
	var m *boot.Machine
	if found, ok := s.Directory.ByMAC(r.MAC); ok {
		m = &found
	}
	if s.BMC != nil && (m == nil || m.NotBooted) && !r.Reply && r.MaybeBMC() {
		s.BMC(r)
	}
	a := boot.Plan(site, m, r)
	if a.Action == boot.DoAdmit {
		if !s.admits.Allow() {
			return boot.Answer{Reason: "too many new machines at once; it will ask again"}, nil
		}
		admitted, err := s.Directory.Admit(ctx, r.MAC, r.ArchName())
		if err != nil {
			if s.once.first(r.MAC.String()+err.Error(), time.Now()) {
				s.Log.Info("dhcp: unknown machine not admitted", "mac", r.MAC.String(), "firmware", r.ArchName(), "reason", err)
			}
			return boot.Answer{Reason: err.Error()}, nil
		}
		m = &admitted
		s.Log.Info("dhcp: new node", "node", m.Name, "mac", r.MAC.String(), "ip", m.IP)
		a = boot.Plan(site, m, r)
	}
	if id := r.Identity(); m != nil && id != "" && a.Action != boot.Ignore && r.Client() != boot.OS &&
		s.twins.check(r.MAC.String()+r.Client().String(), id, time.Now()) {
		text := fmt.Sprintf("two machines have the MAC %s; only the one that asked first is answered: give the other another MAC (identifier %x)", r.MAC, id)
		a = boot.Answer{Reason: text, Problem: text}
	}
	return a, m
}

// note writes down what came of a request.
func (s *Server) note(a boot.Answer, m *boot.Machine, r boot.Request) {
	if m == nil {
		s.Log.Debug("dhcp: ignored", "mac", r.MAC.String(), "reason", a.Reason)
		return
	}
	firmware := r.Client() != boot.OS
	switch {
	case a.Problem != "":
		if s.once.first(m.UID+a.Problem, time.Now()) {
			s.Log.Warn("dhcp: "+a.Problem, "node", m.Name, "mac", r.MAC.String(), "client", r.Client().String())
		}
		if !m.NotBooted && (firmware || a.Action == boot.Conflict) {
			s.Journal.Stamp(m.UID, wire.Step{Step: wire.StepDHCP, Error: a.Problem})
		}
	case a.Reason != "":
		s.Log.Debug("dhcp: "+a.Reason, "node", m.Name, "mac", r.MAC.String(), "client", r.Client().String())
	}
	if a.Boots.IsValid() {
		s.Journal.OpenBoot(m.UID, a.Boots)
		s.Journal.Stamp(m.UID, wire.Step{Step: wire.StepDHCP, Detail: fmt.Sprintf("%s, %s, %s", a.Boots, r.Client(), r.ArchName())})
	}
}
