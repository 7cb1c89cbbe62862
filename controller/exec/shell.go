package exec

import (
	"encoding/binary"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"muster/controller/api"
	"muster/shared/fault"
	"muster/shared/object"
	"muster/shared/wire"
)

// The terminal's websocket: binary messages are its bytes in both directions,
// text messages are JSON. From the client: {"rows":24,"cols":80}. From the
// head, last: {"status":0} as in wire.Exit.

const (
	maxMessage = 64 << 10
	pingEvery  = 20 * time.Second
	pongWait   = 60 * time.Second
	writeWait  = 30 * time.Second
)

// size is a terminal's size in characters.
type size struct {
	Rows uint16 `json:"rows"`
	Cols uint16 `json:"cols"`
}

func (e *Exec) shell(w http.ResponseWriter, r *http.Request) error {
	obj, err := e.Nodes.Find(object.KindNode, r.PathValue("id"))
	if err != nil {
		return err
	}
	cmd, err := terminal(r)
	if err != nil {
		return err
	}
	if !websocket.IsWebSocketUpgrade(r) {
		return fault.Invalidf("This path takes only a websocket.")
	}
	stream, err := e.open(r.Context(), api.By(r), obj, cmd)
	if err != nil {
		return err
	}
	defer cut(stream)
	up := websocket.Upgrader{HandshakeTimeout: writeWait, Subprotocols: []string{api.WebSocketProtocol}}
	ws, err := up.Upgrade(w, r, nil)
	if err != nil {
		return nil // Upgrade has answered
	}
	defer ws.Close()
	var write sync.Mutex
	go keepAlive(ws, &write)
	go func() {
		// The client is gone or said nonsense: closing the stream ends the
		// command, and with it the loop below.
		defer cut(stream)
		fromClient(ws, stream)
	}()
	toClient(ws, &write, stream)
	return nil
}

func terminalQuery() []api.Param {
	return []api.Param{
		{Name: "rows", Type: "integer", Doc: "of the terminal, 24 when not given"}, {Name: "cols", Type: "integer", Doc: "of the terminal, 80 when not given"},
		{Name: "term", Doc: "what kind of terminal it is, for TERM"}, {Name: "cmd", Doc: "what to run instead of a login shell"},
	}
}

// terminal reads the query: rows, cols, term, and cmd where it is not a login.
func terminal(r *http.Request) (wire.Exec, error) {
	q := r.URL.Query()
	x := wire.Exec{TTY: true, Rows: 24, Cols: 80, By: api.CallerOf(r.Context()).Admin}
	for name, to := range map[string]*uint16{"rows": &x.Rows, "cols": &x.Cols} {
		if text := q.Get(name); text != "" {
			n, err := strconv.ParseUint(text, 10, 16)
			if err != nil || n == 0 {
				return x, fault.Invalidf("%s: %q is not a number from 1 to 65535.", name, text)
			}
			*to = uint16(n)
		}
	}
	if term := q.Get("term"); term != "" && len(term) < 64 {
		x.Env = []string{"TERM=" + term}
	}
	if x.Shell = q.Get("cmd"); x.Shell == "" {
		x.Login = true
	}
	return x, nil
}

func keepAlive(ws *websocket.Conn, write *sync.Mutex) {
	for {
		write.Lock()
		err := ws.WriteControl(websocket.PingMessage, nil, time.Now().Add(writeWait))
		write.Unlock()
		if err != nil {
			return
		}
		time.Sleep(pingEvery)
	}
}

func fromClient(ws *websocket.Conn, stream io.Writer) {
	ws.SetReadLimit(maxMessage)
	alive := func() { ws.SetReadDeadline(time.Now().Add(pongWait)) }
	alive()
	ws.SetPongHandler(func(string) error { alive(); return nil })
	for {
		kind, data, err := ws.ReadMessage()
		if err != nil {
			return
		}
		alive()
		if kind == websocket.BinaryMessage {
			if len(data) == 0 { // an empty frame would end the input
				continue
			}
			err = wire.WriteFrame(stream, wire.FrameStdin, data)
		} else {
			var s size
			if json.Unmarshal(data, &s) != nil || s.Rows == 0 || s.Cols == 0 {
				return
			}
			b := binary.BigEndian.AppendUint16(nil, s.Rows)
			err = wire.WriteFrame(stream, wire.FrameResize, binary.BigEndian.AppendUint16(b, s.Cols))
		}
		if err != nil {
			return
		}
	}
}

func toClient(ws *websocket.Conn, write *sync.Mutex, stream io.Reader) {
	send := func(kind int, data []byte) error {
		write.Lock()
		defer write.Unlock()
		ws.SetWriteDeadline(time.Now().Add(writeWait))
		return ws.WriteMessage(kind, data)
	}
	buf := make([]byte, wire.MaxFrame)
	for {
		kind, payload, err := wire.ReadFrame(stream, buf)
		if err != nil {
			payload, _ = json.Marshal(wire.Exit{Status: 255, Error: "the connection to the node broke off"})
			kind = wire.FrameExit
		}
		if kind == wire.FrameExit {
			send(websocket.TextMessage, payload)
			write.Lock()
			ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(writeWait))
			write.Unlock()
			return
		}
		if send(websocket.BinaryMessage, payload) != nil {
			return
		}
	}
}
