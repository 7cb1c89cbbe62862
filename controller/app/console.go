package app

import (
	"context"
	"path/filepath"
	"slices"
	"time"

	"muster/controller/api"
	"muster/controller/console"
	"muster/controller/power"
	"muster/controller/power/discover"
	"muster/controller/registry"
	"muster/shared/kind"
	"muster/shared/object"
)

// switchgear is the head's hand on machines that run no system.
type switchgear struct {
	power    *power.Power
	console  *console.Console
	discover *discover.Discover
}

// switchRoutes makes it, and gives its endpoints.
func (h *Head) switchRoutes(bh bootHead) []api.Route {
	h.power = h.newPower()
	h.console = h.newConsole(h.power)
	h.discover = h.newDiscover(bh)
	return slices.Concat(h.power.Routes(), h.console.Routes(), h.discover.Routes())
}

// newConsole connects what keeps the nodes' serial consoles.
func (h *Head) newConsole(pw *power.Power) *console.Console {
	return console.New(console.Options{
		Objects: h.reg, Sources: console.Sources(), Log: h.log, Now: time.Now,
		Target: func(n *object.Node) (console.Target, bool, error) {
			uri := object.Attribute(h.reg.Look(), n, object.AttrConsole)
			if uri == "none" {
				return console.Target{}, false, nil
			}
			t, ok, err := pw.Console(n, uri)
			return console.Target{Scheme: t.Scheme, Host: t.Host, Port: t.Port, User: t.User, Password: t.Password, Path: t.Path, Options: t.Options}, ok, err
		},
		Died: h.fleet.Died,
		Record: func(ctx context.Context, by kind.Author, n *object.Node, detail map[string]string) error {
			return h.reg.Record(ctx, by, registry.Entry{Action: "console", Kind: object.KindNode, UID: n.UID, Name: n.Name, Detail: detail})
		},
		Dir: filepath.Join(h.cfg.Data, "console"), Size: int64(h.cfg.ConsoleSize) << 10, Files: h.cfg.ConsoleFiles,
	})
}
