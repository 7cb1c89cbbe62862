// Package console keeps the serial lines of nodes: it holds each of them open
// all the time, logs what they say, shows it to those who watch, and sees when
// a machine dies on one. Where a node's console is, a Target, others say; how
// to open it is a source: serial-over-LAN, the socket of a QEMU process, a
// command by ssh.
//
// What a machine says is a stranger's: it reaches no log, no terminal and no
// error but through the parser in text.go. One line must not hold another up,
// nor a slow watcher its line; and nothing here decides what follows when a
// machine died.
package console

import (
	"context"
	"errors"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"muster/controller/api"
	"muster/controller/registry"
	"muster/shared/fault"
	"muster/shared/kind"
	"muster/shared/object"
)

// Target is where a node's console is. Only Password is secret.
type Target struct {
	Scheme, Host, Port, User, Password string
	Path                               string // without the leading slash
	Options                            url.Values
}

// Source opens a target. It returns once the line stands: reading gives what
// the machine says, writing types.
type Source func(ctx context.Context, t Target) (io.ReadWriteCloser, error)

// Objects is what the package needs of the registry.
type Objects interface {
	Find(kindName, id string) (kind.Object, error)
	All(kindName string) []kind.Object
	Revision() uint64
	Changes(ctx context.Context, after uint64) iter.Seq2[registry.Change, error]
}

// Options are what the package has to be told.
type Options struct {
	Objects Objects
	// Target says where a node's console is; not ok where it has none.
	Target  func(n *object.Node) (t Target, ok bool, err error)
	Sources map[string]Source // by scheme
	// Died is told a line by which a machine says that it is dead.
	Died func(ctx context.Context, uid, line string)
	// Record notes in the audit trail who may type. What cannot be noted is refused.
	Record func(ctx context.Context, by kind.Author, n *object.Node, detail map[string]string) error
	Dir    string // of the logs: a directory for each node, by its UID
	Size   int64  // of a log file in bytes, at which the next one is begun
	Files  int    // how many of them are kept of a node
	Log    *slog.Logger
	Now    func() time.Time
}

// opening is how many lines may be opened at once: each may be a process, and
// many BMCs may be dead.
const opening = 32

// Console keeps the lines and serves the endpoints.
type Console struct {
	opt   Options
	slots chan struct{} // held while a line is opened

	mu    sync.Mutex
	lines map[string]*line // by the node's UID
}

// New makes it; Run opens the lines.
func New(opt Options) *Console {
	return &Console{opt: opt, slots: make(chan struct{}, opening), lines: map[string]*line{}}
}

// Routes are the endpoints.
func (c *Console) Routes() []api.Route {
	const path = api.Root + "/node/{id}/console"
	return []api.Route{
		{Method: "GET", Path: path, Permission: "NodesRead", Handler: c.watch, Answer: api.WebSocket{},
			Doc:   "The node's serial console, as a websocket: binary messages are its bytes, text messages are JSON. One who watches may type, which takes the permission " + string(kind.NodesExecCommand) + ".",
			Query: []api.Param{{Name: "mode", Doc: "write, to type where nobody else does (when not given); take, to take over from who does; read, to watch"}}},
		{Method: "GET", Path: path + "/log", Permission: "NodesRead", Handler: c.getLog, Raw: "text/plain; charset=utf-8",
			Doc:   "What the node's console said, as lines of text with their times, oldest first.",
			Query: []api.Param{{Name: "lines", Type: "integer", Doc: "only so many of the last lines"}}},
	}
}

// gather is how long changes are collected before the lines follow them.
const gather = 200 * time.Millisecond

// Run keeps the lines of all nodes that have a console, until ctx ends.
func (c *Console) Run(ctx context.Context) error {
	after := c.opt.Objects.Revision()
	c.sweep()
	work := &work{all: true, wake: make(chan struct{}, 1)}
	work.note("")
	done := make(chan error, 1)
	go func() { done <- work.follow(ctx, c.opt.Objects, after) }()
	for {
		select {
		case <-ctx.Done():
			c.closeAll()
			<-done
			return nil
		case err := <-done:
			c.closeAll()
			return err
		case <-work.wake:
		}
		uids, all := work.take()
		if all {
			uids = c.known()
		}
		for _, uid := range uids {
			c.follow(ctx, uid)
		}
		sleep(ctx, gather)
	}
}

// work is which nodes are to be looked at anew.
type work struct {
	mu    sync.Mutex
	nodes map[string]bool
	all   bool
	wake  chan struct{}
}

