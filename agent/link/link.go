// Package link keeps the agent's one connection to its head: a websocket that
// the agent dials, on which the head opens streams, and the agent one for each
// of its reports.
//
// The link is made again for as long as the agent runs: fast at first, over the
// time that the head has said its agents shall spread their return, so that a
// restarted head has its nodes back soon; then every 15 s at most. A peer that
// died without a word is noticed within 20 s. The package must not decide
// which head is the right one (agent/identity does) nor what a stream may do.
package link

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"muster/agent/head"
	"muster/shared/mux"
	"muster/shared/wire"
)

const (
	helloTime  = 20 * time.Second // for each of handshake, Hello and a stream's header
	maxHello   = 64 << 10         // bytes
	maxMessage = 1 << 20          // bytes of one websocket message; yamux sends at most a window
	maxStreams = 512              // at once
	readBuffer = 4 << 10          // bytes
	// writeBuffer holds the largest frame of a stream; it is there while
	// something is written.
	writeBuffer = 17 << 10

	minDelay = 200 * time.Millisecond
	maxDelay = 15 * time.Second
	maxBack  = time.Minute // that a head may have its agents spread their return over
	// settled is how long a link must have lasted for the next attempt to be
	// made as if it were the first.
	settled = 10 * time.Second
)

// Config is what a link needs. Every field but TLS, Accepted, Reports and Probe
// is required.
type Config struct {
	Head   string      // http or https URL
	TLS    *tls.Config // for https
	Dialer head.Dialer
	Hello  func() wire.Hello // what to say of oneself, asked for each attempt
	// Serve handles a stream, which it must close; it returns when ctx ends.
	Serve func(ctx context.Context, stream net.Conn, h wire.Header)
	// Accepted is told what the head answered.
	Accepted func(wire.Hello)
	Log      *slog.Logger
	// Reports is told of each link, to send reports over it.
	Reports *Reports
	// Probe is how often the head is asked for a sign of life, and how long it
	// may take to give it: a dead one is noticed within twice that. 10 s when 0.
	Probe time.Duration
}

