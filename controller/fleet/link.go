package fleet

import (
	"context"
	"crypto/sha256"
	"net"
	"net/http"
	"runtime/debug"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"muster/controller/api"
	"muster/shared/fault"
	"muster/shared/kind"
	"muster/shared/mux"
	"muster/shared/object"
	"muster/shared/wire"
)

// link is one agent's connection, on which both open streams.
type link struct {
	session *mux.Session
	inImage bool
	takes   bool // attributes
	files   bool // of its own
	proven  bool // by a certificate
	// pushing says that something is on its way; who set it may use sent, the
	// hash of the attributes that the node has, and has, the digest of its files.
	pushing atomic.Bool
	sent    [sha256.Size]byte
	has     string
}

// helloTime bounds the first messages of a link, maxHello their size, and
// maxMessage any websocket message after them.
const (
	helloTime  = 20 * time.Second
	maxHello   = 64 << 10
	maxMessage = 1 << 20
)

// There may be ten thousand links, and nearly all are idle. linkRead and
// linkWrite are the sizes of their buffers, in bytes; those for writing are
// shared. fromAgent is how many streams an agent may have open.
const (
	linkRead  = 512
	linkWrite = 4 << 10
	fromAgent = 4
)

// Agents give a sign of life every 10 s, if only by their reports.
const silent = 30 * time.Second

// backRate is how many agents in a second a head can well greet, and maxBack
// the longest that it has them wait for that.
const (
	backRate = 1000
	maxBack  = 10 * time.Second
)

// serveLink takes an agent's connection. The link outlives the request, of
// which nothing is kept.
func (f *Fleet) serveLink(w http.ResponseWriter, r *http.Request) error {
	uid := api.CallerOf(r.Context()).Node
	obj, err := f.opt.Nodes.Find(object.KindNode, uid)
	if err != nil {
		return err
	}
	if !websocket.IsWebSocketUpgrade(r) {
		return fault.Invalidf("This path takes only a websocket.")
	}
	if err := compatible(r.Header); err != nil {
		f.opt.Log.Warn("an agent was refused", "node", uid, "address", r.RemoteAddr, "error", err)
		return err
	}
	serial := f.serial(uid)
	up := websocket.Upgrader{HandshakeTimeout: helloTime, ReadBufferSize: linkRead, WriteBufferSize: linkWrite, WriteBufferPool: &f.buffers}
	ws, err := up.Upgrade(w, r, nil)
	if err != nil {
		return nil // Upgrade has answered
	}
	hello, err := f.greet(ws, obj.(*object.Node))
	if err != nil {
		f.opt.Log.Warn("an agent's link failed at once", "node", uid, "address", r.RemoteAddr, "error", err)
		ws.Close()
		return nil
	}
	l := &link{session: f.mux.Client(wire.Conn(ws)), inImage: hello.InImage, takes: hello.InImage && hello.Version >= 2, files: hello.InImage && hello.Version >= 3, has: unknownFiles, proven: r.TLS != nil && len(r.TLS.PeerCertificates) > 0}
	if !f.attach(uid, serial, l, hello) {
		l.session.Close()
		return nil
	}
	f.opt.Log.Debug("an agent is linked", "node", uid, "address", r.RemoteAddr, "agent", hello.Agent, "wire", hello.Version)
	if hello.Stopped != "" {
		f.opt.Log.Warn("a boot is held up", "node", uid, "why", clip(hello.Stopped))
	}
	go f.keepLink(uid, l)
	return nil
}

// keepLink reads a link until it ends.
func (f *Fleet) keepLink(uid string, l *link) {
	l.session.Serve(func(st *mux.Stream) { go f.serveStream(uid, l, st) })
	f.detach(uid, l)
}

// serveStream takes what an agent sends by itself: its reports.
func (f *Fleet) serveStream(uid string, l *link, st *mux.Stream) {
	defer st.Close()
	defer func() {
		if fault := recover(); fault != nil {
			f.opt.Log.Error("an agent's stream failed", "node", uid, "panic", fault, "stack", string(debug.Stack()))
		}
	}()
	st.SetDeadline(time.Now().Add(streamTime)) // of a socket: by the machine's clock
	h, err := wire.ReadHeader(st)
	if err != nil || h.Type != wire.StreamReport {
		return
	}
	raw, err := wire.ReadMessage(st, wire.MaxReport)
	if err != nil {
		return
	}
	taken := wire.Taken{Status: http.StatusOK, Time: seconds(f.opt.Now())}
	if err := f.reportOver(uid, l, raw); err != nil {
		is := fault.Of(err)
		taken.Status, taken.Reason = fault.Status(is), is.Reason
	}
	st.Finish(wire.TakenMessage(taken)) // an agent that does not get it reports again
}

// streamTime is how long an agent may take for a stream of its own.
const streamTime = time.Minute

