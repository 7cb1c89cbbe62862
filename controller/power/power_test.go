package power_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"

	"muster/controller/api"
	"muster/controller/api/apitest"
	"muster/controller/power"
	"muster/shared/kind"
	"muster/shared/object"
	"muster/shared/template"
)

// agents plays the nodes' agents: those whose links are there, and what a
// command does to them.
type agents struct {
	mu    sync.Mutex
	links map[string]bool
	run   func(uid, command string) error
	ran   []string
}

func (a *agents) Connected(uid string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.links[uid]
}

func (a *agents) Run(_ context.Context, uid, _, command string) error {
	a.mu.Lock()
	a.ran = append(a.ran, command)
	run := a.run
	a.mu.Unlock()
	if run == nil {
		return errors.New("status 127: no such command")
	}
	return run(uid, command)
}

func (a *agents) set(uid string, linked bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.links[uid] = linked
}

// head is a head with what a test looks at.
type head struct {
	*apitest.Head
	agents *agents
	mu     sync.Mutex
	log    bytes.Buffer
	made   map[string]any
	audit  []string
}

func (h *head) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.log.Write(p)
}

func (h *head) said() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.log.String()
}

func start(t *testing.T) *head {
	out := &head{agents: &agents{links: map[string]bool{}}}
	out.Head = apitest.Start(t, apitest.Options{Routes: func(h *apitest.Head) [][]api.Route {
		p := &power.Power{
			Objects: h.Registry, Agents: out.agents, Schemes: power.Schemes(), Log: slog.New(slog.NewTextHandler(out, nil)),
			Values: func(n *object.Node) func(template.Section, string) (any, bool) {
				return func(s template.Section, key string) (any, bool) {
					if s != template.Attribute {
						return nil, false
					}
					v, ok := object.Effective(h.Registry.Look(), n)[key]
					return v, ok
				}
			},
			Select: func(context.Context, kind.Author, string) ([]*object.Node, error) { return nil, nil },
			Made:   func(_ string, inventory map[string]any) error { out.made = inventory; return nil },
			Record: func(_ context.Context, by kind.Author, n *object.Node, detail map[string]string) error {
				out.mu.Lock()
				defer out.mu.Unlock()
				out.audit = append(out.audit, by.Name+" "+n.Name+" "+detail["order"])
				return nil
			},
		}
		return [][]api.Route{p.Routes()}
	}})
	return out
}
