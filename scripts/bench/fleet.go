package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	fleetFirst   = "127.96.0.1"
	fleetExec    = 2000             // nodes that commands run on
	fleetSettle  = 25 * time.Second // after the last agent was linked
	fleetIdle    = 30 * time.Second // over which an idle head is looked at: three beats
	fleetReturn  = 60 * time.Second // within which a head must have its agents back
	fleetRepeats = 3
	agentsLog    = "agents.log"
)

// fleetBed is a head with agents connected to it.
type fleetBed struct {
	*bed
	load  *load
	nodes int
}

// measureFleet connects simulated agents to a head that does nothing else, and
// measures what they cost it, and how soon it commands them, beside others.
func measureFleet(ctx context.Context, s settings) (figures []figure, err error) {
	if s.program, err = filepath.Abs(s.program); err != nil {
		return nil, err
	}
	b, err := newBed(ctx, s)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	f := &fleetBed{bed: b, nodes: s.nodes, load: &load{head: b.head, network: b.network, clients: s.clients, first: fleetFirst}}
	s.log.Info("creating nodes", "count", s.nodes)
	if err := f.load.createNodes(ctx, s.nodes); err != nil {
		return nil, err
	}
	if err := errors.Join(b.head.Stop(), b.head.Start(ctx), f.load.login(ctx)); err != nil {
		return nil, err
	}
	// What a head does once after its start must not count as the agents'.
	if err := wait(ctx, fleetSettle); err != nil {
		return nil, err
	}
	empty, err := memory(b.head.PID(), "VmRSS")
	if err != nil {
		return nil, err
	}
	// Those that commands run on are a process of their own: each child that it
	// starts begins with as many open files as it has.
	commanded := min(fleetExec, s.nodes)
	for from, count := range map[int]int{0: commanded, commanded: s.nodes - commanded} {
		if count == 0 {
			continue
		}
		agents, err := f.simulate(s.program, from, count)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, stop(agents)) }()
	}
	for _, part := range []func(context.Context, settings) ([]figure, error){
		func(ctx context.Context, s settings) ([]figure, error) { return f.idle(ctx, s, empty) },
		f.commands, f.statuses, f.returns,
	} {
		got, err := part(ctx, s)
		figures = append(figures, got...)
		if err != nil {
			return figures, err
		}
	}
	return figures, b.head.Stop()
}

