package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
)

// A stream inside the link begins with one Header, as a 4-byte big-endian
// length and JSON; what follows depends on its Type.
type Header struct {
	Type       string      `json:"type"` // StreamExec, …
	Exec       *Exec       `json:"exec,omitempty"`
	Attributes *Attributes `json:"attributes,omitempty"`
	Overlay    *Overlay    `json:"overlay,omitempty"`
	Apply      *Apply      `json:"apply,omitempty"`
}

// StreamOverlay brings the node its own files. The first header has the digest
// only; an agent that wants the files sends one byte and gets a second header
// with all of it. It closes the stream when it is done.
const StreamOverlay = "overlay"

// Overlay is the files that are one node's own, rendered for it.
type Overlay struct {
	Digest string        `json:"digest"` // of what follows, in hexadecimal
	Files  []OverlayFile `json:"files,omitempty"`
	// Failed are those that could not be rendered: what the node has of them
	// stays as it is.
	Failed []OverlayFailure `json:"failed,omitempty"`
}

// MaxOverlay bounds the content of all files of a node, in bytes.
const MaxOverlay = 2 << 20

// OverlayFile is one of them.
type OverlayFile struct {
	Overlay string `json:"overlay"` // by whose name
	Path    string `json:"path"`
	Owner   string `json:"owner"` // a name or number in the node
	Group   string `json:"group"`
	Mode    uint32 `json:"mode"`
	Secret  bool   `json:"secret,omitempty"`
	Content []byte `json:"content"`
}

// OverlayFailure says why a file is not there.
type OverlayFailure struct {
	Overlay string `json:"overlay"`
	Path    string `json:"path"`
	Error   string `json:"error"`
}

// StreamAttributes brings the node its attributes; nothing follows. The agent
// closes the stream when it has them. They come with each link and after each
// change.
const StreamAttributes = "attributes"

// Attributes are those that hold for the node, those of its groups included.
type Attributes struct {
	UID    string                     `json:"uid"`
	Name   string                     `json:"name"`
	Values map[string]json.RawMessage `json:"values"`
}

// StreamExec runs a command: frames follow in both directions until FrameExit.
const StreamExec = "exec"

// Exec is a command. Exactly one of Shell and Argv is set.
type Exec struct {
	Shell string   `json:"shell,omitempty"` // run by /bin/sh -c
	Argv  []string `json:"argv,omitempty"`
	Env   []string `json:"env,omitempty"`   // NAME=value, added to the agent's own
	TTY   bool     `json:"tty,omitempty"`   // on a pty of Rows × Cols; stderr then comes as stdout
	Login bool     `json:"login,omitempty"` // the root user's login shell, when no command is given
	Rows  uint16   `json:"rows,omitempty"`
	Cols  uint16   `json:"cols,omitempty"`
	By    string   `json:"by,omitempty"` // the admin, for the node's log
}

// FrameKind is the first byte of a frame; a 4-byte big-endian length and the
// payload follow.
type FrameKind byte

// The frames of an exec stream.
const (
	FrameStdin  FrameKind = 0 // head → agent; an empty one is end of input
	FrameStdout FrameKind = 1
	FrameStderr FrameKind = 2
	FrameExit   FrameKind = 3 // agent → head, last: JSON Exit
	FrameResize FrameKind = 4 // head → agent: rows, cols as two big-endian uint16
)

// MaxFrame bounds a frame's payload and MaxHeader a header, in bytes. A peer
// that exceeds them is broken or hostile, and the stream is closed.
const (
	MaxFrame  = 64 << 10
	MaxHeader = 9 << 20 // a command may be as long as an API body
)

// Exit ends an exec stream.
type Exit struct {
	Status int    `json:"status"`          // as in $?: 128+n for signal n
	Error  string `json:"error,omitempty"` // why it could not be started; Status is then 126 or 127
}

// WriteHeader begins a stream.
func WriteHeader(w io.Writer, h Header) error {
	frame, err := appendMessage(nil, h, MaxHeader)
	if err != nil {
		return fmt.Errorf("stream header: %w", err)
	}
	_, err = w.Write(frame)
	return err
}

