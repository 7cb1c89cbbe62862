package power

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"muster/controller/api"
	"muster/controller/power/bmc"
	"muster/shared/fault"
	"muster/shared/hostlist"
	"muster/shared/object"
)

// Bounds of a request for many nodes.
const (
	maxNodes     = 50_000
	maxLimit     = 1024
	defaultLimit = 256
	maxRetries   = 10
	maxStagger   = 60 // seconds
	retryAfter   = 500 * time.Millisecond
)

// many is the body of POST /power.
type many struct {
	Nodes    json.RawMessage   `json:"nodes,omitempty"` // a list of names, or a set as text
	Selector string            `json:"selector,omitempty"`
	State    string            `json:"state"`
	Force    bool              `json:"force,omitempty"`
	Steps    []json.RawMessage `json:"steps,omitempty"`
	Limit    int               `json:"limit,omitempty"`   // how many nodes at once
	Stagger  float64           `json:"stagger,omitempty"` // seconds between the beginnings, for the inrush current
	Retries  int               `json:"retries,omitempty"` // of what a BMC did not answer; of orders, only on and hard off
	Timeout  float64           `json:"timeout,omitempty"` // seconds for an answer of a BMC
}

// result is a line of the answer. Pending is the step of an order that takes
// longer; the node's last line follows.
type result struct {
	Node    string    `json:"node"`
	State   bmc.State `json:"state,omitempty"`
	Step    string    `json:"step,omitempty"`
	Pending string    `json:"pending,omitempty"`
	Error   string    `json:"error,omitempty"`
	Status  int       `json:"status,omitempty"` // HTTP's, of an error
	Seconds float64   `json:"seconds"`
}

func (m *many) check() error {
	if m.Limit == 0 {
		m.Limit = defaultLimit
	}
	if m.Timeout == 0 {
		m.Timeout = callTime.Seconds()
	}
	switch {
	case m.Limit < 1 || m.Limit > maxLimit:
		return fault.Invalidf("limit: from 1 to %d nodes at once, not %d.", maxLimit, m.Limit)
	case m.Retries < 0 || m.Retries > maxRetries:
		return fault.Invalidf("retries: from 0 to %d, not %d.", maxRetries, m.Retries)
	case !(m.Stagger >= 0 && m.Stagger <= maxStagger):
		return fault.Invalidf("stagger: from 0 to %d seconds, not %v.", maxStagger, m.Stagger)
	case !(m.Timeout > 0 && m.Timeout <= answerTime.Seconds()):
		return fault.Invalidf("timeout: more than 0 and at most %.0f seconds, not %v.", answerTime.Seconds(), m.Timeout)
	}
	return nil
}

func (p *Power) postMany(w http.ResponseWriter, r *http.Request) error {
	var in many
	if err := api.Decode(w, r, &in); err != nil {
		return err
	}
	if err := in.check(); err != nil {
		return err
	}
	if strings.TrimSpace(strings.ToLower(in.State)) == "status" {
		if in.Force || len(in.Steps) > 0 {
			return fault.Invalidf("state: status only asks, so that neither force nor steps go with it.")
		}
		return p.stream(w, r, in, p.ask)
	}
	o := order{State: in.State, Force: in.Force, Steps: in.Steps, retries: in.Retries, answer: time.Duration(in.Timeout * float64(time.Second))}
	if err := o.check(); err != nil {
		return err
	}
	by := api.By(r)
	return p.stream(w, r, in, func(ctx context.Context, n *object.Node, _ many, say func(result)) result {
		j, err := p.start(ctx, n, by, o)
		if err != nil {
			return failure(n, err)
		}
		select {
		case <-j.done:
		case <-time.After(answerTime):
			p.mu.Lock()
			at := j.at
			p.mu.Unlock()
			say(result{Node: n.Name, Pending: at, Seconds: time.Since(j.since).Seconds()})
			<-j.done
		}
		if j.err != nil {
			return failure(n, j.err)
		}
		state := bmc.On
		if o.action == bmc.HardOff || o.action == bmc.SoftOff {
			state = bmc.Off
		}
		return result{Node: n.Name, State: state, Step: j.step}
	})
}

func failure(n *object.Node, err error) result {
	return result{Node: n.Name, State: bmc.Unknown, Error: fault.Of(err).Reason, Status: fault.Status(err)}
}

