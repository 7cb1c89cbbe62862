package command

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"muster/shared/wire"
)

const (
	// chunk is how much output is read at once, in bytes.
	chunk = 32 << 10
	// leftover is how long output is awaited from children that a command left
	// behind. What the command itself wrote is in the pipe already.
	leftover = 100 * time.Millisecond
	// pipeSize bounds what was in the pipe when the command ended, in bytes:
	// the most that a process may enlarge one to.
	pipeSize = 1 << 20
	// maxInput bounds the input that a command has not read yet, in bytes: as
	// much as an API body holds. Beyond it the head is made to wait.
	maxInput = 9 << 20
)

// output writes frames, whole ones, from several readers.
type output struct {
	mu sync.Mutex
	w  io.Writer
}

// copy carries one stream until it ends. When the process has ended before the
// stream, because something it started holds on to it, what is there is still
// carried, but no more than can have been there at that moment.
func (o *output) copy(kind wire.FrameKind, from *os.File, ended <-chan struct{}) error {
	const head = 5
	buf := make([]byte, head+chunk)
	for after := 0; after < pipeSize; {
		over := false
		select {
		case <-ended:
			over = true
			from.SetReadDeadline(time.Now().Add(leftover))
		default:
		}
		n, err := from.Read(buf[head:])
		if n > 0 {
			buf[0] = byte(kind)
			binary.BigEndian.PutUint32(buf[1:], uint32(n))
			if werr := o.write(buf[:head+n]); werr != nil {
				return werr
			}
		}
		if err != nil {
			return nil // end of file, EIO of a pty without a user, or the deadline
		}
		if over {
			after += n
		}
	}
	return nil
}

func (o *output) write(frame []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, err := o.w.Write(frame)
	return err
}

func (o *output) exit(e wire.Exit) {
	body, err := json.Marshal(e)
	if err != nil || len(body) > wire.MaxFrame {
		body, _ = json.Marshal(wire.Exit{Status: e.Status, Error: "the reason is too long to be sent"})
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	wire.WriteFrame(o.w, wire.FrameExit, body) // the stream is closed next, whatever comes of it
}

// input holds what the head sent and the command has not read yet, so that the
// end of the stream is noticed even while the command reads nothing.
type input struct {
	p *process

	mu      sync.Mutex
	changed *sync.Cond
	chunks  [][]byte
	size    int
	eof     bool // nothing follows
	closed  bool // nobody reads any more
}

func newInput(p *process) *input {
	in := &input{p: p}
	in.changed = sync.NewCond(&in.mu)
	return in
}

// receive reads the head's frames until the stream ends, and says why it did;
// nil when the command was there first.
func (in *input) receive(stream net.Conn) error {
	buf := make([]byte, wire.MaxFrame)
	for {
		kind, payload, err := wire.ReadFrame(stream, buf)
		if in.done() {
			return nil
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				return errAborted
			}
			return fmt.Errorf("%w: %w", errAborted, err)
		}
		switch {
		case kind == wire.FrameResize && len(payload) == 4:
			in.p.resize(binary.BigEndian.Uint16(payload), binary.BigEndian.Uint16(payload[2:]))
		case kind == wire.FrameStdin:
			if err := in.put(payload, stream); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%w: frame of kind %d and %d bytes has no meaning here", errAborted, kind, len(payload))
		}
	}
}

func (in *input) done() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.closed
}

// put appends a copy of payload, an empty one being the end. While there is no
// room it looks for a reset of the stream, which an empty read shows.
func (in *input) put(payload []byte, stream net.Conn) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	for in.size >= maxInput && !in.closed {
		tick := time.AfterFunc(time.Second, in.changed.Broadcast)
		in.changed.Wait()
		tick.Stop()
		if _, err := stream.Read(nil); err != nil && !in.closed {
			return fmt.Errorf("%w: %w", errAborted, err)
		}
	}
	if in.eof || in.closed {
		return nil // bytes after the end go nowhere
	}
	if len(payload) == 0 {
		in.eof = true
	} else {
		in.chunks = append(in.chunks, append([]byte(nil), payload...))
		in.size += len(payload)
	}
	in.changed.Broadcast()
	return nil
}

// feed writes the input to the command until the end or until the command
// takes no more.
func (in *input) feed() {
	for {
		in.mu.Lock()
		for len(in.chunks) == 0 && !in.eof && !in.closed {
			in.changed.Wait()
		}
		if in.closed {
			in.mu.Unlock()
			return
		}
		if len(in.chunks) == 0 {
			in.mu.Unlock()
			in.p.closeInput()
			return
		}
		next := in.chunks[0]
		in.chunks = in.chunks[1:]
		in.size -= len(next)
		in.changed.Broadcast()
		in.mu.Unlock()
		if _, err := in.p.stdin.Write(next); err != nil {
			in.discard()
			return
		}
	}
}

// discard drops all input from now on: the command has closed its end.
func (in *input) discard() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.chunks, in.size, in.eof = nil, 0, true
	in.changed.Broadcast()
}

// close ends feed and receive. A write of feed that is under way ends when the
// process's files are closed.
func (in *input) close() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.chunks, in.size, in.closed = nil, 0, true
	in.changed.Broadcast()
}
