// Package boots says how boots go: how long each step takes on the nodes of a
// set, which nodes are behind, and, as OpenTelemetry traces, what every single
// boot did.
//
// What it knows comes from the timelines of controller/fleet; the package keeps
// nothing and changes nothing.
package boots

import (
	"cmp"
	"context"
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"

	"muster/controller/api"
	"muster/shared/fault"
	"muster/shared/hostlist"
	"muster/shared/kind"
	"muster/shared/object"
	"muster/shared/wire"
)

// Boot is one attempt to get a machine up, its steps oldest first.
type Boot struct {
	Number int
	Steps  []wire.Step
}

// Boots answers.
type Boots struct {
	// Nodes finds a node, and gives all of them.
	Nodes interface {
		Find(kindName, id string) (kind.Object, error)
		All(kindName string) []kind.Object
	}
	// Select gives the nodes that a selector picks, as far as its author may know.
	Select func(ctx context.Context, by kind.Author, selector string) ([]*object.Node, error)
	// Last gives a node's newest boot; ok is false when there was none.
	Last func(uid string) (b Boot, ok bool)
	Now  func() time.Time
}

// Routes are the endpoints.
func (s *Boots) Routes() []api.Route {
	return []api.Route{{
		Method: "GET", Path: api.Root + "/nodes/bootstats", Permission: "NodesRead", Doc: "How long the steps of the newest boot took on the nodes of a set, and which nodes are behind.",
		Handler: s.get, Answer: Stats{}, Query: []api.Param{
			{Name: "nodes", Doc: "names or a host list such as n[0-99]; all nodes when neither this nor a selector is given"},
			{Name: "selector", Doc: "a node selector"},
			{Name: "stragglers", Type: "integer", Doc: "how many of those that are behind are named, 10 unless given"},
		},
	}}
}

// The bounds of stragglers.
const (
	usualStragglers = 10
	maxStragglers   = 1000
)

func (s *Boots) get(w http.ResponseWriter, r *http.Request) error {
	q, most := r.URL.Query(), usualStragglers
	if text := q.Get("stragglers"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 || n > maxStragglers {
			return fault.Invalidf("stragglers: %.40q is not a number from 0 to %d.", text, maxStragglers)
		}
		most = n
	}
	nodes, err := s.pick(r.Context(), api.By(r), q.Get("nodes"), q.Get("selector"))
	if err != nil {
		return err
	}
	return api.Data(w, s.stats(nodes, most))
}

// pick gives the nodes of a request: those that both ways of naming them pick.
func (s *Boots) pick(ctx context.Context, by kind.Author, names, selector string) ([]*object.Node, error) {
	var nodes []*object.Node
	switch {
	case selector != "":
		var err error
		if nodes, err = s.Select(ctx, by, selector); err != nil {
			return nil, err
		}
	case names == "":
		for _, o := range s.Nodes.All(object.KindNode) {
			nodes = append(nodes, o.(*object.Node))
		}
	}
	if names == "" {
		return nodes, nil
	}
	list, err := hostlist.Parse(names)
	if err != nil {
		return nil, fault.Invalidf("nodes: %v.", err)
	}
	named := map[string]*object.Node{}
	for _, name := range list {
		o, err := s.Nodes.Find(object.KindNode, name)
		if err != nil {
			return nil, err
		}
		named[o.Base().UID] = o.(*object.Node)
	}
	if selector != "" {
		return slices.DeleteFunc(slices.Clone(nodes), func(n *object.Node) bool { return named[n.UID] == nil }), nil
	}
	for _, n := range named {
		nodes = append(nodes, n)
	}
	return nodes, nil
}

// Stats is how the newest boots of some nodes went.
type Stats struct {
	Nodes      int         `json:"nodes"`
	Up         int         `json:"up"`        // booted to the end
	Failed     int         `json:"failed"`    // stay at a step that failed
	UnderWay   int         `json:"under_way"` // or gave up without a word
	Never      int         `json:"never"`     // no boot is known of
	Total      Spread      `json:"total"`     // from the first step to up
	Steps      []Spread    `json:"steps"`
	Stragglers []Straggler `json:"stragglers"`
}

// Spread is how long something took, in seconds.
type Spread struct {
	Step    string  `json:"step"`
	Count   int     `json:"count"`
	P50     float64 `json:"p50"`
	P90     float64 `json:"p90"`
	P95     float64 `json:"p95"`
	P99     float64 `json:"p99"`
	Max     float64 `json:"max"`
	Slowest string  `json:"slowest,omitempty"` // the node with the maximum
}

// Straggler is a node that is behind the others.
type Straggler struct {
	Node    string  `json:"node"`
	State   string  `json:"state"`        // up, failed or under_way
	Seconds float64 `json:"seconds"`      // since its first step, or to its end
	Step    string  `json:"step"`         // that it is at, or that took longest against the median
	Took    float64 `json:"step_seconds"` // how long it is there, or how long that took
	Error   string  `json:"error,omitempty"`
}

