package api

import (
	"bytes"
	"io"
	"net/http"
	"sync"
	"time"
)

// Incoming reads a body that may take long, as long as something comes: it may
// stand still for so long.
func Incoming(w http.ResponseWriter, body io.Reader, stall time.Duration) io.Reader {
	return &incoming{body, http.NewResponseController(w), stall}
}

type incoming struct {
	io.Reader
	rc    *http.ResponseController
	stall time.Duration
}

func (in *incoming) Read(p []byte) (int, error) {
	in.rc.SetReadDeadline(time.Now().Add(in.stall)) // not all transports have deadlines; then the server's own holds
	return in.Reader.Read(p)
}

// Outgoing sends an answer as it is written, each piece at once, as long as the
// client takes something: it may stand still for so long.
func Outgoing(w http.ResponseWriter, stall time.Duration) io.Writer {
	return &outgoing{w, http.NewResponseController(w), stall}
}

type outgoing struct {
	io.Writer
	rc    *http.ResponseController
	stall time.Duration
}

func (out *outgoing) Write(p []byte) (int, error) {
	out.rc.SetWriteDeadline(time.Now().Add(out.stall)) // as above
	n, err := out.Writer.Write(p)
	if err == nil {
		err = out.rc.Flush()
	}
	return n, err
}

// NDJSON is the media type of an answer in lines.
const NDJSON = "application/x-ndjson"

// lineStall is how long a client may take no line.
const lineStall = time.Minute

// Lines is an answer of which each line is a JSON value by itself, sent as soon
// as it is known. What is written after the client has left goes nowhere.
type Lines struct {
	mu  sync.Mutex
	out io.Writer
	err error
}

// NewLines begins such an answer.
func NewLines(w http.ResponseWriter) *Lines {
	h := w.Header()
	h.Set("Content-Type", NDJSON)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Accel-Buffering", "no") // a proxy must pass lines on as they come
	l := &Lines{out: Outgoing(w, lineStall)}
	l.Put(nil) // the client learns that it is answered
	return l
}

// Line makes a line of a value.
func Line(v any) ([]byte, error) {
	var line bytes.Buffer
	err := encoder(&line).Encode(v)
	return line.Bytes(), err
}

// Send sends a value as a line.
func (l *Lines) Send(v any) error {
	line, err := Line(v)
	if err != nil {
		return err
	}
	return l.Put(line)
}

// Put sends lines that are made already.
func (l *Lines) Put(lines []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		_, l.err = l.out.Write(lines)
	}
	return l.err
}

// Err gives the first error that sending had.
func (l *Lines) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}
