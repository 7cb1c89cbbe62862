package events

import (
	"context"
	"encoding/json"
	"math"
	"net/http"
	"time"

	"muster/controller/registry"
	"muster/shared/fault"
	"muster/shared/kind"
	"muster/shared/object"
)

// Changes of a node's state are events of their own.
const changeState = "state"

// stream is one subscriber.
type stream struct {
	*Events
	request *http.Request
	to      sink
	closing <-chan struct{}
	by      kind.Author
	kinds   map[string]*kind.Spec // those asked for
	match   func(uid string) bool // nil: all nodes
	inside  map[string]bool       // nodes that match picked when last looked at
	at      uint64                // revision up to which everything was sent
	told    uint64                // the last one that the client was told
	resumed bool
	pending *event // held back until it is known whether the commit goes on
}

// sink is where a stream goes.
type sink interface {
	// send sends one event; what has no id cannot be resumed from.
	send(e *event, id bool) error
	// beat says that the stream is alive, and where it is.
	beat(at uint64, tell bool) error
	// end says why the stream ends.
	end(reason string)
}

// change is what the feed gives.
type change struct {
	registry.Change
	err error
}

// run sends until there is a reason to end, which it gives.
func (s *stream) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	feed := make(chan change) // not buffered: who does not take is not read for
	go func() {
		defer close(feed)
		for c, err := range s.Objects.Changes(ctx, s.at) {
			select {
			case feed <- change{c, err}:
			case <-ctx.Done():
				return
			}
		}
	}()
	_, seq, moved, _ := s.States.StatesAfter(math.MaxUint64)
	// What a resumed stream missed of the states is not on the feed: it gets all
	// of them, once it has what was on it.
	goal, behind := s.Objects.Revision(), s.resumed
	beat := time.NewTicker(s.Heartbeat)
	defer beat.Stop()
	if err := s.to.beat(s.at, false); err != nil {
		return err
	}
	for {
		if behind && s.at >= goal && s.pending == nil {
			behind = false
			if err := s.states(s.States.Known()); err != nil {
				return err
			}
		}
		var err error
		select {
		case c, ok := <-feed:
			if !ok {
				return ctx.Err()
			}
			if err = c.err; err == nil {
				err = s.changed(c.Change)
			}
		case <-moved:
			seq, moved, err = s.moved(seq)
		case <-beat.C:
			if err = s.still(); err == nil {
				tell := s.pending == nil && s.at > s.told+1000
				err = s.to.beat(s.at, tell)
			}
		case <-s.closing:
			return fault.New(fault.Unavailable, "The head is shutting down, or its events were stopped.")
		case <-ctx.Done():
			return ctx.Err()
		}
		if err != nil {
			return err
		}
	}
}

// still looks whether the caller may go on: tokens expire, roles are taken.
func (s *stream) still() error {
	c, err := s.Auth.Authenticate(s.request, kind.LoggedIn)
	if err == nil {
		s.by.Can, s.by.Roles = c.Can, c.Roles
	}
	return err
}

// changed sends a change from the feed.
func (s *stream) changed(c registry.Change) error {
	e, err := s.event(c)
	if err != nil {
		return err
	}
	if e != nil {
		if s.pending != nil {
			s.pending.More = true
			if err := s.to.send(s.pending, false); err != nil {
				return err
			}
		}
		s.pending = e
	}
	if !c.Last {
		return nil
	}
	s.at = c.Revision
	if e = s.pending; e == nil {
		return nil
	}
	s.pending, s.told = nil, s.at
	return s.to.send(e, true)
}

// event makes an event of a change, nil where it does not concern the subscriber.
func (s *stream) event(c registry.Change) (*event, error) {
	spec := s.kinds[c.Kind]
	if spec == nil || !s.by.May(spec.Read) {
		return nil, nil
	}
	if c.Kind == object.KindNode && !s.picked(c.UID, c.New != nil) {
		return nil, nil
	}
	e := &event{Revision: c.Revision, Change: registry.ActionDelete, Kind: c.Kind, UID: c.UID, Name: c.Name}
	if c.New == nil {
		return e, nil
	}
	e.Change = registry.ActionChange
	if m := c.New.Base(); m.Created == m.LastModified {
		e.Change = registry.ActionCreate
	}
	// The registry's own object is the one whose JSON it keeps.
	obj := c.New
	if now, ok := s.Objects.Look().Get(c.Kind, c.UID); ok && now.Base().LastModified == obj.Base().LastModified {
		obj = now
	}
	var err error
	if e.Object, _, err = s.Objects.Encoded(c.Kind, obj, s.by); err != nil {
		return nil, err
	}
	if c.Kind == object.KindNode {
		e.State = s.stateOf(c.UID)
	}
	return e, nil
}

// picked says whether a node is of interest: the selector picks it, or did
// until now, so that the subscriber sees it leave.
func (s *stream) picked(uid string, exists bool) bool {
	if s.match == nil {
		return true
	}
	before, now := s.inside[uid], exists && s.match(uid)
	if exists {
		s.inside[uid] = now
	} else {
		delete(s.inside, uid)
	}
	return before || now
}

// stateOf takes the state out of what the object shows.
func (s *stream) stateOf(uid string) string {
	_, status := s.Objects.Look().Live(uid)
	var short struct{ State string }
	if status != nil && json.Unmarshal(status, &short) != nil {
		return ""
	}
	return short.State
}

// moved sends what is new of the states.
func (s *stream) moved(seq uint64) (newest uint64, next <-chan struct{}, err error) {
	changes, newest, next, ok := s.States.StatesAfter(seq)
	if !ok {
		changes = s.States.Known()
	}
	return newest, next, s.states(changes)
}

func (s *stream) states(changes []State) error {
	spec := s.kinds[object.KindNode]
	if spec == nil || !s.by.May(spec.Read) {
		return nil
	}
	for _, c := range changes {
		o, ok := s.Objects.Look().Get(object.KindNode, c.UID)
		if !ok || !s.picked(c.UID, true) {
			continue
		}
		e := &event{Revision: s.at, Change: changeState, Kind: object.KindNode, UID: c.UID, Name: o.(*object.Node).Name, State: c.State, Since: c.Since, Reason: c.Reason}
		if err := s.to.send(e, s.pending == nil); err != nil {
			return err
		}
	}
	return nil
}