// Run keeps the link until ctx ends, and returns when all streams have ended.
func Run(ctx context.Context, c Config) {
	// What a broken link leaves to be killed must not hold up the next one.
	var streams sync.WaitGroup
	defer streams.Wait()
	m := mux.New(mux.Config{Streams: maxStreams})
	delay := minDelay
	said := ""
	for {
		began := time.Now()
		back, err := c.once(ctx, m, &streams)
		accepted := back > 0
		if ctx.Err() != nil {
			return
		}
		if accepted || err.Error() != said {
			c.Log.Warn("no link to the head", "head", c.Head, "reason", err)
			said = err.Error()
		}
		if accepted && time.Since(began) > settled {
			delay = minDelay
		}
		wait := delay/2 + rand.N(delay)
		if accepted {
			wait += rand.N(back)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		delay = min(2*delay, maxDelay*2/3) // with the jitter, at most maxDelay
	}
}

// once makes the link and serves it until it breaks. back is over what time to
// spread the return, 0 when the head took no link; the error is never nil.
func (c *Config) once(ctx context.Context, m *mux.Mux, streams *sync.WaitGroup) (back time.Duration, err error) {
	ws, err := c.dial(ctx)
	if err != nil {
		return 0, err
	}
	defer ws.Close()
	stop := context.AfterFunc(ctx, func() { ws.Close() })
	defer stop()
	answer, err := c.greet(ws)
	if err != nil {
		return 0, fmt.Errorf("the head said no Hello: %w", err)
	}
	session := m.Server(wire.Conn(ws))
	defer session.Close()
	go watch(session, c.probe())
	if c.Reports != nil {
		c.Reports.made(session, answer.Version)
		defer c.Reports.lost(session)
	}
	if c.Accepted != nil {
		c.Accepted(answer)
	}
	c.Log.Info("linked to the head", "head", c.Head, "node", answer.Name)
	back = time.Duration(answer.Back) * time.Millisecond
	return min(max(back, minDelay), maxBack), c.serve(ctx, session, streams)
}

func (c *Config) probe() time.Duration {
	if c.Probe == 0 {
		return 10 * time.Second
	}
	return c.Probe
}

// watch ends a session whose head gives no sign of life. It looks at the wall
// clock's ticks, when all nodes do, a little after the reports, whose answers
// suffice: only where none came it asks.
func watch(s *mux.Session, probe time.Duration) {
	for {
		now := time.Now()
		timer := time.NewTimer(now.Truncate(probe).Add(probe + probe/10).Sub(now))
		select {
		case <-s.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		if time.Since(s.Heard()) < probe/2 {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), probe*4/5)
		err := s.Ping(ctx)
		cancel()
		if err != nil {
			s.Close()
			return
		}
	}
}

func (c *Config) dial(ctx context.Context) (*websocket.Conn, error) {
	u, err := url.Parse(c.Head)
	if err != nil {
		return nil, err
	}
	u.Path = wire.PathLink
	switch u.Scheme {
	case "http":
		u.Scheme = "ws"
	case "https":
		u.Scheme = "wss"
	default:
		return nil, fmt.Errorf("head %q: want an http or https URL", c.Head)
	}
	d := websocket.Dialer{
		NetDialContext:   c.Dialer.Net().DialContext,
		TLSClientConfig:  c.TLS,
		HandshakeTimeout: helloTime,
		ReadBufferSize:   readBuffer,
		WriteBufferSize:  writeBuffer,
		WriteBufferPool:  &sync.Pool{},
	}
	ws, resp, err := d.DialContext(ctx, u.String(), c.Dialer.Header())
	if errors.Is(err, websocket.ErrBadHandshake) && resp != nil {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, maxHello))
		if resp.StatusCode == http.StatusOK {
			return nil, fmt.Errorf("%s is not a head: it takes no websocket", u.Host)
		}
		return nil, head.Refusal(resp.StatusCode, body)
	}
	return ws, err
}

func (c *Config) greet(ws *websocket.Conn) (wire.Hello, error) {
	var answer wire.Hello
	deadline := time.Now().Add(helloTime)
	ws.SetReadDeadline(deadline)
	ws.SetWriteDeadline(deadline)
	ws.SetReadLimit(maxHello)
	hello := c.Hello()
	hello.Version = wire.Version
	if err := ws.WriteJSON(hello); err != nil {
		return answer, err
	}
	if err := ws.ReadJSON(&answer); err != nil {
		return answer, err
	}
	ws.SetReadLimit(maxMessage)
	ws.SetReadDeadline(time.Time{})
	ws.SetWriteDeadline(time.Time{})
	return answer, nil
}

// serve handles the head's streams until the session ends.
func (c *Config) serve(ctx context.Context, session *mux.Session, streams *sync.WaitGroup) error {
	ctx, cancel := context.WithCancelCause(ctx)
	err := session.Serve(func(stream *mux.Stream) {
		streams.Go(func() { c.stream(ctx, stream) })
	})
	cancel(fmt.Errorf("the link broke: %w", err))
	return err
}

// stream reads a stream's header and has it served. A fault in serving one
// must not take the agent with it, which may be process 1.
func (c *Config) stream(ctx context.Context, stream net.Conn) {
	defer stream.Close()
	defer func() {
		if fault := recover(); fault != nil {
			c.Log.Error("a stream failed", "fault", fault, "stack", string(debug.Stack()))
		}
	}()
	stream.SetReadDeadline(time.Now().Add(helloTime))
	h, err := wire.ReadHeader(stream)
	if err != nil {
		c.Log.Warn("a stream without a header", "error", err)
		return
	}
	stream.SetReadDeadline(time.Time{})
	c.Serve(ctx, stream, h)
}
