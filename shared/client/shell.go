package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"muster/shared/fault"
)

// Size is a terminal's size in characters.
type Size struct {
	Rows uint16 `json:"rows"`
	Cols uint16 `json:"cols"`
}

// Bounds of a terminal's connection: the size of a message, and how long the
// head may be silent, which pings every 20 s.
const (
	maxMessage  = 1 << 20 // bytes
	shellWait   = 60 * time.Second
	shellDial   = 20 * time.Second
	shellWrites = 30 * time.Second
)

// Terminal is an interactive terminal on a node. One reader and any number of
// writers may use it at once.
type Terminal struct {
	ws    *websocket.Conn
	write sync.Mutex
	rest  io.Reader // of the message that is being read

	status int
	why    string
	ended  bool
}

// Shell opens a terminal: a login shell, or the command when it is not empty.
func (c *Client) Shell(ctx context.Context, node string, size Size, term, cmd string) (*Terminal, error) {
	q := url.Values{}
	if size.Rows > 0 && size.Cols > 0 {
		q.Set("rows", strconv.Itoa(int(size.Rows)))
		q.Set("cols", strconv.Itoa(int(size.Cols)))
	}
	for name, v := range map[string]string{"term": term, "cmd": cmd} {
		if v != "" {
			q.Set(name, v)
		}
	}
	ws, err := c.websocket(ctx, Path("node", node, "shell")+"?"+q.Encode())
	if err != nil {
		return nil, err
	}
	return newTerminal(ws), nil
}

// websocket opens one, with a new token where the present one is none any more.
func (c *Client) websocket(ctx context.Context, path string) (*websocket.Conn, error) {
	target := *c.base
	target.Scheme = map[string]string{"http": "ws", "https": "wss"}[c.base.Scheme]
	at := target.String() + path
	token, err := c.token(ctx)
	if err != nil {
		return nil, err
	}
	ws, err := c.dial(ctx, at, token)
	if fault.Is(err, fault.Unauthenticated) {
		fresh, renewErr := c.renew(ctx, token)
		switch {
		case renewErr != nil:
			return nil, renewErr
		case fresh != "":
			ws, err = c.dial(ctx, at, fresh)
		}
	}
	return ws, err
}

func (c *Client) dial(ctx context.Context, at, token string) (*websocket.Conn, error) {
	d := websocket.Dialer{HandshakeTimeout: shellDial}
	if c.tls != nil {
		d.TLSClientConfig = c.tls.Clone()
		d.TLSClientConfig.NextProtos = []string{"http/1.1"}
	}
	header := http.Header{}
	if token != "" {
		header.Set("Authorization", "Bearer "+token)
	}
	ws, resp, err := d.DialContext(ctx, at, header)
	if err == nil {
		return ws, nil
	}
	if resp != nil {
		defer resp.Body.Close()
		return nil, failure(resp)
	}
	return nil, c.unreachable(ctx, err)
}

func newTerminal(ws *websocket.Conn) *Terminal {
	t := &Terminal{ws: ws}
	ws.SetReadLimit(maxMessage)
	alive := func() { ws.SetReadDeadline(time.Now().Add(shellWait)) }
	alive()
	ws.SetPingHandler(func(data string) error {
		alive()
		t.write.Lock()
		defer t.write.Unlock()
		return ws.WriteControl(websocket.PongMessage, []byte(data), time.Now().Add(shellWrites))
	})
	return t
}

// Read gives what the terminal shows. io.EOF follows the end of what runs in
// it; Exit then has its status.
func (t *Terminal) Read(p []byte) (int, error) {
	for {
		if t.ended {
			return 0, io.EOF
		}
		if t.rest != nil {
			n, err := t.rest.Read(p)
			if err == io.EOF {
				t.rest, err = nil, nil
			}
			if n > 0 || err != nil {
				return n, err
			}
		}
		kind, r, err := t.ws.NextReader()
		if err != nil {
			return 0, fmt.Errorf("the terminal's connection broke off: %w", err)
		}
		t.ws.SetReadDeadline(time.Now().Add(shellWait))
		if kind == websocket.BinaryMessage {
			t.rest = r
			continue
		}
		var end struct {
			Status int
			Error  string
		}
		if err := json.NewDecoder(r).Decode(&end); err != nil {
			return 0, fmt.Errorf("the head ended the terminal with nonsense: %w", err)
		}
		t.status, t.why, t.ended = end.Status, end.Error, true
	}
}

// Exit gives the status of what ran, and why it could not be run, once Read
// gave io.EOF.
func (t *Terminal) Exit() (status int, why string) { return t.status, t.why }

// Write sends what is typed.
func (t *Terminal) Write(p []byte) (int, error) {
	const most = 32 << 10 // half of what the head takes in one message
	for done := 0; done < len(p); {
		n := min(len(p)-done, most)
		if err := t.send(websocket.BinaryMessage, p[done:done+n]); err != nil {
			return done, err
		}
		done += n
	}
	return len(p), nil
}

// Resize tells that the window has another size.
func (t *Terminal) Resize(size Size) error {
	b, err := json.Marshal(size)
	if err != nil {
		return err
	}
	return t.send(websocket.TextMessage, b)
}

func (t *Terminal) send(kind int, data []byte) error {
	t.write.Lock()
	defer t.write.Unlock()
	t.ws.SetWriteDeadline(time.Now().Add(shellWrites))
	return t.ws.WriteMessage(kind, data)
}

// Close hangs up: what runs in the terminal is killed.
func (t *Terminal) Close() error { return t.ws.Close() }