// reportOver takes a report that came over a link, which must be the node's.
func (f *Fleet) reportOver(uid string, l *link, raw []byte) error {
	f.mu.Lock()
	n := f.nodes[uid]
	current := n != nil && n.link == l
	f.mu.Unlock()
	if !current {
		return fault.New(fault.Forbidden, "This link speaks no longer for the node.")
	}
	var in reported
	err := api.CheckJSON(raw)
	if err == nil {
		err = api.Strict(raw, &in)
	}
	return f.ownReport(uid, &in, err)
}

// keepWatch closes the links of agents that were silent for longer than one
// takes to send its next sign of life, until ctx ends.
func (f *Fleet) keepWatch(ctx context.Context) {
	for sleep(ctx, silent/4); ctx.Err() == nil; sleep(ctx, silent/4) {
		f.mu.Lock()
		var dead []*link
		for _, n := range f.nodes {
			if n.link != nil && time.Since(n.link.session.Heard()) > silent {
				dead = append(dead, n.link)
			}
		}
		f.mu.Unlock()
		for _, l := range dead {
			l.session.Close()
		}
	}
}

// compatible refuses an agent that speaks a newer protocol than this head. One
// that does not say which speaks as the first did.
func compatible(h http.Header) error {
	said := h.Get(wire.HeaderVersion)
	if said == "" {
		return nil
	}
	if v, err := strconv.Atoi(said); err != nil || v < 1 || v > wire.Version {
		return fault.New(fault.Conflict, "The agent (%.64q) speaks version %.20q of the protocol between agent and head, this head 1 to %d: install the agent of this head on the node, or a newer head.", h.Get(wire.HeaderAgent), said, wire.Version)
	}
	return nil
}

func (f *Fleet) greet(ws *websocket.Conn, n *object.Node) (wire.Hello, error) {
	var hello wire.Hello
	deadline := time.Now().Add(helloTime) // of a socket: by the machine's clock, not by the injected one
	ws.SetReadLimit(maxHello)
	ws.SetReadDeadline(deadline)
	ws.SetWriteDeadline(deadline)
	if err := ws.ReadJSON(&hello); err != nil {
		return hello, err
	}
	err := ws.WriteJSON(wire.Hello{Version: wire.Version, Node: n.UID, Name: n.Name, Every: f.opt.Every, Back: int(f.back().Milliseconds())})
	ws.SetReadLimit(maxMessage)
	ws.SetReadDeadline(time.Time{})
	ws.SetWriteDeadline(time.Time{})
	return hello, err
}

// back is over what time the agents that there are shall spread their return.
func (f *Fleet) back() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return min(time.Duration(len(f.nodes))*time.Second/backRate, maxBack)
}

// serial is that of the certificate which speaks for a node, "" for none.
func (f *Fleet) serial(uid string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := f.nodes[uid]; n != nil {
		return n.identity.Serial
	}
	return ""
}

// attach makes l the node's link; one that it had before is closed: an agent
// that lost its link learns of it before the head does. It does not where the
// node was deleted, or got another identity, while the agent was greeted:
// those who did that have cut the links that they found.
func (f *Fleet) attach(uid, serial string, l *link, hello wire.Hello) bool {
	f.mu.Lock()
	_, exists := f.opt.Nodes.Look().Get(object.KindNode, uid)
	n := f.nodes[uid]
	if !exists || n == nil && serial != "" || n != nil && n.identity.Serial != serial {
		f.mu.Unlock()
		return false
	}
	n = f.get(uid)
	old := n.link
	n.link = l
	if l.inImage {
		f.up(uid, n, hello.BootID)
	}
	n.bootID = hello.BootID
	if n.bootID == "" {
		n.bootID = "unknown"
	}
	f.touch(uid, n)
	f.mu.Unlock()
	f.push.want(uid)
	if old != nil {
		old.session.Close()
	}
	return true
}

func (f *Fleet) detach(uid string, l *link) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := f.nodes[uid]; n != nil && n.link == l {
		n.link = nil
		f.touch(uid, n)
	}
}

// Open opens a stream to a node's agent and sends the header. A node whose
// agent is not connected is a Conflict that says what the node does instead.
func (f *Fleet) Open(ctx context.Context, uid string, h wire.Header) (net.Conn, error) {
	f.mu.Lock()
	n := f.nodes[uid]
	var l *link
	if n != nil {
		l = n.link
	}
	f.mu.Unlock()
	if l == nil {
		return nil, f.absent(uid)
	}
	stream, err := l.session.Open()
	if err != nil {
		return nil, f.absent(uid)
	}
	// A header may be longer than what an agent that hangs takes unread.
	stop := context.AfterFunc(ctx, func() { stream.Close() })
	err = wire.WriteHeader(stream, h)
	if !stop() {
		return nil, ctx.Err()
	}
	if err != nil {
		stream.Close()
		return nil, f.absent(uid)
	}
	return stream, nil
}

