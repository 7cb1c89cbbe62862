// Package network gives a booting machine its address: it finds the interface
// that the firmware booted from, waits for its link and asks by DHCP.
//
// Everything waits for the kernel's events, nothing sleeps. The DHCP identity
// is the MAC address, as firmware uses it, so that both get the same address.
// The package must not decide what a machine without a network does: it goes
// on trying until it is told to stop.
package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// patience is how long the interface that was booted from may take to appear
// and to get its link, until any other with a link is good enough.
const patience = 20 * time.Second

// Up brings up the network and returns the lease that is in use. When mac is
// nil, the first interface wins that gets an answer.
func Up(ctx context.Context, mac net.HardwareAddr, log *slog.Logger) (*Lease, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	updates := make(chan netlink.LinkUpdate, 64)
	err := netlink.LinkSubscribeWithOptions(updates, ctx.Done(), netlink.LinkSubscribeOptions{
		ListExisting: true,
		ErrorCallback: func(err error) {
			if ctx.Err() == nil {
				log.Warn("interface events", "error", err)
			}
		},
	})
	if err != nil {
		return nil, fmt.Errorf("no events about interfaces: %w", err)
	}
	s := &search{ctx: ctx, mac: mac, log: log, links: map[int]netlink.Link{}, asking: map[int]context.CancelFunc{}, leases: make(chan *Lease)}
	impatient := time.NewTimer(patience)
	defer impatient.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case u, ok := <-updates:
			if !ok {
				return nil, errors.New("the kernel stopped telling about interfaces")
			}
			s.link(u)
		case <-impatient.C:
			s.hurry()
		case lease := <-s.leases:
			cancel()
			if err := lease.apply(); err != nil {
				return nil, err
			}
			return lease, nil
		}
	}
}

// search is what Up knows of the interfaces.
type search struct {
	ctx    context.Context
	mac    net.HardwareAddr
	any    bool
	log    *slog.Logger
	links  map[int]netlink.Link
	asking map[int]context.CancelFunc
	leases chan *Lease
}

// link takes an event about an interface.
func (s *search) link(u netlink.LinkUpdate) {
	index := int(u.Index)
	if u.Header.Type == unix.RTM_DELLINK {
		s.stop(index)
		delete(s.links, index)
		return
	}
	s.links[index] = u.Link
	s.consider(u.Link)
}

// consider sets an interface up, and asks on it once it has a link.
func (s *search) consider(l netlink.Link) {
	a := l.Attrs()
	if a.Flags&net.FlagLoopback != 0 {
		netlink.LinkSetUp(l)
		return
	}
	if a.EncapType != "ether" || len(a.HardwareAddr) != 6 || l.Type() != "device" && l.Type() != "veth" {
		return // a tunnel or a bridge is nothing to boot from
	}
	if s.mac != nil && !s.any && a.HardwareAddr.String() != s.mac.String() {
		return
	}
	if a.Flags&net.FlagUp == 0 {
		if err := netlink.LinkSetUp(l); err != nil {
			s.log.Warn("an interface cannot be set up", "interface", a.Name, "error", err)
		}
		return // an event follows
	}
	if a.RawFlags&unix.IFF_LOWER_UP == 0 {
		s.stop(a.Index)
		return
	}
	if s.asking[a.Index] != nil {
		return
	}
	ctx, cancel := context.WithCancel(s.ctx)
	s.asking[a.Index] = cancel
	s.log.Info("asking for an address", "interface", a.Name, "mac", a.HardwareAddr)
	go func() {
		if lease := ask(ctx, a.Name, a.HardwareAddr, s.log); lease != nil {
			select {
			case s.leases <- lease:
			case <-ctx.Done():
			}
		}
	}()
}

// stop ends asking on an interface that lost its link.
func (s *search) stop(index int) {
	if cancel := s.asking[index]; cancel != nil {
		cancel()
		delete(s.asking, index)
	}
}

// hurry says what is missing and tries what else there is.
func (s *search) hurry() {
	var have []string
	for _, l := range s.links {
		a := l.Attrs()
		if a.Flags&net.FlagLoopback == 0 {
			state := "no link"
			if a.RawFlags&unix.IFF_LOWER_UP != 0 {
				state = "link, no DHCP answer"
			}
			have = append(have, fmt.Sprintf("%s %s (%s)", a.Name, a.HardwareAddr, state))
		}
	}
	want := "any"
	if s.mac != nil {
		want = s.mac.String()
	}
	if len(have) == 0 {
		have = []string{"none: its driver may be missing in the boot archive"}
	}
	s.log.Warn("no network yet, trying every interface", "wanted", want, "found", strings.Join(have, "; "))
	s.any = true
	for _, l := range s.links {
		s.consider(l)
	}
}

// Resolver writes a resolv.conf.
func (l *Lease) Resolver(file string) error {
	if len(l.DNS) == 0 {
		return nil
	}
	var b strings.Builder
	for _, ip := range l.DNS {
		fmt.Fprintf(&b, "nameserver %s\n", ip)
	}
	if l.Domain != "" {
		fmt.Fprintf(&b, "search %s\n", l.Domain)
	}
	return os.WriteFile(file, []byte(b.String()), 0o644)
}
