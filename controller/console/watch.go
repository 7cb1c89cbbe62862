package console

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"muster/controller/api"
	"muster/shared/fault"
	"muster/shared/kind"
	"muster/shared/object"
)

// Bounds of a watcher's connection: the size of what is typed at once, how
// much may wait for one that is slow, both in bytes, and how long it may be
// silent.
const (
	maxMessage = 64 << 10
	maxWaiting = 256 << 10
	pingEvery  = 20 * time.Second
	pongWait   = 60 * time.Second
	writeWait  = 30 * time.Second
)

// The modes of a watcher.
const (
	modeRead  = "read"
	modeWrite = "write"
	modeTake  = "take" // write, from who did
)

// standing is what a watcher is told, as a text message, when it changes.
type standing struct {
	Mode      string `json:"mode"`             // read or write
	Writer    string `json:"writer,omitempty"` // the admin who types
	Connected bool   `json:"connected"`        // whether the line stands
	Reason    string `json:"reason,omitempty"` // why it does not, or why the mode is read
	Ended     bool   `json:"ended,omitempty"`
}

// watcher is one client. What it is sent waits here, so that a slow one costs
// nobody else anything: it misses the middle.
type watcher struct {
	by   kind.Author
	may  bool // type
	note string

	mu      sync.Mutex
	waiting []byte
	missed  int
	now     *standing // not yet sent
	wake    chan struct{}
}

func (w *watcher) put(p []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.waiting)+len(p) > maxWaiting {
		w.missed += len(p)
		return
	}
	w.waiting = append(w.waiting, p...)
	w.rouse()
}

func (w *watcher) stand(s standing) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s.Reason == "" && s.Mode == modeRead {
		s.Reason = w.note
	}
	w.now = &s
	w.rouse()
}

func (w *watcher) rouse() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *watcher) take() (p []byte, s *standing) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p, s = w.waiting, w.now
	if w.missed > 0 {
		p = fmt.Appendf(p, "\r\n[muster: %d bytes were left out: you read too slowly]\r\n", w.missed)
	}
	w.waiting, w.now, w.missed = nil, nil, 0
	return p, s
}

func (c *Console) watch(w http.ResponseWriter, r *http.Request) error {
	n, l, err := c.find(r)
	if err != nil {
		return err
	}
	mode := r.URL.Query().Get("mode")
	switch mode {
	case "":
		mode = modeWrite
	case modeRead, modeWrite, modeTake:
	default:
		return fault.Invalidf("mode: %q is none of read, write, take.", mode)
	}
	if l == nil {
		return noConsole(n)
	}
	if !websocket.IsWebSocketUpgrade(r) {
		return fault.Invalidf("This path takes only a websocket.")
	}
	me := &watcher{by: api.By(r), may: api.CallerOf(r.Context()).Can(kind.NodesExecCommand), wake: make(chan struct{}, 1)}
	if !me.may {
		me.note = "to type takes the permission " + string(kind.NodesExecCommand)
	}
	up := websocket.Upgrader{HandshakeTimeout: writeWait, Subprotocols: []string{api.WebSocketProtocol}}
	ws, err := up.Upgrade(w, r, nil)
	if err != nil {
		return nil // Upgrade has answered
	}
	defer ws.Close()
	l.join(me)
	defer l.leave(me)
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	c.want(ctx, n, l, me, mode)
	go func() {
		defer cancel()
		c.fromClient(ctx, ws, n, l, me)
	}()
	toClient(ctx, ws, me)
	return nil
}

// want does what a client asks for with a mode.
func (c *Console) want(ctx context.Context, n *object.Node, l *line, me *watcher, mode string) {
	if mode == modeRead || !me.may {
		l.unwrite(me)
		return
	}
	if err := c.opt.Record(ctx, me.by, n, map[string]string{"console": mode}); err != nil {
		c.opt.Log.Error("console", "node", n.Name, "error", err)
		return
	}
	l.write(me, mode == modeTake)
}

func (c *Console) fromClient(ctx context.Context, ws *websocket.Conn, n *object.Node, l *line, me *watcher) {
	ws.SetReadLimit(maxMessage)
	alive := func() { ws.SetReadDeadline(time.Now().Add(pongWait)) }
	alive()
	ws.SetPongHandler(func(string) error { alive(); return nil })
	for {
		what, data, err := ws.ReadMessage()
		if err != nil {
			return
		}
		alive()
		if what == websocket.BinaryMessage {
			l.input(me, data) // what is wrong with the line shows where it is read
			continue
		}
		var in struct{ Mode string }
		if json.Unmarshal(data, &in) != nil || in.Mode != modeRead && in.Mode != modeWrite && in.Mode != modeTake {
			return
		}
		c.want(ctx, n, l, me, in.Mode)
	}
}

// toClient sends what there is until the client is gone or the line ends.
func toClient(ctx context.Context, ws *websocket.Conn, me *watcher) {
	ping := time.NewTicker(pingEvery)
	defer ping.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ping.C:
			if ws.WriteControl(websocket.PingMessage, nil, time.Now().Add(writeWait)) != nil {
				return
			}
			continue
		case <-me.wake:
		}
		p, s := me.take()
		ws.SetWriteDeadline(time.Now().Add(writeWait))
		if len(p) > 0 && ws.WriteMessage(websocket.BinaryMessage, p) != nil {
			return
		}
		if s == nil {
			continue
		}
		if ws.WriteJSON(s) != nil {
			return
		}
		if s.Ended {
			ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(writeWait))
			return
		}
	}
}
