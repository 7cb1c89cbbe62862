// Package simulate is many light agents in one process, for tests, demos and
// sizing: each has its own address, its own link and its own reports, and obeys
// commands as a node does. Where each has a root directory, images are applied
// to it by the real agent/apply.
//
// They speak the real protocol through agent/link. true, false, hostname and
// echo are answered without a process, all else runs on this machine, a bounded
// number at once. The package must not pretend to the head in any other way.
package simulate

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"muster/agent/apply"
	"muster/agent/command"
	"muster/agent/head"
	"muster/agent/link"
	"muster/agent/pull"
	"muster/shared/wire"
)

// Bounds: how many agents dial at once, how many real commands run at once
// (the others wait), and how often an agent reports until its head says how
// often it wants that.
const (
	MaxAgents   = 100_000
	dialing     = 256
	maxCommands = 128
	beat        = 10 * time.Second
)

// Config says how many agents there are, and where. Agent i has the i-th
// address from First on.
type Config struct {
	Head    string // http URL
	First   netip.Addr
	Count   int
	Version string
	Log     *slog.Logger
	// Root is where each agent has a root directory of its own, named by its
	// address; empty: they have none, and their images cannot be changed.
	Root string
}

// Run runs the agents until ctx ends.
func Run(ctx context.Context, c Config) error {
	s := &swarm{Config: c, runner: command.New(slog.New(slog.DiscardHandler)), slots: make(chan struct{}, maxCommands), dial: make(chan struct{}, dialing)}
	var all sync.WaitGroup
	addr := c.First
	for i := range c.Count {
		if !addr.IsValid() {
			return fmt.Errorf("there are no %d addresses from %s on", c.Count, c.First)
		}
		if s.Root != "" {
			if err := os.MkdirAll(filepath.Join(s.Root, addr.String()), 0o755); err != nil {
				return err
			}
		}
		a := &agent{swarm: s, addr: addr, bootID: fmt.Sprintf("simulated-%d-%d", time.Now().UnixNano(), i), kick: make(chan struct{}, 1)}
		all.Go(func() { a.run(ctx) })
		addr = addr.Next()
	}
	all.Wait()
	return nil
}

// swarm is what the agents share.
type swarm struct {
	Config
	runner *command.Runner
	slots  chan struct{} // of real commands
	dial   chan struct{}
	linked atomic.Int64
}

// agent is one of them.
type agent struct {
	*swarm
	addr   netip.Addr
	bootID string
	name   atomic.Pointer[string] // as the head calls the node
	every  atomic.Int64           // time.Duration
	kick   chan struct{}          // a link was made
	files  *apply.Applier         // of its root, if it has one
	image  atomic.Pointer[apply.Said]
}

func (a *agent) run(ctx context.Context) {
	d := head.Dialer{Bind: a.addr, Version: a.Version}
	if a.Root != "" {
		if err := a.openRoot(d); err != nil {
			a.Log.Error("a simulated node does not run", "address", a.addr, "error", err)
			return
		}
	}
	a.every.Store(int64(beat))
	select { // not all of them at the same moment
	case a.dial <- struct{}{}:
	case <-ctx.Done():
		return
	}
	free := sync.OnceFunc(func() { <-a.dial })
	time.AfterFunc(time.Second, free) // also where the head does not answer
	defer free()
	var parts sync.WaitGroup
	defer parts.Wait()
	reports := &link.Reports{}
	parts.Go(func() { a.report(ctx, reports) })
	link.Run(ctx, link.Config{
		Head: a.Head, Dialer: d, Reports: reports, Log: slog.New(slog.DiscardHandler), Serve: a.serve,
		Hello: func() wire.Hello { return wire.Hello{Agent: a.Version, BootID: a.bootID, InImage: true} },
		Accepted: func(h wire.Hello) {
			free()
			if a.name.Swap(&h.Name) == nil {
				if n := a.linked.Add(1); n == int64(a.Count) {
					a.Log.Info("all agents are linked", "count", n)
				}
			}
			if h.Every >= 1 && h.Every <= 3600 {
				a.every.Store(int64(h.Every) * int64(time.Second))
			}
			a.again()
		},
	})
}

