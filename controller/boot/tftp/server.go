// Package tftp serves the iPXE binaries to firmware by TFTP, read-only
// (RFC 1350, with the options of RFC 2347, 2348, 2349 and 7440).
//
// It has its own sender, because github.com/pin/tftp has no windowsize and
// makes a socket and 128 KiB of buffers for every request before it asks
// anybody. It must serve nothing but what boot.Dir opens.
package tftp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"muster/controller/boot"
	"muster/shared/service"
)

const (
	maxTransfers = 256 // at once
	maxPerAddr   = 8   // of them for one address
)

// Config is what a server needs. All fields are required.
type Config struct {
	Addr     netip.AddrPort // the head's address on the boot interface, port 69
	Programs boot.Dir
	Log      *slog.Logger
}

// Server serves one address.
type Server struct {
	Config
	conn *net.UDPConn

	mu     sync.Mutex
	active map[netip.AddrPort]bool // transfers, by the client's address and port
	said   map[string]bool         // complaints that were logged since
	since  time.Time
}

// New makes a server; nothing is opened yet.
func New(c Config) *Server {
	return &Server{Config: c, active: map[netip.AddrPort]bool{}}
}

// Part gives the server to a service group.
func (s *Server) Part() service.Part {
	return service.Part{Name: "tftp", Doc: "Serves boot programs to firmware.", Stage: service.Front, Listen: s.listen, Run: s.run}
}

func (s *Server) listen(context.Context) error {
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(s.Addr))
	if errors.Is(err, unix.EADDRINUSE) {
		err = fmt.Errorf("UDP %s is taken: stop the other TFTP server, or see `ss -lunp`: %w", s.Addr, err)
	}
	s.conn = c
	return err
}

func (s *Server) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { s.conn.Close() })
	defer stop()
	var transfers sync.WaitGroup
	defer transfers.Wait()
	buf := make([]byte, maxRequest+1)
	for {
		n, from, err := s.conn.ReadFromUDPAddrPort(buf)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil:
			s.Log.Debug("tftp: receive", "error", err)
			select { // never a tight loop
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		r, err := parse(buf[:n])
		if err != nil {
			if text := refusal(err); text != nil {
				s.conn.WriteToUDPAddrPort(text, from)
			}
			s.complain(ctx, from, err)
			continue
		}
		if !s.begin(from) {
			continue // it repeats itself, or asks too much: it will try again
		}
		transfers.Go(func() {
			defer s.end(from)
			s.complain(ctx, from, s.transfer(ctx, r, from))
		})
	}
}

// begin takes a place for a transfer to this client, if there is one.
func (s *Server) begin(client netip.AddrPort) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.active) >= maxTransfers || s.active[client] {
		return false
	}
	same := 0
	for c := range s.active {
		if c.Addr() == client.Addr() {
			same++
		}
	}
	if same >= maxPerAddr {
		return false
	}
	s.active[client] = true
	return true
}

func (s *Server) end(client netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.active, client)
}

// complain logs why a client did not get its file, the same once a minute.
func (s *Server) complain(ctx context.Context, client netip.AddrPort, err error) {
	if err != nil && !errors.Is(err, errProbe) && !errors.Is(err, errNoRequest) && ctx.Err() == nil && s.first(client.Addr().String()+err.Error()) {
		s.Log.Warn("tftp: "+err.Error(), "client", client)
	}
}

// transfer sends the file from a port of its own, or an error in its place.
func (s *Server) transfer(ctx context.Context, r *request, client netip.AddrPort) error {
	conn, err := net.DialUDP("udp4",
		net.UDPAddrFromAddrPort(netip.AddrPortFrom(s.Addr.Addr(), 0)), net.UDPAddrFromAddrPort(client))
	if err != nil {
		return err
	}
	defer conn.Close()
	f, size, err := s.Programs.Open(r.file)
	if err != nil {
		conn.Write(refusal(err))
		return err
	}
	defer f.Close()
	started := time.Now()
	t := transfer{request: *r, conn: conn, file: f, size: size}
	if err := t.run(ctx); err != nil {
		return fmt.Errorf("%s: %w", r.file, err)
	}
	s.Log.Debug("tftp: sent", "file", r.file, "client", client, "bytes", size, "took", time.Since(started))
	return nil
}

// first says whether a complaint was not logged within this minute, in which
// there is room for a hundred.
func (s *Server) first(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now(); now.Sub(s.since) > time.Minute {
		s.since, s.said = now, map[string]bool{}
	}
	if s.said[text] || len(s.said) >= 100 {
		return false
	}
	s.said[text] = true
	return true
}
