// Muster turns a room of bare machines into a cluster. This program is the
// head (muster serve) and the admin's command line in one.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"muster/controller/app"
)

// version is set when building.
var version = "devel"

func main() {
	root := &cobra.Command{Use: "muster", SilenceUsage: true, SilenceErrors: true}
	root.AddCommand(app.Serve(version, os.Getenv, os.Stderr))
	if err := root.ExecuteContext(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "muster:", err)
		os.Exit(1)
	}
}
