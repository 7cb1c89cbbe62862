package wire

import (
	"slices"
	"strings"
)

// protected is where a head has nothing written on a node: what the kernel
// shows, what makes the machine this one, and the agent's own.
var protected = []string{"/proc", "/sys", "/dev", "/run/muster", "/etc/machine-id", "/var/lib/muster", "/var/lib/muster-agent", "/usr/bin/muster-agent", "/.muster"}

// Protected says whether a path of a node, clean and absolute, is such a place
// or below one: the head refuses to take it, and the agent to write it.
func Protected(name string) bool {
	return slices.ContainsFunc(protected, func(p string) bool { return name == p || strings.HasPrefix(name, p+"/") })
}