// ReadHeader reads what WriteHeader wrote.
func ReadHeader(r io.Reader) (Header, error) {
	var h Header
	body, err := ReadMessage(r, MaxHeader)
	if err != nil {
		return h, err
	}
	if err := json.Unmarshal(body, &h); err != nil {
		return h, fmt.Errorf("stream header: %w", err)
	}
	return h, nil
}

// appendMessage appends v as JSON, its length before it in four bytes,
// big-endian.
func appendMessage(to []byte, v any, most int) ([]byte, error) {
	message := bytes.NewBuffer(append(to, 0, 0, 0, 0)) // room for the length
	e := json.NewEncoder(message)
	e.SetEscapeHTML(false) // which would make six bytes of each < and &
	if err := e.Encode(v); err != nil {
		return to, err
	}
	size := message.Len() - len(to) - 4
	if size > most {
		return to, fmt.Errorf("a message of %d bytes, at most %d are taken", size, most)
	}
	out := message.Bytes()
	binary.BigEndian.PutUint32(out[len(to):], uint32(size))
	return out, nil
}

// ReadMessage reads a length of four bytes and as many bytes as it says, at
// most as many as given.
func ReadMessage(r io.Reader, most int) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	n := int64(binary.BigEndian.Uint32(size[:]))
	if n > int64(most) {
		return nil, fmt.Errorf("a message of %d bytes, at most %d are taken", n, most)
	}
	if n <= maxAhead {
		body := make([]byte, n)
		if _, err := io.ReadFull(r, body); err != nil {
			return nil, io.ErrUnexpectedEOF
		}
		return body, nil
	}
	// Grow with what arrives: the length alone must not reserve memory.
	body, err := io.ReadAll(io.LimitReader(r, n))
	if err == nil && int64(len(body)) != n {
		err = io.ErrUnexpectedEOF
	}
	return body, err
}

// maxAhead is for how many bytes memory is reserved before they have come.
const maxAhead = 4 << 10

// WriteFrame writes one frame in a single Write, so that frames of two writers
// under one lock never mix. The payload must not exceed MaxFrame.
func WriteFrame(w io.Writer, kind FrameKind, payload []byte) error {
	if len(payload) > MaxFrame {
		return fmt.Errorf("frame of %d bytes, at most %d are taken", len(payload), MaxFrame)
	}
	buf := make([]byte, 5, 5+len(payload))
	buf[0] = byte(kind)
	binary.BigEndian.PutUint32(buf[1:], uint32(len(payload)))
	_, err := w.Write(append(buf, payload...))
	return err
}

// ReadOutput reads an exec stream to its end: it hands each piece of output to
// fn, whose error ends it and which must not keep the piece, and gives the exit.
func ReadOutput(stream io.Reader, fn func(kind FrameKind, p []byte) error) (exit Exit, err error) {
	buf := make([]byte, MaxFrame)
	for {
		kind, payload, err := ReadFrame(stream, buf)
		if err != nil {
			return exit, err
		}
		switch kind {
		case FrameStdout, FrameStderr:
			if err := fn(kind, payload); err != nil {
				return exit, err
			}
		case FrameExit:
			if err := json.Unmarshal(payload, &exit); err != nil {
				return exit, fmt.Errorf("the agent's last word cannot be read: %w", err)
			}
			return exit, nil
		}
	}
}

// ReadFrame reads one frame into buf, which must hold MaxFrame bytes; the
// payload is a part of buf.
func ReadFrame(r io.Reader, buf []byte) (FrameKind, []byte, error) {
	kind, n, err := ReadFrameHead(r)
	if err != nil {
		return 0, nil, err
	}
	if _, err := io.ReadFull(r, buf[:n]); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	return kind, buf[:n], nil
}

// ReadFrameHead reads the beginning of a frame, up to its payload of size
// bytes: at most MaxFrame.
func ReadFrameHead(r io.Reader) (kind FrameKind, size int, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, 0, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > MaxFrame {
		return 0, 0, fmt.Errorf("frame of %d bytes, at most %d are taken", n, MaxFrame)
	}
	return FrameKind(head[0]), int(n), nil
}
