package api

import (
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"strconv"

	"muster/shared/fault"
)

var hostPattern = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?$`)

// Host gives the name or address, and the port, by which the client reached
// this head, for answers that hold URLs. A host that is neither is refused:
// what a client sends there ends up in scripts and configuration files. The
// port is "" where it is the scheme's own.
func Host(r *http.Request) (host, port string, err error) {
	host, port, err = net.SplitHostPort(r.Host)
	if err != nil { // without a port
		host, port = r.Host, ""
		if n := len(host); n > 2 && host[0] == '[' && host[n-1] == ']' {
			host = host[1 : n-1]
		}
	}
	if port != "" {
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return "", "", badHost(r)
		}
	}
	if a, err := netip.ParseAddr(host); err == nil && a.Zone() == "" {
		return a.String(), port, nil
	}
	if !hostPattern.MatchString(host) {
		return "", "", badHost(r)
	}
	return host, port, nil
}

func badHost(r *http.Request) error {
	return fault.Invalidf("The Host header %q is neither a host name nor an address.", r.Host)
}

// HostPort writes host and port as a URL has them; port may be "".
func HostPort(host, port string) string {
	if port != "" {
		return net.JoinHostPort(host, port)
	}
	if a, err := netip.ParseAddr(host); err == nil && a.Is6() {
		return "[" + host + "]"
	}
	return host
}
