package app

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"os/signal"
	"syscall"

	"muster/agent/simulate"
	"muster/shared/rlimit"
)

// filesBeside is how many open files simulated agents need besides their links:
// for the commands that run at once.
const filesBeside = 2000

// simulateCommand runs many light agents until it is told to stop.
func simulateCommand(args []string, version string, stderr io.Writer) error {
	c, err := parseSimulate(args, stderr)
	if err != nil {
		return err
	}
	c.Version, c.Log = version, slog.New(slog.NewTextHandler(stderr, nil))
	need := uint64(c.Count + filesBeside)
	if have, err := rlimit.Files(need); err != nil || have < need {
		return fmt.Errorf("%d agents need %d open files, and this process may have %d: raise it with ulimit -n (%v)", c.Count, need, have, err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return simulate.Run(ctx, c)
}

func parseSimulate(args []string, stderr io.Writer) (simulate.Config, error) {
	var c simulate.Config
	f := flag.NewFlagSet("muster-agent simulate", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&c.Head, "head", "", "`URL` of the head, http")
	first := f.String("first-ip", "", "`address` of the first agent; the others follow it")
	f.IntVar(&c.Count, "count", 1, "`number` of agents")
	f.StringVar(&c.Root, "root", "", "`directory` for a root of each agent, to which images can be applied")
	if err := f.Parse(args); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			err = usageError{err}
		}
		return c, err
	}
	if u, err := url.Parse(c.Head); err != nil || u.Hostname() == "" || u.Scheme != "http" {
		return c, usageError{fmt.Errorf("--head %q: want the head's http URL, such as http://127.0.0.1:8080: simulated nodes are known by their address", c.Head)}
	}
	var err error
	if c.First, err = netip.ParseAddr(*first); err != nil {
		return c, usageError{fmt.Errorf("--first-ip %q: want the address of the first node", *first)}
	}
	if c.Count < 1 || c.Count > simulate.MaxAgents {
		return c, usageError{fmt.Errorf("--count %d: want 1 to %d", c.Count, simulate.MaxAgents)}
	}
	if f.NArg() > 0 {
		return c, usageError{fmt.Errorf("%q is more than simulate takes", f.Arg(0))}
	}
	return c, nil
}
