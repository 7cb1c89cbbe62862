// Package ra answers IPv6 router solicitations on the boot interface with "no
// router here".
//
// iPXE configures IPv6 and IPv4 together and waits 16 seconds for a router to
// answer; an advertisement with a lifetime of zero ends the wait (RFC 4861
// §6.2.3: not a default router). It must never advertise a prefix, a router, a
// DNS server or DHCPv6: muster boots over IPv4, and a site's IPv6 is the
// site's.
package ra

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/mdlayher/ndp"
	"golang.org/x/net/ipv6"
	"golang.org/x/time/rate"

	"muster/shared/service"
)

// retryAfter is the pause before another attempt to open the socket: at boot
// an interface has no usable link-local address for a second or two.
const retryAfter = 2 * time.Second

var allRouters = netip.MustParseAddr("ff02::2")

// Responder answers on one interface.
type Responder struct {
	Interface string
	Log       *slog.Logger
}

// Part gives the responder to a service group. Without IPv6 it does nothing:
// machines then boot more slowly, and that is all.
func (r Responder) Part() service.Part {
	return service.Part{Name: "router-advertisements", Doc: "Answers IPv6 router solicitations on the boot interface, so that firmware need not wait.", Stage: service.Front, Run: r.run}
}

func (r Responder) run(ctx context.Context) error {
	told := false
	for ctx.Err() == nil {
		err := r.serve(ctx)
		if ctx.Err() != nil {
			break
		}
		if !told {
			r.Log.Info("no IPv6 router advertisements for now; iPXE will wait 16 s longer", "interface", r.Interface, "reason", err)
			told = true
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryAfter):
		}
	}
	return nil
}

// serve answers until ctx ends or the socket fails.
func (r Responder) serve(ctx context.Context) error {
	conn, ifi, err := r.open()
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	r.Log.Debug("answering router solicitations", "interface", r.Interface)
	answers := rate.NewLimiter(100, 200)
	for {
		m, cm, from, err := conn.ReadFrom()
		switch {
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil:
			// Malformed, or the link is down; the limiter keeps this slow.
			if err := answers.Wait(ctx); err != nil {
				return err
			}
			continue
		}
		_, solicits := m.(*ndp.RouterSolicitation)
		if !solicits || cm == nil || cm.IfIndex != ifi.Index || cm.HopLimit != ndp.HopLimit || !answers.Allow() {
			continue
		}
		if from.IsUnspecified() {
			from = netip.IPv6LinkLocalAllNodes()
		}
		if err := conn.WriteTo(advertisement(ifi), nil, from); err != nil {
			r.Log.Debug("router advertisement not sent", "to", from, "error", err)
		}
	}
}

func (r Responder) open() (*ndp.Conn, *net.Interface, error) {
	ifi, err := net.InterfaceByName(r.Interface)
	if err != nil {
		return nil, nil, err
	}
	conn, _, err := ndp.Listen(ifi, ndp.LinkLocal)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", r.Interface, err)
	}
	var filter ipv6.ICMPFilter
	filter.SetAll(true)
	filter.Accept(ipv6.ICMPTypeRouterSolicitation)
	err = errors.Join(
		conn.SetICMPFilter(&filter),
		conn.SetControlMessage(ipv6.FlagHopLimit|ipv6.FlagInterface, true),
		conn.JoinGroup(allRouters),
	)
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	return conn, ifi, nil
}

// advertisement says: there is a node here, it routes nothing.
func advertisement(ifi *net.Interface) *ndp.RouterAdvertisement {
	return &ndp.RouterAdvertisement{
		RouterSelectionPreference: ndp.Medium,
		Options:                   []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Source, Addr: ifi.HardwareAddr}},
	}
}
