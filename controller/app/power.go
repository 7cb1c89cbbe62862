package app

import (
	"context"
	"errors"
	"fmt"
	"net"

	"muster/controller/boot"
	"muster/controller/fleet"
	"muster/controller/power"
	"muster/controller/registry"
	"muster/controller/selection"
	"muster/shared/kind"
	"muster/shared/object"
	"muster/shared/wire"
)

// newPower connects what switches nodes.
func (h *Head) newPower() *power.Power {
	sel := &selection.Selection{Objects: h.reg, Live: h.fleet, Index: h.index}
	return &power.Power{
		Objects: h.reg, Values: h.dir.provision.Values, Schemes: power.Schemes(), Log: h.log, Agents: commander{h.fleet},
		Select: sel.SelectBy, Made: h.fleet.Inventory,
		Record: func(ctx context.Context, by kind.Author, n *object.Node, detail map[string]string) error {
			return h.reg.Record(ctx, by, registry.Entry{Action: "power", Kind: object.KindNode, UID: n.UID, Name: n.Name, Detail: detail})
		},
	}
}

// bmcMachine is a node's BMC as far as DHCP goes: it gets its address, and
// nothing to boot.
func bmcMachine(n *object.Node) boot.Machine {
	mac, addr := n.BMC()
	m := boot.Machine{UID: n.UID + " bmc", Name: n.Name + "'s BMC", Hostname: n.Name + "-" + object.BMCInterface, NotBooted: true}
	m.MAC, _ = net.ParseMAC(mac)
	if addr.Is4() {
		m.IP = addr
	}
	return m
}

// commander implements power.Agents: it runs commands whose output nobody
// watches.
type commander struct{ fleet *fleet.Fleet }

func (c commander) Connected(uid string) bool { return c.fleet.Connected(uid) == nil }

// maxSaid bounds what is kept of a command's output, in bytes.
const maxSaid = 1024

func (c commander) Run(ctx context.Context, uid, by, command string) error {
	stream, err := c.fleet.Open(ctx, uid, wire.Header{Type: wire.StreamExec, Exec: &wire.Exec{Shell: command, By: by}})
	if err != nil {
		return err
	}
	defer stream.Close()
	stop := context.AfterFunc(ctx, func() { stream.Close() })
	defer stop()
	if err := wire.WriteFrame(stream, wire.FrameStdin, nil); err != nil {
		return err
	}
	var said []byte
	exit, err := wire.ReadOutput(stream, func(_ wire.FrameKind, p []byte) error {
		said = append(said, p[:min(len(p), maxSaid-len(said))]...)
		return nil
	})
	switch {
	case err != nil:
		return ctx.Err() // the link broke off: the system goes down
	case exit.Error != "":
		return errors.New(exit.Error)
	case exit.Status != 0:
		return fmt.Errorf("status %d: %s", exit.Status, said)
	}
	return nil
}