// note asks for a look at one node, at all where uid is empty.
func (w *work) note(uid string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.nodes == nil {
		w.nodes = map[string]bool{}
	}
	w.nodes[uid] = true
	w.all = w.all || uid == ""
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *work) take() (uids []string, all bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for uid := range w.nodes {
		uids = append(uids, uid)
	}
	all, w.all, w.nodes = w.all, false, nil
	return uids, all
}

// follow notes what changes. A node's console may also come from its groups.
func (w *work) follow(ctx context.Context, objects Objects, after uint64) error {
	for {
		for change, err := range objects.Changes(ctx, after) {
			if ctx.Err() != nil {
				return nil
			}
			if fault.Is(err, fault.Gone) {
				after = objects.Revision()
				w.note("")
				break
			}
			if err != nil {
				return err
			}
			switch after = change.Revision; change.Kind {
			case object.KindNode:
				w.note(change.UID)
			case object.KindAttrib, object.KindCluster, object.KindNamingpool:
				w.note("")
			}
		}
		if ctx.Err() != nil {
			return nil
		}
	}
}

// known are the nodes that there are, and those that have a line.
func (c *Console) known() []string {
	var uids []string
	for _, o := range c.opt.Objects.All(object.KindNode) {
		uids = append(uids, o.Base().UID)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for uid := range c.lines {
		uids = append(uids, uid)
	}
	return uids
}

// follow opens, moves or ends a node's line, as its object says.
func (c *Console) follow(ctx context.Context, uid string) {
	o, err := c.opt.Objects.Find(object.KindNode, uid)
	gone := fault.Is(err, fault.NotFound)
	has := false
	if err == nil {
		_, has, err = c.opt.Target(o.(*object.Node))
		has = has || err != nil // which the line tells
	}
	c.mu.Lock()
	l := c.lines[uid]
	switch {
	case l == nil && has:
		l = c.newLine(uid, o.(*object.Node).Name)
		c.lines[uid] = l
		l.start(ctx)
		c.mu.Unlock()
		return
	case l != nil && !has:
		delete(c.lines, uid)
	}
	c.mu.Unlock()
	if l != nil && has {
		l.look(o.(*object.Node))
		return
	}
	if l != nil {
		l.close("The node has no console any more.")
	}
	if gone {
		os.RemoveAll(c.dir(uid))
	}
}

func (c *Console) closeAll() {
	c.mu.Lock()
	lines := c.lines
	c.lines = map[string]*line{}
	c.mu.Unlock()
	var all sync.WaitGroup
	for _, l := range lines {
		all.Go(func() { l.close("The head is being stopped.") })
	}
	all.Wait()
}

func (c *Console) dir(uid string) string { return filepath.Join(c.opt.Dir, uid) }

// sweep removes the logs of nodes that were deleted while nobody looked.
func (c *Console) sweep() {
	entries, err := os.ReadDir(c.opt.Dir)
	if err != nil {
		return // there is none before the first line
	}
	for _, e := range entries {
		if _, err := c.opt.Objects.Find(object.KindNode, e.Name()); fault.Is(err, fault.NotFound) {
			os.RemoveAll(c.dir(e.Name()))
		}
	}
}

// find gives the node of a request and its line.
func (c *Console) find(r *http.Request) (*object.Node, *line, error) {
	o, err := c.opt.Objects.Find(object.KindNode, r.PathValue("id"))
	if err != nil {
		return nil, nil, err
	}
	n := o.(*object.Node)
	c.mu.Lock()
	defer c.mu.Unlock()
	return n, c.lines[n.UID], nil
}

// maxLines bounds how many lines a client may ask for by number.
const maxLines = 1_000_000

func (c *Console) getLog(w http.ResponseWriter, r *http.Request) error {
	n, l, err := c.find(r)
	if err != nil {
		return err
	}
	lines := 0
	if text := r.URL.Query().Get("lines"); text != "" {
		if lines, err = strconv.Atoi(text); err != nil || lines < 1 || lines > maxLines {
			return fault.Invalidf("lines: %q is no number from 1 to %d.", text, maxLines)
		}
	}
	files, rest := openLog(c.dir(n.UID)), ""
	if l != nil {
		files, rest = l.history()
	}
	defer files.close()
	if l == nil && len(files) == 0 {
		return noConsole(n)
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	return files.copy(w, lines, rest)
}

func noConsole(n *object.Node) error {
	return fault.New(fault.NotFound, "The node %s has no console: give it a power_uri with ipmi://, or the attribute %s: muster node attributes %s set %s=ipmi://USER:PASSWORD@ADDRESS/", n.Name, object.AttrConsole, n.Name, object.AttrConsole)
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

var errEnded = errors.New("the console's other end closed it")
