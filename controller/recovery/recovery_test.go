package recovery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"muster/shared/kind"
	"muster/shared/object"
)

// site is nodes of which no power cycle helps.
type site struct {
	now   time.Time
	cases map[string]*Case
	attr  map[string]string
	off   map[string]bool
	notes []string
	down  error
}

func (s *site) recovery(perMinute int, names ...string) *Recovery {
	return New(Options{
		Nodes: func() (out []*object.Node) {
			for _, name := range names {
				out = append(out, &object.Node{Meta: kind.Meta{UID: name}, Name: name})
			}
			return out
		},
		Attribute: func(_ *object.Node, name string) string { return s.attr[name] },
		Case:      func(uid string) Case { return *s.cases[uid] },
		On:        func(_ context.Context, n *object.Node) (bool, error) { return !s.off[n.UID], s.down },
		Cycle:     func(_ context.Context, n *object.Node) error { s.notes = append(s.notes, n.UID+" cycled"); return nil },
		Note: func(uid, detail, failure string) {
			s.notes = append(s.notes, uid+" "+detail+failure)
			c := s.cases[uid]
			if failure != "" {
				c.Given = s.now
			} else {
				c.Tried = append(c.Tried, s.now)
			}
		},
		PerMinute: perMinute, Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return s.now },
	})
}

func (s *site) pass(r *Recovery, d time.Duration) string {
	s.now, s.notes = s.now.Add(d), nil
	for _, n := range r.opt.Nodes() {
		r.look(context.Background(), n, s.attr[AttrAttempts])
	}
	return strings.Join(s.notes, "; ")
}

func TestRecovery(t *testing.T) {
	s := &site{now: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC), attr: map[string]string{AttrAttempts: "2", AttrWait: "60"}}
	s.cases = map[string]*Case{"a": {State: "failed", Reason: "console: Kernel panic", Since: s.now, Dead: true, Busy: "2 users"}}
	r := s.recovery(10, "a")
	for _, step := range []struct {
		after time.Duration
		want  string
	}{
		{59 * time.Second, ""},
		{time.Second, "a power cycle 1 of 2: console: Kernel panic; a cycled"},
		{119 * time.Second, ""},
		{time.Second, "a power cycle 2 of 2: console: Kernel panic; a cycled"},
		{239 * time.Second, ""},
		{time.Second, "a left alone after 2 power cycles in a day; the last reason: console: Kernel panic"},
		{time.Hour, ""},
	} {
		if got := s.pass(r, step.after); got != step.want {
			t.Errorf("%v later: %q, want %q", step.after, got, step.want)
		}
	}
	// It booted again, and died the next day.
	*s.cases["a"] = Case{State: "down", Since: s.now.Add(day), Tried: s.cases["a"].Tried}
	if got := s.pass(r, day+time.Minute); got != "a power cycle 1 of 2: down; a cycled" {
		t.Error(got)
	}
}

func TestLeftAlone(t *testing.T) {
	long := time.Now().Add(-time.Hour)
	with := func(f func(*Case)) Case { c := Case{State: "down", Since: long}; f(&c); return c }
	ill := with(func(*Case) {})
	for name, c := range map[string]struct {
		rules
		Case
		want action
	}{
		"ill":                    {policy("1", "60", ""), ill, cycle},
		"not asked for":          {policy("", "60", ""), ill, nothing},
		"nonsense":               {policy("many", "60", ""), ill, nothing},
		"up":                     {policy("1", "60", ""), with(func(c *Case) { c.State = "up" }), nothing},
		"never seen":             {policy("1", "60", ""), with(func(c *Case) { c.State = "unknown" }), nothing},
		"in its rescue shell":    {policy("1", "60", ""), with(func(c *Case) { c.State, c.Rescue = "booting", true }), nothing},
		"users may be there":     {policy("1", "60", ""), with(func(c *Case) { c.Busy = "1 user" }), nothing},
		"users, but allowed":     {policy("1", "60", "true"), with(func(c *Case) { c.Busy = "1 user" }), cycle},
		"the default's wait":     {policy("1", "0", ""), with(func(c *Case) { c.Since = time.Now().Add(-9 * time.Minute) }), nothing},
		"given up":               {policy("1", "60", ""), with(func(c *Case) { c.Given = long }), nothing},
		"given up while booting": {policy("1", "60", ""), with(func(c *Case) { c.State, c.Given, c.Tried = "booting", long, []time.Time{long} }), nothing},
		"given up a day ago":     {policy("1", "60", ""), with(func(c *Case) { c.Given = time.Now().Add(-day) }), cycle},
		"often enough for now":   {policy("1", "60", ""), with(func(c *Case) { c.Tried = []time.Time{long} }), giveUp},
	} {
		if got := c.decide(c.Case, time.Now()); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestNotManyAtOnce(t *testing.T) {
	s := &site{now: time.Now(), attr: map[string]string{AttrAttempts: "3", AttrWait: "1"}, off: map[string]bool{"n0": true}, cases: map[string]*Case{}}
	var names []string
	for i := range 20 {
		name := fmt.Sprintf("n%d", i)
		names, s.cases[name] = append(names, name), &Case{State: "down", Since: s.now}
	}
	r := s.recovery(4, names...)
	got := s.pass(r, 2*time.Second)
	if n := strings.Count(got, "cycled"); n != 4 || strings.Contains(got, "n0 ") {
		t.Errorf("%d of 20 were switched at once: %s", n, got)
	}
	s.down = errors.New("no answer")
	if got := s.pass(r, time.Minute); got != "" {
		t.Errorf("nodes whose BMC is silent: %s", got)
	}
}
