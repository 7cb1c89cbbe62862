package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"muster/scripts/lab"
)

const readyRuns = 7

// measureHead loads a head that serves no boots, over loopback.
func measureHead(ctx context.Context, s settings) (figures []figure, err error) {
	b, err := newBed(ctx, s)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	l := &load{head: b.head, network: b.network, clients: s.clients}
	s.log.Info("creating nodes", "count", s.nodes)
	if err := l.createNodes(ctx, s.nodes); err != nil {
		return nil, err
	}
	for _, part := range []func(context.Context, settings) (figure, error){l.ready, l.get, l.patch, l.list} {
		f, err := part(ctx, s)
		if err != nil {
			return figures, err
		}
		figures = append(figures, f)
	}
	return figures, b.head.Stop()
}

// load is what many clients do to a head.
type load struct {
	head    *lab.Head
	network *lab.Network
	clients int
	first   string // address of the first node; 10.64.0.1 when empty
	token   string
	uids    []string
}

func (l *load) login(ctx context.Context) (err error) {
	l.token, err = l.head.Login(ctx)
	return err
}

func (l *load) createNodes(ctx context.Context, count int) error {
	if l.first == "" {
		l.first = "10.64.0.1"
	}
	if _, err := l.head.CLI(ctx, "net", "create", "bench", "--first-ip", l.first, "--ip-count", strconv.Itoa(count), "--mask-bits", "12"); err != nil {
		return err
	}
	if err := l.login(ctx); err != nil {
		return err
	}
	l.uids = make([]string, count)
	var next atomic.Int64
	return l.each(ctx, func(c *client) error {
		for {
			i := int(next.Add(1)) - 1
			if i >= count || ctx.Err() != nil {
				return ctx.Err()
			}
			body := fmt.Sprintf(`{"mac":"52:54:%02x:%02x:%02x:%02x","attributes":{"rack":"r%d"}}`, byte(i>>24), byte(i>>16), byte(i>>8), byte(i), i/40)
			answer, err := c.call("POST", "/api/v1/nodes", body)
			if err != nil {
				return err
			}
			uid, err := dataString(answer)
			if err != nil {
				return err
			}
			l.uids[i] = uid
		}
	})
}

// dataString takes data out of {"success":true,"data":"…"}.
func dataString(answer []byte) (string, error) {
	_, rest, ok := bytes.Cut(answer, []byte(`"data":`))
	if !ok {
		return "", fmt.Errorf("no data in %.200s", answer)
	}
	value, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(string(rest)), `"`), `"`)
	return value, nil
}

// ready is the time from the start of the process to its first answer.
func (l *load) ready(ctx context.Context, s settings) (figure, error) {
	var seconds []float64
	for range readyRuns {
		if err := l.head.Stop(); err != nil {
			return figure{}, err
		}
		begin := time.Now()
		if err := l.head.Start(ctx); err != nil {
			return figure{}, err
		}
		seconds = append(seconds, time.Since(begin).Seconds())
	}
	if err := l.login(ctx); err != nil {
		return figure{}, err
	}
	return atMost(fmt.Sprintf("head ready, %d nodes", s.nodes), 0.3, median(seconds), "s", "of "+spread(seconds)), nil
}

func (l *load) get(ctx context.Context, s settings) (figure, error) {
	rate, err := l.rate(ctx, s.span, func(c *client) error {
		_, err := c.call("GET", "/api/v1/node/"+l.uids[rand.IntN(len(l.uids))], "")
		return err
	})
	return atLeast(fmt.Sprintf("GET of a node, %d clients", s.clients), 20_000, rate, "/s"), err
}

func (l *load) patch(ctx context.Context, s settings) (figure, error) {
	var count atomic.Int64
	rate, err := l.rate(ctx, s.span, func(c *client) error {
		body := fmt.Sprintf(`{"description":"change %d"}`, count.Add(1))
		_, err := c.call("PATCH", "/api/v1/node/"+l.uids[rand.IntN(len(l.uids))], body)
		return err
	})
	return atLeast(fmt.Sprintf("PATCH of a node, durable, %d clients", s.clients), 1_000, rate, "/s"), err
}