// simulate starts agents, whose complaints go to a log.
func (f *fleetBed) simulate(program string, from, count int) (*exec.Cmd, error) {
	log, err := os.OpenFile(filepath.Join(f.dir, agentsLog), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	first := netip.MustParseAddr(fleetFirst)
	for range from {
		first = first.Next()
	}
	cmd := f.network.Command(filepath.Join(filepath.Dir(program), "muster-agent"), "simulate", "--head", f.head.URL, "--first-ip", first.String(), "--count", strconv.Itoa(count))
	cmd.Stdout, cmd.Stderr = log, log
	return cmd, cmd.Start()
}

// allUp waits until every node is up.
func (f *fleetBed) allUp(ctx context.Context, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for {
		var states struct {
			Data struct{ States map[string]string }
		}
		if err := f.get(ctx, "/api/v1/nodes/states", &states); err != nil {
			return err
		}
		up := 0
		for _, state := range states.Data.States {
			if state == "up" {
				up++
			}
		}
		if up == f.nodes {
			return nil
		}
		select {
		case <-ctx.Done():
			said, _ := os.ReadFile(filepath.Join(f.dir, agentsLog))
			return fmt.Errorf("%d of %d nodes are up after %s; the agents say: %.500s", up, f.nodes, within, said)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (f *fleetBed) get(ctx context.Context, path string, v any) error {
	c, err := f.load.connect(ctx)
	if err != nil {
		return err
	}
	defer c.conn.Close()
	raw, err := c.call(http.MethodGet, path, "")
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, v)
}

// idle is what the agents cost a head that is asked for nothing.
func (f *fleetBed) idle(ctx context.Context, s settings, empty float64) ([]figure, error) {
	s.log.Info("agents connect", "count", f.nodes)
	if err := f.allUp(ctx, 2*fleetReturn); err != nil {
		return nil, err
	}
	s.log.Info("all are linked", "idle for", fleetSettle+fleetIdle)
	if err := wait(ctx, fleetSettle); err != nil {
		return nil, err
	}
	before, err := cpuTime(f.head.PID())
	if err != nil {
		return nil, err
	}
	if err := wait(ctx, fleetIdle); err != nil {
		return nil, err
	}
	after, err := cpuTime(f.head.PID())
	if err != nil {
		return nil, err
	}
	full, err := memory(f.head.PID(), "VmRSS")
	if err != nil {
		return nil, err
	}
	what := fmt.Sprintf("fleet: %d agents connected, ", f.nodes)
	return []figure{
		atMost(what+"memory of the head for each", 25, (full-empty)/float64(f.nodes), "KiB", fmt.Sprintf("(%.0f MiB, %.0f MiB without)", full/1024, empty/1024)),
		atMost(what+"idle head, of a core", 5, 100*(after-before)/fleetIdle.Seconds(), "%", "with reports every 10 s"),
	}, nil
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// returns is how soon all agents are back after a restart of the head.
func (f *fleetBed) returns(ctx context.Context, s settings) ([]figure, error) {
	s.log.Info("the head restarts")
	logged, err := os.Stat(f.head.LogFile)
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	if err := errors.Join(f.head.Stop(), f.head.Start(ctx), f.load.login(ctx)); err != nil {
		return nil, err
	}
	if err := f.allUp(ctx, fleetReturn); err != nil {
		return nil, err
	}
	took := time.Since(begin).Seconds()
	text, err := os.ReadFile(f.head.LogFile)
	if err != nil {
		return nil, err
	}
	wrong := 0
	for line := range strings.Lines(string(text[logged.Size():])) {
		if strings.Contains(line, "level=WARN") || strings.Contains(line, "level=ERROR") {
			wrong++
		}
	}
	return []figure{
		atMost(fmt.Sprintf("fleet: all %d agents back after the head's restart", f.nodes), 30, took, "s", ""),
		atMost("fleet: warnings and errors in the head's log meanwhile", 0, float64(wrong), "", ""),
	}, nil
}

// commands are those on many nodes at once.
func (f *fleetBed) commands(ctx context.Context, s settings) ([]figure, error) {
	count := min(fleetExec, f.nodes)
	var forked, plain []float64
	for range fleetRepeats {
		for _, run := range []struct {
			cmd     string
			seconds *[]float64
		}{{`["/bin/hostname"]`, &forked}, {`"hostname"`, &plain}} {
			took, err := f.exec(ctx, count, run.cmd)
			if err != nil {
				return nil, err
			}
			*run.seconds = append(*run.seconds, took)
		}
	}
	s.log.Info("the same over ssh and through nats-server")
	perHost, err := f.overSSH(ctx)
	if err != nil {
		return nil, err
	}
	nats, err := f.overNATS(ctx, count)
	if err != nil {
		return nil, err
	}
	rate := float64(count) / median(plain)
	slower := func(tool string) figure {
		theirs := perHost[tool] * float64(count)
		return figure{fmt.Sprintf("fleet: %s's time over ssh, extrapolated from %d hosts, of that", tool, sshHosts), "≥ 20 ×",
			fmt.Sprintf("%.1f × (%.1f s)", theirs/median(forked), theirs), theirs >= 20*median(forked)}
	}
	return []figure{
		atMost(fmt.Sprintf("fleet: hostname on %d nodes, a process each", count), 1.5, median(forked), "s", "of "+spread(forked)),
		slower("clush"), slower("pdsh"),
		atLeast(fmt.Sprintf("fleet: hostname on %d nodes without a process, answers", count), 10_000, rate, "/s"),
		{"fleet: nats-server's rate of answers to a request, muster's of it", "≥ 1 ×", fmt.Sprintf("%.2f × (%.0f/s against %.0f/s)", rate/nats, rate, nats), rate >= nats},
	}, nil
}

// exec runs a command on the first nodes and gives the seconds until the last
// has answered; all must.
func (f *fleetBed) exec(ctx context.Context, count int, cmd string) (float64, error) {
	c, err := f.load.connect(ctx)
	if err != nil {
		return 0, err
	}
	defer c.conn.Close()
	begin := time.Now()
	answer, err := c.call(http.MethodPost, "/api/v1/exec", fmt.Sprintf(`{"nodes":"n[0-%d]","cmd":%s}`, count-1, cmd))
	took := time.Since(begin).Seconds()
	if err != nil {
		return 0, err
	}
	ended := 0
	lines := bufio.NewScanner(bytes.NewReader(answer))
	for lines.Scan() {
		if bytes.Contains(lines.Bytes(), []byte(`"status":0`)) {
			ended++
		} else if bytes.Contains(lines.Bytes(), []byte(`"error"`)) {
			return 0, fmt.Errorf("exec: %s", lines.Text())
		}
	}
	if ended != count {
		return 0, fmt.Errorf("exec: %d of %d nodes answered well", ended, count)
	}
	return took, lines.Err()
}
