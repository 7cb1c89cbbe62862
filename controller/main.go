// Muster turns a room of bare machines into a cluster. This program is the
// head (muster serve) and the admin's command line in one.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"muster/controller/app"
	"muster/controller/cli"
)

// version is set when building.
var version = "devel"

func main() { os.Exit(run()) }

func run() int {
	// Signals end the context, so that what is under way cleans up after itself.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	env := cli.Env{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv, Version: version}
	return cli.Main(ctx, env, os.Args[1:], app.Serve(version, os.Getenv, os.Stderr))
}
