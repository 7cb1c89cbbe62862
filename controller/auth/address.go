package auth

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"muster/controller/api"
)

// maxHops bounds how many entries of X-Forwarded-For are looked at.
const maxHops = 16

// plain unmaps IPv4-in-IPv6 and drops the zone, so that one address has one form.
func plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// clientAddr is where the request comes from: the peer, or what trusted
// proxies say they forward for. Something unreadable from a proxy makes the
// address the zero one, which is nobody's: never the proxy's own, which may
// be that of a head.
func (s *Service) clientAddr(r *http.Request) netip.Addr {
	addr := api.RemoteAddr(r)
	if !s.trusted(addr) {
		return addr
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	if len(hops) == 1 && strings.TrimSpace(hops[0]) == "" {
		return addr
	}
	for i, hop := range slices.Backward(hops) {
		a, err := netip.ParseAddr(strings.TrimSpace(hop))
		if err != nil || len(hops)-i > maxHops {
			return netip.Addr{}
		}
		if addr = plain(a); !s.trusted(addr) {
			break
		}
	}
	return addr
}

func (s *Service) trusted(a netip.Addr) bool {
	return slices.ContainsFunc(s.cfg.TrustedProxies, func(p netip.Prefix) bool { return p.Contains(a) })
}

// OwnAddress says whether addr is one of this machine's own. Of the loopback
// network only 127.0.0.1 and ::1 are: many nodes may be simulated on the rest.
func OwnAddress(addr netip.Addr) bool {
	addr = plain(addr)
	if addr.IsLoopback() {
		return addr == netip.AddrFrom4([4]byte{127, 0, 0, 1}) || addr == netip.IPv6Loopback()
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	return slices.ContainsFunc(own, func(a net.Addr) bool {
		n, ok := a.(*net.IPNet)
		if !ok {
			return false
		}
		ip, ok := netip.AddrFromSlice(n.IP)
		return ok && plain(ip) == addr
	})
}
