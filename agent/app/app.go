// Package app decides what the agent is by how it was called, and puts its
// parts together as a service. It is the only package of the agent that reads
// flags.
package app

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"muster/agent/boot"
	"muster/agent/shell"
	"muster/agent/stream"
)

const usage = `muster-agent keeps a node connected to the head of its cluster.

  muster-agent run --head URL [--bind IP] [--state DIR] [--ca FILE] [--plugins DIRS] [--init DIRS]
      run as a service on an installed system, until stopped. In the state's
      directory the node's attributes are kept, attributes.ini and .json
  muster-agent simulate --head URL --first-ip IP --count N
      many light agents, each with an address of its own, for tests and sizing
  muster-agent pull --head URL [--bind IP] --image NAME[:VERSION] --form tree|squash --into PATH [--cache DIR] [--no-peers] [--json]
      fetch an image as a boot would, and what the cache has of it from there
  muster-agent seed --head URL [--bind IP] --cache DIR
      offer what was pulled into a cache to other nodes, until stopped
  muster-agent version

As /init, or as process 1 elsewhere, it boots the machine as the muster.* keys
of the kernel's command line say. Called as sh or as one of the tools that its
shell lists with "tools", it is that.
`

// Main is the program. It gives the exit status.
func Main(args []string, version string) int {
	if os.Getpid() == 1 && filepath.Base(args[0]) == "init" {
		boot.Run(version)
	}
	if filepath.Base(args[0]) != "muster-agent" {
		if status, ok := shell.Main(args); ok {
			return status
		}
	}
	verb := ""
	if len(args) > 1 {
		verb = args[1]
	}
	switch verb {
	case "run":
		return status(runCommand(args[2:], version, os.Stderr))
	case "simulate":
		return status(simulateCommand(args[2:], version, os.Stderr))
	case "pull":
		return status(pullCommand(args[2:], version, os.Stdout, os.Stderr))
	case "seed":
		return status(seedCommand(args[2:], version, os.Stderr))
	case stream.Verb: // started by the agent as /init
		return status(streamCommand())
	case "version", "--version":
		fmt.Println("muster-agent", version)
		return 0
	case "help", "--help", "-h":
		fmt.Print(usage)
		return 0
	case "":
		if os.Getpid() == 1 {
			boot.Run(version)
		}
	}
	fmt.Fprint(os.Stderr, usage)
	return 2
}

func status(err error) int {
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.As(err, new(usageError)):
		fmt.Fprintln(os.Stderr, "muster-agent:", err)
		return 2
	}
	fmt.Fprintln(os.Stderr, "muster-agent:", err)
	return 1
}

func streamCommand() error {
	console := boot.NewConsole(os.Stderr)
	defer console.Flush(time.Second)
	return stream.Main(os.Stdin, os.Stdout, slog.New(console))
}

// usageError is a mistake in how the program was called.
type usageError struct{ error }

func runCommand(args []string, version string, stderr io.Writer) error {
	options, err := parseRun(args, stderr)
	if err != nil {
		return err
	}
	options.version = version
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return run(ctx, options, stderr)
}
