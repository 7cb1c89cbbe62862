package peer

import (
	"context"
	"net/http"
	"sync/atomic"

	"muster/agent/pull"
	"muster/images/chunk"
	"muster/shared/wire"
)

// Now implements pull.Swarm: what somebody waits for does not wait its turn.
func (s *Swarm) Now(ctx context.Context, want []chunk.Ref, take func(int, pull.Got) error) {
	f := s.now.Load()
	if f == nil || len(want) == 0 {
		return
	}
	m, ok := f.holder(want)
	if !ok {
		return
	}
	l := &pull.Line{Client: s.client, URL: "http://" + m.Addr + wire.PeerGive, Header: http.Header{wire.HeaderTicket: {m.Ticket}}, Stall: giveStall, Bytes: new(atomic.Int64)}
	batch := all(min(len(want), maxBatch))
	l.Ask(ctx, want, batch, take) // whoever asked looks at what came; what did not comes from the head
}

// holder gives somebody who has all of them.
func (f *fetch) holder(want []chunk.Ref) (wire.Peer, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.places == nil {
		f.places = make(map[chunk.Digest]int, len(f.want))
		for i, r := range f.want {
			f.places[r.Digest] = i
		}
	}
next:
	for _, m := range f.members { // in no order: not always the same is asked
		if !m.running || m.never {
			continue
		}
		for _, r := range want {
			if i, ok := f.places[r.Digest]; !ok || !m.said[i] {
				continue next
			}
		}
		return m.Peer, true
	}
	return wire.Peer{}, false
}
