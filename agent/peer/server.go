// Package peer gives chunks of images to other nodes and takes them from them.
//
// The head introduces the nodes (Group); a node gives what it has verified
// (Server) and takes what it misses from whoever has it, so that the head sends
// each chunk about once (Swarm). A ticket that the head made for the asker's
// address is what lets a node ask another: without one it gets nothing, not
// even a reason. What is sent goes in clear over TCP, as its digest protects
// it. Nobody is trusted further: who sends what it must not is dropped and
// named. The package must not fail a boot: what the others do not give comes
// from the head.
package peer

import (
	"bufio"
	"cmp"
	"context"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"muster/images/chunk"
	"muster/shared/wire"
)

// Shelf is what a node has. pull.Cache is one.
type Shelf interface {
	Has(chunk.Digest) bool
	Stored(d chunk.Digest, buf []byte) ([]byte, chunk.Encoding, error)
	Follow(n int) (fresh []chunk.Digest, grown <-chan struct{})
}

// Bounds on what others may ask.
const (
	port       = "8441" // or any other where it is taken
	maxConns   = 160
	maxGiving  = 48      // answers with chunks at once
	maxWatches = 48      // peers that follow what comes
	maxWanted  = 1 << 20 // digests in the list of one that follows, all together too
	maxBatch   = 64      // chunks of one request
	gather     = 100 * time.Millisecond
	patience   = 15 * time.Second // for an asker to take a chunk, or to say what it wants
	burst      = 256 << 10        // bytes
)

// memory is what one answer needs, and can be used for the next.
type memory struct {
	out   *bufio.Writer
	chunk []byte
}

// Server gives what a shelf has.
type Server struct {
	memory   sync.Pool
	shelf    Shelf
	log      *slog.Logger
	listener net.Listener
	http     *http.Server

	giving, watches, wanted atomic.Int64
	off                     atomic.Bool
	limit                   *rate.Limiter

	mu   sync.Mutex
	keys [][]byte // the newest first
}

// Listen makes a server on an address, the zero value for all of them. It
// gives nothing before the head has given it keys.
func Listen(bind netip.Addr, shelf Shelf, log *slog.Logger) (*Server, error) {
	host := ""
	if bind.IsValid() {
		host = bind.String()
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, port))
	if err != nil {
		if l, err = net.Listen("tcp", net.JoinHostPort(host, "0")); err != nil {
			return nil, err
		}
	}
	s := &Server{shelf: shelf, log: log, listener: &bounded{Listener: l, slots: make(chan struct{}, maxConns)}, limit: rate.NewLimiter(rate.Inf, burst)}
	s.memory.New = func() any { return &memory{out: bufio.NewWriterSize(nil, 64<<10)} }
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+wire.PeerHave, s.serveHave)
	mux.HandleFunc("POST "+wire.PeerGive, s.serveGive)
	s.http = &http.Server{Handler: s.guard(mux), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: patience, IdleTimeout: time.Minute, MaxHeaderBytes: 4 << 10,
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	return s, nil
}

// Port is where it listens.
func (s *Server) Port() int { return s.listener.Addr().(*net.TCPAddr).Port }

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() { s.http.Close() })
	defer stop()
	if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		s.log.Warn("other nodes get nothing from this one any more", "error", err)
	}
}

// Watched says whether somebody follows what comes: a node that still misses
// something.
func (s *Server) Watched() bool { return s.watches.Load() > 0 }

// allow takes over what the head says. Keys of before stay good for a while:
// askers learn of new ones seconds later.
func (s *Server) allow(keys [][]byte, upload int64) {
	s.mu.Lock()
	for _, k := range keys {
		if len(k) > 0 && !slices.ContainsFunc(s.keys, func(o []byte) bool { return string(o) == string(k) }) {
			s.keys = append([][]byte{k}, s.keys...)
		}
	}
	s.keys = s.keys[:min(len(s.keys), 6)]
	s.mu.Unlock()
	s.off.Store(upload < 0)
	if upload > 0 {
		s.limit.SetLimit(rate.Limit(upload))
	} else {
		s.limit.SetLimit(rate.Inf)
	}
}

// guard lets in who shows a ticket for its address.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.off.Load() || !s.known(r) {
			w.Header().Set("Connection", "close")
			w.WriteHeader(http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) known(r *http.Request) bool {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return false
	}
	shown := []byte(r.Header.Get(wire.HeaderTicket))
	s.mu.Lock()
	defer s.mu.Unlock()
	ok := 0
	for _, k := range s.keys {
		ok |= subtle.ConstantTimeCompare(shown, []byte(wire.Ticket(k, from.Addr())))
	}
	return ok == 1
}

