// Package link keeps the agent's one connection to its head: a websocket that
// the agent dials, on which the head opens streams.
//
// The link is made again for as long as the agent runs, fast at first, so that
// a restarted head has its nodes back at once, then every 15 s at most. A peer
// that died without a word is noticed within 20 s. The package must not decide
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
	"github.com/hashicorp/yamux"

	"muster/agent/head"
	"muster/shared/wire"
)

const (
	helloTime  = 10 * time.Second // for each of handshake, Hello and a stream's header
	maxHello   = 64 << 10         // bytes
	maxMessage = 1 << 20          // bytes of one websocket message; yamux sends at most a window
	maxStreams = 512              // at once

	minDelay = 200 * time.Millisecond
	maxDelay = 15 * time.Second
	// settled is how long a link must have lasted for the next attempt to be
	// made as if it were the first.
	settled = 10 * time.Second
)

// Config is what a link needs. Every field but TLS,
// Accepted and Probe is required.
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
	// Probe is how often the head is asked for a sign of life, and how long it
	// may take to give it: a dead one is noticed within twice that. 10 s when 0.
	Probe time.Duration
}

// Run keeps the link until ctx ends, and returns when all streams have ended.
func Run(ctx context.Context, c Config) {
	// What a broken link leaves to be killed must not hold up the next one.
	var streams sync.WaitGroup
	defer streams.Wait()
	delay := minDelay
	said := ""
	for {
		began := time.Now()
		accepted, err := c.once(ctx, &streams)
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
		select {
		case <-ctx.Done():
			return
		case <-time.After(delay/2 + rand.N(delay)):
		}
		delay = min(2*delay, maxDelay*2/3) // with the jitter, at most maxDelay
	}
}

// once makes the link and serves it until it breaks. The error is never nil.
func (c *Config) once(ctx context.Context, streams *sync.WaitGroup) (accepted bool, err error) {
	ws, err := c.dial(ctx)
	if err != nil {
		return false, err
	}
	defer ws.Close()
	stop := context.AfterFunc(ctx, func() { ws.Close() })
	defer stop()
	answer, err := c.greet(ws)
	if err != nil {
		return false, fmt.Errorf("the head said no Hello: %w", err)
	}
	session, err := yamux.Server(wire.Conn(ws), muxConfig(c.Log, c.Probe))
	if err != nil {
		return false, err
	}
	defer session.Close()
	if c.Accepted != nil {
		c.Accepted(answer)
	}
	c.Log.Info("linked to the head", "head", c.Head, "node", answer.Name)
	return true, c.serve(ctx, session, streams)
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
		ReadBufferSize:   4 << 10,
		WriteBufferSize:  4 << 10,
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

func muxConfig(log *slog.Logger, probe time.Duration) *yamux.Config {
	c := yamux.DefaultConfig()
	c.AcceptBacklog = 64
	if probe == 0 {
		probe = 10 * time.Second
	}
	c.KeepAliveInterval, c.ConnectionWriteTimeout = probe, probe
	c.StreamCloseTimeout = 30 * time.Second
	c.LogOutput, c.Logger = nil, muxLog{log}
	return c
}

// muxLog takes what yamux logs: symptoms of a broken link, whose cause Run
// reports.
type muxLog struct{ *slog.Logger }

func (l muxLog) Print(v ...any)                 { l.Debug(fmt.Sprint(v...)) }
func (l muxLog) Printf(format string, v ...any) { l.Debug(fmt.Sprintf(format, v...)) }
func (l muxLog) Println(v ...any)               { l.Debug(fmt.Sprintln(v...)) }

// serve handles the head's streams until the session ends.
func (c *Config) serve(ctx context.Context, session *yamux.Session, streams *sync.WaitGroup) error {
	ctx, cancel := context.WithCancelCause(ctx)
	slots := make(chan struct{}, maxStreams)
	for {
		stream, err := session.AcceptStream()
		if err != nil {
			cancel(fmt.Errorf("the link broke: %w", err))
			return err
		}
		select {
		case slots <- struct{}{}:
		default:
			c.Log.Warn("refused a stream", "open", maxStreams)
			stream.Close()
			continue
		}
		streams.Go(func() {
			defer func() { <-slots }()
			c.stream(ctx, stream)
		})
	}
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
