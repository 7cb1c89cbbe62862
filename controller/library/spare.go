package library

import (
	"net/http"
	"sync"
	"time"

	"muster/controller/api"
	"muster/images/chunk"
	"muster/shared/fault"
	"muster/shared/wire"
)

// spare remembers which chunks were given to whom of late, so that of nodes
// that share what they get each gets something else, and the head gives all of
// it about once.
type spare struct {
	now func() time.Time

	mu    sync.Mutex
	given map[chunk.Digest]gift
	swept time.Time
}

type gift struct {
	to string // the node
	at time.Time
}

const (
	// hold is how long nobody else gets a chunk: after that whoever got it
	// would have given it to others.
	hold     = 4 * time.Second
	maxGiven = 1 << 20
)

// choose gives the places of those digests that a node shall get, n at most;
// for the others it asks its peers.
func (s *spare) choose(to string, digests []byte, n int, has func(chunk.Digest) bool) []uint32 {
	now := s.now()
	out := []uint32{}
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Sub(s.swept) > hold || len(s.given) > maxGiven {
		s.swept = now
		for d, g := range s.given {
			if now.Sub(g.at) > hold {
				delete(s.given, d)
			}
		}
	}
	for i := uint32(0); len(digests) > 0 && len(out) < n && len(s.given) < maxGiven; i, digests = i+1, digests[len(chunk.Digest{}):] {
		d := chunk.Digest(digests[:len(chunk.Digest{})])
		if !has(d) {
			continue // would only take up room
		}
		if g, ok := s.given[d]; !ok || g.to == to || now.Sub(g.at) > hold {
			s.given[d] = gift{to, now}
			out = append(out, i)
		}
	}
	return out
}

// serveSpare says which of the chunks a node shall ask for: those that no
// other was told of late. Only nodes may ask: what is meant for one is kept
// from the rest.
func (l *Library) serveSpare(w http.ResponseWriter, r *http.Request) error {
	var in wire.Spare
	if err := api.Decode(w, r, &in); err != nil {
		return err
	}
	if in.Most < 1 || in.Most > wire.MaxChunks {
		return fault.Invalidf("most: %d is no number from 1 to %d.", in.Most, wire.MaxChunks)
	}
	if err := checkList(in.Chunks); err != nil {
		return err
	}
	return api.Data(w, l.spare.choose(api.CallerOf(r.Context()).Node, in.Chunks, in.Most, l.opt.Blobs.chunks.Has))
}