// openRoot makes the agent one whose image can be changed.
func (a *agent) openRoot(d head.Dialer) error {
	dir := filepath.Join(a.Root, a.addr.String())
	told := func(r apply.Record) {
		said := r.Said()
		a.image.Store(&said)
		a.again()
	}
	a.files = apply.New(apply.Config{Root: dir, Source: pull.New(a.Head, d), Log: slog.New(slog.DiscardHandler), Told: told})
	if err := a.files.Recover(); err != nil {
		return err
	}
	r, err := apply.Load(dir)
	if err == nil && r != nil {
		told(*r)
	}
	return err
}

// again has the agent report at once.
func (a *agent) again() {
	select {
	case a.kick <- struct{}{}:
	default:
	}
}

// report sends a small status once the agent is linked, and at the beat of the
// wall clock from then on, as real agents do.
func (a *agent) report(ctx context.Context, to *link.Reports) {
	hardware := map[string]any{"cpu_arch": "simulated", "cpu_count": 1, "ram_total": 1 << 20}
	next := (<-chan time.Time)(nil)
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.kick:
		case <-next:
		}
		status := wire.Status{Hardware: hardware, Status: map[string]any{"simulated": true, "load_avg": []float64{0, 0, 0}, "agent": a.Version, "boot_id": a.bootID}}
		if is := a.image.Load(); is != nil {
			status.Status["image"] = is
		}
		raw, err := json.Marshal(status)
		if err == nil {
			_, err = to.Send(ctx, raw)
		}
		if err == nil {
			hardware = nil // what does not change is not sent again
		}
		every := time.Duration(a.every.Load())
		now := time.Now()
		next = time.After(now.Truncate(every).Add(every).Sub(now))
	}
}

// serve runs one command.
func (a *agent) serve(ctx context.Context, stream net.Conn, h wire.Header) {
	defer stream.Close()
	if h.Type == wire.StreamApply && h.Apply != nil && a.files != nil {
		a.files.Serve(ctx, stream, *h.Apply)
		return
	}
	if h.Type != wire.StreamExec || h.Exec == nil {
		return
	}
	x := *h.Exec
	if out, status, ok := builtin(x, *a.name.Load()); ok {
		finish(stream, out, status)
		return
	}
	select {
	case a.slots <- struct{}{}:
		defer func() { <-a.slots }()
	case <-ctx.Done():
		return
	}
	x.Env = append(x.Env, "MUSTER_NODE="+*a.name.Load())
	a.runner.Serve(ctx, stream, x)
}

// finish takes the input up to its end and answers. A command that has ended
// reads no input; to leave it unread would keep the head waiting to send it.
func finish(stream net.Conn, out string, status int) {
	for {
		kind, size, err := wire.ReadFrameHead(stream)
		if err != nil {
			return
		}
		if kind == wire.FrameStdin && size == 0 {
			break
		}
		if _, err := io.CopyN(io.Discard, stream, int64(size)); err != nil {
			return
		}
	}
	if out != "" && wire.WriteFrame(stream, wire.FrameStdout, []byte(out)) != nil {
		return
	}
	if body, err := json.Marshal(wire.Exit{Status: status}); err == nil {
		wire.WriteFrame(stream, wire.FrameExit, body) // the stream is closed next, whatever comes of it
	}
}

// builtin answers what needs no process. What a shell would treat in another
// way than as plain words is not for it.
func builtin(x wire.Exec, name string) (out string, status int, ok bool) {
	words := x.Argv
	if x.Shell != "" {
		if strings.ContainsAny(x.Shell, "\"'\\$`|&;<>(){}[]*?!~#=\n") {
			return "", 0, false
		}
		words = strings.Fields(x.Shell)
	}
	if x.TTY || len(words) == 0 {
		return "", 0, false
	}
	switch {
	case len(words) == 1 && words[0] == "true":
		return "", 0, true
	case len(words) == 1 && words[0] == "false":
		return "", 1, true
	case len(words) == 1 && words[0] == "hostname":
		return name + "\n", 0, true
	case words[0] == "echo" && (len(words) == 1 || !strings.HasPrefix(words[1], "-")):
		out = strings.Join(words[1:], " ") + "\n"
		return out, 0, len(out) <= wire.MaxFrame
	}
	return "", 0, false
}
