package fleet

import (
	"context"
	"encoding/json"
	"strconv"
	"time"

	"muster/shared/object"
	"muster/shared/wire"
)

// lastGasp is how long after a machine's last words its other processors may
// still answer, and answerWait how long its agent has to prove them wrong.
const (
	lastGasp   = time.Second
	answerWait = 3 * time.Second
)

// Died is told that a machine said on its console that it is dead. That line
// is the reason why it failed, unless its agent answers: anybody who can write
// to a console can write such a line.
func (f *Fleet) Died(ctx context.Context, uid, line string) {
	f.mu.Lock()
	number := 0
	if n := f.nodes[uid]; n != nil && n.current() != nil {
		number = n.current().Number
	}
	f.mu.Unlock()
	sleep(ctx, lastGasp)
	if f.answers(ctx, uid) || ctx.Err() != nil {
		f.opt.Log.Info("a console says that the machine is dead, but its agent answers", "node", uid, "line", clip(line))
		return
	}
	f.opt.Log.Warn("the machine is dead", "node", uid, "console", clip(line))
	f.verdict(uid, number, wire.Step{Step: wire.StepConsole, Error: line})
}

// answers asks a node's agent for a sign of life, and cuts the link of one that
// gives none.
func (f *Fleet) answers(ctx context.Context, uid string) bool {
	f.mu.Lock()
	var l *link
	if n := f.nodes[uid]; n != nil {
		l = n.link
	}
	f.mu.Unlock()
	if l == nil {
		return false
	}
	waiting, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	if l.session.Ping(waiting) == nil {
		return true
	}
	if ctx.Err() != nil {
		return false
	}
	l.session.Close()
	return false
}

// verdict notes a step of the head's own in the boot that it is about, which
// may be an older one by now; 0 stands for none yet. Of several alike the first
// is the reason.
func (f *Fleet) verdict(uid string, number int, s wire.Step) {
	s.Time = f.opt.Now()
	s.Detail, s.Error = clip(s.Detail), clip(s.Error)
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, exists := f.opt.Nodes.Look().Get(object.KindNode, uid); !exists {
		return
	}
	n := f.get(uid)
	var b *boot
	for i := range n.boots {
		if n.boots[i].Number == number {
			b = &n.boots[i]
		}
	}
	if b == nil {
		if number != 0 {
			return // long forgotten
		}
		if b = n.current(); b == nil {
			b = n.begin()
		}
	}
	if last := b.last(); last.Step == s.Step && last.Error != "" && s.Step == wire.StepConsole {
		return
	}
	b.add(s)
	f.touch(uid, n)
}

// Condition is what there is to know of a node that may need help.
type Condition struct {
	State  string
	Since  time.Time
	Reason string
	Dead   bool        // its console said so, and nothing came after that
	Rescue bool        // it waits in its rescue shell
	Given  time.Time   // when the head gave it up; zero when it was up since
	Tried  []time.Time // when the head switched it off and on
	Busy   string      // what ran there when it last reported
}

// Condition gives a node's.
func (f *Fleet) Condition(uid string) Condition {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.nodes[uid]
	if n == nil {
		return Condition{State: Unknown}
	}
	c := Condition{State: f.notice(uid, n), Since: n.since, Busy: n.busy()}
	c.Reason = n.reason(c.State)
	for _, b := range n.boots {
		for _, s := range b.Steps {
			switch {
			case s.Step == wire.StepUp:
				c.Given = time.Time{}
			case s.Step == wire.StepRecover && s.Error == "":
				c.Tried = append(c.Tried, s.Time)
			case s.Step == wire.StepRecover:
				c.Given = s.Time
			}
		}
	}
	if b := n.current(); b != nil {
		last := b.last()
		c.Dead = last.Step == wire.StepConsole
		c.Rescue = n.link != nil && last.Step == wire.StepAgent && last.Detail == wire.DetailRescue
	}
	return c
}

// busy says what of a node's last status may not be interrupted. f.mu is held.
func (n *node) busy() string {
	for _, what := range []string{"jobs", "users"} {
		var list []json.RawMessage
		// Of another form, or not there: then nothing is known to run.
		if json.Unmarshal(n.status.entries[what], &list) == nil && len(list) > 0 {
			return strconv.Itoa(len(list)) + " " + what
		}
	}
	return ""
}

// Recovered notes what the head does about a node that does not come up, or why
// it does no more.
func (f *Fleet) Recovered(uid, detail, failure string) {
	f.mu.Lock()
	number := 0
	if n := f.nodes[uid]; n != nil && n.current() != nil {
		number = n.current().Number
	}
	f.mu.Unlock()
	f.verdict(uid, number, wire.Step{Step: wire.StepRecover, Detail: detail, Error: failure})
}
