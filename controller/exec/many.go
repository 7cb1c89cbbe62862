package exec

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"muster/controller/api"
	"muster/shared/fault"
	"muster/shared/object"
	"muster/shared/wire"
)

// Bounds of a command on many nodes. What a node has sent and nobody has read
// waits in its stream, 256 KiB at most.
const (
	maxRuns    = 64       // at once on this head
	maxOutput  = 64 << 20 // bytes of one node unless the request says otherwise
	chunkSize  = 4 << 10  // bytes of output in one line of the answer, at most
	queued     = 256      // lines that wait for the client
	maxWaiting = 256      // nodes whose output waits for the client, while more are begun at once
	waitTime   = 50 * time.Millisecond
	answerSize = 128 << 10 // bytes that are sent together, where there are so many
)

// manyRequest is the body. Of nodes, selector and group each that is given
// narrows down the others.
type manyRequest struct {
	Set
	Cmd       json.RawMessage `json:"cmd"`
	Stdin     string          `json:"stdin"`
	Encoding  string          `json:"encoding"` // of stdin: "base64", or "" for text
	Timeout   float64         `json:"timeout"`  // seconds on each node; 0 for none
	Fanout    int             `json:"fanout"`   // nodes at once; 0 for all
	MaxOutput int64           `json:"max_output"`
}

// line is one of the answer. Output that is no text is in base64, and Encoding
// says so.
type line struct {
	Node     string  `json:"node"`
	Stdout   *string `json:"stdout,omitempty"`
	Stderr   *string `json:"stderr,omitempty"`
	Encoding string  `json:"encoding,omitempty"`
	Status   *int    `json:"status,omitempty"`
	Error    string  `json:"error,omitempty"`
}

// many is one command on many nodes.
type many struct {
	*Exec
	header  wire.Header
	input   []byte // all frames of it, with its end
	timeout time.Duration
	most    int64 // bytes of output of one node

	lines   chan []byte
	waiting atomic.Int32  // nodes whose output waits for room in lines
	moved   chan struct{} // one of them got it
}

func (e *Exec) runMany(w http.ResponseWriter, r *http.Request) error {
	var in manyRequest
	if err := api.Decode(w, r, &in); err != nil {
		return err
	}
	m, err := e.many(&in)
	if err != nil {
		return err
	}
	nodes, unknown, err := e.targets(r.Context(), api.By(r), &in.Set)
	if err != nil {
		return err
	}
	if e.runs.Add(1) > maxRuns {
		e.runs.Add(-1)
		return fault.New(fault.TooMany, "%d commands run on sets of nodes already: wait until some have ended.", maxRuns)
	}
	defer e.runs.Add(-1)
	cmd := m.header.Exec
	cmd.By = api.CallerOf(r.Context()).Admin
	if err := e.record(r.Context(), api.By(r), nodes, *cmd); err != nil {
		return err
	}
	e.Log.Info("command on a set", "nodes", fold(nodes), "count", len(nodes), "admin", cmd.By, "shell", cmd.Shell, "argv", cmd.Argv)
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	fanout := in.Fanout
	if fanout == 0 {
		fanout = max(len(nodes), 1)
	}
	go m.begin(ctx, nodes, unknown, fanout)
	return m.answer(w, cancel)
}

// many checks a request and makes what is common to all nodes.
func (e *Exec) many(in *manyRequest) (*many, error) {
	cmd, err := command(in.Cmd)
	switch {
	case err != nil:
		return nil, err
	case !(in.Timeout >= 0 && in.Timeout <= 1e9):
		return nil, fault.Invalidf("timeout: %v is not a number of seconds.", in.Timeout)
	case in.Fanout < 0:
		return nil, fault.Invalidf("fanout: %d is not a number of nodes; 0 is all at once.", in.Fanout)
	case in.MaxOutput < 0:
		return nil, fault.Invalidf("max_output: %d is not a number of bytes.", in.MaxOutput)
	}
	stdin := []byte(in.Stdin)
	switch in.Encoding {
	case "":
	case "base64":
		if stdin, err = base64.StdEncoding.DecodeString(in.Stdin); err != nil {
			return nil, fault.Invalidf("stdin: it is no base64: %v.", err)
		}
	default:
		return nil, fault.Invalidf("encoding: %q is not base64; leave it out where stdin is text.", in.Encoding)
	}
	m := &many{
		Exec: e, header: wire.Header{Type: wire.StreamExec, Exec: &cmd}, input: framed(stdin),
		timeout: time.Duration(in.Timeout * float64(time.Second)), most: in.MaxOutput,
		lines: make(chan []byte, queued), moved: make(chan struct{}, 1),
	}
	if m.most == 0 {
		m.most = maxOutput
	}
	return m, nil
}

