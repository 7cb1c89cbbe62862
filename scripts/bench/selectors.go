package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/vm"

	"muster/controller/fleet"
	"muster/controller/registry"
	"muster/controller/selection"
	"muster/controller/store/boltstore"
	"muster/shared/kind"
	"muster/shared/object"
	"muster/shared/selector"
)

// What is asked, in muster's language and in expr's: once where an index
// serves, once where each node must be looked at.
const (
	byIndex     = `a[rack] == "r12" and a[role] == "compute" or a[rack] == "r13"`
	byIndexExpr = `attributes["rack"] == "r12" and attributes["role"] == "compute" or attributes["rack"] == "r13"`
	byLook      = `index > 10 and a[slot] < 30`
	byLookExpr  = `index > 10 and attributes["slot"] < 30`
	groups      = 100
)

// measureSelectors asks an index of s.nodes nodes in this process, beside
// expr-lang/expr, which compiles an expression and runs it on every node. All
// times are of the processor.
func measureSelectors(ctx context.Context, s settings) (figures []figure, err error) {
	c, err := newCluster(ctx, s)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	s.log.Info("creating nodes", "count", s.nodes)
	if err := c.fill(ctx, s.nodes); err != nil {
		return nil, err
	}
	indexed, err := c.selects(ctx, byIndex)
	if err != nil {
		return nil, err
	}
	looked, err := c.selects(ctx, byLook)
	if err != nil {
		return nil, err
	}
	peerIndexed, err := c.peer(byIndexExpr)
	if err != nil {
		return nil, err
	}
	peerLooked, err := c.peer(byLookExpr)
	if err != nil {
		return nil, err
	}
	group, again, err := c.dyngroups(ctx)
	if err != nil {
		return nil, err
	}
	nodes := fmt.Sprintf("%d nodes", s.nodes)
	return []figure{
		atMost("dyngroup of == and or, "+nodes, 1, group.Seconds()*1e3, "ms", "after a change"),
		atMost("the same selector, without a group", 1, indexed.Seconds()*1e3, "ms", ""),
		atLeast("selector without an index", 5, float64(s.nodes)/looked.Seconds()/1e6, "million nodes/s"),
		atLeast("expr's time / muster's, index", 10, peerIndexed.Seconds()/indexed.Seconds(), "×"),
		atLeast("expr's time / muster's, no index", 1, peerLooked.Seconds()/looked.Seconds(), "×"),
		atLeast(fmt.Sprintf("%d dyngroups after one change, all anew / only that", groups), 10, again, "×"),
	}, nil
}

// room is a registry with an index, and what expr is given of its nodes.
type room struct {
	dir   string
	store *boltstore.Store
	reg   *registry.Registry
	index *selection.Index
	stop  context.CancelFunc
	ended sync.WaitGroup
	uids  []string
	envs  []map[string]any
}

func newCluster(ctx context.Context, s settings) (c *room, err error) {
	c = &room{index: selection.NewIndex()}
	if c.dir, err = os.MkdirTemp("", "muster-bench-"); err != nil {
		return nil, err
	}
	if c.store, err = boltstore.Open(filepath.Join(c.dir, "muster.db"), boltstore.Options{}); err != nil {
		return nil, err
	}
	log := slog.New(slog.DiscardHandler)
	if c.reg, err = registry.Open(ctx, c.store, object.All(), registry.Options{Head: "bench", Now: time.Now, Log: log}); err != nil {
		return nil, err
	}
	f, err := fleet.Open(ctx, fleet.Options{Store: c.store, Nodes: c.reg, Log: log, Now: time.Now, Changed: c.index.News})
	if err != nil {
		return nil, err
	}
	ctx, c.stop = context.WithCancel(ctx)
	c.ended.Go(func() { c.reg.Run(ctx) })
	c.ended.Go(func() { c.index.Run(ctx, c.reg, f) })
	return c, nil
}

func (c *room) close() error {
	c.stop()
	c.ended.Wait()
	return errors.Join(c.store.Close(), os.RemoveAll(c.dir))
}

var benchAuthor = kind.Author{Name: "bench"}

func fields(format string, args ...any) registry.Input {
	var in registry.Input
	if err := json.Unmarshal(fmt.Appendf(nil, format, args...), &in); err != nil {
		panic(err) // it is written here
	}
	return in
}

