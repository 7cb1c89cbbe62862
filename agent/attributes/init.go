package attributes

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"muster/shared/wire"
)

// AttrInitSecs is the attribute that says how long each init script may take,
// in seconds.
const AttrInitSecs = "_init_secs"

// Bounds: how many init scripts are run, and how long each may take unless the
// attribute says otherwise.
const (
	maxScripts  = 256
	defaultTime = 5 * time.Minute
	maxTime     = 24 * time.Hour
)

// doneFile holds the boot at which the init scripts ran: they do so once in
// each, however often the agent starts.
const doneFile = "init.done"

// Result is how an init script ended.
type Result struct {
	Status  string  `json:"status"` // ok, failed or running
	Seconds float64 `json:"seconds"`
	Error   string  `json:"error,omitempty"`
}

// Init runs the scripts. They are the executables of the directories, in the
// order of their names; of two with one name that in the first directory runs.
// One that fails holds up none of the others.
type Init struct {
	Dirs   []string
	BootID string
	Log    *slog.Logger
	// Run runs one, for so long at most, and gives what it complained of.
	Run func(ctx context.Context, limit time.Duration, env []string, path string) error
	// Told gets all results so far, whenever one is new.
	Told func(map[string]Result)
	// Failed is told of each that failed.
	Failed func(name string, err error)
}

func (i *Init) run(ctx context.Context, dir string, a wire.Attributes) {
	done := filepath.Join(dir, doneFile)
	if boot, err := os.ReadFile(done); err == nil && strings.TrimSpace(string(boot)) == i.BootID {
		return
	}
	if err := replace(done, []byte(i.BootID+"\n")); err != nil {
		i.Log.Warn("init scripts will run again when the agent does", "error", err)
	}
	limit := timeLimit(a.Values[AttrInitSecs])
	env := []string{
		"MUSTER_NODE=" + a.Name, "MUSTER_UID=" + a.UID,
		"MUSTER_ATTRIBUTES=" + filepath.Join(dir, FileINI), "MUSTER_ATTRIBUTES_JSON=" + filepath.Join(dir, FileJSON),
	}
	results := map[string]Result{}
	for _, path := range i.scripts() {
		name := filepath.Base(path)
		results[name] = Result{Status: "running"}
		i.Told(results)
		began := time.Now()
		err := i.Run(ctx, limit, env, path)
		if ctx.Err() != nil {
			return
		}
		took := time.Since(began).Round(time.Millisecond)
		results[name] = Result{Status: "ok", Seconds: took.Seconds()}
		if err != nil {
			results[name] = Result{Status: "failed", Seconds: took.Seconds(), Error: err.Error()}
			i.Failed(name, err)
		}
		i.Log.Info("init script", "name", name, "took", took.String(), "error", err)
		i.Told(results)
	}
}

// scripts are those to run, in order.
func (i *Init) scripts() []string {
	byName := map[string]string{}
	for _, dir := range i.Dirs {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			i.Log.Warn("init scripts cannot be listed", "error", err)
		}
		for _, e := range entries {
			if _, ok := byName[e.Name()]; !ok && plainName.MatchString(e.Name()) && !strings.HasSuffix(e.Name(), ".dpkg-dist") {
				byName[e.Name()] = filepath.Join(dir, e.Name())
			}
		}
	}
	names := make([]string, 0, len(byName))
	for name := range byName {
		names = append(names, name)
	}
	slices.Sort(names)
	if len(names) > maxScripts {
		i.Log.Warn("too many init scripts, the last are left out", "count", len(names), "run", maxScripts)
		names = names[:maxScripts]
	}
	for n, name := range names {
		names[n] = byName[name]
	}
	return names
}

func timeLimit(raw json.RawMessage) time.Duration {
	n, err := strconv.ParseFloat(strings.Trim(string(raw), `"`), 64)
	if limit := time.Duration(n * float64(time.Second)); err == nil && n >= 1 && limit <= maxTime {
		return limit
	}
	return defaultTime
}
