package dns

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

const (
	batchSize   = 64      // packets taken from the kernel at once
	receiveSize = 4 << 20 // bytes that wait in the kernel in a burst, where it lets us
)

// socket is a UDP socket that moves packets in batches. Where it listens on
// all addresses, each packet's own comes with it and goes back with the answer:
// an answer from another address than was asked is none.
type socket struct {
	conn *net.UDPConn
	io   interface {
		ReadBatch(ms []ipv4.Message, flags int) (int, error)
		WriteBatch(ms []ipv4.Message, flags int) (int, error)
	}
	info int // bytes of control message per packet
	v6   bool
}

func openUDP(ctx context.Context, family, host string, port int) (*socket, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if cerr := c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
			if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveSize) != nil {
				_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, receiveSize) // as much as is allowed
			}
		}); cerr != nil {
			return cerr
		}
		return err
	}}
	pc, err := lc.ListenPacket(ctx, "udp"+family, net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return nil, err
	}
	s := &socket{conn: pc.(*net.UDPConn), v6: family == "6"}
	if s.v6 {
		p := ipv6.NewPacketConn(pc)
		s.io = p
		if host == "" {
			s.info = len(ipv6.NewControlMessage(ipv6.FlagDst | ipv6.FlagInterface))
			err = p.SetControlMessage(ipv6.FlagDst|ipv6.FlagInterface, true)
		}
	} else {
		p := ipv4.NewPacketConn(pc)
		s.io = p
		if host == "" || net.ParseIP(host).IsUnspecified() {
			s.info = len(ipv4.NewControlMessage(ipv4.FlagDst | ipv4.FlagInterface))
			err = p.SetControlMessage(ipv4.FlagDst|ipv4.FlagInterface, true)
		}
	}
	if err != nil {
		pc.Close()
		return nil, err
	}
	return s, nil
}

// source turns a packet's control message into its answer's: from the same
// address, by whatever interface the way back is.
func (s *socket) source(m *ipv4.Message) []byte {
	if s.info == 0 || m.NN == 0 {
		return nil
	}
	if s.v6 {
		var cm ipv6.ControlMessage
		if cm.Parse(m.OOB[:m.NN]) != nil || cm.Dst == nil {
			return nil
		}
		back := ipv6.ControlMessage{Src: cm.Dst}
		if cm.Dst.IsLinkLocalUnicast() {
			back.IfIndex = cm.IfIndex
		}
		return back.Marshal()
	}
	var cm ipv4.ControlMessage
	if cm.Parse(m.OOB[:m.NN]) != nil || cm.Dst == nil {
		return nil
	}
	return (&ipv4.ControlMessage{Src: cm.Dst}).Marshal()
}

// readUDP answers what comes in on a socket until it closes.
func (s *Server) readUDP(ctx context.Context, c *socket) error {
	in, out := make([]ipv4.Message, batchSize), make([]ipv4.Message, batchSize)
	answers := make([][]byte, batchSize)
	for i := range in {
		in[i].Buffers = [][]byte{make([]byte, maxQuery+1)}
		in[i].OOB = make([]byte, c.info)
		out[i].Buffers = [][]byte{nil}
		answers[i] = make([]byte, 0, maxUDP+512)
	}
	var q query
	for {
		n, err := c.io.ReadBatch(in, 0)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil: // an ICMP error about an earlier answer, or no memory
			s.Log.Debug("dns: receive", "error", err)
			select { // never a tight loop
			case <-ctx.Done():
			case <-time.After(10 * time.Millisecond):
			}
			continue
		}
		ready := 0
		for i := range in[:n] {
			m := &in[i]
			peer, ok := m.Addr.(*net.UDPAddr)
			if !ok || m.N > maxQuery {
				continue
			}
			from := s.asker(peer.AddrPort().Addr())
			if !s.allow(from) {
				continue
			}
			answer, later := s.serve(&q, m.Buffers[0][:m.N], answers[ready], from, true)
			if later {
				s.later(ctx, c, m, from, peer)
			}
			if answer == nil {
				continue
			}
			answers[ready] = answer // where it has grown, that is kept
			o := &out[ready]
			o.Buffers[0], o.Addr, o.OOB = answer, peer, c.source(m)
			ready++
		}
		s.send(ctx, c, out[:ready])
	}
}

// send gives the answers to the kernel. One that cannot be sent is left out:
// its asker will ask again.
func (s *Server) send(ctx context.Context, c *socket, out []ipv4.Message) {
	for len(out) > 0 {
		n, err := c.io.WriteBatch(out, 0)
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			s.Log.Debug("dns: send", "error", err)
			n = max(n, 0) + 1
		}
		out = out[min(n, len(out)):]
	}
}

// later asks others in the background and then answers.
func (s *Server) later(ctx context.Context, c *socket, m *ipv4.Message, from asker, peer *net.UDPAddr) {
	raw := append([]byte(nil), m.Buffers[0][:m.N]...)
	source := c.source(m)
	send := func(answer []byte) {
		s.send(ctx, c, []ipv4.Message{{Buffers: [][]byte{answer}, Addr: peer, OOB: source}})
	}
	if !s.forward.begin(from.addr, func() {
		if answer := s.serveForward(ctx, raw, from, true); answer != nil {
			send(answer)
		}
	}) {
		send(overloaded(raw, true))
	}
}

// asker says what is to be known about an address.
func (s *Server) asker(a netip.Addr) asker {
	a = a.Unmap().WithZone("")
	return asker{a, s.site.Load().friend(a)}
}

// allow bounds what strangers get.
func (s *Server) allow(from asker) bool {
	return from.friend || s.limit.allow(from.addr, time.Now())
}
