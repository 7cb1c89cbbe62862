package mux

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// Stream is a connection inside a session. One reader and any number of writers
// may use it at a time.
type Stream struct {
	session *Session
	id      uint32
	counts  bool       // among the session's streams of the peer; under the session's mu
	writing sync.Mutex // so that a Write stays whole, and the end comes last

	mu      sync.Mutex
	changed sync.Cond
	in      bytes.Buffer // what came and was not read
	window  uint32       // how much more the peer may send
	held    uint32       // how much of what it sent, or began to send, was not read
	credit  uint32       // how much more it takes
	flags   uint16       // to go with the next frame
	closed  bool         // here: nothing more is read or written
	sentFIN bool
	cameFIN bool
	err     error // of the session, or errReset
	linger  *time.Timer
	read    deadline
	write   deadline
}

// take says whether the peer may send as much, and notes that it did.
func (st *Stream) take(n uint32) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	if n > st.window || st.cameFIN {
		return false
	}
	st.window -= n
	st.held += n
	return true
}

func (st *Stream) receive(p []byte) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if !st.closed {
		st.in.Write(p)
		st.changed.Broadcast()
	}
}

// unwanted says whether what came is for nobody: then the peer is to be told,
// once.
func (st *Stream) unwanted() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	if !st.closed || st.err != nil {
		return false
	}
	st.leave(errReset)
	return true
}

// leave ends the stream. st.mu is held.
func (st *Stream) leave(err error) {
	st.err = err
	if st.linger != nil {
		st.linger.Stop()
	}
	st.changed.Broadcast()
	st.session.forget(st, st.closed)
}

// grant is told that the peer takes more.
func (st *Stream) grant(n uint32) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.credit+n < st.credit {
		return fmt.Errorf("%w: a window of more than 4 GiB", errProtocol)
	}
	st.credit += n
	st.changed.Broadcast()
	return nil
}

// finished is told that no more data come.
func (st *Stream) finished() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.cameFIN = true
	st.changed.Broadcast()
	st.settle()
}

// settle forgets a stream that has ended both ways. st.mu is held.
func (st *Stream) settle() {
	if st.cameFIN && st.sentFIN {
		if st.linger != nil {
			st.linger.Stop()
		}
		st.session.forget(st, st.closed)
	}
}

// drop is told that the peer knows the stream no longer.
func (st *Stream) drop() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.leave(errReset)
}

// end is told that the session ended.
func (st *Stream) end(err error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.err == nil {
		st.leave(err)
	}
}

// Read implements net.Conn. What came before the stream ended can be read
// after that, until Close.
func (st *Stream) Read(p []byte) (int, error) {
	st.mu.Lock()
	for st.in.Len() == 0 || st.closed {
		err := st.err
		switch {
		case st.closed:
			err = net.ErrClosed
		case st.cameFIN:
			err = io.EOF
		case err == nil && st.read.over():
			err = os.ErrDeadlineExceeded
		}
		if err != nil || len(p) == 0 {
			st.mu.Unlock()
			return 0, err
		}
		st.changed.Wait()
	}
	n, _ := st.in.Read(p)
	st.held -= uint32(n)
	if st.in.Len() == 0 && st.in.Cap() > small {
		st.in = bytes.Buffer{}
	}
	more := Window - st.window - st.held
	if more < Window/2 || st.cameFIN || st.err != nil {
		st.mu.Unlock()
		return n, nil
	}
	st.window += more
	flags := st.once()
	st.mu.Unlock()
	st.session.write(header{kindWindow, flags, st.id, more}, nil) // what is wrong shows with the next read
	return n, nil
}

// once gives the flags that go with the next frame, once. st.mu is held.
func (st *Stream) once() uint16 {
	flags := st.flags
	st.flags = 0
	return flags
}

// Write implements net.Conn. It waits for the peer to take what it is given.
func (st *Stream) Write(p []byte) (n int, err error) { return st.put(p, false) }

// Finish writes p as the last of the stream, whose other direction stays open.
func (st *Stream) Finish(p []byte) error {
	_, err := st.put(p, true)
	return err
}

