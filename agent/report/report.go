// Package report tells the head what a node is and how it is: hardware when it
// changed, status at a steady beat, health every few minutes.
//
// The beat is aligned to the wall clock, so that all nodes of a cluster pay for
// it at the same moment and a parallel job is disturbed once, not by each node
// in turn. Only what changed is looked at and sent; every few minutes, and to a
// head that lost track, all of it. What is built in forks nothing, but for
// nvidia-smi and rpm where they are of use. Plugins are executables that admins
// put below the plugin directories and choose by attributes.
//
// The package must not act on what it sees, and does not know how its reports
// travel.
//
// Units: memory and disk sizes are KiB where the key begins with "ram" or ends
// in "_kib", bytes where it ends in "_bytes"; times are seconds.
package report

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"muster/agent/program"
	"muster/shared/wire"
)

const (
	// defaultEvery is the beat until the head says what it wants.
	defaultEvery = 10 * time.Second
	// retry is how soon a report is sent again that the head did not get.
	retry = 2 * time.Second
)

// Config is what a reporter needs. Send and Log are required.
type Config struct {
	Send    Sender
	Version string // of the agent
	MAC     string // of the interface that was booted from, if known
	Log     *slog.Logger
	Run     program.Runner // for plugins; nil to run none
	Plugins []string       // directories with the folders status, hardware and health
	Env     []string       // for plugins
}

// Reporter reports until told to stop.
type Reporter struct {
	Config
	every    atomic.Int64
	settings atomic.Pointer[Settings]
	skew     atomic.Int64  // of this node's clock: what must be added to be the head's
	kick     chan struct{} // a new link
	changed  chan struct{} // closed and replaced when the settings change

	mu      sync.Mutex
	owners  map[*table]map[string]string // which plugin a key is of
	trouble map[string]string            // of plugins, and of settings

	status, hardware *table
	watch            *watcher
	inventory        inventory

	// Of the goroutines that run plugins.
	doctor  doctor
	verdict string
	rpmDB   stamp
}

// New makes a reporter.
func New(c Config) *Reporter {
	r := &Reporter{
		Config: c, kick: make(chan struct{}, 1), changed: make(chan struct{}),
		trouble: map[string]string{}, status: newTable(), hardware: newTable(),
	}
	r.owners = map[*table]map[string]string{r.status: {}, r.hardware: {}}
	r.watch = newWatcher(r.status, c.Version)
	r.inventory = inventory{t: r.hardware, root: "/", mac: c.MAC, run: c.Run}
	r.doctor = doctor{root: "/", run: c.Run, mounts: &mountTable{}}
	r.every.Store(int64(defaultEvery))
	s := defaults()
	r.settings.Store(&s)
	return r
}

// Every sets the beat, as the head wants it; values out of 1 s to 1 h are
// ignored, and an attribute of the node wins. A new link also makes everything
// be sent at once: the head may have been replaced.
func (r *Reporter) Every(seconds int) {
	if seconds >= 1 && seconds <= 3600 {
		r.every.Store(int64(time.Duration(seconds) * time.Second))
	}
	select {
	case r.kick <- struct{}{}:
	default:
	}
}

// Configure takes new settings, at once.
func (r *Reporter) Configure(s Settings) {
	r.settings.Store(&s)
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.changed)
	r.changed = make(chan struct{})
	for _, problem := range s.problems {
		r.Log.Warn("an attribute about reports is no good", "problem", problem)
	}
}

// Set makes something that somebody else found out an entry of the status; nil
// removes it.
func (r *Reporter) Set(key string, value any) {
	if value == nil {
		r.status.drop(key)
		return
	}
	r.status.put(key, value)
}

// beat is how often the status is looked at.
func (r *Reporter) beat() time.Duration {
	if every := r.settings.Load().statusEvery; every > 0 {
		return every
	}
	return time.Duration(r.every.Load())
}

