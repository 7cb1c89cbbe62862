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
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
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
	var seldom slowly
	said := ""
	for {
		status := wire.Status{Status: Status(r.version)}
		seldom.add(&status, r.mac)
		err := r.send.PutStatus(ctx, status)
		if ctx.Err() != nil {
			return
		}
		next := r.untilBeat(time.Now())
		if err == nil {
			seldom.sent()
			said = ""
		} else {
			if err.Error() != said {
				r.log.Warn("the head did not take the status", "error", err)
				said = err.Error()
			}
			refused := (*head.Refused)(nil)
			switch {
			case !errors.As(err, &refused):
				next = min(next, retry)
			case refused.Status == http.StatusConflict: // it does not have what it was to keep
				seldom.forget()
				next = min(next, retry)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-r.kick:
			seldom.forget()
		case <-time.After(next):
		}
	}
}

// untilBeat is the time to the next multiple of the beat.
func (r *Reporter) untilBeat(now time.Time) time.Duration {
	every := time.Duration(r.every.Load())
	return now.Truncate(every).Add(every).Sub(now)
}

// slowly is what changes seldom: it is collected every few minutes, and sent
// when it is not what the head has.
type slowly struct {
	looked             time.Time
	hardware, packages item
}

// item is one such thing. Its value is kept only until the head has it.
type item struct {
	now      any
	sum, has [sha256.Size]byte // of what was seen and of what the head has
}

func (i *item) see(v any) {
	i.now = v
	if raw, err := json.Marshal(v); err == nil {
		i.sum = sha256.Sum256(raw)
	}
}

func (i *item) news() bool { return i.sum != i.has }

// add puts into a report what the head does not have as it is.
func (s *slowly) add(to *wire.Status, mac string) {
	if time.Since(s.looked) > slow {
		s.looked = time.Now()
		s.hardware.see(Hardware(mac))
		s.packages.see(packages("/"))
		debug.FreeOSMemory() // package lists are large for a moment
	}
	if s.hardware.news() {
		to.Hardware = s.hardware.now.(map[string]any)
	}
	if s.packages.news() {
		to.Status["packages"] = s.packages.now
	} else {
		to.Keep = []string{"packages"}
	}
}

// sent notes that the head has all of it.
func (s *slowly) sent() {
	for _, i := range []*item{&s.hardware, &s.packages} {
		i.has, i.now = i.sum, nil
	}
}

// forget makes all of it be collected and sent again.
func (s *slowly) forget() { *s = slowly{} }
