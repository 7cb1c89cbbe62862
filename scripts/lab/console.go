package lab

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
)

// Console is what a machine writes to its serial line since it was made, over
// all its starts: kept in memory for those who wait for a line, and in a file
// for people.
type Console struct {
	path string
	file *os.File

	mu    sync.Mutex
	text  []byte
	grown chan struct{} // closed and replaced when text grows

	keyboard io.Writer                // of the machine, nil before its first start
	others   map[net.Conn]chan []byte // who see what it says, and may type
}

func newConsole(path string) (*Console, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	return &Console{path: path, file: f, grown: make(chan struct{}), others: map[net.Conn]chan []byte{}}, nil
}

// maxBehind is how many writes of a machine wait for who is on its serial line.
const maxBehind = 4096

// maxConsole bounds what is kept in memory; the file has everything.
const maxConsole = 16 << 20

// Write takes what the machine says.
func (c *Console) Write(p []byte) (int, error) {
	c.mu.Lock()
	if len(c.text) < maxConsole {
		c.text = append(c.text, p...)
	}
	close(c.grown)
	c.grown = make(chan struct{})
	for _, line := range c.others {
		select {
		case line <- bytes.Clone(p):
		default: // nobody takes it; a serial line does not wait
		}
	}
	c.mu.Unlock()
	return c.file.Write(p)
}

// plug connects the machine's end that is typed on.
func (c *Console) plug(keyboard io.Writer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.keyboard = keyboard
}

// share gives the serial line to who connects, until the listener is closed.
func (c *Console) share(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go c.attach(conn)
	}
}

// attach gives a connection the serial line, until it ends.
func (c *Console) attach(conn net.Conn) {
	line := make(chan []byte, maxBehind)
	c.mu.Lock()
	c.others[conn] = line
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.others, conn)
		close(line)
		c.mu.Unlock()
		_ = conn.Close()
	}()
	go func() {
		for p := range line {
			_, _ = conn.Write(p) // who is gone shows in reading
		}
	}()
	buf := make([]byte, 1024)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return
		}
		c.mu.Lock()
		keyboard := c.keyboard
		c.mu.Unlock()
		if keyboard != nil {
			_, _ = keyboard.Write(buf[:n]) // a machine that is off hears nothing
		}
	}
}

// Mark is the present end of the console, for WaitFor.
func (c *Console) Mark() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.text)
}

// WaitFor waits until the console says one of words at or after the mark from,
// and returns which.
func (c *Console) WaitFor(ctx context.Context, from int, words ...string) (string, error) {
	for {
		c.mu.Lock()
		said, grown := c.text[min(from, len(c.text)):], c.grown
		c.mu.Unlock()
		for _, word := range words {
			if bytes.Contains(said, []byte(word)) {
				return word, nil
			}
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return "", fmt.Errorf("the console never said %q: %w; see %s", strings.Join(words, `" or "`), context.Cause(ctx), c.path)
		}
	}
}

// Tail is the console's last n lines, without the control sequences of
// firmware's screens.
func (c *Console) Tail(n int) string {
	c.mu.Lock()
	text := string(c.text)
	c.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(plain(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// plain removes what moves a cursor or paints: escape sequences and other
// control characters than the newline and the tab.
func plain(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == 0x1b && i+1 < len(s) && s[i+1] == '[':
			for i += 2; i < len(s) && (s[i] < '@' || s[i] > '~'); i++ {
			}
		case c == '\n' || c == '\t' || c >= ' ' && c != 0x7f:
			b.WriteByte(c)
		}
	}
	return b.String()
}

func (c *Console) close() error { return c.file.Close() }
