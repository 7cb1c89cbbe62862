package mux

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Session is the streams of one connection.
type Session struct {
	mux     *Mux
	conn    net.Conn
	heard   atomic.Int64 // when the last frame came, in nanoseconds since 1970
	writing sync.Mutex   // of a frame

	mu       sync.Mutex
	streams  map[uint32]*Stream
	next     uint32 // number of the next stream opened here: odd or even for ever
	theirs   int    // streams that the peer opened and that are in use here
	pending  []byte // frames that the reader wants sent, which must not wait for it
	flushing bool
	pings    map[uint32]chan struct{}
	pinged   uint32
	err      error // why it ended
	done     chan struct{}
}

// Client makes a session of a connection whose other end is a Server. Nothing
// is read until Serve is called.
func (m *Mux) Client(conn net.Conn) *Session { return m.session(conn, 1) }

// Server makes the other end.
func (m *Mux) Server(conn net.Conn) *Session { return m.session(conn, 2) }

func (m *Mux) session(conn net.Conn, first uint32) *Session {
	s := &Session{mux: m, conn: conn, next: first, streams: map[uint32]*Stream{}, done: make(chan struct{})}
	s.heard.Store(time.Now().UnixNano())
	return s
}

// Done is closed when the session has ended.
func (s *Session) Done() <-chan struct{} { return s.done }

// Heard is when something last came from the peer.
func (s *Session) Heard() time.Time { return time.Unix(0, s.heard.Load()) }

// Close ends the session with all its streams, and the connection.
func (s *Session) Close() error {
	s.fail(errEnded)
	return nil
}

// Serve reads the connection until it breaks, and says why it did. handle is
// given each stream that the peer opens, once its first data are there; it must
// not wait for anything, and the stream must be closed in the end: it counts
// among the peer's until then.
func (s *Session) Serve(handle func(*Stream)) error {
	err := s.read(handle)
	s.fail(err)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *Session) read(handle func(*Stream)) error {
	head := make([]byte, headerSize)
	for {
		if _, err := io.ReadFull(s.conn, head); err != nil {
			return err
		}
		s.heard.Store(time.Now().UnixNano())
		h, err := parse(head)
		if err != nil {
			return err
		}
		switch h.kind {
		case kindPing:
			err = s.ping(h)
		case kindAway:
			return fmt.Errorf("the other side ended the session (code %d)", h.length)
		default:
			err = s.frame(h, handle)
		}
		if err != nil {
			return err
		}
	}
}

// frame takes one that is of a stream.
func (s *Session) frame(h header, handle func(*Stream)) error {
	st, fresh, err := s.of(h)
	switch {
	case err != nil:
		return err
	case h.kind == kindData:
		err = s.data(st, h.length)
	case st != nil:
		err = st.grant(h.length)
	}
	if err != nil || st == nil {
		return err
	}
	if h.flags&flagFIN != 0 {
		st.finished()
	}
	if h.flags&flagRST != 0 {
		st.drop()
	}
	if fresh {
		handle(st)
	}
	return nil
}

// of gives the stream that a frame is of, nil where there is none any more or
// the peer has too many.
func (s *Session) of(h header) (st *Stream, fresh bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st = s.streams[h.stream]
	if h.flags&flagSYN == 0 {
		return st, false, nil
	}
	if st != nil || h.stream == 0 || h.stream%2 == s.next%2 {
		return nil, false, fmt.Errorf("%w: it opens stream %d", errProtocol, h.stream)
	}
	if s.err != nil {
		return nil, false, s.err
	}
	if s.theirs >= s.mux.Streams {
		return nil, false, s.queue(header{kindWindow, flagRST, h.stream, 0})
	}
	s.theirs++
	st = s.add(h.stream, flagACK)
	st.counts = true
	return st, true, nil
}

// add makes a stream. s.mu is held.
func (s *Session) add(id uint32, flags uint16) *Stream {
	st := &Stream{session: s, id: id, flags: flags, window: Window, credit: Window}
	st.changed.L = &st.mu
	s.streams[id] = st
	return st
}

