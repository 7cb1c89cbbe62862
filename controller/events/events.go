// Package events lets clients follow what changes, as it happens: objects from
// the registry's feed, and the states of nodes from the fleet.
//
// Nothing is kept for a subscriber: each takes from the feed at its own pace,
// so a slow one costs no memory; one that takes nothing for long is cut off.
// The package must not change anything, and shows nobody more than GET would.
package events

import (
	"context"
	"encoding/json"
	"iter"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"muster/controller/api"
	"muster/controller/registry"
	"muster/shared/fault"
	"muster/shared/kind"
	"muster/shared/object"
)

// Objects is what the package needs of the registry.
type Objects interface {
	Specs() []*kind.Spec
	Look() kind.Look
	All(kindName string) []kind.Object
	Revision() uint64
	Resumable(ctx context.Context, after uint64) error
	Changes(ctx context.Context, after uint64) iter.Seq2[registry.Change, error]
	Encoded(kindName string, obj kind.Object, by kind.Author) (text []byte, tag string, err error)
}

// State is a node's state, as the fleet knows it.
type State struct {
	UID    string
	State  string
	Since  float64 // seconds since 1970
	Reason string
}

// States gives the states of nodes.
type States interface {
	// StatesAfter gives the changes after a number; ok is false where some of
	// them are no longer remembered.
	StatesAfter(seq uint64) (changes []State, newest uint64, next <-chan struct{}, ok bool)
	// Known gives the states of all nodes that were ever seen.
	Known() []State
}

// Options are what New needs.
type Options struct {
	Objects Objects
	States  States
	Auth    api.Authenticator
	// Matcher gives a function that says whether a selector picks a node now; it
	// refuses selectors about what by may not see.
	Matcher func(selector string, by kind.Author) (func(uid string) bool, error)
	Log     *slog.Logger

	// Subscribers bounds how many there may be, Each how many of one admin,
	// Heartbeat is how often a sign of life is sent and the caller's token looked
	// at again, Stall how long a subscriber may take nothing. 0 for defaults.
	Subscribers, Each int
	Heartbeat, Stall  time.Duration
}

// Events serves the streams.
type Events struct {
	Options
	mu      sync.Mutex
	byAdmin map[string]int
	count   int
	closing chan struct{} // closed when the service stops; nil while it is down
}

// New makes the service.
func New(opt Options) *Events {
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	def(&opt.Subscribers, 512)
	def(&opt.Each, 64)
	if opt.Heartbeat == 0 {
		opt.Heartbeat = 15 * time.Second
	}
	if opt.Stall == 0 {
		opt.Stall = 30 * time.Second
	}
	return &Events{Options: opt, byAdmin: map[string]int{}}
}

// Listen begins to take subscribers.
func (e *Events) Listen(context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closing = make(chan struct{})
	return nil
}

// Run waits for the end of ctx, and ends all streams then: they would hold up
// the head's own end.
func (e *Events) Run(ctx context.Context) error {
	<-ctx.Done()
	e.mu.Lock()
	defer e.mu.Unlock()
	close(e.closing)
	e.closing = nil
	return nil
}

// Routes is the endpoint.
func (e *Events) Routes() []api.Route {
	return []api.Route{{
		Method: "GET", Path: api.Root + "/events", Permission: kind.LoggedIn, Handler: e.serve, Raw: "text/event-stream",
		Doc: "Follow what changes: server-sent events, or a websocket with the same JSON in each message. Each has `revision`, `change` (create, change, delete or state), `kind`, `uid`, `name`, the `object` as it is shown, and for nodes their `state`; " +
			"`more` says that the commit goes on. A stream that the head ends tells why in a last event `end`.",
		Query: []api.Param{
			{Name: "kind", Doc: "only these kinds, with commas: node,image"},
			{Name: "selector", Doc: "only nodes that it picks, or picked until the change"},
			{Name: "after", Type: "integer", Doc: "go on after this revision, as the header Last-Event-ID does; 410 if it is too old: then read everything anew. From now on when absent"},
		},
	}}
}

// enter counts a subscriber, and gives the channel that tells him to end.
func (e *Events) enter(admin string) (<-chan struct{}, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.closing == nil:
		return nil, fault.New(fault.Unavailable, "The events are stopped: POST /api/v1/head/services on the head starts them.")
	case e.count >= e.Subscribers:
		return nil, fault.New(fault.Unavailable, "%d clients follow the events already, more are not served: try again later.", e.count)
	case e.byAdmin[admin] >= e.Each:
		return nil, fault.New(fault.TooMany, "Admin %s follows the events %d times already: close one of them first.", admin, e.byAdmin[admin])
	}
	e.count++
	e.byAdmin[admin]++
	return e.closing, nil
}

