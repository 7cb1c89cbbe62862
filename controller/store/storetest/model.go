package storetest

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"muster/controller/store"
)

// model is what the store should hold: a map, and all that its feed has said.
type model struct {
	state   map[string]string
	commits []string
}

// testModel does the same at random to a store and to a plain map.
func testModel(t *testing.T, open Open) {
	rapid.Check(t, func(rt *rapid.T) {
		dir := t.TempDir()
		s := open(t, dir)
		defer func() { s.Close() }()
		m := &model{state: map[string]string{}}
		rt.Repeat(map[string]func(*rapid.T){
			"commit": func(rt *rapid.T) { m.transact(rt, s, true) },
			"fail":   func(rt *rapid.T) { m.transact(rt, s, false) },
			"reopen": func(rt *rapid.T) {
				if rapid.IntRange(0, 3).Draw(rt, "luck") > 0 {
					return // opening costs far more than the rest
				}
				if err := s.Close(); err != nil {
					rt.Fatal(err)
				}
				s = open(t, dir)
			},
			"": func(rt *rapid.T) { m.check(rt, s) },
		})
		m.checkFeed(rt, s)
	})
}

var (
	keys     = rapid.StringMatching(`~?[ab]{1,3}[\x00/\xff]?`)
	prefixes = rapid.StringMatching(`(~?[ab]{0,2})?`)
	values   = rapid.SliceOfN(rapid.Byte(), 0, 8)
)

// transact makes some calls in a transaction that then commits or fails.
func (m *model) transact(rt *rapid.T, s store.Store, succeed bool) {
	failure := errors.New("on purpose")
	var want map[string]string
	var touched map[string]bool
	steps := rapid.SliceOfN(rapid.IntRange(0, 9), 0, 8).Draw(rt, "steps")
	revision, err := s.Update(context.Background(), func(tx store.Tx) error {
		want, touched = maps.Clone(m.state), map[string]bool{}
		for _, step := range steps {
			if err := doStep(rt, tx, want, touched, step); err != nil {
				return err
			}
		}
		if !succeed {
			return failure
		}
		return nil
	})
	if !succeed {
		if err != failure {
			rt.Fatalf("Update gave %v and not fn's error", err)
		}
		return
	}
	if err != nil {
		rt.Fatal(err)
	}
	m.commit(want, touched)
	if revision != uint64(len(m.commits)) {
		rt.Fatalf("revision %d, want %d", revision, len(m.commits))
	}
}

func doStep(rt *rapid.T, tx store.Tx, want map[string]string, touched map[string]bool, step int) error {
	switch {
	case step < 5:
		k, v := keys.Draw(rt, "key"), values.Draw(rt, "value")
		want[k], touched[k] = string(v), true
		return tx.Put(k, v)
	case step < 7:
		k := keys.Draw(rt, "key")
		delete(want, k)
		touched[k] = true
		return tx.Delete(k)
	case step < 8:
		k := keys.Draw(rt, "key")
		got, err := tx.Get(k)
		if v, ok := want[k]; ok != (got != nil) || v != string(got) {
			rt.Fatalf("Get(%q) = %q, want %q (%t)", k, got, v, ok)
		}
		return err
	}
	prefix, from := prefixes.Draw(rt, "prefix"), prefixes.Draw(rt, "from")
	got, err := list(tx, prefix, from)
	if w := expected(want, prefix, from); !slices.Equal(got, w) {
		rt.Fatalf("Scan(%q, %q) = %q, want %q", prefix, from, got, w)
	}
	return err
}

func expected(state map[string]string, prefix, from string) []string {
	var lines []string
	for _, k := range slices.Sorted(maps.Keys(state)) {
		if strings.HasPrefix(k, prefix) && k >= from {
			lines = append(lines, k+"="+state[k])
		}
	}
	return lines
}

// commit takes over a new state, in which the touched keys were written.
func (m *model) commit(state map[string]string, touched map[string]bool) {
	var c store.Commit
	for _, k := range slices.Sorted(maps.Keys(touched)) {
		v, is := state[k]
		_, was := m.state[k]
		switch {
		case strings.HasPrefix(k, store.Unlogged):
		case is:
			c.Changes = append(c.Changes, store.Change{Key: k, Value: []byte(v)})
		case was:
			c.Changes = append(c.Changes, store.Change{Key: k})
		}
	}
	m.state = state
	if len(c.Changes) == 0 {
		return
	}
	c.Revision = uint64(len(m.commits)) + 1
	m.commits = append(m.commits, show([]store.Commit{c})...)
}

func (m *model) check(rt *rapid.T, s store.Store) {
	err := s.View(context.Background(), func(tx store.Tx) error {
		got, err := list(tx, "", "")
		if want := expected(m.state, "", ""); !slices.Equal(got, want) {
			rt.Fatalf("the store holds %q, want %q", got, want)
		}
		return err
	})
	if err != nil {
		rt.Fatal(err)
	}
	if s.Revision() != uint64(len(m.commits)) {
		rt.Fatalf("revision %d, want %d", s.Revision(), len(m.commits))
	}
}

func (m *model) checkFeed(rt *rapid.T, s store.Store) {
	if len(m.commits) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var got []store.Commit
	for c, err := range s.Watch(ctx, "", 0) {
		if err != nil {
			rt.Fatal(err)
		}
		if got = append(got, c); len(got) == len(m.commits) {
			break
		}
	}
	if lines := show(got); !slices.Equal(lines, m.commits) {
		rt.Fatalf("the feed is %q, want %q", lines, m.commits)
	}
}
