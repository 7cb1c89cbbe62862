package overlay

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"muster/agent/rootfs"
)

// maxUsers bounds passwd and group, in bytes.
const maxUsers = 16 << 20

// owners knows the users of the root, which need not be those of the system
// that runs: it may be the one that is to be entered.
type owners struct {
	root   *rootfs.Root
	tables map[string]map[string]int
}

func (o *owners) user(name string) (int, error)  { return o.find("/etc/passwd", "user", name) }
func (o *owners) group(name string) (int, error) { return o.find("/etc/group", "group", name) }

func (o *owners) find(file, what, name string) (int, error) {
	if name == "" || name == "root" {
		return 0, nil
	}
	if n, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(n), nil
	}
	table, ok := o.tables[file]
	if !ok {
		raw, err := o.root.ReadFile(file, maxUsers)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return 0, err
		}
		table = map[string]int{}
		for line := range strings.Lines(string(raw)) {
			parts := strings.Split(strings.TrimSpace(line), ":")
			if len(parts) < 3 {
				continue
			}
			if n, err := strconv.ParseUint(parts[2], 10, 31); err == nil {
				table[parts[0]] = int(n)
			}
		}
		if o.tables == nil {
			o.tables = map[string]map[string]int{}
		}
		o.tables[file] = table
	}
	id, ok := table[name]
	if !ok {
		return 0, fmt.Errorf("the node has no %s %q in its %s", what, name, file)
	}
	return id, nil
}