// list is how far the head's memory grows while it answers with all nodes.
func (l *load) list(ctx context.Context, s settings) (figure, error) {
	if err := errors.Join(l.head.Stop(), l.head.Start(ctx)); err != nil {
		return figure{}, err
	}
	if err := l.login(ctx); err != nil {
		return figure{}, err
	}
	// 5 sets the high-water mark back to what is in use now (proc(5)).
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", l.head.PID()), []byte("5"), 0); err != nil {
		return figure{}, err
	}
	before, err := memory(l.head.PID(), "VmRSS")
	if err != nil {
		return figure{}, err
	}
	c, err := l.connect(ctx)
	if err != nil {
		return figure{}, err
	}
	defer c.conn.Close()
	answer, err := c.call("GET", "/api/v1/nodes", "")
	if err != nil {
		return figure{}, err
	}
	if n := bytes.Count(answer, []byte(`"mac"`)); n < s.nodes {
		return figure{}, fmt.Errorf("GET /nodes has %d nodes of %d", n, s.nodes)
	}
	peak, err := memory(l.head.PID(), "VmHWM")
	detail := fmt.Sprintf("for %.1f MB of JSON", float64(len(answer))/1e6)
	return atMost(fmt.Sprintf("GET of %d nodes, extra memory", s.nodes), 64, (peak-before)/1024, "MB", detail), err
}

// memory reads a line of /proc/PID/status, in KiB.
func memory(pid int, key string) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	return statusLine(string(text), key)
}

func statusLine(status, key string) (float64, error) {
	for line := range strings.Lines(status) {
		if rest, ok := strings.CutPrefix(line, key+":"); ok {
			return strconv.ParseFloat(strings.Fields(rest)[0], 64)
		}
	}
	return 0, fmt.Errorf("no %s in the process's status", key)
}

// rate is how often all clients together can do something in a second.
func (l *load) rate(ctx context.Context, span time.Duration, do func(*client) error) (float64, error) {
	var done atomic.Int64
	var end time.Time
	var once sync.Once
	err := l.each(ctx, func(c *client) error {
		once.Do(func() { end = time.Now().Add(span) })
		for time.Now().Before(end) && ctx.Err() == nil {
			if err := do(c); err != nil {
				return err
			}
			done.Add(1)
		}
		return ctx.Err()
	})
	return float64(done.Load()) / span.Seconds(), err
}

// each runs work in every client at once, all connected before the first begins.
func (l *load) each(ctx context.Context, work func(*client) error) error {
	clients := make([]*client, l.clients)
	for i := range clients {
		c, err := l.connect(ctx)
		if err != nil {
			return err
		}
		defer c.conn.Close()
		clients[i] = c
	}
	failed := make([]error, len(clients))
	var all sync.WaitGroup
	for i, c := range clients {
		all.Go(func() { failed[i] = work(c) })
	}
	all.Wait()
	for _, err := range failed {
		if err != nil {
			return err
		}
	}
	return nil
}

// client is one connection. It does as little as HTTP allows: what is measured
// is the head, on the same processors.
type client struct {
	conn  net.Conn
	in    *bufio.Reader
	token string
	host  string
	out   []byte
}

func (l *load) connect(ctx context.Context) (*client, error) {
	host := strings.TrimPrefix(l.head.URL, "http://")
	conn, err := l.network.DialContext(ctx, "tcp", host)
	if err != nil {
		return nil, err
	}
	return newClient(conn, l.token, host), nil
}

func newClient(conn net.Conn, token, host string) *client {
	return &client{conn: conn, in: bufio.NewReaderSize(conn, 16<<10), token: token, host: host}
}

// call makes one request; another status than 200 is an error.
func (c *client) call(method, path, body string) ([]byte, error) {
	c.out = fmt.Appendf(c.out[:0], "%s %s HTTP/1.1\r\nHost: %s\r\n", method, path, c.host)
	if c.token != "" {
		c.out = fmt.Appendf(c.out, "Authorization: Bearer %s\r\n", c.token)
	}
	if body != "" {
		c.out = fmt.Appendf(c.out, "Content-Type: application/json\r\nContent-Length: %d\r\n", len(body))
	}
	c.out = append(append(c.out, "\r\n"...), body...)
	if _, err := c.conn.Write(c.out); err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s %s: %s: %.200s", method, path, resp.Status, answer)
	}
	return answer, err
}