// fill makes the nodes, and the groups: each reads another value.
func (c *room) fill(ctx context.Context, count int) error {
	if _, err := c.reg.Create(ctx, benchAuthor, object.KindCluster, registry.Input{}); err != nil {
		return err
	}
	c.uids, c.envs = make([]string, count), make([]map[string]any, count)
	var wg sync.WaitGroup
	failed := make([]error, 64)
	for worker := range failed {
		wg.Go(func() {
			for i := worker; i < count && failed[worker] == nil; i += len(failed) {
				c.uids[i], failed[worker] = c.reg.Create(ctx, benchAuthor, object.KindNode, fields(
					`{"mac":"52:54:%02x:%02x:%02x:%02x","attributes":{"rack":"r%d","slot":%d,"role":"compute"}}`, i>>24&255, i>>16&255, i>>8&255, i&255, i/40, i%40))
				c.envs[i] = map[string]any{"index": i, "attributes": map[string]any{"rack": fmt.Sprint("r", i/40), "slot": i % 40, "role": "compute"}}
			}
		})
	}
	wg.Wait()
	for i := range groups {
		_, err := c.reg.Create(ctx, benchAuthor, object.KindDyngroup, fields(`{"name":"g%d","selector":"a[rack] == \"r%d\" or a[slot] > %d"}`, i, i, i%40))
		failed = append(failed, err)
	}
	return errors.Join(failed...)
}

// cost is the processor time of fn, as the median of several runs.
func cost(runs int, fn func() error) (time.Duration, error) {
	var seconds []float64
	for range runs {
		begin, err := processorTime()
		if err == nil {
			err = fn()
		}
		end, err2 := processorTime()
		if err = errors.Join(err, err2); err != nil {
			return 0, err
		}
		seconds = append(seconds, (end - begin).Seconds())
	}
	return time.Duration(median(seconds) * float64(time.Second)), nil
}

func processorTime() (time.Duration, error) {
	var u syscall.Rusage
	err := syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), err
}

const times = 50 // how often each measured thing is done in a run

// selects is the time of one selector.
func (c *room) selects(ctx context.Context, text string) (time.Duration, error) {
	e, err := selector.Parse(text)
	if err != nil {
		return 0, err
	}
	if found, err := c.index.Select(ctx, e); err != nil || len(found) == 0 {
		return 0, fmt.Errorf("%s picks %d nodes, %w", text, len(found), err)
	}
	d, err := cost(5, func() error {
		for range times {
			if _, err := c.index.Select(ctx, e); err != nil {
				return err
			}
		}
		return nil
	})
	return d / times, err
}

// peer is the time that expr takes for all nodes.
func (c *room) peer(text string) (time.Duration, error) {
	program, err := expr.Compile(text, expr.Env(c.envs[0]), expr.AsBool())
	if err != nil {
		return 0, err
	}
	d, err := cost(5, func() error {
		var machine vm.VM
		for range times {
			found := 0
			for _, env := range c.envs {
				out, err := machine.Run(program, env)
				if err != nil {
					return err
				}
				if out.(bool) {
					found++
				}
			}
			if found == 0 {
				return fmt.Errorf("%s picks nothing", text)
			}
		}
		return nil
	})
	return d / times, err
}

// dyngroups gives the time of one group after a change of a node, and how much
// longer it takes to evaluate all of them anew than after one change.
func (c *room) dyngroups(ctx context.Context) (one time.Duration, ratio float64, err error) {
	all := c.reg.All(object.KindDyngroup)
	members := func() error {
		for _, g := range all {
			if _, err := c.index.Members(ctx, g.Base().UID); err != nil {
				return err
			}
		}
		return nil
	}
	if err := members(); err != nil {
		return 0, 0, err
	}
	var after []float64
	for i := range 9 {
		if err := c.reg.Patch(ctx, benchAuthor, object.KindNode, c.uids[i], fields(`{"attributes":{"rack":"r%d","slot":3,"role":"compute"}}`, i+50)); err != nil {
			return 0, 0, err
		}
		d, err := cost(1, members)
		if err != nil {
			return 0, 0, err
		}
		after = append(after, d.Seconds())
	}
	anew, err := cost(3, func() error {
		for _, g := range all {
			e, err := selector.Parse(g.(*object.Dyngroup).Selector)
			if err != nil {
				return err
			}
			if _, err := c.index.Select(ctx, e); err != nil {
				return err
			}
		}
		return nil
	})
	return time.Duration(median(after) / groups * float64(time.Second)), anew.Seconds() / median(after), err
}