func (st *Stream) put(p []byte, last bool) (n int, err error) {
	st.writing.Lock()
	defer st.writing.Unlock()
	for {
		h, err := st.reserve(len(p)-n, last)
		if err != nil || h.length == 0 && h.flags&flagFIN == 0 {
			return n, err
		}
		if err := st.session.write(h, p[n:n+int(h.length)]); err != nil {
			return n, err
		}
		n += int(h.length)
		if h.flags&flagFIN != 0 {
			return n, nil
		}
	}
}

// reserve gives the header of the next frame, of at most size bytes, when the
// peer takes some; one without length or flagFIN where there is nothing to send.
func (st *Stream) reserve(size int, last bool) (header, error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	for {
		switch {
		case st.err != nil:
			return header{}, st.err
		case st.closed, st.sentFIN:
			return header{}, net.ErrClosed
		case size == 0 && !last:
			return header{}, nil
		case st.write.over():
			return header{}, os.ErrDeadlineExceeded
		}
		if size == 0 || st.credit > 0 {
			break
		}
		st.changed.Wait()
	}
	n := min(size, int(st.credit), maxBody)
	st.credit -= uint32(n)
	h := header{kindData, st.once(), st.id, uint32(n)}
	if last && n == size {
		h.flags |= flagFIN
		st.sentFIN = true
		st.settle()
	}
	return h, nil
}

// Close ends the stream both ways: what comes yet is for nobody. Readers and
// writers that wait are freed.
func (st *Stream) Close() error {
	st.mu.Lock()
	if st.closed {
		st.mu.Unlock()
		return nil
	}
	st.closed = true
	st.in = bytes.Buffer{}
	st.read.stop()
	st.write.stop()
	st.changed.Broadcast()
	st.mu.Unlock()
	st.writing.Lock()
	defer st.writing.Unlock()
	st.mu.Lock()
	flags, said := st.once(), st.sentFIN
	switch {
	case st.err != nil:
		st.session.forget(st, true)
		st.mu.Unlock()
		return nil
	case flags&flagSYN != 0: // the peer was never told of it
		st.leave(net.ErrClosed)
		st.mu.Unlock()
		return nil
	}
	st.sentFIN = true
	st.settle()
	if !st.cameFIN {
		st.linger = time.AfterFunc(st.session.mux.CloseTime, st.abandon)
	}
	st.mu.Unlock()
	if said {
		return nil
	}
	return st.session.write(header{kindWindow, flags | flagFIN, st.id, 0}, nil)
}

// abandon drops a stream that the peer leaves open.
func (st *Stream) abandon() {
	st.mu.Lock()
	gone := st.cameFIN || st.err != nil
	if !gone {
		st.leave(errReset)
	}
	st.mu.Unlock()
	if !gone {
		st.session.write(header{kindWindow, flagRST, st.id, 0}, nil)
	}
}

// LocalAddr is that of the connection.
func (st *Stream) LocalAddr() net.Addr { return st.session.conn.LocalAddr() }

// RemoteAddr is that of the connection.
func (st *Stream) RemoteAddr() net.Addr { return st.session.conn.RemoteAddr() }

// SetDeadline implements net.Conn, as the next two do.
func (st *Stream) SetDeadline(t time.Time) error {
	st.SetReadDeadline(t)
	return st.SetWriteDeadline(t)
}

func (st *Stream) SetReadDeadline(t time.Time) error  { return st.set(&st.read, t) }
func (st *Stream) SetWriteDeadline(t time.Time) error { return st.set(&st.write, t) }

func (st *Stream) set(d *deadline, t time.Time) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	d.stop()
	if st.closed {
		return nil
	}
	if d.at = t; !t.IsZero() {
		d.timer = time.AfterFunc(time.Until(t), st.wake)
	}
	return nil
}

func (st *Stream) wake() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.changed.Broadcast()
}

// deadline is until when somebody waits, zero for as long as it takes.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) over() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (d *deadline) stop() {
	if d.timer != nil {
		d.timer.Stop()
	}
	d.timer, d.at = nil, time.Time{}
}
