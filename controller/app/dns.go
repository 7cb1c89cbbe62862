package app

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"muster/controller/boot"
	"muster/controller/dns"
	"muster/shared/object"
	"muster/shared/service"
)

const dnsPort = 53

// dnsParts is the DNS server, where one is configured.
func (h *Head) dnsParts() []service.Part {
	if h.cfg.DNS == "" {
		return nil
	}
	c := dns.Config{Addr: h.cfg.DNS, Objects: h.reg, Log: h.log, Upstreams: (&resolvConf{path: "/etc/resolv.conf"}).servers,
		Self: func() dns.Host {
			return dns.Host{Name: h.name, Addrs: slices.DeleteFunc(h.addresses(), netip.Addr.IsLoopback)}
		},
	}
	if h.cfg.DNSUpstreams == noUpstreams {
		c.Upstreams = nil
	} else if ups, err := h.cfg.upstreams(); err == nil && len(ups) > 0 { // checked when it was read
		c.Upstreams = func() []netip.AddrPort { return ups }
	}
	return []service.Part{dns.New(c).Part()}
}

// resolvers gives the DNS servers that machines in a network are told to ask:
// this head, where it answers for them on the usual port.
func (d *directory) resolvers(network netip.Prefix) []netip.Addr {
	host, port, err := net.SplitHostPort(d.dns)
	if err != nil || port != strconv.Itoa(dnsPort) || !d.boot.Addr.IsValid() {
		return nil
	}
	at, err := netip.ParseAddr(host)
	everywhere := host == "" || err == nil && at == netip.IPv4Unspecified()
	for _, p := range d.boot.OnLink {
		if p.Addr() == at || everywhere && network.Contains(p.Addr()) {
			return []netip.Addr{p.Addr()}
		}
	}
	if everywhere { // through a router
		return []netip.Addr{d.boot.Addr}
	}
	return nil
}

// hostMachine is what DHCP knows of a hostname with a MAC.
func hostMachine(o *object.Hostname) boot.Machine {
	m := boot.Machine{UID: o.UID, Name: o.Name, Domain: o.Domain, NotBooted: true}
	m.Hostname, _, _ = strings.Cut(o.Name, ".")
	m.MAC, _ = net.ParseMAC(o.MAC)
	if a, err := netip.ParseAddr(o.IP); err == nil && a.Is4() {
		m.IP = a
	}
	return m
}

// noUpstreams is how the configuration says that no other names are looked up.
const noUpstreams = "none"

// upstreams reads the configured resolvers; none means those of the system.
func (c *Config) upstreams() ([]netip.AddrPort, error) {
	var out []netip.AddrPort
	if c.DNSUpstreams == noUpstreams {
		return nil, nil
	}
	for _, word := range strings.FieldsFunc(c.DNSUpstreams, func(r rune) bool { return r == ',' || r == ' ' }) {
		at, err := netip.ParseAddrPort(word)
		if err != nil {
			a, err := netip.ParseAddr(word)
			if err != nil {
				return nil, fmt.Errorf("--dns-upstreams: %q is neither an address nor one with a port", word)
			}
			at = netip.AddrPortFrom(a, dnsPort)
		}
		out = append(out, netip.AddrPortFrom(at.Addr().Unmap(), at.Port()))
	}
	return out, nil
}

// resolvConf reads the system's resolvers. DHCP clients of the head rewrite
// the file while the head runs.
type resolvConf struct {
	path string

	mu      sync.Mutex
	checked time.Time // the file's state was looked at
	changed time.Time // the state that found has
	found   []netip.AddrPort
}

const (
	resolvCheck = 5 * time.Second
	maxResolv   = 8 // resolvers
)

func (r *resolvConf) servers() []netip.AddrPort {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.checked) < resolvCheck {
		return r.found
	}
	r.checked = time.Now()
	info, err := os.Stat(r.path)
	if err != nil {
		r.found = nil
		return nil
	}
	if !info.ModTime().Equal(r.changed) {
		if found, err := readResolvConf(r.path); err == nil {
			r.changed, r.found = info.ModTime(), found
		}
	}
	return r.found
}

func readResolvConf(path string) ([]netip.AddrPort, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []netip.AddrPort
	for lines := bufio.NewScanner(f); lines.Scan() && len(out) < maxResolv; {
		words := strings.Fields(lines.Text())
		if len(words) < 2 || words[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(words[1]); err == nil {
			out = append(out, netip.AddrPortFrom(a.Unmap(), dnsPort))
		}
	}
	return out, nil
}