// data reads those of a frame into a stream, or away.
func (s *Session) data(st *Stream, length uint32) error {
	if length > Window || st != nil && !st.take(length) {
		return fmt.Errorf("%w: it sends more than a stream's window", errProtocol)
	}
	if length == 0 {
		return nil
	}
	buf := s.mux.frames.Get().(*[]byte)
	defer s.mux.frames.Put(buf)
	for length > 0 {
		p := (*buf)[:min(int(length), len(*buf))]
		n, err := s.conn.Read(p)
		if st != nil {
			st.receive(p[:n])
		}
		length -= uint32(n)
		if err != nil && length > 0 {
			return err
		}
	}
	if st != nil && st.unwanted() {
		return s.later(header{kindWindow, flagRST, st.id, 0})
	}
	return nil
}

// Open opens a stream. The peer learns of it with the first that is written.
func (s *Session) Open() (*Stream, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return nil, s.err
	}
	if s.next > 1<<32-3 {
		return nil, fmt.Errorf("%w: it has had all the streams that there are numbers for", errEnded)
	}
	st := s.add(s.next, flagSYN)
	s.next += 2
	return st, nil
}

// forget drops a stream of which nothing more comes. One that the peer opened
// counts until it was closed here too: else a peer that opens streams and drops
// them at once could keep any number of handlers busy.
func (s *Session) forget(st *Stream, closed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams[st.id] == st {
		delete(s.streams, st.id)
	}
	if closed && st.counts {
		st.counts = false
		s.theirs--
	}
}

// Ping waits for a sign of life that it asks for.
func (s *Session) Ping(ctx context.Context) error {
	s.mu.Lock()
	s.pinged++
	number, pong := s.pinged, make(chan struct{})
	if s.pings == nil {
		s.pings = map[uint32]chan struct{}{}
	}
	s.pings[number] = pong
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.pings, number)
	}()
	if err := s.later(header{kindPing, flagSYN, 0, number}); err != nil {
		return err
	}
	select {
	case <-pong:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-s.done:
		return errEnded
	}
}

func (s *Session) ping(h header) error {
	if h.flags&flagSYN != 0 {
		return s.later(header{kindPing, flagACK, 0, h.length})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if pong := s.pings[h.length]; pong != nil {
		close(pong)
		delete(s.pings, h.length)
	}
	return nil
}

// write sends a frame, and ends the session if the peer does not take it.
func (s *Session) write(h header, body []byte) error {
	buf := s.mux.frames.Get().(*[]byte)
	defer s.mux.frames.Put(buf)
	return s.send(append(h.append((*buf)[:0]), body...))
}

func (s *Session) send(frames []byte) error {
	s.writing.Lock()
	s.conn.SetWriteDeadline(time.Now().Add(s.mux.WriteTime)) // where it cannot, the write says so
	_, err := s.conn.Write(frames)
	s.writing.Unlock()
	if err != nil {
		s.fail(err)
	}
	return err
}

// later has a frame without data sent by somebody else: who reads must never
// wait for a peer that reads nothing until it is read.
func (s *Session) later(h header) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.queue(h)
}

// queue is later with s.mu held.
func (s *Session) queue(h header) error {
	if len(s.pending) >= maxPending*headerSize {
		return fmt.Errorf("%w: it asks and does not listen", errProtocol)
	}
	s.pending = h.append(s.pending)
	if !s.flushing {
		s.flushing = true
		go s.flush()
	}
	return nil
}

// flush sends what is pending until there is no more.
func (s *Session) flush() {
	for {
		s.mu.Lock()
		frames := s.pending
		s.pending = nil
		s.flushing = len(frames) > 0 && s.err == nil
		going := s.flushing
		s.mu.Unlock()
		if !going || s.send(frames) != nil {
			return
		}
	}
}

// fail ends the session; the first reason stays.
func (s *Session) fail(err error) {
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return
	}
	s.err = err
	streams := s.streams
	s.streams = nil
	close(s.done)
	s.mu.Unlock()
	s.conn.Close()
	for _, st := range streams {
		st.end(err)
	}
}
