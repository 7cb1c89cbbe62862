// Package fleet knows the nodes as they are now: who is connected, what each
// last reported, what state it is in and how it got there.
//
// This is telemetry, not configuration. It lives in memory, is written behind
// in one batch at most a second later, and never passes through the registry.
// The two things that may not be lost, which certificate speaks for a node and
// which one-time key it gets, are on disk before they are given out. The
// package must not decide what a node boots (controller/boot) nor what runs on
// it (controller/exec).
package fleet

import (
	"context"
	"encoding/json"
	"hash/maphash"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"muster/controller/store"
	"muster/shared/kind"
	"muster/shared/mux"
	"muster/shared/wire"
)

// The states of a node.
const (
	Down    = "down"
	Booting = "booting"
	Up      = "up"
	Failed  = "failed"  // a boot step failed; the machine stays there and retries
	Unknown = "unknown" // never seen, or not yet again since the head started
)

// reunion is how long after its own start the head waits for agents that were
// connected before, until it calls their nodes down. They retry at most every
// 15 s.
const reunion = 30 * time.Second

// Nodes is what the fleet needs of the registry.
type Nodes interface {
	Find(kindName, id string) (kind.Object, error)
	All(kindName string) []kind.Object
	Look() kind.Look
	Set(ctx context.Context, by kind.Author, kindName, id, path string, fn func(json.RawMessage) (json.RawMessage, error)) error
}

// Planner says what a node shall become.
type Planner interface {
	// Boot gives the answer for a node; config and image, UIDs, are what its
	// command line says to boot instead of what the head would choose.
	Boot(uid, config, image string) (wire.Boot, error)
}

// Options are what the fleet has to be told.
type Options struct {
	Store store.Store
	Nodes Nodes
	// Sign makes a certificate for a node from a PKCS #10 request; serial in
	// lower-case hexadecimal.
	Sign func(csr []byte, uid string, ttl time.Duration) (chain [][]byte, serial string, err error)
	Boot Planner
	// Files gives a node's own files, secret ones only where it has proven who
	// it is; nil where nodes have none.
	Files func(uid string, proven bool) (wire.Overlay, bool)
	Log   *slog.Logger
	Now   func() time.Time
	// Every is how often agents report, in seconds.
	Every int
	// Changed is told the UID of each node of which something is new, while
	// the fleet is locked: it must only take note. nil for nobody.
	Changed func(uid string)
	// Booted is told of each boot that got to its end, likewise.
	Booted func(uid string, b Boot)
}

// Fleet is the live state of all nodes.
type Fleet struct {
	opt     Options
	started time.Time

	mu    sync.Mutex
	nodes map[string]*node
	// windows finds the node whose boot is open at an address; entries of
	// closed ones are removed when they are met.
	windows          map[netip.Addr]string
	dirty            map[string]bool // UIDs to be written behind
	seq              uint64          // number of state changes, for those who wait
	moved            chan struct{}   // closed and replaced when seq grows
	history          []StateChange   // the newest changes
	tally            tally
	reports, refused uint64 // counts since the start
	turns            uint64 // of writing
	push             push
	mux              *mux.Mux
	buffers          sync.Pool     // of links, for writing
	seed             maphash.Seed  // of hashes of what was written
	wake             chan struct{} // tells the writer that there is something dirty
}

// node is what is known of one. It is guarded by Fleet.mu.
type node struct {
	hardware json.RawMessage
	status   section
	report   string // the name of the last one, for reports of what changed since
	reported time.Time
	notes    []note
	changes  []Change // of its state
	record   uint64   // number of the record that is to be written; a report alone makes no new one
	written  written
	boots    []boot
	identity identity
	link     *link
	was      string    // state when last looked at, to notice changes
	since    time.Time // of that state
	counted  time.Time // until when its time in that state is in the tally
	bootID   string    // kernel's boot ID of the newest link
	short    shortStatus
	shown    []byte // short as JSON
}

// Open loads what was known when the head last ran.
func Open(ctx context.Context, opt Options) (*Fleet, error) {
	f := &Fleet{
		opt: opt, started: opt.Now(), nodes: map[string]*node{}, windows: map[netip.Addr]string{}, dirty: map[string]bool{},
		moved: make(chan struct{}), wake: make(chan struct{}, 1), push: newPush(), seed: maphash.MakeSeed(),
		mux: mux.New(mux.Config{Streams: fromAgent}),
	}
	return f, f.load(ctx)
}

