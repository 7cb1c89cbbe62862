// Package waitfor keeps named sets of node states that admins define: labels,
// each with a selector. It tells which nodes are in each state, since when, and
// lets clients wait for a change of that.
//
// Sets are looked at anew when the registry or the fleet says that something
// changed, never by the clock. They live in memory and are gone after a restart
// of the head: they belong to work under way. The package must change nothing.
package waitfor

import (
	"context"
	"crypto/rand"
	"iter"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"time"

	"muster/controller/api"
	"muster/controller/registry"
	"muster/shared/fault"
	"muster/shared/kind"
	"muster/shared/object"
)

// Bounds: sets of the head, labels of a set, how often sets are looked at while
// changes go on, and how long a request may wait for one.
const (
	maxSets   = 100
	maxLabels = 32
	pause     = 200 * time.Millisecond
	maxWait   = 55 * time.Second
)

// Options are what New needs.
type Options struct {
	// Select gives the nodes that a selector picks, as far as its author may know.
	Select func(ctx context.Context, by kind.Author, selector string) ([]*object.Node, error)
	// Commits gives the changes of objects from now on.
	Commits func(ctx context.Context) iter.Seq2[registry.Commit, error]
	Now     func() time.Time
}

// Waitfor serves the sets.
type Waitfor struct {
	opt   Options
	dirty chan struct{} // something is new

	mu   sync.Mutex
	sets map[string]*set
}

// set is one of them. It is guarded by Waitfor.mu, but for what never changes.
type set struct {
	name    string
	by      string            // who made it
	states  map[string]string // selectors by label
	members map[string]map[string]member
	seq     uint64        // number of changes of the members
	moved   chan struct{} // closed and replaced when seq grows, or the set is forgotten
}

// member is a node in a state.
type member struct {
	UID   string  `json:"uid"`
	Name  string  `json:"name"`
	Since float64 `json:"since"`   // seconds since 1970: when it was first seen there
	For   float64 `json:"seconds"` // that it has been there
}

// New makes the service; Run makes it follow changes.
func New(opt Options) *Waitfor {
	return &Waitfor{opt: opt, dirty: make(chan struct{}, 1), sets: map[string]*set{}}
}

// News says that something about a node is new. It never blocks.
func (w *Waitfor) News() {
	select {
	case w.dirty <- struct{}{}:
	default:
	}
}

