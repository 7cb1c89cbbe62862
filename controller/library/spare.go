package library

import (
	"net/http"
	"strconv"
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

// choose gives those of the digests that a node shall get, n at most; for the
// others it asks its peers.
func (s *spare) choose(to string, digests []byte, n int, has func(chunk.Digest) bool) map[chunk.Digest]bool {
	now := s.now()
	out := map[chunk.Digest]bool{}
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
	for ; len(digests) > 0 && len(out) < n && len(s.given) < maxGiven; digests = digests[len(chunk.Digest{}):] {
		d := chunk.Digest(digests[:len(chunk.Digest{})])
		if !has(d) {
			continue // would only take up room
		}
		if g, ok := s.given[d]; !ok || g.to == to || now.Sub(g.at) > hold {
			s.given[d] = gift{to, now}
			out[d] = true
		}
	}
	return out
}

// sent notes that a chunk goes out only now.
func (s *spare) sent(to string, d chunk.Digest) {
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.given[d] = gift{to, now}
}

// serveSpare gives those chunks that are asked for and were given to no other
// node of late. Only nodes may ask: what is given to one is kept from the rest.
func (l *Library) serveSpare(w http.ResponseWriter, r *http.Request) error {
	text := r.URL.Query().Get(wire.QueryMost)
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > wire.MaxChunks {
		return fault.Invalidf("%s: %q is no number from 1 to %d.", wire.QueryMost, text, wire.MaxChunks)
	}
	list, err := chunkList(r)
	if err != nil {
		return err
	}
	to := api.CallerOf(r.Context()).Node
	mine := l.spare.choose(to, list, n, l.opt.Blobs.chunks.Has)
	return l.sendChunks(w, list, func(d chunk.Digest) bool {
		if mine[d] {
			l.spare.sent(to, d)
		}
		return mine[d]
	})
}