// Connected says why a node's agent is not connected, as Open does; nil if it is.
func (f *Fleet) Connected(uid string) error {
	f.mu.Lock()
	n := f.nodes[uid]
	there := n != nil && n.link != nil
	f.mu.Unlock()
	if !there {
		return f.absent(uid)
	}
	return nil
}

// Entered says why a node's agent is not connected from inside its image; nil
// if it is.
func (f *Fleet) Entered(uid string) error {
	f.mu.Lock()
	n := f.nodes[uid]
	there := n != nil && n.link != nil && n.link.inImage
	f.mu.Unlock()
	if !there {
		return f.absent(uid)
	}
	return nil
}

func (f *Fleet) absent(uid string) error {
	name := uid
	if obj, ok := f.opt.Nodes.Look().Get(object.KindNode, uid); ok {
		name = obj.(*object.Node).Name
	}
	state, since, reason := f.State(uid)
	text := "The agent of node " + name + " is not connected; the node is " + state
	if !since.IsZero() {
		text += " since " + since.Format(time.RFC3339)
	}
	if reason != "" {
		text += " (" + reason + ")"
	}
	return fault.New(fault.Conflict, "%s.", text)
}

// Routes are what agents call, and what tells about them.
func (f *Fleet) Routes() []api.Route {
	const node = api.Root + "/node/{id}/"
	return []api.Route{
		{Method: "GET", Path: wire.PathLink, Permission: kind.NodeOnly, Doc: "The agent's link: a websocket that carries streams.", Handler: f.serveLink, Answer: api.WebSocket{}},
		{Method: "POST", Path: wire.PathEnrol, Permission: kind.Public, Doc: "Trade a one-time key for a certificate.", Handler: f.serveEnrol, Body: wire.Enrol{}, Answer: wire.Enrolled{}},
		{Method: "GET", Path: wire.PathBoot, Permission: kind.NodeOnly, Doc: "What the asking node shall become.", Handler: f.serveBoot, Answer: wire.Boot{},
			Query: []api.Param{{Name: wire.QueryConfig, Doc: "another boot configuration than the node's"}, {Name: wire.QueryImage, Doc: "another image than the boot configuration's"}}},
		{Method: "POST", Path: wire.PathStep, Permission: kind.NodeOnly, Doc: "Stamp a step on the asking node's boot timeline.", Handler: f.serveStep, Body: wire.Step{}, Answer: api.Nothing{}},
		{Method: "PUT", Path: wire.PathStatus, Permission: kind.NodeOnly, Doc: "Status and hardware of the asking node.", Handler: f.putOwnStatus, Body: reported{}, Answer: api.Nothing{}},
		{Method: "POST", Path: wire.PathStatus, Permission: "NodesWrite", Doc: "Status and hardware of the node that uid names.", Handler: f.putStatus, Body: reported{}, Answer: api.Nothing{}},
		{Method: "PUT", Path: api.Root + "/node/putattribs", Permission: kind.NodeOnly, Doc: "Add to the attributes of the asking node.", Handler: f.putOwnAttributes, Body: map[string]any{}, Answer: api.Nothing{}},
		{Method: "POST", Path: api.Root + "/node/putattribs", Permission: "NodesWrite", Doc: "Add to the attributes of the node that uid names.", Handler: f.putAttributes, Body: map[string]any{}, Answer: api.Nothing{}},
		{Method: "GET", Path: node + "status", Permission: "NodesRead", Doc: "All that the node last reported, and its state.", Handler: f.getStatus, Answer: map[string]any{}},
		{Method: "GET", Path: node + "state", Permission: "NodesRead", Doc: "The node's state, and when and why it got into the last fifty.", Handler: f.getState, Answer: stateHistory{}},
		{Method: "GET", Path: node + "timeline", Permission: "NodesRead", Doc: "The steps of the node's boots, oldest first.", Handler: f.getTimeline, Answer: []Entry{}},
		{Method: "DELETE", Path: node + "identity", Permission: "NodesWrite", Doc: "Make the node's certificate invalid; its address speaks for it again.", Handler: f.deleteIdentity, Answer: api.Nothing{}},
		{Method: "GET", Path: api.Root + "/nodes/states", Permission: "NodesRead", Doc: "Every node's state by name; ?after=SEQ waits for a change.", Handler: f.getStates,
			Query: []api.Param{{Name: "after", Type: "integer", Doc: "the seq of an earlier answer: wait for a change after it, for about a minute at most"}}, Answer: allStates{}},
		{Method: "GET", Path: api.Root + "/whereami", Permission: kind.LoggedIn, Doc: "Which node the caller sits at.", Handler: f.whereAmI, Answer: map[string]string{}},
	}
}