// Run keeps the sets up to date until ctx ends.
func (w *Waitfor) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make(chan error, 1)
	go func() {
		for _, err := range w.opt.Commits(ctx) {
			if err != nil {
				failed <- err
				return
			}
			w.News()
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			if ctx.Err() != nil {
				return nil
			}
			return err
		case <-w.dirty:
		}
		w.mu.Lock()
		all := slices.Collect(maps.Values(w.sets))
		w.mu.Unlock()
		for _, s := range all {
			w.look(ctx, s, kind.Author{Name: "waitfor"}) // who made the set was allowed to
		}
		select { // what comes meanwhile is looked at together
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// look finds out who is in which state of a set now.
func (w *Waitfor) look(ctx context.Context, s *set, by kind.Author) error {
	found := map[string][]*object.Node{}
	for label, text := range s.states {
		nodes, err := w.opt.Select(ctx, by, text)
		if err != nil {
			return err
		}
		found[label] = nodes
	}
	now := float64(w.opt.Now().UnixMicro()) / 1e6
	w.mu.Lock()
	defer w.mu.Unlock()
	changed := s.members == nil
	members := map[string]map[string]member{}
	for label, nodes := range found {
		is := make(map[string]member, len(nodes))
		for _, n := range nodes {
			m, was := s.members[label][n.UID]
			if !was {
				m.Since = now
			}
			changed = changed || !was || m.Name != n.Name
			m.UID, m.Name = n.UID, n.Name
			is[n.UID] = m
		}
		changed = changed || len(is) != len(s.members[label])
		members[label] = is
	}
	if changed {
		s.members = members
		s.seq++
		s.wake()
	}
	return nil
}

// wake has those look again who wait for the set. Waitfor.mu is held.
func (s *set) wake() {
	close(s.moved)
	s.moved = make(chan struct{})
}

// Routes are the endpoints.
func (w *Waitfor) Routes() []api.Route {
	const path = api.Root + "/nodes/waitfor"
	return []api.Route{
		{Method: "POST", Path: path, Permission: "NodesRead", Body: request{}, Doc: "Define a set of node states: labels, each with a selector. The answer has its name and who is in which state.", Handler: w.create, Answer: view{}},
		{Method: "GET", Path: path, Permission: "NodesRead", Doc: "The names of the sets of node states.", Handler: w.list, Answer: []string{}},
		{Method: "GET", Path: api.Root + "/waitfor/{name}", Permission: "NodesRead", Doc: "A set of node states, with each member's name and how long it has been there; ?after=SEQ waits for a change.", Handler: w.get, Answer: view{}, Query: []api.Param{{Name: "after", Doc: "the seq of an earlier answer", Type: "integer"}}},
		{Method: "GET", Path: path + "/{name}/nodes", Permission: "NodesRead", Doc: "The UIDs of the nodes in each state of a set, by label.", Handler: w.nodes, Answer: map[string][]string{}},
		{Method: "DELETE", Path: api.Root + "/waitfor/{name}", Permission: "NodesRead", Doc: "Forget a set of node states: one's own, or anybody's who may write nodes.", Handler: w.remove, Answer: api.Nothing{}},
	}
}

type request struct {
	Name   string            `json:"name"`
	States map[string]string `json:"states"`
}

var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$`)

func (w *Waitfor) create(rw http.ResponseWriter, r *http.Request) error {
	var in request
	if err := api.Decode(rw, r, &in); err != nil {
		return err
	}
	if in.Name == "" {
		in.Name = "w" + rand.Text()[:12]
	}
	switch {
	case !namePattern.MatchString(in.Name):
		return fault.Invalidf("name: %q is no name: want up to 64 letters, digits, dots, dashes and underscores.", in.Name)
	case len(in.States) == 0 || len(in.States) > maxLabels:
		return fault.Invalidf("states: want 1 to %d labels, each with a selector.", maxLabels)
	}
	for label := range in.States {
		if !namePattern.MatchString(label) {
			return fault.Invalidf("states: %q is no label: want up to 64 letters, digits, dots, dashes and underscores.", label)
		}
	}
	by := api.By(r)
	s := &set{name: in.Name, by: by.Name, states: in.States, moved: make(chan struct{})}
	if err := w.look(r.Context(), s, by); err != nil {
		return err
	}
	w.mu.Lock()
	_, taken := w.sets[s.name]
	full := len(w.sets) >= maxSets
	if !taken && !full {
		w.sets[s.name] = s
	}
	w.mu.Unlock()
	switch {
	case taken:
		return fault.New(fault.Conflict, "name: there is a set %q already: delete it, or take another name.", s.name)
	case full:
		return fault.New(fault.TooMany, "There are %d sets already: delete some.", maxSets)
	}
	w.News() // of what changed before the set was there
	return api.Data(rw, w.view(s, api.By(r)))
}

// view is what is shown of a set. Selectors that tell of reserved attributes
// are empty for those who may not read these.
type view struct {
	Name    string              `json:"name"`
	States  map[string]string   `json:"states"`
	Seq     uint64              `json:"seq"`
	Members map[string][]member `json:"members"`
}

func (w *Waitfor) view(s *set, by kind.Author) view {
	now := float64(w.opt.Now().UnixMicro()) / 1e6
	w.mu.Lock()
	defer w.mu.Unlock()
	v := view{Name: s.name, States: maps.Clone(s.states), Seq: s.seq, Members: map[string][]member{}}
	for label, text := range v.States {
		if !by.May(kind.ReservedAttribRead) && object.TellsReserved(text) {
			v.States[label] = ""
		}
	}
	for label, members := range s.members {
		v.Members[label] = []member{}
		for _, uid := range slices.Sorted(maps.Keys(members)) {
			m := members[uid]
			m.For = max(0, now-m.Since)
			v.Members[label] = append(v.Members[label], m)
		}
	}
	return v
}

func (w *Waitfor) find(r *http.Request) (*set, error) {
	name := r.PathValue("name")
	w.mu.Lock()
	defer w.mu.Unlock()
	if s := w.sets[name]; s != nil {
		return s, nil
	}
	return nil, fault.New(fault.NotFound, "There is no set of states %q; a restart of the head forgets them.", name)
}

func (w *Waitfor) list(rw http.ResponseWriter, _ *http.Request) error {
	w.mu.Lock()
	names := slices.Sorted(maps.Keys(w.sets))
	w.mu.Unlock()
	return api.Data(rw, append([]string{}, names...))
}

func (w *Waitfor) get(rw http.ResponseWriter, r *http.Request) error {
	s, err := w.find(r)
	if err != nil {
		return err
	}
	if text := r.URL.Query().Get("after"); text != "" {
		after, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return fault.Invalidf("after: %q is not a number that an earlier answer gave.", text)
		}
		w.await(r.Context(), s, after)
		if s, err = w.find(r); err != nil { // forgotten meanwhile
			return err
		}
	}
	return api.Data(rw, w.view(s, api.By(r)))
}

// await returns when the members are not those of that number, when the set is
// forgotten, or after a while.
func (w *Waitfor) await(ctx context.Context, s *set, seq uint64) {
	w.mu.Lock()
	now, moved := s.seq, s.moved
	w.mu.Unlock()
	if now != seq {
		return
	}
	late := time.NewTimer(maxWait)
	defer late.Stop()
	select {
	case <-moved:
	case <-late.C:
	case <-ctx.Done():
	}
}

func (w *Waitfor) nodes(rw http.ResponseWriter, r *http.Request) error {
	s, err := w.find(r)
	if err != nil {
		return err
	}
	w.mu.Lock()
	out := map[string][]string{}
	for label, members := range s.members {
		out[label] = append([]string{}, slices.Sorted(maps.Keys(members))...)
	}
	w.mu.Unlock()
	return api.Data(rw, out)
}

func (w *Waitfor) remove(rw http.ResponseWriter, r *http.Request) error {
	s, err := w.find(r)
	if err != nil {
		return err
	}
	if by := api.By(r); by.Name != s.by && !by.May("NodesWrite") {
		return fault.New(fault.Forbidden, "The set of states %q is %s's: to forget it takes the permission NodesWrite.", s.name, s.by)
	}
	w.mu.Lock()
	if w.sets[s.name] == s {
		delete(w.sets, s.name)
	}
	s.wake()
	w.mu.Unlock()
	return api.OK(rw)
}