func (e *Events) leave(admin string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.count--
	if e.byAdmin[admin]--; e.byAdmin[admin] == 0 {
		delete(e.byAdmin, admin)
	}
}

func (e *Events) serve(w http.ResponseWriter, r *http.Request) error {
	s, err := e.subscription(r)
	if err != nil {
		return err
	}
	admin := api.CallerOf(r.Context()).Admin
	if s.closing, err = e.enter(admin); err != nil {
		return err
	}
	defer e.leave(admin)
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	if websocket.IsWebSocketUpgrade(r) {
		ws, err := upgrade(w, r, e.Stall, cancel)
		if err != nil {
			return nil // Upgrade has answered
		}
		defer ws.conn.Close()
		s.to = ws
	} else if s.to, err = newSSE(w, e.Stall); err != nil {
		return err
	}
	why := s.run(ctx)
	if ctx.Err() == nil {
		e.Log.Info("events ended", "admin", admin, "from", r.RemoteAddr, "reason", why)
		s.to.end(fault.Of(why).Reason)
	}
	return nil
}

// subscription reads the query.
func (e *Events) subscription(r *http.Request) (*stream, error) {
	q := r.URL.Query()
	s := &stream{Events: e, request: r, by: api.By(r), kinds: map[string]*kind.Spec{}, at: e.Objects.Revision(), inside: map[string]bool{}}
	for _, spec := range e.Objects.Specs() {
		s.kinds[spec.Name] = spec
	}
	if err := s.only(q.Get("kind"), q.Get("selector")); err != nil {
		return nil, err
	}
	if text := q.Get("selector"); text != "" {
		match, err := e.Matcher(text, s.by)
		if err != nil {
			return nil, err
		}
		s.match = match
		for _, o := range e.Objects.All(object.KindNode) {
			s.inside[o.Base().UID] = match(o.Base().UID)
		}
	}
	after := q.Get("after")
	if after == "" {
		after = r.Header.Get("Last-Event-ID")
	}
	if after == "" {
		return s, nil
	}
	n, err := strconv.ParseUint(after, 10, 64)
	if err != nil {
		return nil, fault.Invalidf("after: %q is not a revision that an event had.", after)
	}
	s.at, s.resumed = n, true
	return s, e.Objects.Resumable(r.Context(), n)
}

// only leaves the kinds that are asked for and that the caller may read. To ask
// by name for one that he may not is refused; he gets what he may otherwise.
func (s *stream) only(list, selector string) error {
	wanted := strings.FieldsFunc(list, func(r rune) bool { return r == ',' })
	if selector != "" {
		if len(wanted) > 0 && !slices.Equal(wanted, []string{object.KindNode}) {
			return fault.Invalidf("selector: it picks nodes, and kind=%s asks for others.", list)
		}
		wanted = []string{object.KindNode}
	}
	for _, name := range wanted {
		spec := s.kinds[name]
		if spec == nil {
			return fault.Invalidf("kind: there is no kind %q.", name)
		}
		if !s.by.May(spec.Read) {
			return fault.New(fault.Forbidden, "kind: %s lacks the permission %s.", s.by.Name, spec.Read)
		}
	}
	for name := range s.kinds {
		if len(wanted) > 0 && !slices.Contains(wanted, name) {
			delete(s.kinds, name)
		}
	}
	if len(wanted) == 0 && !slices.ContainsFunc(s.Objects.Specs(), func(spec *kind.Spec) bool { return s.by.May(spec.Read) }) {
		return fault.New(fault.Forbidden, "%s may read none of the kinds.", s.by.Name)
	}
	return nil
}

// event is what is sent.
type event struct {
	Revision uint64          `json:"revision"`
	Change   string          `json:"change"`
	Kind     string          `json:"kind"`
	UID      string          `json:"uid"`
	Name     string          `json:"name"`
	State    string          `json:"state,omitempty"`
	Since    float64         `json:"since,omitempty"`
	Reason   string          `json:"reason,omitempty"`
	More     bool            `json:"more,omitempty"`
	Object   json.RawMessage `json:"object,omitempty"`
}
