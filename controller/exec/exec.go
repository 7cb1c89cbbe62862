// Package exec runs commands on nodes for admins: on one node with the output
// as raw bytes, on many as lines of JSON, or an interactive terminal on a
// websocket.
//
// It carries bytes between an HTTP request and a stream to the node's agent;
// running the command is agent/command's part. It must not keep state: a
// request that ends takes its command with it.
package exec

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"muster/controller/api"
	"muster/shared/fault"
	"muster/shared/kind"
	"muster/shared/object"
	"muster/shared/wire"
)

// Nodes finds the node that an identifier names.
type Nodes interface {
	Find(kindName, id string) (kind.Object, error)
	All(kindName string) []kind.Object
}

// Agents opens a stream to a node's agent; an agent that is not connected is a
// Conflict.
type Agents interface {
	Connected(uid string) error
	Open(ctx context.Context, uid string, h wire.Header) (net.Conn, error)
}

// Exec serves commands.
type Exec struct {
	Nodes  Nodes
	Agents Agents
	Log    *slog.Logger
	// Record notes in the audit trail what is about to be run, and by whom; what
	// cannot be noted is not run. The node is nil where there are several, which
	// the detail then names. nil for no record.
	Record func(ctx context.Context, by kind.Author, node *object.Node, detail map[string]string) error
	// Select gives the nodes that a selector picks, as far as its author may know.
	Select func(ctx context.Context, by kind.Author, selector string) ([]*object.Node, error)

	runs atomic.Int32 // commands on sets of nodes, now
}

// TrailerStatus is the HTTP trailer that holds the command's exit status,
// TrailerError the one that says why it could not be run.
const (
	TrailerStatus = "X-Exit-Status"
	TrailerError  = "X-Exit-Error"
)

// Routes are the endpoints.
func (e *Exec) Routes() []api.Route {
	return []api.Route{
		{Method: "PUT", Path: api.Root + "/node/{id}/exec", Permission: kind.NodesExecCommand, Doc: "Run a command on the node; its output comes as raw bytes, its exit status in the trailer " + TrailerStatus + ".", Handler: e.run, Raw: "application/octet-stream", Query: rawQuery()},
		{Method: "POST", Path: api.Root + "/exec", Permission: kind.NodesExecCommand, Raw: api.NDJSON, Body: manyRequest{}, Doc: "Run a command on a set of nodes; each line of the answer is a JSON object with a node and its stdout, stderr, status or error, as they come.", Handler: e.runMany},
		{Method: "GET", Path: api.Root + "/node/{id}/shell", Permission: kind.NodesExecCommand, Doc: "A terminal on the node, as a websocket.", Handler: e.shell, Answer: api.WebSocket{}, Query: terminalQuery()},
	}
}

// request is the body of exec. With Content-Type application/octet-stream the
// body is the command's input as it is, sent on as it comes, and the query has
// the rest: cmd for the shell, or arg once for each word; timeout.
type request struct {
	Cmd     json.RawMessage `json:"cmd"`
	Stdin   string          `json:"stdin"`
	Timeout float64         `json:"timeout"` // seconds; 0 for none
}

const rawBody = "application/octet-stream"

func rawQuery() []api.Param {
	const with = ", with a body of the type " + rawBody + " that is the command's input"
	return []api.Param{
		{Name: "cmd", Doc: "the command for the shell" + with}, {Name: "arg", Type: api.ManyTexts, Doc: "or else its words, once for each" + with},
		{Name: "timeout", Type: "number", Doc: "seconds after which it is ended" + with},
	}
}

// read gives the request and the command's input.
func read(w http.ResponseWriter, r *http.Request) (in request, stdin io.Reader, err error) {
	if media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); media != rawBody {
		if r.URL.RawQuery != "" {
			return in, nil, fault.Invalidf("The query says what to run only with Content-Type: %s; otherwise the body does.", rawBody)
		}
		err = api.Decode(w, r, &in)
		return in, strings.NewReader(in.Stdin), err
	}
	q := r.URL.Query()
	if q.Has("cmd") {
		in.Cmd, err = json.Marshal(q.Get("cmd"))
	} else {
		in.Cmd, err = json.Marshal(q["arg"])
	}
	if err != nil {
		return in, nil, err
	}
	if text := q.Get("timeout"); text != "" {
		if in.Timeout, err = strconv.ParseFloat(text, 64); err != nil {
			return in, nil, fault.Invalidf("timeout: %q is not a number of seconds.", text)
		}
	}
	openInput(w, r)
	return in, r.Body, nil
}

// command reads cmd: a string is for the shell, a list is run as it is.
func command(raw json.RawMessage) (wire.Exec, error) {
	var x wire.Exec
	if json.Unmarshal(raw, &x.Shell) == nil && strings.TrimSpace(x.Shell) != "" {
		return x, nil
	}
	if x.Shell = ""; json.Unmarshal(raw, &x.Argv) == nil && len(x.Argv) > 0 && x.Argv[0] != "" {
		return x, nil
	}
	return x, fault.Invalidf("cmd: needs a command, as a string for the shell or as a list of words.")
}