// late is by how much, against the median, a boot is one of a straggler.
const late = 1.5

// run is what a boot comes to.
type run struct {
	node  string
	steps []took
	total float64
	ended bool
	error string
	at    string  // the last step
	idle  float64 // since then
}

type took struct {
	step    string
	seconds float64
}

// of measures a boot: each step from the end of the one before it. A step that
// failed ends when it works.
func of(node string, b Boot, now time.Time) run {
	r := run{node: node}
	if len(b.Steps) == 0 {
		return r
	}
	first, before := b.Steps[0].Time, b.Steps[0].Time
	for i, s := range b.Steps {
		r.at, r.error = s.Step, s.Error
		if s.Error != "" || r.ended {
			continue // of an image that comes in while the node is up nobody waits for
		}
		if i > 0 {
			r.steps = append(r.steps, took{s.Step, s.Time.Sub(before).Seconds()})
		}
		before = s.Time
		if s.Step == wire.StepUp {
			r.ended, r.total = true, s.Time.Sub(first).Seconds()
		}
	}
	if !r.ended {
		r.total, r.idle = now.Sub(first).Seconds(), now.Sub(b.Steps[len(b.Steps)-1].Time).Seconds()
	}
	return r
}

func (s *Boots) stats(nodes []*object.Node, most int) Stats {
	out := Stats{Nodes: len(nodes), Steps: []Spread{}, Stragglers: []Straggler{}}
	now := s.Now()
	var runs []run
	var total []sample
	bySteps, order := map[string][]sample{}, []string{}
	for _, n := range nodes {
		b, ok := s.Last(n.UID)
		if !ok || len(b.Steps) == 0 {
			out.Never++
			continue
		}
		r := of(n.Name, b, now)
		runs = append(runs, r)
		for _, t := range r.steps {
			if bySteps[t.step] == nil {
				order = append(order, t.step)
			}
			bySteps[t.step] = append(bySteps[t.step], sample{r.node, t.seconds})
		}
		switch {
		case r.ended:
			out.Up++
			total = append(total, sample{r.node, r.total})
		case r.error != "":
			out.Failed++
		default:
			out.UnderWay++
		}
	}
	out.Total = spread("total", total)
	place := func(step string) int { return slices.Index(inOrder(), step) }
	slices.SortStableFunc(order, func(a, b string) int { return cmp.Compare(place(a), place(b)) })
	usual := map[string]float64{}
	for _, step := range order {
		is := spread(step, bySteps[step])
		usual[step] = is.P50
		out.Steps = append(out.Steps, is)
	}
	out.Stragglers = stragglers(runs, out.Total.P50, usual, most)
	return out
}

func inOrder() []string {
	return []string{wire.StepDHCP, wire.StepFirmware, wire.StepKernel, wire.StepAgent, wire.StepEnrol, wire.StepImage, wire.StepRoot, wire.StepUp}
}

type sample struct {
	node    string
	seconds float64
}

// spread gives the percentiles by nearest rank.
func spread(step string, samples []sample) Spread {
	out := Spread{Step: step, Count: len(samples)}
	if len(samples) == 0 {
		return out
	}
	slices.SortFunc(samples, func(a, b sample) int {
		return cmp.Or(cmp.Compare(a.seconds, b.seconds), hostlist.Compare(b.node, a.node))
	})
	rank := func(p float64) float64 {
		return samples[max(int(math.Ceil(p/100*float64(len(samples)))), 1)-1].seconds
	}
	last := samples[len(samples)-1]
	out.P50, out.P90, out.P95, out.P99, out.Max, out.Slowest = rank(50), rank(90), rank(95), rank(99), last.seconds, last.node
	return out
}

// stragglers are the nodes whose boot failed, then those that are not up, then
// those that took longest, as far as that is longer than usual.
func stragglers(runs []run, median float64, usual map[string]float64, most int) []Straggler {
	out := []Straggler{}
	for _, r := range runs {
		is := Straggler{Node: r.node, State: "up", Seconds: r.total, Step: r.at, Took: r.idle, Error: r.error}
		switch {
		case r.ended && r.total <= late*median:
			continue
		case r.ended:
			is.Error, is.Step = "", ""
			excess := 0.0
			for _, t := range r.steps {
				if over := t.seconds - usual[t.step]; over > excess || is.Step == "" {
					excess, is.Step, is.Took = over, t.step, t.seconds
				}
			}
		case r.error != "":
			is.State = "failed"
		default:
			is.State = "under_way"
		}
		out = append(out, is)
	}
	rank := map[string]int{"failed": 0, "under_way": 1, "up": 2}
	slices.SortFunc(out, func(a, b Straggler) int {
		return cmp.Or(cmp.Compare(rank[a.State], rank[b.State]), cmp.Compare(b.Seconds, a.Seconds), hostlist.Compare(a.Node, b.Node))
	})
	return out[:min(len(out), most)]
}
