package ra

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/mdlayher/ndp"
	"golang.org/x/net/ipv6"

	"muster/controller/boot/boottest"
	"muster/shared/service"
)

func start(t *testing.T, iface string) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	go func() {
		done <- service.Run(ctx, log, []service.Part{Responder{Interface: iface, Log: log}.Part()}, nil)
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestAdvertisement(t *testing.T) {
	if !boottest.Inside(t) {
		return
	}
	c := boottest.Connect(t, "10.0.0.1/16")
	start(t, c.Head)
	conn := listen(t, c)
	defer conn.Close()
	var answer ndp.Message
	for deadline := time.Now().Add(15 * time.Second); answer == nil; {
		if time.Now().After(deadline) {
			t.Fatal("no advertisement")
		}
		if err := conn.WriteTo(&ndp.RouterSolicitation{}, nil, allRouters); err != nil {
			t.Fatal(err)
		}
		conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		m, cm, _, err := conn.ReadFrom()
		if _, ok := m.(*ndp.RouterAdvertisement); err == nil && ok && cm.HopLimit == ndp.HopLimit {
			answer = m
		}
	}
	a := answer.(*ndp.RouterAdvertisement)
	if a.RouterLifetime != 0 || a.ManagedConfiguration || a.OtherConfiguration || a.CurrentHopLimit != 0 || a.ReachableTime != 0 {
		t.Errorf("it promises something: %+v", a)
	}
	for _, o := range a.Options {
		if l, ok := o.(*ndp.LinkLayerAddress); !ok || l.Direction != ndp.Source {
			t.Errorf("option %+v", o)
		}
	}
}

// listen gives the machine's end a socket once its link-local address is usable.
func listen(t *testing.T, c *boottest.Cable) *ndp.Conn {
	t.Helper()
	var conn *ndp.Conn
	var err error
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		c.Far(func() {
			var ifi *net.Interface
			if ifi, err = net.InterfaceByName(c.Machine); err == nil {
				conn, _, err = ndp.Listen(ifi, ndp.LinkLocal)
			}
		})
		if err == nil {
			if err := errors.Join(conn.JoinGroup(netip.IPv6LinkLocalAllNodes()), conn.SetControlMessage(ipv6.FlagHopLimit, true)); err != nil {
				t.Fatal(err)
			}
			return conn
		}
	}
	t.Fatal(err)
	return nil
}

// Without IPv6 the part stays up and waits for it.
func TestWithoutIPv6(t *testing.T) {
	if !boottest.Inside(t) {
		return
	}
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0o644); err != nil {
		t.Skip(err)
	}
	c := boottest.Connect(t, "10.0.0.1/16")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	err := Responder{Interface: c.Head, Log: slog.New(slog.DiscardHandler)}.run(ctx)
	if err != nil || ctx.Err() == nil {
		t.Errorf("ended with %v after %v", err, ctx.Err())
	}
}
