// Package service runs a fixed group of long-lived parts as one: all of them
// listen first, then all run, and the first one to fail stops the rest.
//
// Listening before running means that "ready" is one moment, and that a port
// already taken is reported before anything has begun. A part whose Run
// returns while it is still wanted is a failure even when it returns nil:
// nothing here is meant to finish early. While the group runs, a Group can stop
// and start its parts one by one.
package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// Part is one member of a group. Listen (optional) opens sockets and must
// return at once; Run serves until its ctx ends and returns only when
// everything it started has stopped. After that both may be called again.
type Part struct {
	Name   string
	Doc    string // what it does, for those who may stop it
	Listen func(ctx context.Context) error
	Run    func(ctx context.Context) error
	// Reload (optional) takes over what may change while the part runs.
	Reload func(ctx context.Context) error
	Stage  Stage
	// Kept says why the part must not be stopped, "" when it may.
	Kept string
	// Door is the same for parts of which one must stay: the last that is up is
	// not stopped, the last that is enabled not disabled.
	Door string
	// Hidden parts are the group's own affair.
	Hidden bool
}

// Stage orders the end of a group: the parts of the last stage stop first, and
// only when they have stopped those of the stage before.
type Stage int

// The stages.
const (
	Base   Stage = iota - 1 // what all others rely on
	Middle                  // what works by itself
	Front                   // what takes requests
)

// Run runs the parts until ctx ends or one of them fails; it returns when all
// have stopped. The result is nil after a wanted stop.
func Run(ctx context.Context, log *slog.Logger, parts []Part, ready func()) error {
	return New(log, parts, nil).Run(ctx, ready)
}

// Group is parts that run together.
type Group struct {
	log    *slog.Logger
	failed chan error

	// turn is held while parts are started or stopped, which may take seconds.
	turn    sync.Mutex
	members []*member
	root    context.Context // of the parts; nil while the group does not run

	mu sync.Mutex // guards what follows of the members
}

type member struct {
	Part
	enabled bool
	cancel  context.CancelFunc // nil while it is down
	done    chan struct{}
	since   time.Time
}

// New makes a group. Those that are disabled stay down until they are started.
func New(log *slog.Logger, parts []Part, disabled []string) *Group {
	g := &Group{log: log, failed: make(chan error, 1)}
	for _, p := range parts {
		free := p.Kept == "" && !p.Hidden
		g.members = append(g.members, &member{Part: p, enabled: !free || !slices.Contains(disabled, p.Name)})
	}
	for _, m := range g.members { // a list edited by hand must not lock everybody out
		if m.Door != "" && !slices.ContainsFunc(g.members, func(o *member) bool { return o.Door == m.Door && o.enabled }) {
			m.enabled = true
		}
	}
	return g
}

// Run runs the group until ctx ends or a part fails.
func (g *Group) Run(ctx context.Context, ready func()) error {
	if err := g.begin(ctx); err != nil {
		return err
	}
	if ready != nil {
		ready()
	}
	// What ends ctx from outside is a wanted stop, whatever cause it names: a
	// signal's is an error of its own in some versions of Go.
	var err error
	select {
	case <-ctx.Done():
	case err = <-g.failed:
	}
	g.end()
	return err
}

func (g *Group) begin(ctx context.Context) error {
	g.turn.Lock()
	defer g.turn.Unlock()
	g.root = context.WithoutCancel(ctx)
	for i, m := range g.members {
		if m.enabled && m.Listen != nil {
			if err := m.Listen(ctx); err != nil {
				g.shut(g.members[:i])
				return fmt.Errorf("%s: %w", m.Name, err)
			}
		}
	}
	for _, m := range g.members {
		if m.enabled {
			g.launch(m)
		}
	}
	return nil
}

// shut closes what listens: only a part's Run does that.
func (g *Group) shut(listening []*member) {
	for _, m := range listening {
		if m.enabled && m.Listen != nil {
			g.launch(m)
			m.cancel()
		}
	}
	g.halts()
}

// end stops the parts.
func (g *Group) end() {
	g.turn.Lock()
	defer g.turn.Unlock()
	g.halts()
}

// halts stops all that run, stage by stage. g.turn is held.
func (g *Group) halts() {
	for stage := Front; stage >= Base; stage-- {
		var wg sync.WaitGroup
		for _, m := range g.members {
			if m.Stage == stage {
				wg.Go(func() { g.halt(m) })
			}
		}
		wg.Wait()
	}
	g.root = nil
}

// launch runs a part that listens. g.turn is held.
func (g *Group) launch(m *member) {
	ctx, cancel := context.WithCancel(g.root)
	done := make(chan struct{})
	g.mu.Lock()
	m.cancel, m.done, m.since = cancel, done, time.Now()
	g.mu.Unlock()
	go func() {
		defer close(done)
		defer cancel()
		err := m.Run(ctx)
		if ctx.Err() != nil {
			if err != nil && !errors.Is(err, context.Canceled) {
				g.log.Warn("stopped with an error", "part", m.Name, "error", err)
			}
			return
		}
		if err == nil {
			err = errors.New("ended by itself")
		}
		g.fail(m, err)
	}()
}

func (g *Group) fail(m *member, err error) {
	select {
	case g.failed <- fmt.Errorf("%s: %w", m.Name, err):
	default: // another one was first
	}
}

// halt stops a part, if it runs, and returns when it has. g.turn is held.
func (g *Group) halt(m *member) {
	if m.cancel == nil {
		return
	}
	m.cancel()
	<-m.done
	g.mu.Lock()
	m.cancel, m.since = nil, time.Now()
	g.mu.Unlock()
}
