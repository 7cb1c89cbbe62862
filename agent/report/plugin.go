package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"muster/agent/program"
)

// Bounds on a plugin: how long it may run, how much it may print, and how many
// entries that may be.
const (
	pluginTime   = 10 * time.Second
	pluginOutput = 128 << 10
	pluginKeys   = 200
)

// pluginName is what a plugin may be called: no path, no option, no hidden file.
var pluginName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// find gives the executable of a plugin, or why it may not be run.
func find(dirs []string, sort, name string) (string, error) {
	if !pluginName.MatchString(name) {
		return "", fmt.Errorf("%.80q is no name of a plugin", name)
	}
	for _, dir := range dirs {
		path := filepath.Join(dir, sort, name)
		fi, err := os.Stat(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil {
			err = program.Trusted(fi)
		}
		return path, err
	}
	return "", fmt.Errorf("there is no such plugin in %s", strings.Join(dirs, " or "))
}

// errNoPlugins is why none run before the image does.
var errNoPlugins = errors.New("plugins run in the image only")

// parse reads the lines `"key": JSON` that a plugin printed. Empty lines and
// those that begin with # say nothing, and a comma may end a line. Any other
// line makes all of it useless: half a report would be taken for a whole.
func parse(out []byte) (map[string]json.RawMessage, error) {
	values := map[string]json.RawMessage{}
	number := 0
	for text := range bytes.Lines(out) {
		number++
		line := bytes.TrimSuffix(bytes.TrimSpace(text), []byte(","))
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		var one map[string]json.RawMessage
		if err := json.Unmarshal(append(append([]byte{'{'}, line...), '}'), &one); err != nil {
			return nil, fmt.Errorf("line %d, %.60q, is not \"key\": JSON", number, line)
		}
		for key, value := range one {
			if key == "" || len(key) > 64 || len(values) >= pluginKeys {
				return nil, fmt.Errorf("line %d: at most %d keys of at most 64 bytes are taken", number, pluginKeys)
			}
			values[key] = bytes.Clone(value)
		}
	}
	return values, nil
}
