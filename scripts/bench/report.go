package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"muster/scripts/lab"
)

const (
	reportBeat   = 10 * time.Second
	reportWarm   = 45 * time.Second // of both programs; by then the agent has done what it does once
	reportSpan   = 2 * time.Minute
	reportWindow = 20 * time.Millisecond // in which a burst is looked for
	exporterPort = 29100
	reportNode   = "127.77.0.1"
)

// measureReport runs an agent beside Prometheus' node exporter on the same
// machine: the one reports every ten seconds, the other is scraped as often.
func measureReport(ctx context.Context, s settings) (figures []figure, err error) {
	b, err := newBed(ctx, s)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	network, head, dir := b.network, b.head, b.dir
	for _, args := range [][]string{{"net", "create", "bench", "--first-ip", reportNode, "--ip-count", "1", "--mask-bits", "24"}, {"node", "create", "--mac", "52:54:00:77:00:01"}} {
		if _, err := head.CLI(ctx, args...); err != nil {
			return nil, err
		}
	}
	agent := network.Command(filepath.Join(filepath.Dir(s.program), "muster-agent"), "run", "--head", head.URL, "--bind", reportNode, "--state", filepath.Join(dir, "agent"))
	exporter := network.Command("prometheus-node-exporter", fmt.Sprintf("--web.listen-address=127.0.0.1:%d", exporterPort))
	for _, cmd := range []*exec.Cmd{agent, exporter} {
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, stop(cmd)) }()
	}
	ours, theirs, err := watch(ctx, s, network, agent.Process.Pid, exporter.Process.Pid)
	if err != nil {
		return nil, err
	}
	if text, err := head.CLI(ctx, "node", "status", "n0"); err != nil || !strings.Contains(string(text), "load_avg") {
		return nil, fmt.Errorf("the agent reported nothing: %w", err)
	}
	beside := fmt.Sprintf("(node exporter %.1f)", theirs.milliseconds)
	ratio := func(name string, bound, ours, theirs float64) figure {
		return figure{name, fmt.Sprintf("≥ %g ×", bound), fmt.Sprintf("%.1f ×", theirs/ours), theirs >= bound*ours}
	}
	figures = []figure{
		atMost("agent, CPU for each 10 s", 1, ours.milliseconds, "ms", beside),
		atMost("agent, most CPU within 20 ms", 200, ours.burst, "µs", fmt.Sprintf("(node exporter %.0f)", theirs.burst)),
		atMost("agent, resident memory", 12, ours.memory, "MB", fmt.Sprintf("(node exporter %.1f)", theirs.memory)),
		ratio("agent, less CPU than the node exporter", 3, ours.milliseconds, theirs.milliseconds),
		ratio("agent, less memory than the node exporter", 2, ours.memory, theirs.memory),
	}
	return figures, head.Stop()
}

func stop(cmd *exec.Cmd) error {
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
		return err
	}
	return nil
}

// effort is what a program took: CPU for each beat, the most within a window,
// and memory.
type effort struct{ milliseconds, burst, memory float64 }

// watch looks at both programs over the same time, and scrapes the exporter.
func watch(ctx context.Context, s settings, network *lab.Network, agent, exporter int) (ours, theirs effort, err error) {
	client := network.HTTPClient()
	defer client.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, reportWarm+reportSpan)
	defer cancel()
	scraped := make(chan error, 1)
	go func() { scraped <- scrape(ctx, client) }()
	s.log.Info("an agent and a node exporter run side by side", "warm", reportWarm, "measured", reportSpan)
	select {
	case <-ctx.Done():
		return ours, theirs, ctx.Err()
	case err := <-scraped:
		return ours, theirs, err
	case <-time.After(reportWarm):
	}
	all := []*effort{&ours, &theirs}
	pids := []int{agent, exporter}
	var first, last [2]float64
	for i, pid := range pids {
		if first[i], err = cpuTime(pid); err != nil {
			return ours, theirs, err
		}
		last[i] = first[i]
	}
	tick := time.NewTicker(reportWindow)
	defer tick.Stop()
	for done := false; !done; {
		select {
		case <-ctx.Done():
			done = true
		case <-tick.C:
		}
		for i, pid := range pids {
			now, err := cpuTime(pid)
			if err != nil {
				return ours, theirs, err
			}
			all[i].burst = max(all[i].burst, 1e6*(now-last[i]))
			last[i] = now
		}
	}
	for i, pid := range pids {
		all[i].milliseconds = 1e3 * (last[i] - first[i]) * reportBeat.Seconds() / reportSpan.Seconds()
		kib, err := memory(pid, "VmRSS")
		if err != nil {
			return ours, theirs, err
		}
		all[i].memory = kib / 1024
	}
	return ours, theirs, <-scraped
}

// scrape asks the exporter at each beat until ctx ends.
func scrape(ctx context.Context, client *http.Client) error {
	for {
		now := time.Now()
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(now.Truncate(reportBeat).Add(reportBeat).Sub(now)):
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/metrics", exporterPort), nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		n, err := io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if err != nil || n < 10_000 {
			return fmt.Errorf("the node exporter gave %d bytes: %w", n, err)
		}
	}
}

// cpuTime is how long all threads of a process have run, in seconds, to the
// nanosecond.
func cpuTime(pid int) (float64, error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(files) == 0 {
		return 0, fmt.Errorf("process %d is gone", pid)
	}
	sum := 0.0
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			continue // a thread that ended
		}
		on, _, _ := strings.Cut(string(raw), " ")
		ns, err := strconv.ParseFloat(on, 64)
		if err != nil {
			return 0, err
		}
		sum += ns / 1e9
	}
	return sum, nil
}