// Run reports until ctx ends.
func (r *Reporter) Run(ctx context.Context) {
	var plugins sync.WaitGroup
	defer func() {
		plugins.Wait()
		r.watch.close()
		r.doctor.mounts.file.close()
	}()
	plugins.Go(func() {
		r.each(ctx, r.statusPluginsEvery, func() { r.others(ctx, "status") })
	})
	plugins.Go(func() {
		r.each(ctx, func() time.Duration { return r.settings.Load().hardwareEvery }, func() { r.others(ctx, "hardware"); r.rpm(ctx) })
	})
	plugins.Go(func() {
		r.each(ctx, func() time.Duration { return r.settings.Load().healthEvery }, func() { r.checkup(ctx) })
	})
	to := newTransmission()
	looked := time.Time{}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		s := r.settings.Load()
		if now := time.Now(); now.Sub(looked) >= s.hardwareEvery || now.Before(looked) {
			looked = now
			r.inventory.look(ctx, s.hardware.takes)
		}
		r.look(ctx, s)
		next := untilBeat(time.Now(), r.beat())
		if !r.send(ctx, &to) {
			next = min(next, retry)
		}
		changed := r.settingsChange()
		timer.Reset(next)
		select {
		case <-ctx.Done():
			return
		case <-r.kick:
			to.forget()
		case <-changed:
			looked = time.Time{}
			r.watch.forget()
		case <-timer.C:
		}
	}
}

// statusPluginsEvery is how often executables say what the status is; never
// where there are none.
func (r *Reporter) statusPluginsEvery() time.Duration {
	if len(r.settings.Load().status.others) == 0 {
		return 0
	}
	return r.beat()
}

// each does something soon after a beat, and at once with other settings; only
// then where the beat is 0.
func (r *Reporter) each(ctx context.Context, every func() time.Duration, do func()) {
	for {
		changed := r.settingsChange()
		do()
		var beat <-chan time.Time
		if every := every(); every > 0 {
			beat = time.After(untilBeat(time.Now(), every) + min(aside, every/10))
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-beat:
		}
	}
}

func (r *Reporter) settingsChange() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}

// untilBeat is the time to the next multiple of the beat.
func untilBeat(now time.Time, every time.Duration) time.Duration {
	return now.Truncate(every).Add(every).Sub(now)
}

// look takes the built-in parts of the status.
func (r *Reporter) look(ctx context.Context, s *Settings) {
	packages := r.watch.packages
	p := newPace(ctx)
	r.watch.always(time.Duration(r.skew.Load()).Abs() > wire.MaxSkew/2)
	for _, part := range r.watch.parts {
		p.step()
		if s.status.takes(part.name) {
			part.collect()
		} else {
			r.status.drop(part.keys...)
		}
	}
	if packages != r.watch.packages {
		debug.FreeOSMemory() // package lists are large for a moment
	}
	p.step()
}

// fail notes what is wrong with a plugin, "" for nothing, and shows all that is.
func (r *Reporter) fail(name, problem string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if problem == r.trouble[name] {
		return
	}
	if problem == "" {
		delete(r.trouble, name)
	} else {
		r.trouble[name] = problem
		r.Log.Warn("a plugin is no good", "plugin", name, "problem", problem)
	}
	if len(r.trouble) == 0 {
		r.status.drop("plugin_errors")
		return
	}
	r.status.put("plugin_errors", r.trouble)
}

// publish makes the values of a plugin entries of a table, in place of those
// that it had. It names those that are not its own to set.
func (r *Reporter) publish(t *table, plugin string, values map[string]json.RawMessage, reserved func(key string) bool) (problem string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	owners := r.owners[t]
	for key, owner := range owners {
		if _, ok := values[key]; owner == plugin && !ok {
			t.drop(key)
			delete(owners, key)
		}
	}
	var not []string
	for key, value := range values {
		owner, taken := owners[key]
		if taken && owner != plugin || reserved(key) || !t.set(key, value) {
			not = append(not, key)
			continue
		}
		owners[key] = plugin
	}
	if len(not) == 0 {
		return ""
	}
	slices.Sort(not)
	return clip(fmt.Sprintf("it must not set %v: they are others', or too much", not), maxReason)
}
