package report

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"muster/agent/program"
)

// parallel bounds how many plugins of one sort run at once.
const parallel = 2

// others runs the executables of one sort of plugins that are chosen, and
// forgets what those said that no longer are.
func (r *Reporter) others(ctx context.Context, sort string) {
	s := r.settings.Load()
	names, t, reserved := s.status.others, r.status, r.reservedStatus
	if sort == "hardware" {
		names, t, reserved = s.hardware.others, r.hardware, r.reservedHardware
	}
	r.retire(t, sort, names)
	if sort == "status" {
		r.fail("attributes", strings.Join(s.problems, "; "))
	}
	r.all(names, func(name string) {
		got := r.call(ctx, sort, name)
		if ctx.Err() != nil {
			return
		}
		problem := got.Problem()
		if problem == "" {
			values, err := parse(got.Out)
			if err != nil {
				problem = err.Error()
			} else {
				problem = r.publish(t, sort+"/"+name, values, reserved)
			}
		}
		r.fail(sort+"/"+name, clip(problem, maxReason))
	})
}

// all does something for each name, a few at once.
func (r *Reporter) all(names []string, do func(name string)) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, parallel)
	for _, name := range names {
		slots <- struct{}{}
		wg.Go(func() { defer func() { <-slots }(); do(name) })
	}
	wg.Wait()
}

// call runs one plugin.
func (r *Reporter) call(ctx context.Context, sort, name string) program.Result {
	if r.Config.Run == nil {
		return program.Result{Err: errNoPlugins}
	}
	path, err := find(r.Plugins, sort, name)
	if err != nil {
		return program.Result{Err: err}
	}
	return program.Run(ctx, r.Config.Run, program.Limits{Time: pluginTime, Output: pluginOutput}, r.Env, path)
}

// retire drops what plugins said that no longer run.
func (r *Reporter) retire(t *table, sort string, names []string) {
	r.mu.Lock()
	gone := map[string]bool{}
	owners := r.owners[t]
	for key, owner := range owners {
		if kind, name, _ := strings.Cut(owner, "/"); kind == sort && !slices.Contains(names, name) {
			t.drop(key)
			delete(owners, key)
			gone[owner] = true
		}
	}
	for plugin := range r.trouble {
		if kind, name, ok := strings.Cut(plugin, "/"); ok && kind == sort && !slices.Contains(names, name) {
			gone[plugin] = true
		}
	}
	r.mu.Unlock()
	for plugin := range gone {
		r.fail(plugin, "")
	}
}

// reservedStatus are the keys that are not for plugins: those of the built-in
// ones that run, and those that mean something to the head.
func (r *Reporter) reservedStatus(key string) bool {
	switch key {
	case "time", "uptime", "boot_id", "agent_version", "health", "health_checks", "plugin_errors", "init", "state", "since", "reason", "reported":
		return true
	}
	s := r.settings.Load()
	return slices.ContainsFunc(r.watch.parts, func(p part) bool { return s.status.takes(p.name) && slices.Contains(p.keys, key) })
}

func (r *Reporter) reservedHardware(key string) bool {
	s := r.settings.Load()
	return slices.ContainsFunc(r.inventory.parts(context.Background(), nil), func(p part) bool {
		return s.hardware.takes(p.name) && slices.Contains(p.keys, key)
	})
}

// checkup makes the health checks that are chosen and says what they mean.
func (r *Reporter) checkup(ctx context.Context) {
	s := r.settings.Load()
	r.retire(r.status, "health", s.health.others)
	if s.off {
		r.status.drop("health", "health_checks")
		return
	}
	findings := map[string]string{}
	r.doctor.pace = newPace(ctx)
	for _, name := range strings.Fields(healthNames) {
		if !s.health.takes(name) {
			continue
		}
		r.doctor.pace.step()
		findings[name] = healthy
		if bad := r.doctor.check(ctx, name, *s, time.Duration(r.skew.Load())); len(bad) > 0 {
			findings[name] = unhealthy + clip(strings.Join(bad, ", "), maxReason)
		}
	}
	var mu sync.Mutex
	r.all(s.health.others, func(name string) {
		finding, values := judge(r.call(ctx, "health", name))
		if ctx.Err() == nil {
			r.fail("health/"+name, r.publish(r.status, "health/"+name, values, r.reservedStatus))
		}
		mu.Lock()
		defer mu.Unlock()
		findings[name] = finding
	})
	if ctx.Err() != nil {
		return
	}
	now := verdict(findings)
	if now != r.verdict {
		r.Log.Info("health", "verdict", now)
		r.verdict = now
	}
	r.status.put("health", now)
	r.status.put("health_checks", maps.Clone(findings))
}

// rpm asks rpm what is installed, when its database changed.
func (r *Reporter) rpm(ctx context.Context) {
	now := rpmStamp("/")
	if now == (stamp{}) || now == r.rpmDB || r.Config.Run == nil || !r.settings.Load().status.takes("packages") || len(packages("/")) > 0 {
		return
	}
	limits := program.Limits{Time: time.Minute, Output: 4 << 20}
	got := program.Run(ctx, r.Config.Run, limits, nil, "/usr/bin/rpm", "-qa", "--qf", `%{NAME}\t%{EVR}\n`)
	if got.Err == nil {
		r.rpmDB = now
		r.status.put("packages", parseRPM(string(got.Out)))
	}
}
