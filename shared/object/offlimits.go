package object

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"muster/shared/fault"
	"muster/shared/kind"
)

// OffLimits says whether an admin who may not do everything must not make the
// head connect to an address: what comes from a head may do what nobody else
// may, and what listens on loopback or for one link only was never meant for
// other people. heads says whether an address is one of a head.
func OffLimits(a netip.Addr, heads func(addr string) bool) bool {
	a = a.Unmap().WithZone("")
	return !a.IsValid() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsMulticast() || a.IsUnspecified() || heads(a.String())
}

// Literal says whether a URL's host means the same to everybody: an address, or
// this machine itself. What any other name means is known when it is looked up.
// The shortened and octal forms that the C library takes for addresses count.
func Literal(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	last := host[strings.LastIndexByte(host, '.')+1:]
	return last == "localhost" || last != "" && strings.Trim(last, "0123456789") == "" || strings.HasPrefix(last, "0x")
}

// guardHost refuses a URL whose host is, as it is written, off limits to its
// author.
func guardHost(tx kind.Tx, field, host string) error {
	if tx.By().Itself() || slices.Contains(tx.By().Roles, RoleFullAdmin) || !Literal(host) {
		return nil
	}
	if a, err := netip.ParseAddr(host); err == nil && !OffLimits(a, tx.Taken) {
		return nil
	}
	return fault.New(fault.Forbidden, "%s: %.80q is an address of the head itself or of one link, where only an admin with %s may send the head.", field, host, RoleFullAdmin)
}

// AttrIgnition says where a node's Ignition configuration is: a URL, a file of
// a gitrepo as gitrepo:NAME/PATH or as the URL under which this head shows it,
// or a file of the kickstart directory.
const AttrIgnition = "_ignition"

// guardIgnition refuses a URL that its author may not make the head ask. The
// head's own files are not asked for over the network.
func guardIgnition(tx kind.Tx, now, was kind.Values) error {
	where := fmt.Sprint(now[AttrIgnition])
	if now[AttrIgnition] == nil || where == fmt.Sprint(was[AttrIgnition]) {
		return nil
	}
	u, err := url.Parse(where)
	if err != nil || u.Host == "" || InGitrepo(u) {
		return nil
	}
	return guardHost(tx, AttrIgnition, u.Hostname())
}

// InGitrepo says whether a URL, where it is one of a head, is that of a file of
// a gitrepo.
func InGitrepo(u *url.URL) bool { return strings.HasPrefix(u.Path, "/api/v1/gitrepo/") }