func (p *Power) getMany(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	in := many{Selector: q.Get("selector")}
	if q.Has("nodes") {
		in.Nodes, _ = json.Marshal(q.Get("nodes")) // of a string, which cannot fail
	}
	for name, to := range map[string]*int{"limit": &in.Limit, "retries": &in.Retries} {
		if text := q.Get(name); text != "" {
			v, err := strconv.Atoi(text)
			if err != nil {
				return fault.Invalidf("%s: %q is no number.", name, bmc.Clean(text))
			}
			*to = v
		}
	}
	if text := q.Get("timeout"); text != "" {
		v, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return fault.Invalidf("timeout: %q is no number of seconds.", bmc.Clean(text))
		}
		in.Timeout = v
	}
	if err := in.check(); err != nil {
		return err
	}
	return p.stream(w, r, in, p.ask)
}

// ask asks for one node's state. A power_state costs a node nothing, so it is
// asked again where the BMC did not answer.
func (p *Power) ask(ctx context.Context, n *object.Node, in many, _ func(result)) result {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	var state bmc.State
	err := again(ctx, in.Retries, time.Duration(in.Timeout*float64(time.Second)), func(ctx context.Context) (err error) {
		state, err = p.state(ctx, n)
		return err
	})
	if err != nil {
		return failure(n, err)
	}
	return result{Node: n.Name, State: state}
}

// again calls fn, for so long each time, until the BMC answers or it was tried
// again so many times.
func again(ctx context.Context, retries int, each time.Duration, fn func(context.Context) error) error {
	for try := 0; ; try++ {
		once, stop := context.WithTimeout(ctx, each)
		err := fn(once)
		stop()
		if try >= retries || !(fault.Is(err, fault.Timeout) || fault.Is(err, fault.Upstream)) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(retryAfter):
		}
	}
}

// nodes gives the nodes that a request names, each once, and those names that
// are none.
func (p *Power) nodes(r *http.Request, in many) (nodes []*object.Node, missing []result, err error) {
	if (in.Nodes == nil) == (in.Selector == "") {
		return nil, nil, fault.Invalidf(`Which nodes? Give either nodes, such as "n[0-3]" or ["n0","n1"], or selector.`)
	}
	if in.Selector != "" {
		nodes, err = p.Select(r.Context(), api.By(r), in.Selector)
		return nodes, nil, err
	}
	names, err := nodeNames(in.Nodes)
	if err != nil {
		return nil, nil, err
	}
	seen := map[string]bool{}
	for _, name := range names {
		o, err := p.Objects.Find(object.KindNode, name)
		if err != nil {
			missing = append(missing, result{Node: name, State: bmc.Unknown, Error: fault.Of(err).Reason, Status: fault.Status(err)})
			continue
		}
		if n := o.(*object.Node); !seen[n.UID] {
			seen[n.UID] = true
			nodes = append(nodes, n)
		}
	}
	return nodes, missing, nil
}

func nodeNames(raw json.RawMessage) ([]string, error) {
	var names []string
	if json.Unmarshal(raw, &names) != nil {
		var set string
		if json.Unmarshal(raw, &set) != nil {
			return nil, fault.Invalidf(`nodes: a list of names or a set such as "n[0-3,7]".`)
		}
		var err error
		if names, err = hostlist.Parse(set); err != nil {
			return nil, fault.Invalidf("nodes: %v.", err)
		}
	}
	if len(names) == 0 || len(names) > maxNodes {
		return nil, fault.Invalidf("nodes: %d are named, it must be 1 to %d.", len(names), maxNodes)
	}
	return names, nil
}

// stream does something to every node and sends each result as it comes.
func (p *Power) stream(w http.ResponseWriter, r *http.Request, in many, do func(context.Context, *object.Node, many, func(result)) result) error {
	nodes, lines, err := p.nodes(r, in)
	if err != nil {
		return err
	}
	out := api.NewLines(w)
	say := func(l result) { out.Send(l) } // a client that is gone ends nothing that has begun
	for _, l := range lines {
		say(l)
	}
	ctx, stop := context.WithCancel(r.Context())
	defer stop()
	next := make(chan *object.Node)
	var wg sync.WaitGroup
	for range min(in.Limit, len(nodes)) {
		wg.Go(func() {
			for n := range next {
				began := time.Now()
				res := do(ctx, n, in, say)
				res.Seconds = time.Since(began).Seconds()
				say(res)
			}
		})
	}
	p.feed(ctx, nodes, next, time.Duration(in.Stagger*float64(time.Second)))
	wg.Wait()
	return out.Err()
}

// feed hands the nodes out in their order, at most one in each stagger. Once
// the client is gone no more are begun.
func (p *Power) feed(ctx context.Context, nodes []*object.Node, next chan<- *object.Node, stagger time.Duration) {
	defer close(next)
	for i, n := range nodes {
		if i > 0 && stagger > 0 {
			select {
			case <-ctx.Done():
				return
			case <-time.After(stagger):
			}
		}
		select {
		case <-ctx.Done():
			return
		case next <- n:
		}
	}
}
