// Command muster-agent is what runs on every node: as process 1 it boots the
// machine, in the image and on installed systems it is a service, and under
// other names it is the shell and the tools of the initramfs.
package main

import (
	"os"

	"muster/agent/app"
)

// version is set by the build.
var version = "unknown"

func main() { os.Exit(app.Main(os.Args, version)) }
