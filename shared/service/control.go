package service

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"
)

// Status is how one part is.
type Status struct {
	Name    string
	Doc     string
	Up      bool
	Enabled bool      // it comes up when the group starts
	Since   time.Time // of being up or down; zero when it never was up
	Kept    string    // why it cannot be stopped, "" when it can
}

// Status tells of all parts that are not hidden.
func (g *Group) Status() []Status {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []Status
	for _, m := range g.members {
		if !m.Hidden {
			out = append(out, Status{m.Name, m.Doc, m.cancel != nil, m.enabled, m.since, m.Kept})
		}
	}
	return out
}

// Disabled names the parts that stay down when the group starts.
func (g *Group) Disabled() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := []string{}
	for _, m := range g.members {
		if !m.enabled {
			out = append(out, m.Name)
		}
	}
	return out
}

// ErrEnding is given while the group is not running.
var ErrEnding = errors.New("the head is starting or shutting down")

// Start brings a part up; one that is up stays so.
func (g *Group) Start(name string) error {
	return g.one(name, func(m *member) error { return g.start(m) })
}

// Stop takes a part down and returns when it has stopped.
func (g *Group) Stop(name string) error {
	return g.one(name, func(m *member) error {
		if err := g.may(m, "stopped", func(o *member) bool { return o.cancel != nil }); err != nil {
			return err
		}
		g.halt(m)
		return nil
	})
}

// portTime is how long a part that restarts tries to get its port back, which
// somebody's outgoing connection may have been given meanwhile.
const portTime = 5 * time.Second

// Restart takes a part down and up again, one that must stay too. Where that
// does not come up again the group fails: nobody could mend it from outside.
func (g *Group) Restart(name string) error {
	return g.one(name, func(m *member) error {
		down := g.may(m, "stopped", func(o *member) bool { return o.cancel != nil })
		g.halt(m)
		err := g.start(m)
		for until := time.Now().Add(portTime); errors.Is(err, syscall.EADDRINUSE) && time.Now().Before(until); err = g.start(m) {
			time.Sleep(portTime / 100)
		}
		if err != nil && down != nil {
			g.fail(m, err)
		}
		return err
	})
}

// Reload lets a part take over what may change while it runs. One that is down
// reads it when it starts.
func (g *Group) Reload(ctx context.Context, name string) error {
	return g.one(name, func(m *member) error {
		if m.Reload == nil || m.cancel == nil {
			return nil
		}
		return m.Reload(ctx)
	})
}

// Enable says whether a part comes up when the group starts.
func (g *Group) Enable(name string, enabled bool) error {
	return g.one(name, func(m *member) error {
		if !enabled {
			if err := g.may(m, "disabled", func(o *member) bool { return o.enabled }); err != nil {
				return err
			}
		}
		g.mu.Lock()
		m.enabled = enabled
		g.mu.Unlock()
		return nil
	})
}

// one does something to a part while nothing else is done to any.
func (g *Group) one(name string, do func(*member) error) error {
	i := slices.IndexFunc(g.members, func(m *member) bool { return m.Name == name && !m.Hidden })
	if i < 0 {
		return fmt.Errorf("there is no service %q", name)
	}
	g.turn.Lock()
	defer g.turn.Unlock()
	if g.root == nil {
		return ErrEnding
	}
	if err := do(g.members[i]); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// may refuses what would take away a part that must stay; among those that
// are a door together, one other must have the property.
func (g *Group) may(m *member, done string, other func(*member) bool) error {
	if m.Kept != "" {
		return fmt.Errorf("it cannot be %s: %s", done, m.Kept)
	}
	if m.Door == "" {
		return nil
	}
	if !slices.ContainsFunc(g.members, func(o *member) bool { return o != m && o.Door == m.Door && other(o) }) {
		return fmt.Errorf("it cannot be %s: it is the last way to the head's %s", done, m.Door)
	}
	return nil
}

func (g *Group) start(m *member) error {
	if m.cancel != nil {
		return nil
	}
	if m.Listen != nil {
		if err := m.Listen(g.root); err != nil {
			return err
		}
	}
	g.launch(m)
	return nil
}