func (e *Exec) run(w http.ResponseWriter, r *http.Request) error {
	obj, err := e.Nodes.Find(object.KindNode, r.PathValue("id"))
	if err != nil {
		return err
	}
	in, stdin, err := read(w, r)
	if err != nil {
		return err
	}
	cmd, err := command(in.Cmd)
	if err != nil {
		return err
	}
	if !(in.Timeout >= 0 && in.Timeout <= 1e9) {
		return fault.Invalidf("timeout: %v is not a number of seconds.", in.Timeout)
	}
	cmd.By = api.CallerOf(r.Context()).Admin
	ctx, cancel := r.Context(), context.CancelFunc(func() {})
	if in.Timeout > 0 {
		ctx, cancel = context.WithTimeout(ctx, time.Duration(in.Timeout*float64(time.Second)))
	}
	defer cancel()
	stream, err := e.open(ctx, api.By(r), obj, cmd)
	if err != nil {
		return err
	}
	defer stream.Close()
	// An aborted request closes the stream, which kills the command.
	stop := context.AfterFunc(ctx, func() { cut(stream) })
	defer stop()
	fed := make(chan struct{})
	go func() { defer close(fed); feed(stream, stdin) }()
	exit, err := relay(w, stream)
	if r.Context().Err() != nil {
		return r.Context().Err()
	}
	if ctx.Err() != nil {
		begin(w) // a command without output has no answer yet
		exit = wire.Exit{Status: 124, Error: "the command was killed after " + strconv.FormatFloat(in.Timeout, 'g', -1, 64) + " s"}
	} else if err != nil {
		// The node is gone: the answer must not look complete.
		return fault.New(fault.Upstream, "The connection to the node broke off: %w", err)
	}
	w.Header().Set(TrailerStatus, strconv.Itoa(exit.Status))
	if exit.Error != "" {
		w.Header().Set(TrailerError, strconv.QuoteToASCII(exit.Error))
	}
	if stdin == r.Body {
		stream.Close()
		dismiss(w, r, fed)
	}
	return nil
}

// cut ends a stream to a node, which may have stopped to take part in it: only
// closed, it would be read until the node closes it too.
func cut(stream net.Conn) {
	stream.SetDeadline(time.Unix(1, 0))
	stream.Close()
}

func (e *Exec) open(ctx context.Context, by kind.Author, node kind.Object, cmd wire.Exec) (net.Conn, error) {
	if err := e.record(ctx, by, []*object.Node{node.(*object.Node)}, cmd); err != nil {
		return nil, err
	}
	stream, err := e.Agents.Open(ctx, node.Base().UID, wire.Header{Type: wire.StreamExec, Exec: &cmd})
	if err == nil {
		e.Log.Info("command", "node", node.(*object.Node).Name, "admin", cmd.By, "shell", cmd.Shell, "argv", cmd.Argv, "tty", cmd.TTY)
	}
	return stream, err
}

func (e *Exec) record(ctx context.Context, by kind.Author, nodes []*object.Node, cmd wire.Exec) error {
	if e.Record == nil {
		return nil
	}
	detail := map[string]string{"cmd": cmd.Shell}
	switch {
	case cmd.Login:
		detail["cmd"] = "(login shell)"
	case len(cmd.Argv) > 0:
		words := make([]string, len(cmd.Argv))
		for i, w := range cmd.Argv {
			if words[i] = w; strings.ContainsAny(w, " \t\n\"'\\") || w == "" {
				words[i] = strconv.Quote(w)
			}
		}
		detail["cmd"] = strings.Join(words, " ")
	}
	if cmd.TTY {
		detail["terminal"] = "true"
	}
	if len(nodes) == 1 {
		return e.Record(ctx, by, nodes[0], detail)
	}
	detail["nodes"], detail["count"] = fold(nodes), strconv.Itoa(len(nodes))
	return e.Record(ctx, by, nil, detail)
}

// begin sends the answer's head, with a body whose length is open.
func begin(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Trailer", TrailerStatus+", "+TrailerError)
	http.NewResponseController(w).Flush() // what is wrong with the connection shows in the next write
}

// relay sends output as it comes, and gives the exit. What is sent waits for
// the client: a slow one slows the command, nothing piles up here.
func relay(w http.ResponseWriter, stream io.Reader) (wire.Exit, error) {
	begun := false
	exit, err := wire.ReadOutput(stream, func(_ wire.FrameKind, p []byte) error {
		if !begun {
			begun = true
			begin(w)
		}
		if _, err := w.Write(p); err != nil {
			return err
		}
		return http.NewResponseController(w).Flush()
	})
	if err == nil && !begun {
		begin(w)
	}
	return exit, err
}
