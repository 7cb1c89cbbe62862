package dns

import (
	"net"
	"net/netip"
)

// Address is where it listens, once it does.
func (s *Server) Address() netip.AddrPort {
	return s.tcp[0].Addr().(*net.TCPAddr).AddrPort()
}
