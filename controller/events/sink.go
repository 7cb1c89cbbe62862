package events

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/gorilla/websocket"

	"muster/controller/api"
)

// encode makes an event's JSON, which has no line breaks.
func encode(v any) ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimRight(out.Bytes(), "\n"), nil
}

// sse is a stream of server-sent events (WHATWG HTML §9.2).
type sse struct {
	w     http.ResponseWriter
	rc    *http.ResponseController
	stall time.Duration
}

func newSSE(w http.ResponseWriter, stall time.Duration) (*sse, error) {
	s := &sse{w, http.NewResponseController(w), stall}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // a proxy must pass events on as they come
	w.WriteHeader(http.StatusOK)
	return s, s.rc.Flush()
}

func (s *sse) write(format string, args ...any) error {
	s.rc.SetWriteDeadline(time.Now().Add(s.stall)) // where there are none, the connection's own bounds hold
	if _, err := fmt.Fprintf(s.w, format, args...); err != nil {
		return err
	}
	return s.rc.Flush()
}

func (s *sse) send(e *event, id bool) error {
	data, err := encode(e)
	if err != nil {
		return err
	}
	if id {
		return s.write("id: %d\ndata: %s\n\n", e.Revision, data)
	}
	return s.write("data: %s\n\n", data)
}

// beat is a comment. An id alone is no event, but is remembered: a client that
// gets few events must not ask for a revision that is too old when it returns.
func (s *sse) beat(at uint64, tell bool) error {
	if tell {
		return s.write(": alive\nid: %d\n\n", at)
	}
	return s.write(": alive\n\n")
}

func (s *sse) end(reason string) {
	data, err := encode(map[string]string{"reason": reason})
	if err == nil {
		s.write("event: end\ndata: %s\n\n", data)
	}
}

// socket is a websocket that carries an event in each text message.
type socket struct {
	conn  *websocket.Conn
	stall time.Duration
}

// maxMessage bounds what a client may send, which is nothing but control frames.
const maxMessage = 4 << 10

// upgrade makes the websocket; gone is called when the client has left.
func upgrade(w http.ResponseWriter, r *http.Request, stall time.Duration, gone context.CancelFunc) (*socket, error) {
	up := websocket.Upgrader{HandshakeTimeout: stall, Subprotocols: []string{api.WebSocketProtocol}}
	conn, err := up.Upgrade(w, r, nil)
	if err != nil {
		return nil, err
	}
	conn.SetReadLimit(maxMessage)
	go func() {
		defer gone()
		for {
			if _, _, err := conn.NextReader(); err != nil {
				return
			}
		}
	}()
	return &socket{conn, stall}, nil
}

func (s *socket) send(e *event, _ bool) error {
	data, err := encode(e)
	if err != nil {
		return err
	}
	s.conn.SetWriteDeadline(time.Now().Add(s.stall))
	return s.conn.WriteMessage(websocket.TextMessage, data)
}

func (s *socket) beat(uint64, bool) error {
	return s.conn.WriteControl(websocket.PingMessage, nil, time.Now().Add(s.stall))
}

// end gives the reason as far as a close frame has room for it.
func (s *socket) end(reason string) {
	data, err := encode(map[string]string{"change": "end", "reason": reason})
	if err != nil {
		return
	}
	s.conn.SetWriteDeadline(time.Now().Add(s.stall))
	s.conn.WriteMessage(websocket.TextMessage, data)
	s.conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseGoingAway, ""), time.Now().Add(s.stall))
}
