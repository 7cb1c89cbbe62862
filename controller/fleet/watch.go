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
