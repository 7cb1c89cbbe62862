package shell

import (
	"context"
	"fmt"
	"strings"

	"github.com/vishvananda/netlink"
)

// ip is ip [addr|link|route]: it prints, and changes nothing.
func ip(_ context.Context, e env, args []string) error {
	what := "addr"
	if len(args) > 1 {
		what = args[1]
	}
	switch {
	case strings.HasPrefix("route", what):
		return routes(e)
	case strings.HasPrefix("addr", what), strings.HasPrefix("link", what), what == "a":
		return links(e)
	}
	return fmt.Errorf("%q is not one of addr, link and route", what)
}

func links(e env) error {
	all, err := netlink.LinkList()
	if err != nil {
		return err
	}
	for _, l := range all {
		a := l.Attrs()
		fmt.Fprintf(e.Stdout, "%d: %s: <%s> mtu %d state %s %s\n", a.Index, a.Name, strings.ToUpper(a.Flags.String()), a.MTU, a.OperState, a.HardwareAddr)
		addresses, err := netlink.AddrList(l, netlink.FAMILY_ALL)
		if err != nil {
			return err
		}
		for _, addr := range addresses {
			fmt.Fprintf(e.Stdout, "    inet %s\n", addr.IPNet)
		}
	}
	return nil
}

func routes(e env) error {
	all, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return err
	}
	for _, r := range all {
		to := "default"
		if r.Dst != nil && r.Dst.String() != "0.0.0.0/0" {
			to = r.Dst.String()
		}
		if r.Gw != nil {
			to += " via " + r.Gw.String()
		}
		if l, err := netlink.LinkByIndex(r.LinkIndex); err == nil {
			to += " dev " + l.Attrs().Name
		}
		fmt.Fprintln(e.Stdout, to)
	}
	return nil
}
