package fleet

import (
	"context"
	"slices"
	"time"

	"muster/shared/object"
)

// maxHistory is how many of the newest changes of states are remembered, and
// lookEvery how often nodes are looked at whose state time alone may turn.
const (
	maxHistory = 8192
	lookEvery  = 5 * time.Second
)

// StateChange is a node's new state.
type StateChange struct {
	Seq    uint64 // increases by one with each change since the head started
	UID    string
	State  string
	Since  time.Time
	Reason string // why a boot failed
}

// notice takes note of a node's state, and tells those who wait if it is
// another one. f.mu is held.
func (f *Fleet) notice(uid string, n *node) string {
	state := f.state(n)
	if state == n.was || n.was == "" && state == Unknown { // nothing was ever known
		return state
	}
	why := f.why(n, state)
	f.turn(n, state)
	n.changes = append(n.changes, Change{state, n.since, why})
	if len(n.changes) > maxChanges {
		n.changes = slices.Delete(n.changes, 0, len(n.changes)-maxChanges)
	}
	f.stain(uid)
	f.seq++
	f.history = append(f.history, StateChange{f.seq, uid, state, n.since, n.reason(state)})
	if len(f.history) > 2*maxHistory {
		f.history = slices.Clone(f.history[len(f.history)-maxHistory:])
	}
	close(f.moved)
	f.moved = make(chan struct{})
	return state
}

// maxChanges is how many changes of its state are remembered of a node.
const maxChanges = 50

// Change is when and why a node got into a state.
type Change struct {
	State  string    `json:"state"`
	Time   time.Time `json:"time"`
	Reason string    `json:"reason"`
}

// why says what turned a node's state, which is still the old one. f.mu is held.
func (f *Fleet) why(n *node, state string) string {
	switch b := n.current(); state {
	case Up:
		return "its agent is linked, from the image"
	case Failed:
		return b.lastError()
	case Booting:
		if b == nil || b.done() {
			return "its agent is linked, from the initramfs"
		}
		return "step " + b.last().Step
	case Unknown:
		return "the head started, and its agent is not back yet"
	case Down:
		switch {
		case n.was == Unknown:
			return "its agent did not come back after the head's start"
		case n.was == Booting && b != nil && f.opt.Now().Sub(b.last().Time) >= stale:
			return "no sign since step " + b.last().Step
		}
		return "the link to its agent ended"
	}
	return ""
}

// Changes gives the newest changes of a node's state, oldest first.
func (f *Fleet) Changes(uid string) []Change {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.nodes[uid]
	if n == nil {
		return nil
	}
	f.notice(uid, n)
	return slices.Clone(n.changes)
}

// reason says why the node is in a state, as far as that needs a reason.
func (n *node) reason(state string) string {
	if b := n.current(); b != nil && state == Failed {
		return b.lastError()
	}
	return ""
}

// lookAround notices what time alone turned: unknown to down when an agent did
// not come back, booting to down when a machine gave no sign.
func (f *Fleet) lookAround(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			f.Look()
		}
	}
}

// Look notices the states that time alone has turned.
func (f *Fleet) Look() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for uid, n := range f.nodes {
		f.notice(uid, n)
	}
}

// StatesAfter gives the changes of states after a number, oldest first, the
// newest number, and a channel that closes with the next change. ok is false
// where some of them are no longer remembered: then take the states themselves.
func (f *Fleet) StatesAfter(seq uint64) (changes []StateChange, newest uint64, next <-chan struct{}, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	missing := f.seq - min(seq, f.seq)
	if missing > uint64(len(f.history)) {
		return nil, f.seq, f.moved, false
	}
	return slices.Clone(f.history[len(f.history)-int(missing):]), f.seq, f.moved, true
}

// Known gives the states of all nodes that were ever seen.
func (f *Fleet) Known() []StateChange {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]StateChange, 0, len(f.nodes))
	for uid, n := range f.nodes {
		state := f.notice(uid, n)
		if n.was == "" {
			continue
		}
		out = append(out, StateChange{f.seq, uid, state, n.since, n.reason(state)})
	}
	return out
}

// States gives every node's state by name, and the number to wait for changes
// after.
func (f *Fleet) States() (uint64, map[string]string) {
	all := f.opt.Nodes.All(object.KindNode)
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make(map[string]string, len(all))
	for _, o := range all {
		state := Unknown
		if n := f.nodes[o.Base().UID]; n != nil {
			state = f.notice(o.Base().UID, n)
		}
		out[o.(*object.Node).Name] = state
	}
	return f.seq, out
}

// WaitChange returns when some state changed since seq, or when ctx ends.
func (f *Fleet) WaitChange(ctx context.Context, seq uint64) {
	for {
		f.mu.Lock()
		now, moved := f.seq, f.moved
		f.mu.Unlock()
		if now != seq {
			return
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return
		}
	}
}
