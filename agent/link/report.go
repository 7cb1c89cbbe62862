package link

import (
	"context"
	"net/http"
	"sync"
	"time"

	"muster/agent/head"
	"muster/shared/mux"
	"muster/shared/wire"
)

const (
	reportTime = 15 * time.Second // for the head's answer
	// patience is how long a report waits for a link, until it is sent in
	// another way.
	patience = time.Minute
	// reports is the version of the protocol from which on they go over the link.
	reports = 4
)

// Sender takes reports to the head in another way, as agent/head does.
type Sender interface {
	Send(ctx context.Context, report []byte) (time.Time, error)
}

// Reports takes reports over the link, so that the head needs no second
// connection of each node. Where its head is too old for that, or there is no
// link for long, they go by Else.
type Reports struct {
	Else Sender // nil: they wait for a link

	mu      sync.Mutex
	session *mux.Session // nil: there is no link
	old     bool         // the head
	changed chan struct{}
}

// made is told of a new link, to a head of that version.
func (r *Reports) made(s *mux.Session, version int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.session, r.old = s, version < reports
	if r.changed != nil {
		close(r.changed)
		r.changed = nil
	}
}

// lost is told that a link broke.
func (r *Reports) lost(s *mux.Session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.session == s {
		r.session = nil
	}
}

// wait gives the session to report over once there is one, nil to do so in
// another way.
func (r *Reports) wait(ctx context.Context) (*mux.Session, error) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	late := timer.C
	if r.Else == nil {
		late = nil
	}
	for {
		r.mu.Lock()
		session, old := r.session, r.old
		if session == nil && r.changed == nil {
			r.changed = make(chan struct{})
		}
		changed := r.changed
		r.mu.Unlock()
		switch {
		case session != nil && old && r.Else != nil:
			return nil, nil
		case session != nil:
			return session, nil
		}
		select {
		case <-changed:
		case <-late:
			return nil, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Send sends a report, the JSON of a wire.Status, once there is a link, and
// gives the head's clock; zero where the report had to wait. The report is not
// kept.
func (r *Reports) Send(ctx context.Context, report []byte) (time.Time, error) {
	began := time.Now()
	session, err := r.wait(ctx)
	if err != nil {
		return time.Time{}, err
	}
	waited := time.Since(began) > time.Second
	var now time.Time
	if session == nil {
		now, err = r.Else.Send(ctx, report)
	} else {
		now, err = over(ctx, session, report)
	}
	if waited {
		now = time.Time{}
	}
	return now, err
}

// over sends a report over a link.
func over(ctx context.Context, session *mux.Session, report []byte) (time.Time, error) {
	raw, err := wire.ReportStream(report)
	if err != nil {
		return time.Time{}, err
	}
	stream, err := session.Open()
	if err != nil {
		return time.Time{}, err
	}
	defer stream.Close()
	defer context.AfterFunc(ctx, func() { stream.Close() })()
	stream.SetDeadline(time.Now().Add(reportTime))
	if err := stream.Finish(raw); err != nil {
		return time.Time{}, err
	}
	taken, err := wire.ReadTaken(stream)
	if err != nil {
		return time.Time{}, err
	}
	if taken.Status != http.StatusOK {
		return taken.Clock(), head.Refuse(taken.Status, taken.Reason)
	}
	return taken.Clock(), nil
}
