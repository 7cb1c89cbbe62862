package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// The modes in which a console is watched.
const (
	ConsoleRead  = "read"
	ConsoleWrite = "write" // where nobody else does
	ConsoleTake  = "take"  // from who does
)

// ConsoleState is how it stands with a console that is watched.
type ConsoleState struct {
	Mode      string // ConsoleRead or ConsoleWrite
	Writer    string // the admin who may type
	Connected bool   // the head has the line
	Reason    string
	Ended     bool
}

// Console is a node's serial console. One reader and any number of writers may
// use it at once.
type Console struct {
	ws    *websocket.Conn
	write sync.Mutex
}

// Console opens a node's console.
func (c *Client) Console(ctx context.Context, node, mode string) (*Console, error) {
	ws, err := c.websocket(ctx, Path("node", node, "console")+"?mode="+url.QueryEscape(mode))
	if err != nil {
		return nil, err
	}
	t := newTerminal(ws) // which sees to its limits
	return &Console{ws: t.ws}, nil
}

// Next gives what the machine said next, or how it stands now.
func (c *Console) Next() (said []byte, state *ConsoleState, err error) {
	what, data, err := c.ws.ReadMessage()
	if err != nil {
		return nil, nil, fmt.Errorf("the console's connection broke off: %w", err)
	}
	c.ws.SetReadDeadline(time.Now().Add(shellWait))
	if what == websocket.BinaryMessage {
		return data, nil, nil
	}
	state = &ConsoleState{}
	if err := json.Unmarshal(data, state); err != nil {
		return nil, nil, fmt.Errorf("the head says nonsense of the console: %w", err)
	}
	return nil, state, nil
}

// Type sends what is typed.
func (c *Console) Type(p []byte) error { return c.send(websocket.BinaryMessage, p) }

// Mode asks for another mode.
func (c *Console) Mode(mode string) error {
	return c.send(websocket.TextMessage, []byte(`{"mode":"`+mode+`"}`))
}

func (c *Console) send(what int, data []byte) error {
	c.write.Lock()
	defer c.write.Unlock()
	c.ws.SetWriteDeadline(time.Now().Add(shellWrites))
	return c.ws.WriteMessage(what, data)
}

// Close hangs up; the console stays as it is.
func (c *Console) Close() error { return c.ws.Close() }