// framed makes the frames of an input once for all nodes.
func framed(stdin []byte) []byte {
	var out bytes.Buffer
	for ; len(stdin) > wire.MaxFrame; stdin = stdin[wire.MaxFrame:] {
		wire.WriteFrame(&out, wire.FrameStdin, stdin[:wire.MaxFrame])
	}
	if len(stdin) > 0 {
		wire.WriteFrame(&out, wire.FrameStdin, stdin)
	}
	wire.WriteFrame(&out, wire.FrameStdin, nil)
	return out.Bytes()
}

// begin starts the command on the nodes, and closes the answer when it has
// ended on all of them. Nodes that cannot run it are told of first.
func (m *many) begin(ctx context.Context, nodes []*object.Node, unknown []line, fanout int) {
	defer close(m.lines)
	for _, l := range unknown {
		m.send(ctx, l)
	}
	var there []*object.Node
	for _, n := range nodes {
		if err := m.Agents.Connected(n.UID); err != nil {
			m.send(ctx, line{Node: n.Name, Error: fault.Of(err).Reason})
		} else {
			there = append(there, n)
		}
	}
	slots := make(chan struct{}, fanout)
	var running sync.WaitGroup
	defer running.Wait()
	for _, n := range there {
		if m.waiting.Load() >= maxWaiting { // more would only pile up
			select {
			case <-m.moved:
			case <-time.After(waitTime):
			case <-ctx.Done():
			}
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		running.Go(func() {
			defer func() { <-slots }()
			m.node(ctx, n)
		})
	}
}

// answer writes the lines as they come, several at once where several are
// there. A client that is gone, or takes nothing for long, ends the command on
// every node.
func (m *many) answer(w http.ResponseWriter, cancel func()) error {
	out := api.NewLines(w)
	var failed error
	buf := make([]byte, 0, answerSize)
	for l := range m.lines {
		if failed != nil {
			continue // until all nodes have ended
		}
		buf = append(buf, l...)
		if len(m.lines) > 0 && len(buf) < answerSize {
			continue
		}
		if failed = out.Put(buf); failed != nil {
			cancel()
		}
		buf = buf[:0]
	}
	return failed
}

// send gives a line to the answer; false when nobody wants it any more.
func (m *many) send(ctx context.Context, l line) bool {
	text, err := api.Line(l)
	if err != nil {
		return false // cannot be: it is made of strings and numbers
	}
	select {
	case m.lines <- text:
		return true
	default:
	}
	m.waiting.Add(1)
	defer func() {
		m.waiting.Add(-1)
		select {
		case m.moved <- struct{}{}:
		default:
		}
	}()
	select {
	case m.lines <- text:
		return true
	case <-ctx.Done():
		return false
	}
}

// node runs the command on one node and tells how it ended.
func (m *many) node(ctx context.Context, n *object.Node) {
	limited, cancel := ctx, context.CancelFunc(func() {})
	if m.timeout > 0 {
		limited, cancel = context.WithTimeout(ctx, m.timeout)
	}
	defer cancel()
	last, err := m.carry(limited, ctx, n)
	switch {
	case ctx.Err() != nil:
		return
	case limited.Err() != nil:
		status := 124
		last = line{Status: &status, Error: "the command was killed after " + strconv.FormatFloat(m.timeout.Seconds(), 'g', -1, 64) + " s"}
	case err != nil:
		last = line{Error: fault.Of(err).Reason}
	}
	last.Node = n.Name
	m.send(ctx, last)
}

// carry runs the command until limited ends, sends its output until ctx ends,
// and gives the line that says how it ended.
func (m *many) carry(limited, ctx context.Context, n *object.Node) (last line, err error) {
	stream, err := m.Agents.Open(limited, n.UID, m.header)
	if err != nil {
		return last, err
	}
	defer stream.Close()
	defer context.AfterFunc(limited, func() { cut(stream) })()
	if len(m.input) > chunkSize {
		go stream.Write(m.input) // what goes wrong shows where it is read
	} else if _, err := stream.Write(m.input); err != nil {
		return last, broke(err)
	}
	c := carrier{many: m, ctx: ctx, node: n.Name, in: bufio.NewReaderSize(stream, chunkSize)}
	exit, err := c.run()
	if err != nil {
		return last, err
	}
	return line{Status: &exit.Status, Error: exit.Error}, nil
}

func broke(err error) error {
	return fault.New(fault.Upstream, "The connection to the node broke off: %v.", err)
}

// carrier takes one node's frames apart as they come in, so that none has to
// fit into memory.
type carrier struct {
	*many
	ctx  context.Context
	node string
	in   *bufio.Reader
	sent int64
	rest [2][]byte // of standard output and error: the beginning of a character
}

func (c *carrier) run() (wire.Exit, error) {
	var exit wire.Exit
	for {
		kind, size, err := wire.ReadFrameHead(c.in)
		switch {
		case err != nil:
			return exit, broke(err)
		case kind == wire.FrameStdout, kind == wire.FrameStderr:
			if err := c.output(kind, size); err != nil {
				return exit, err
			}
		case kind == wire.FrameExit:
			body := make([]byte, size)
			if _, err := io.ReadFull(c.in, body); err != nil {
				return exit, broke(err)
			}
			if err := json.Unmarshal(body, &exit); err != nil {
				return exit, broke(fmt.Errorf("its exit status cannot be read: %w", err))
			}
			c.chunk(wire.FrameStdout, nil, true)
			c.chunk(wire.FrameStderr, nil, true)
			return exit, nil
		default:
			if _, err := c.in.Discard(size); err != nil {
				return exit, broke(err)
			}
		}
	}
}

// output sends a frame of size bytes in pieces.
func (c *carrier) output(kind wire.FrameKind, size int) error {
	for size > 0 {
		if _, err := c.in.Peek(1); err != nil {
			return broke(err)
		}
		p, _ := c.in.Peek(min(size, c.in.Buffered()))
		if c.sent += int64(len(p)); c.sent > c.most {
			return fault.New(fault.TooLarge, "the command was killed after %d bytes of output", c.most)
		}
		if !c.chunk(kind, p, false) {
			return c.ctx.Err()
		}
		size -= len(p)
		c.in.Discard(len(p))
	}
	return nil
}

// chunk sends output. What may be the beginning of a character waits for the
// rest of it, until the last.
func (c *carrier) chunk(kind wire.FrameKind, p []byte, last bool) bool {
	rest := &c.rest[kind-wire.FrameStdout]
	if len(*rest) > 0 {
		p = append(*rest, p...)
		*rest = nil
	}
	if end := whole(p); !last && end < len(p) {
		*rest = bytes.Clone(p[end:])
		p = p[:end]
	}
	if len(p) == 0 {
		return true
	}
	l, text := line{Node: c.node}, ""
	if utf8.Valid(p) {
		text = string(p)
	} else {
		text, l.Encoding = base64.StdEncoding.EncodeToString(p), "base64"
	}
	if kind == wire.FrameStdout {
		l.Stdout = &text
	} else {
		l.Stderr = &text
	}
	return c.send(c.ctx, l)
}

// whole is how much of p ends with a whole character.
func whole(p []byte) int {
	for i := len(p) - 1; i >= 0 && i > len(p)-utf8.UTFMax; i-- {
		if utf8.RuneStart(p[i]) {
			if utf8.FullRune(p[i:]) {
				return len(p)
			}
			return i
		}
	}
	return len(p)
}
