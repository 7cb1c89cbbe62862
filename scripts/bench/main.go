// Bench measures what muster promises and prints each figure beside the one
// that is wanted: the size of its programs, the speed of a head with 10,000
// nodes, its DNS beside dnsmasq, an agent's effort beside the node exporter's, what 10,000
// agents cost their head and how soon it commands them beside clush, pdsh and nats-server, the power states of many
// BMCs beside a loop of ipmitool, the consoles that it logs, the time of many nodes that pull an image at
// once beside nginx, the time of changing a file on many that run, and the time of a boot against the least that a boot can take.
//
// It drives the built programs from outside, on virtual machines of scripts/lab.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"muster/scripts/lab/floor"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := bench(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// figure is one row of the table.
type figure struct {
	name    string
	wanted  string
	reached string
	met     bool
}

// atMost and atLeast are figures with a bound.
func atMost(name string, bound, reached float64, unit, detail string) figure {
	return figure{name, fmt.Sprintf("≤ %g %s", bound, unit), strings.TrimSpace(fmt.Sprintf("%.3g %s %s", reached, unit, detail)), reached <= bound}
}

func atLeast(name string, bound, reached float64, unit string) figure {
	return figure{name, fmt.Sprintf("≥ %g %s", bound, unit), fmt.Sprintf("%.0f %s", reached, unit), reached >= bound}
}

// settings are what the parts are measured with.
type settings struct {
	program string
	cache   string
	boots   int
	nodes   int
	clients int
	image   int // MiB
	rate    int // Mbit/s
	span    time.Duration
	log     *slog.Logger
}

func bench(ctx context.Context) error {
	if len(os.Args) == 3 && os.Args[1] == floorCommand { // inside of the lab's network, started by measureBoots
		var c floor.Config
		if err := json.Unmarshal([]byte(os.Args[2]), &c); err != nil {
			return err
		}
		return floor.Serve(ctx, c, os.Stdout)
	}
	if len(os.Args) == 2 && os.Args[1] == bmcCommand { // likewise, by measurePower
		return serveBMCs(ctx, os.Stdout)
	}
	if len(os.Args) > 2 { // likewise, by measureFleet
		switch os.Args[1] {
		case natsAgents:
			return serveNATS(ctx, os.Args[2])
		case statusServer:
			return serveStatus(ctx, os.Args[2], os.Args[len(os.Args)-1])
		}
	}
	s := settings{log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	only := flag.String("only", "sizes,head,selectors,dns,report,fleet,power,console,swarm,apply,boot", "the parts to measure")
	flag.StringVar(&s.program, "muster", "bin/muster", "the program to measure, with muster-agent beside it")
	flag.StringVar(&s.cache, "cache", os.Getenv("MUSTER_LAB_CACHE"), "directory of the lab's assets")
	flag.IntVar(&s.boots, "boots", 5, "boots of each kind, alternating with those of the floor; the median counts")
	flag.IntVar(&s.nodes, "nodes", 10_000, "nodes that the head has")
	flag.IntVar(&s.clients, "clients", 64, "clients that load the head")
	flag.IntVar(&s.image, "image", 512, "MiB of the image that a swarm pulls")
	flag.IntVar(&s.rate, "rate", 400, "Mbit/s of every link of a swarm")
	flag.DurationVar(&s.span, "span", 5*time.Second, "how long each load lasts")
	flag.Parse()

	parts := map[string]func(context.Context, settings) ([]figure, error){"sizes": sizes, "head": measureHead, "selectors": measureSelectors, "dns": measureDNS, "report": measureReport, "fleet": measureFleet, "power": measurePower, "console": measureConsole, "swarm": measureSwarm, "apply": measureApply, "boot": measureBoots}
	var figures []figure
	var failed error
	for _, name := range strings.Split(*only, ",") {
		part, ok := parts[name]
		if !ok {
			return fmt.Errorf("-only %s: the parts are sizes, head, selectors, dns, report, fleet, power, console, swarm, apply and boot", name)
		}
		got, err := part(ctx, s)
		figures = append(figures, got...)
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", name, err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	printTable(figures)
	return failed
}

func printTable(figures []figure) {
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 3, ' ', 0)
	fmt.Fprintln(w, "FIGURE\tWANTED\tREACHED\t")
	for _, f := range figures {
		missed := ""
		if !f.met {
			missed = "missed"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", f.name, f.wanted, f.reached, missed)
	}
	w.Flush()
}

// sizes are those of files.
func sizes(_ context.Context, s settings) ([]figure, error) {
	info, err := os.Stat(filepath.Join(filepath.Dir(s.program), "muster-agent"))
	if err != nil {
		return nil, err
	}
	return []figure{atMost("agent, stripped", 12, float64(info.Size())/1e6, "MB", "")}, nil
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	if n == 0 {
		return 0
	}
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// spread is the median with the extremes.
func spread(values []float64) string {
	return fmt.Sprintf("%.2f (%.2f–%.2f)", median(values), slices.Min(values), slices.Max(values))
}
