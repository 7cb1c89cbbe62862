// Package recovery switches nodes that do not come up off and on again, where
// their attributes ask for it: a number of times in a day, each after a longer
// wait, and then leaves them alone and says so on their timeline.
//
// It is off unless a node's attribute _recover_attempts says how often. It
// never touches a node that is off or held in its rescue shell, nor one that
// may still work for somebody, unless allowed; and never many at once: what
// looks like a hundred dead machines is a dead switch.
package recovery

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"golang.org/x/time/rate"

	"muster/shared/object"
)

// The attributes, of a node or its groups.
const (
	AttrAttempts = "_recover_attempts" // how often in a day, up to 10; 0 for never
	AttrWait     = "_recover_secs"     // how long it may be down, failed or booting; twice as long for each attempt after the first
	AttrBusy     = "_recover_busy"     // true: also where users are logged in, or jobs run
)

// DefaultWait is for a node without AttrWait.
const DefaultWait = 10 * time.Minute

const (
	maxAttempts = 10
	maxWait     = 6 * time.Hour
	day         = 24 * time.Hour
	// lookEvery is how often nodes are looked at, askEvery how often the BMC of
	// one is asked that would be switched.
	lookEvery = 2 * time.Second
	askEvery  = 30 * time.Second
	// askTime bounds that question.
	askTime = 15 * time.Second
)

// Case is how it stands with a node.
type Case struct {
	State  string // down, failed and booting are looked after
	Since  time.Time
	Reason string
	Dead   bool        // its console said so: nothing runs there any more
	Rescue bool        // it is held in its rescue shell
	Given  time.Time   // when it was given up; zero when it was up since
	Tried  []time.Time // when it was switched off and on
	Busy   string      // what was running when it was last heard of
}

// Options are what the package has to be told.
type Options struct {
	Nodes     func() []*object.Node
	Attribute func(n *object.Node, name string) string
	Case      func(uid string) Case
	// On asks the node's BMC; Cycle has it switched off and on, and returns
	// when that has begun.
	On    func(ctx context.Context, n *object.Node) (bool, error)
	Cycle func(ctx context.Context, n *object.Node) error
	// Note puts a line on the node's timeline; failure says why it stays down.
	Note      func(uid, detail, failure string)
	PerMinute int // power cycles at most, of all nodes
	Log       *slog.Logger
	Now       func() time.Time
}

// Recovery looks after the nodes.
type Recovery struct {
	opt   Options
	limit *rate.Limiter
	asked map[string]time.Time // when a node's BMC was last asked
}

// New makes it.
func New(opt Options) *Recovery {
	return &Recovery{opt: opt, limit: rate.NewLimiter(rate.Limit(float64(opt.PerMinute)/60), opt.PerMinute), asked: map[string]time.Time{}}
}

// Run looks after the nodes until ctx ends.
func (r *Recovery) Run(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for _, n := range r.opt.Nodes() {
			if text := r.opt.Attribute(n, AttrAttempts); text != "" && ctx.Err() == nil {
				r.look(ctx, n, text)
			}
		}
	}
}

// look does for one node what is due.
func (r *Recovery) look(ctx context.Context, n *object.Node, attempts string) {
	p := policy(attempts, r.opt.Attribute(n, AttrWait), r.opt.Attribute(n, AttrBusy))
	now := r.opt.Now()
	c := r.opt.Case(n.UID)
	switch p.decide(c, now) {
	case nothing:
		delete(r.asked, n.UID)
		return
	case giveUp:
		r.opt.Note(n.UID, "", fmt.Sprintf("left alone after %d power cycles in a day; the last reason: %s", len(recent(c.Tried, now)), c.why()))
		r.opt.Log.Warn("a node does not come up and is left alone", "node", n.Name, "reason", c.why())
		return
	}
	if now.Sub(r.asked[n.UID]) < askEvery {
		return
	}
	r.asked[n.UID] = now
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	on, err := r.opt.On(ctx, n)
	if err != nil {
		r.opt.Log.Warn("a node that is not up cannot be recovered", "node", n.Name, "error", err)
		return
	}
	if !on {
		return // somebody switched it off
	}
	if !r.limit.AllowN(now, 1) {
		delete(r.asked, n.UID)
		return // the next time
	}
	r.opt.Note(n.UID, fmt.Sprintf("power cycle %d of %d: %s", len(recent(c.Tried, now))+1, p.attempts, c.why()), "")
	r.opt.Log.Warn("recovering a node by a power cycle", "node", n.Name, "reason", c.why())
	if err := r.opt.Cycle(ctx, n); err != nil {
		r.opt.Log.Error("a power cycle failed", "node", n.Name, "error", err)
	}
}

func (c Case) why() string {
	if c.Reason != "" {
		return c.Reason
	}
	return c.State
}

// rules are what the attributes of a node say.
type rules struct {
	attempts int
	wait     time.Duration
	busy     bool
}

// policy reads attributes. What is no number means never, or the default.
func policy(attempts, wait, busy string) rules {
	p := rules{wait: DefaultWait, busy: busy == "true"}
	if n, err := strconv.Atoi(attempts); err == nil && n > 0 {
		p.attempts = min(n, maxAttempts)
	}
	if s, err := strconv.ParseFloat(wait, 64); err == nil && s >= 1 && s <= maxWait.Seconds() {
		p.wait = time.Duration(s * float64(time.Second))
	}
	return p
}

type action int

const (
	nothing action = iota
	cycle
	giveUp
)

// decide says what is due.
func (p rules) decide(c Case, now time.Time) action {
	if p.attempts == 0 || c.Rescue || now.Sub(c.Given) < day || c.State != "failed" && c.State != "down" && c.State != "booting" {
		return nothing
	}
	if c.Busy != "" && !c.Dead && !p.busy {
		return nothing
	}
	tried := recent(c.Tried, now)
	since, wait := c.Since, p.wait
	for _, t := range tried {
		if wait = min(2*wait, maxWait); t.After(since) {
			since = t
		}
	}
	if now.Sub(since) < wait {
		return nothing
	}
	if len(tried) >= p.attempts {
		return giveUp
	}
	return cycle
}

func recent(tried []time.Time, now time.Time) []time.Time {
	var out []time.Time
	for _, t := range tried {
		if now.Sub(t) < day {
			out = append(out, t)
		}
	}
	return out
}
