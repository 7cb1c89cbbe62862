// Package mux carries streams inside one connection, in the frames of yamux
// (https://github.com/hashicorp/yamux/blob/master/spec.md), so that either side
// may run that.
//
// It is made for a head with ten thousand connections that are idle nearly all
// the time: such a one costs a single goroutine, that of Serve, and no buffers.
// Each stream has a window of its own, so that one which nobody reads holds up
// no other; who floods one is held to that window in memory. The package must
// not know what streams are for, nor make or secure connections.
package mux

import (
	"errors"
	"sync"
	"time"
)

// Window is how many bytes of a stream may wait for its reader.
const Window = 256 << 10

const (
	// maxBody is how much of a stream one frame has at most, so that others get
	// their turn.
	maxBody = 16 << 10
	// maxPending bounds what is still to be answered to a peer.
	maxPending = 64
	// small is how large the buffer of a stream may be that waits for data.
	small = 4 << 10
)

// Defaults of a Config.
const (
	defaultStreams   = 256
	defaultWriteTime = 10 * time.Second
	defaultCloseTime = 30 * time.Second
)

var (
	errProtocol = errors.New("the other side breaks the protocol")
	errReset    = errors.New("the other side has dropped the stream")
	errEnded    = errors.New("the session was ended")
)

// Config holds the bounds of sessions. The zero value is usable.
type Config struct {
	Streams   int           // that the peer may have open at once; 256 when 0
	WriteTime time.Duration // how long a peer may take nothing until the session ends; 10 s when 0
	CloseTime time.Duration // how long a peer may leave a stream open that was closed here; 30 s when 0
}

// Mux makes sessions. What these need only for a moment, they share.
type Mux struct {
	Config
	frames sync.Pool // of *[]byte with room for the largest
}

// New makes one.
func New(c Config) *Mux {
	if c.Streams == 0 {
		c.Streams = defaultStreams
	}
	if c.WriteTime == 0 {
		c.WriteTime = defaultWriteTime
	}
	if c.CloseTime == 0 {
		c.CloseTime = defaultCloseTime
	}
	m := &Mux{Config: c}
	m.frames.New = func() any { b := make([]byte, headerSize+maxBody); return &b }
	return m
}
