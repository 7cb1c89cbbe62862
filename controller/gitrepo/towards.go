package gitrepo

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"muster/shared/fault"
	"muster/shared/object"
)

// lookupTime bounds looking up the name of a remote's host.
const lookupTime = 20 * time.Second

// redirected is what git says of a redirect that it must not follow.
var redirected = regexp.MustCompile(`returned error: 30[1278]`)

// towards gives the environment in which git reaches a remote. Who may not do
// everything must not send the head to itself: the name of his remote's host is
// looked up here, and git goes to the addresses that were found good and
// nowhere else, whatever the name means a moment later or an answer redirects to.
func (g *git) towards(ctx context.Context, m remote) ([]string, error) {
	if !m.confined {
		return m.env(), nil
	}
	addrs, err := g.lookup(ctx, m)
	if err != nil {
		return nil, err
	}
	host := object.GitHost(m.url)
	u, err := url.Parse(m.url)
	switch {
	case err != nil || !strings.Contains(m.url, "://"): // user@host:path
		return g.overSSH(m, host, addrs), nil
	case u.Scheme == "ssh":
		if port := u.Port(); port != "" && port != "22" {
			host = "[" + host + "]:" + port
		}
		return g.overSSH(m, host, addrs), nil
	case u.Scheme == "git":
		u.Host = net.JoinHostPort(addrs[0].String(), cmp.Or(u.Port(), "9418"))
		m.url = u.String()
		return m.env(), nil
	}
	config := [][2]string{{"http.followRedirects", "false"}}
	if len(addrs) > 0 && !object.Literal(host) {
		port := cmp.Or(u.Port(), map[string]string{"http": "80", "https": "443"}[u.Scheme])
		config = append(config, [2]string{"http.curloptResolve", host + ":" + port + ":" + joined(addrs)})
	}
	return m.env(config...), nil
}

func joined(addrs []netip.Addr) string {
	var out []string
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return strings.Join(out, ",")
}

// overSSH makes ssh go to an address, and know the host there by its name as
// it always did.
func (g *git) overSSH(m remote, name string, addrs []netip.Addr) []string {
	return append(m.env(), fmt.Sprintf("GIT_SSH_COMMAND=%s -o HostName=%s -o HostKeyAlias='%s'", g.ssh, addrs[0], name))
}

// lookup gives the addresses of a remote's host, all of them good; none where
// only a proxy knows the name, which then connects to it in the head's place.
func (g *git) lookup(ctx context.Context, m remote) ([]netip.Addr, error) {
	host := object.GitHost(m.url)
	if strings.HasSuffix(host, ".") {
		return nil, fault.Invalidf("%s: write the host's name without the dot at its end.", m.shown())
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil && ctx.Err() == nil && g.proxied() && strings.HasPrefix(m.url, "http") && !object.Literal(host) {
		return nil, nil
	}
	if err != nil {
		return nil, fault.New(fault.Upstream, "%s cannot be fetched: %w.", m.shown(), err)
	}
	for i, a := range addrs {
		if addrs[i] = a.Unmap(); object.OffLimits(a, g.heads) {
			return nil, fault.New(fault.Forbidden, "%s is at %s, an address of the head itself or of one link, where only an admin with %s may send the head: let one set the remote again.", m.shown(), a.Unmap(), object.RoleFullAdmin)
		}
	}
	return addrs, nil
}

// proxied says whether git reaches others by a proxy.
func (g *git) proxied() bool {
	for _, e := range g.env {
		name, value, _ := strings.Cut(e, "=")
		if value != "" && slices.Contains([]string{"http_proxy", "https_proxy", "all_proxy"}, strings.ToLower(name)) {
			return true
		}
	}
	return false
}
