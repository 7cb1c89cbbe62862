package peer

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"muster/agent/head"
	"muster/shared/wire"
)

const (
	maxPeers = 64 // that a head may introduce
	firstAsk = 150 * time.Millisecond
	maxEvery = time.Minute
)

// Group is the nodes that the head introduced. It must be made by NewGroup.
type Group struct {
	head   *head.Client
	server *Server // nil for a node that gives nothing
	log    *slog.Logger

	mu     sync.Mutex
	peers  []wire.Peer
	change chan struct{} // closed and replaced with each answer
	blame  []wire.Blame
	asked  chan struct{} // closed after the first attempt
	once   sync.Once
	failed bool // the head has not introduced anybody, and will not soon
}

// NewGroup makes one that knows nobody until Run.
func NewGroup(h *head.Client, s *Server, log *slog.Logger) *Group {
	return &Group{head: h, server: s, log: log, change: make(chan struct{}), asked: make(chan struct{})}
}

// Run asks the head again and again who is there, until ctx ends, and then
// takes leave.
func (g *Group) Run(ctx context.Context) {
	soon := firstAsk
	for {
		every, err := g.ask(ctx, wire.Announce{})
		if err != nil {
			every = 5 * time.Second
			if ctx.Err() == nil {
				g.trouble(err)
			}
		}
		g.once.Do(func() { close(g.asked) })
		// At first the others come one after the other.
		if soon = min(2*soon, maxEvery); soon < every {
			every = soon
		}
		select {
		case <-ctx.Done():
			if g.server != nil {
				ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
				g.ask(ctx, wire.Announce{Gone: true})
				cancel()
			}
			return
		case <-time.After(every*3/4 + rand.N(every/2)):
		}
	}
}

// trouble says once why there are no others.
func (g *Group) trouble(err error) {
	g.mu.Lock()
	again := g.failed
	g.failed = true
	g.news()
	g.mu.Unlock()
	if !again {
		g.log.Warn("the head introduces no other nodes, it gives everything itself", "error", err)
	}
}

// news wakes who waits. g.mu is held.
func (g *Group) news() {
	close(g.change)
	g.change = make(chan struct{})
}

func (g *Group) ask(ctx context.Context, a wire.Announce) (time.Duration, error) {
	if g.server != nil {
		a.Port = g.server.Port()
	}
	g.mu.Lock()
	a.Blame, g.blame = g.blame, nil
	g.mu.Unlock()
	var got wire.Introduction
	if _, err := g.head.Call(ctx, http.MethodPost, wire.PathPeers, a, &got); err != nil {
		return 0, err
	}
	if len(got.Peers) > maxPeers || len(got.Keys) > maxPeers {
		return 0, errors.New("it introduces too many at once")
	}
	if g.server != nil {
		g.server.allow(got.Keys, got.Upload)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.peers, g.failed = g.peers[:0:0], false
	for _, p := range got.Peers {
		if _, err := netip.ParseAddrPort(p.Addr); err == nil {
			g.peers = append(g.peers, p)
		}
	}
	g.news()
	return min(max(time.Duration(got.Every)*time.Second, time.Second), maxEvery), nil
}

// Peers gives those who are there, and a channel that is closed when the head
// was asked again. failed says that the head does not answer.
func (g *Group) Peers() (peers []wire.Peer, change <-chan struct{}, failed bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.peers, g.change, g.failed
}

// Blame names a peer, here and to the head.
func (g *Group) Blame(p wire.Peer, err error) {
	g.log.Warn("a node gave what it must not, and is asked no more", "node", p.Name, "address", p.Addr, "error", err)
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.blame) < 8 {
		g.blame = append(g.blame, wire.Blame{Peer: p.Addr, Reason: err.Error()})
	}
}