// digests reads a list of at most max.
func digests(w http.ResponseWriter, r *http.Request, max int) []byte {
	const n = len(chunk.Digest{})
	if r.ContentLength < n64 || r.ContentLength%n64 != 0 || r.ContentLength > int64(max*n) {
		w.WriteHeader(http.StatusBadRequest)
		return nil
	}
	raw := make([]byte, r.ContentLength)
	if _, err := io.ReadFull(r.Body, raw); err != nil {
		return nil
	}
	return raw
}

const n64 = int64(len(chunk.Digest{}))

func (s *Server) serveGive(w http.ResponseWriter, r *http.Request) {
	defer s.giving.Add(-1)
	if s.giving.Add(1) > maxGiving {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	raw := digests(w, r, maxBatch)
	rc := http.NewResponseController(w)
	m := s.memory.Get().(*memory)
	defer s.memory.Put(m)
	out, buf := m.out, m.chunk
	out.Reset(w)
	for ; len(raw) > 0 && !s.off.Load(); raw = raw[n64:] {
		stored, e, err := s.shelf.Stored(chunk.Digest(raw[:n64]), buf)
		if err != nil {
			stored, e = nil, chunk.Absent
		} else {
			buf = stored
			m.chunk = buf[:0]
		}
		for left := len(stored); left > 0; left -= burst {
			if s.limit.WaitN(r.Context(), min(left, burst)) != nil {
				return
			}
		}
		rc.SetWriteDeadline(time.Now().Add(patience))
		if _, err := out.Write(chunk.PutFrameHead(nil, e, len(stored))); err != nil {
			return
		}
		if _, err := out.Write(stored); err != nil {
			return
		}
	}
	out.Flush()
}

// serveHave says which of the wanted chunks are here, and then which come. It
// ends when nothing comes any more.
func (s *Server) serveHave(w http.ResponseWriter, r *http.Request) {
	n := max(r.ContentLength/n64, 0)
	watches, all := s.watches.Add(1), s.wanted.Add(n)
	defer s.watches.Add(-1)
	defer s.wanted.Add(-n)
	if watches > maxWatches || all > maxWanted {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	raw := digests(w, r, maxWanted)
	if raw == nil {
		return
	}
	fresh, grown := s.shelf.Follow(0)
	seen := len(fresh)
	here, missing := s.sort(raw)
	raw = nil
	rc := http.NewResponseController(w)
	for {
		rc.SetWriteDeadline(time.Now().Add(patience))
		if _, err := w.Write(here); err != nil || rc.Flush() != nil || grown == nil || s.off.Load() {
			return
		}
		select {
		case <-grown:
		case <-r.Context().Done():
			return
		}
		time.Sleep(gather) // one packet rather than many
		fresh, grown = s.shelf.Follow(seen)
		seen += len(fresh)
		here = here[:0]
		for _, d := range fresh {
			here = missing.find(here, d)
		}
	}
}

// wanted is those that are not here yet, by the beginning of their digests.
type wanted []want

type want struct {
	digest uint64
	place  uint32
}

func short(d []byte) uint64 { return binary.BigEndian.Uint64(d) }

func (s *Server) sort(raw []byte) (here []byte, missing wanted) {
	for i := uint32(0); len(raw) > 0; i, raw = i+1, raw[n64:] {
		if s.shelf.Has(chunk.Digest(raw[:n64])) {
			here = binary.BigEndian.AppendUint32(here, i)
		} else {
			missing = append(missing, want{short(raw), i})
		}
	}
	slices.SortFunc(missing, func(a, b want) int {
		return cmp.Compare(a.digest, b.digest)
	})
	return here, missing
}

// find adds the places of a chunk.
func (m wanted) find(out []byte, d chunk.Digest) []byte {
	key := short(d[:])
	for i := sort.Search(len(m), func(i int) bool { return m[i].digest >= key }); i < len(m) && m[i].digest == key; i++ {
		out = binary.BigEndian.AppendUint32(out, m[i].place)
	}
	return out
}

// bounded is a listener with so many connections at once: further ones wait.
type bounded struct {
	net.Listener
	slots chan struct{}
}

type boundedConn struct {
	net.Conn
	once sync.Once
	free func()
}

func (b *bounded) Accept() (net.Conn, error) {
	b.slots <- struct{}{}
	c, err := b.Listener.Accept()
	if err != nil {
		<-b.slots
		return nil, err
	}
	return &boundedConn{Conn: c, free: func() { <-b.slots }}, nil
}

func (c *boundedConn) Close() error {
	c.once.Do(c.free)
	return c.Conn.Close()
}
