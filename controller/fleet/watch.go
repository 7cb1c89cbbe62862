package fleet

import (
	"encoding/json"
	"time"
)

// Reported gives the sections that a node last sent, as they came, and when.
// They must not be changed; nil where there are none.
func (f *Fleet) Reported(uid string) (status, hardware json.RawMessage, at time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.nodes[uid]
	if n == nil {
		return nil, nil, time.Time{}
	}
	return n.status.text(), n.hardware, n.reported
}

// StatesOf fills states with those of the nodes, as they are at one moment.
func (f *Fleet) StatesOf(uids, states []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, uid := range uids {
		if n := f.nodes[uid]; n == nil {
			states[i] = Unknown
		} else {
			states[i] = f.state(n)
		}
	}
}

// Snapshot is what is known of a node at one moment. What it holds must not be
// changed.
type Snapshot struct {
	State    string
	Since    time.Time
	Linked   bool
	Reported time.Time // zero: never
	Status   map[string]json.RawMessage
	Hardware json.RawMessage
}

// Snapshot gives that of a node.
func (f *Fleet) Snapshot(uid string) Snapshot {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.nodes[uid]
	if n == nil {
		return Snapshot{State: Unknown}
	}
	state := f.notice(uid, n)
	return Snapshot{state, n.since, n.link != nil, n.reported, n.status.entries, n.hardware}
}

// Counts gives how many reports were taken and refused since the head started.
func (f *Fleet) Counts() (taken, refused uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.reports, f.refused
}
