// Package report tells the head what a node is and how it is: hardware when it
// changed, status at a steady beat.
//
// The beat is aligned to the wall clock, so that all nodes of a cluster pay for
// it at the same moment and a parallel job is disturbed once, not by each node
// in turn. Nothing is forked. The package must not act on what it sees, and
// does not know how its reports travel.
//
// Units: memory and disk sizes are KiB where the key begins with "ram" or ends
// in "_kib", bytes where it ends in "_bytes"; times are seconds.
package report

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"log/slog"
	"runtime/debug"
	"sync/atomic"
	"time"

	"muster/agent/head"
	"muster/shared/wire"
)

const (
	// defaultEvery is the beat until the head says what it wants.
	defaultEvery = 10 * time.Second
	// slow is how often hardware and the package list are looked at anew.
	slow = 5 * time.Minute
	// retry is how soon a report is sent again that the head did not get.
	retry = 2 * time.Second
)

// Sender takes reports to the head.
type Sender interface {
	PutStatus(ctx context.Context, s wire.Status) error
}

// Reporter reports until told to stop.
type Reporter struct {
	send    Sender
	log     *slog.Logger
	version string
	mac     string // of the interface that was booted from, if known
	every   atomic.Int64
	kick    chan struct{}
}

// New makes a reporter. The mac may be empty.
func New(send Sender, version, mac string, log *slog.Logger) *Reporter {
	r := &Reporter{send: send, log: log, version: version, mac: mac, kick: make(chan struct{}, 1)}
	r.every.Store(int64(defaultEvery))
	return r
}

// Every sets the beat, as the head wants it; values out of 1 s to 1 h are
// ignored. A new link also makes everything be sent at once: the head may have
// been replaced.
func (r *Reporter) Every(seconds int) {
	if seconds >= 1 && seconds <= 3600 {
		r.every.Store(int64(time.Duration(seconds) * time.Second))
	}
	select {
	case r.kick <- struct{}{}:
	default:
	}
}

// Run reports until ctx ends.
func (r *Reporter) Run(ctx context.Context) {
	var hardware slowly
	said := ""
	for {
		err := r.send.PutStatus(ctx, wire.Status{
			Status:   Status(r.version, hardware.packages()),
			Hardware: hardware.unsent(r.mac),
		})
		if ctx.Err() != nil {
			return
		}
		next := r.untilBeat(time.Now())
		if err == nil {
			hardware.sent()
			said = ""
		} else {
			if err.Error() != said {
				r.log.Warn("the head did not take the status", "error", err)
				said = err.Error()
			}
			if refused := (*head.Refused)(nil); !errors.As(err, &refused) {
				next = min(next, retry)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-r.kick:
			hardware.forget()
		case <-time.After(next):
		}
	}
}

// untilBeat is the time to the next multiple of the beat.
func (r *Reporter) untilBeat(now time.Time) time.Duration {
	every := time.Duration(r.every.Load())
	return now.Truncate(every).Add(every).Sub(now)
}

// slowly is what changes seldom: it is collected every few minutes and sent
// when it is not what the head has.
type slowly struct {
	looked  time.Time
	now     map[string]any
	sum     [sha256.Size]byte
	has     [sha256.Size]byte // of what the head has
	offered bool
}

// unsent gives the hardware if the head does not have it as it is.
func (s *slowly) unsent(mac string) map[string]any {
	if s.now == nil || time.Since(s.looked) > slow {
		s.look(mac)
	}
	if s.offered = s.sum != s.has; s.offered {
		return s.now
	}
	return nil
}

func (s *slowly) look(mac string) {
	s.now, s.looked = Hardware(mac), time.Now()
	raw, err := json.Marshal(s.now)
	if err == nil {
		s.sum = sha256.Sum256(bytes.TrimSpace(raw))
	}
	debug.FreeOSMemory() // package lists are large for a moment
}

func (s *slowly) sent() {
	if s.offered {
		s.has = s.sum
	}
}

func (s *slowly) forget() { s.has = [sha256.Size]byte{} }

// packages is the short word on packages that the status has.
func (s *slowly) packages() any {
	if s.now == nil {
		return nil
	}
	return s.now["packages_summary"]
}