// get gives a node's state, making it when there is none. f.mu is held.
func (f *Fleet) get(uid string) *node {
	n := f.nodes[uid]
	if n == nil {
		n = &node{counted: f.opt.Now()}
		f.nodes[uid] = n
	}
	return n
}

// touch notes that a node changed: its record is to be written, and those who
// wait for states are woken if its state is another one. f.mu is held.
func (f *Fleet) touch(uid string, n *node) {
	f.stain(uid)
	f.notice(uid, n)
}

// stain notes that a node's record is to be written. f.mu is held.
func (f *Fleet) stain(uid string) {
	if n := f.nodes[uid]; n != nil {
		n.record++
	}
	f.news(uid)
}

// news notes that what a node reported is to be written. f.mu is held.
func (f *Fleet) news(uid string) {
	f.dirty[uid] = true
	if f.opt.Changed != nil {
		f.opt.Changed(uid)
	}
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// state says what a node is doing, from what is known. f.mu is held.
func (f *Fleet) state(n *node) string {
	if n.link != nil && n.link.inImage {
		return Up
	}
	if b := n.current(); b != nil && !b.done() && (n.link != nil || b.head() || f.opt.Now().Sub(b.last().Time) < stale) {
		if b.failed() {
			return Failed
		}
		return Booting
	}
	if n.link != nil {
		return Booting // in its initramfs, and somebody else's DHCP server got it there
	}
	switch {
	case len(n.boots) == 0 && n.bootID == "":
		return Unknown
	case f.opt.Now().Sub(f.started) < reunion && n.bootID == "":
		return Unknown
	}
	return Down
}

// State gives a node's state, since when, and a word on why it is not up.
func (f *Fleet) State(uid string) (state string, since time.Time, reason string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.nodes[uid]
	if n == nil {
		return Unknown, time.Time{}, ""
	}
	state = f.notice(uid, n)
	return state, n.since, n.reason(state)
}

// shortStatus is what a node's object shows of its status.
type shortStatus struct {
	State  string  `json:"state"`
	Since  float64 `json:"since,omitempty"` // seconds since 1970
	Reason string  `json:"reason,omitempty"`
}

func (f *Fleet) short(uid string) shortStatus {
	state, since, reason := f.State(uid)
	return shortStatus{state, seconds(since), reason}
}

// Live implements what the registry shows of a node.
func (f *Fleet) Live(uid string) (hardware, status []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.nodes[uid]
	if n == nil {
		return nil, []byte(`{"state":"` + Unknown + `"}`)
	}
	state := f.notice(uid, n)
	if now := (shortStatus{state, seconds(n.since), n.reason(state)}); now != n.short || n.shown == nil {
		n.short = now
		n.shown, _ = json.Marshal(now) // of strings and a number, which cannot fail
	}
	return n.hardware, n.shown
}

// Status gives all that a node reported, with its state.
func (f *Fleet) Status(uid string) (map[string]any, error) {
	short := f.short(uid)
	f.mu.Lock()
	defer f.mu.Unlock()
	out := map[string]any{}
	if n := f.nodes[uid]; n != nil {
		for key, value := range n.status.entries {
			out[key] = value
		}
		if !n.reported.IsZero() {
			out["reported"] = seconds(n.reported)
		}
	}
	out["state"] = short.State
	if short.Since != 0 {
		out["since"] = short.Since
	}
	if short.Reason != "" {
		out["reason"] = short.Reason
	}
	return out, nil
}

// Forget drops a deleted node and cuts its link.
func (f *Fleet) Forget(uid string) {
	f.mu.Lock()
	n := f.nodes[uid]
	if n != nil {
		f.count(n, f.opt.Now())
	}
	delete(f.nodes, uid)
	f.stain(uid)
	f.mu.Unlock()
	if n != nil && n.link != nil {
		n.link.session.Close()
	}
}

// Prune drops what is known of nodes that are no more, after a start.
func (f *Fleet) Prune() {
	for _, uid := range f.Stale() {
		f.Forget(uid)
	}
}

// closeLinks ends all links; the agents come back to whoever serves then.
func (f *Fleet) closeLinks() {
	f.mu.Lock()
	var open []*link
	for _, n := range f.nodes {
		if n.link != nil {
			open = append(open, n.link)
		}
	}
	f.mu.Unlock()
	for _, l := range open {
		l.session.Close()
	}
}

func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMicro()) / 1e6
}
