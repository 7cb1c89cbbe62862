package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Bounds on connections (RFC 7766).
const (
	maxStreams        = 512
	maxStreamsPerPeer = 32
	idleTime          = 10 * time.Second
	writeTime         = 5 * time.Second
)

// streams counts connections.
type streams struct {
	mu   sync.Mutex
	all  int
	by   map[netip.Addr]int
	done sync.WaitGroup
}

func newStreams() *streams { return &streams{by: map[netip.Addr]int{}} }

func (s *streams) enter(a netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all >= maxStreams || s.by[a] >= maxStreamsPerPeer {
		return false
	}
	s.all++
	s.by[a]++
	return true
}

func (s *streams) leave(a netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all--
	if s.by[a]--; s.by[a] == 0 {
		delete(s.by, a)
	}
}

func (s *streams) wait() { s.done.Wait() }

// accept serves connections until the listener closes.
func (s *Server) accept(ctx context.Context, l *net.TCPListener, open *streams) error {
	for {
		c, err := l.AcceptTCP()
		switch {
		case ctx.Err() != nil:
			if c != nil {
				c.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil: // too many open files, or the peer has gone
			s.Log.Debug("dns: accept", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		from := s.asker(c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr())
		if !s.allow(from) || !open.enter(from.addr) {
			c.Close()
			continue
		}
		open.done.Go(func() {
			defer open.leave(from.addr)
			defer c.Close()
			stop := context.AfterFunc(ctx, func() { c.Close() })
			defer stop()
			s.stream(ctx, c, from)
		})
	}
}

// stream answers the queries of one connection, one after the other.
func (s *Server) stream(ctx context.Context, c net.Conn, from asker) {
	var q query
	var out []byte
	in := make([]byte, maxQuery)
	for {
		c.SetReadDeadline(time.Now().Add(idleTime))
		var size [2]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		n := int(binary.BigEndian.Uint16(size[:]))
		if n > maxQuery {
			return
		}
		if _, err := io.ReadFull(c, in[:n]); err != nil || !s.allow(from) {
			return
		}
		answer, later := s.serve(&q, in[:n], out, from, false)
		if later && !s.forward.run(from.addr, func() { answer = s.serveForward(ctx, in[:n], from, false) }) {
			answer = overloaded(in[:n], false)
		}
		if answer == nil {
			return
		}
		out = answer
		c.SetWriteDeadline(time.Now().Add(writeTime))
		whole := net.Buffers{binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer}
		if _, err := whole.WriteTo(c); err != nil {
			return
		}
	}
}
