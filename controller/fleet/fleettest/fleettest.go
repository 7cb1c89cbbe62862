// Package fleettest starts a head with a fleet, and agents that a test plays
// itself: a websocket, the greeting, and the streams that the head opens.
package fleettest

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/hashicorp/yamux"

	"muster/controller/api"
	"muster/controller/api/apitest"
	"muster/controller/exec"
	"muster/controller/fleet"
	"muster/controller/selection"
	"muster/shared/wire"
)

// Clock stands still until it is moved.
type Clock struct {
	mu  sync.Mutex
	now time.Time
}

// Now is the clock's time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Add moves the clock.
func (c *Clock) Add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// Head is a head with a fleet.
type Head struct {
	*apitest.Head
	Fleet *fleet.Fleet
	Index *selection.Index
	Clock *Clock
	stop  func()
}

// Start runs one until the test ends or Stop is called; dir keeps its state,
// empty for a temporary directory. The fleet's clock begins at 2030.
func Start(tb testing.TB, dir string) *Head {
	h := &Head{Index: selection.NewIndex(), Clock: &Clock{now: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)}}
	h.Head = apitest.Start(tb, apitest.Options{
		Dir:  dir,
		Live: func(uid string) ([]byte, []byte) { return h.Fleet.Live(uid) },
		Routes: func(a *apitest.Head) [][]api.Route {
			var err error
			h.Fleet, err = fleet.Open(context.Background(), fleet.Options{
				Store: a.Store, Nodes: a.Registry, Sign: sign, Boot: plan{}, Log: a.Logger, Now: h.Clock.Now, Every: 7, Changed: h.Index.News,
			})
			if err != nil {
				tb.Fatal(err)
			}
			picks := &selection.Selection{Objects: a.Registry, Live: h.Fleet, Index: h.Index}
			return [][]api.Route{h.Fleet.Routes(), picks.Routes(), (&exec.Exec{Nodes: a.Registry, Agents: h.Fleet, Select: picks.SelectBy, Log: a.Logger}).Routes()}
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 2)
	go func() { ran <- h.Fleet.Run(ctx) }()
	go func() { ran <- h.Index.Run(ctx, h.Registry, h.Fleet) }()
	h.stop = sync.OnceFunc(func() {
		cancel()
		if err := errors.Join(<-ran, <-ran); err != nil {
			tb.Errorf("fleet or index: %v", err)
		}
	})
	tb.Cleanup(h.stop)
	return h
}

// Stop ends the head; its directory stays.
func (h *Head) Stop() {
	h.stop()
	h.Head.Stop()
}

// sign makes no real certificates; what a CA does is tested with it.
func sign(csr []byte, uid string, _ time.Duration) ([][]byte, string, error) {
	if len(csr) == 0 {
		return nil, "", errors.New("no request")
	}
	return [][]byte{[]byte("certificate of " + uid)}, "serial-" + string(csr), nil
}

type plan struct{}

func (plan) Boot(uid, _, _ string) (wire.Boot, error) { return wire.Boot{UID: uid}, nil }

// Node makes a node with the n-th MAC and gives its UID.
func (h *Head) Node(n byte) string {
	return h.Create("nodes", apitest.Map{"mac": net.HardwareAddr{0x52, 0x54, 0, 0, 0, n}.String()})
}

// Dial opens a node's websocket. Nothing has been said on it yet.
func (h *Head) Dial(uid string) *websocket.Conn {
	h.Helper()
	url := "ws" + strings.TrimPrefix(h.Server.URL, "http") + wire.PathLink
	ws, _, err := websocket.DefaultDialer.Dial(url, http.Header{apitest.AsNode: {uid}})
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() { ws.Close() })
	return ws
}

// Agent is the agent's end of a link.
type Agent struct {
	Socket  *websocket.Conn
	Session *yamux.Session
	Answer  wire.Hello
}

// Link makes a node's link. serve handles the streams, nil when none is
// expected; a stream is closed when it returns.
func (h *Head) Link(uid string, hello wire.Hello, serve func(net.Conn, wire.Header)) *Agent {
	h.Helper()
	a := &Agent{Socket: h.Dial(uid)}
	if err := a.Socket.WriteJSON(hello); err != nil {
		h.Fatal(err)
	}
	if err := a.Socket.ReadJSON(&a.Answer); err != nil {
		h.Fatal(err)
	}
	conf := yamux.DefaultConfig()
	conf.LogOutput = io.Discard
	var err error
	if a.Session, err = yamux.Server(wire.Conn(a.Socket), conf); err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() { a.Session.Close() })
	go func() {
		for {
			stream, err := a.Session.AcceptStream()
			if err != nil {
				return
			}
			go func() {
				defer stream.Close()
				header, err := wire.ReadHeader(stream)
				if err == nil && serve != nil {
					serve(stream, header)
				}
			}()
		}
	}()
	return a
}

// WaitState returns when a node has the state, and fails the test when it has
// not after ten seconds.
func (h *Head) WaitState(name, state string) {
	h.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for {
		seq, states := h.Fleet.States()
		if states[name] == state {
			return
		}
		if ctx.Err() != nil {
			h.Fatalf("%s is %s, not %s", name, states[name], state)
		}
		h.Fleet.WaitChange(ctx, seq)
	}
}
