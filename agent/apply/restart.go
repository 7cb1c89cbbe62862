package apply

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"muster/agent/rootfs"
)

// rulesFile says on the node which services are to be restarted when which
// files change; the attribute says more.
const (
	rulesFile   = "/etc/muster/restart"
	maxRules    = 256 << 10 // bytes
	restartTime = 90 * time.Second
)

// unitForm is what may be a unit; a slip must not become an option.
var unitForm = regexp.MustCompile(`^(reload:)?[A-Za-z0-9_][A-Za-z0-9_.:@\\-]{0,250}$`)

// units gives the services that rules name for paths that change, each once.
// A rule is a line: a path with * and ?, or with /** at its end for all below
// it, then units. What stands behind # is not read.
func units(rules string, changed []string) (out []string) {
	for line := range strings.FieldsFuncSeq(rules, func(r rune) bool { return r == '\n' || r == ';' }) {
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		if len(words) < 2 || !slices.ContainsFunc(changed, func(p string) bool { return matches(words[0], p) }) {
			continue
		}
		for _, unit := range words[1:] {
			if unitForm.MatchString(unit) && !slices.Contains(out, unit) {
				out = append(out, unit)
			}
		}
	}
	return out
}

func matches(glob, name string) bool {
	if dir, all := strings.CutSuffix(glob, "/**"); all {
		for up := name; up != "/"; {
			if up = path.Dir(up); matches(dir, up) {
				return true
			}
		}
		return false
	}
	ok, err := path.Match(glob, name)
	return ok && err == nil
}

// rules are those of the attribute and those of the root.
func rules(root *rootfs.Root, attribute string) (string, error) {
	raw, err := root.ReadFile(rulesFile, maxRules)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return attribute + "\n" + string(raw), err
}

// self is the agent's unit: restarted, it could not say how it went.
const self = "muster-agent.service"

// restart restarts services that run, and gives those that it did.
func (a *Applier) restart(ctx context.Context, all, changed []string) (done []string, err error) {
	if len(all) == 0 || a.Run == nil {
		return nil, nil
	}
	if slices.ContainsFunc(changed, func(p string) bool { return matches("/*/systemd/**", p) || matches("/usr/lib/systemd/**", p) }) {
		if err := a.systemctl(ctx, "daemon-reload"); err != nil {
			return nil, err
		}
	}
	for _, unit := range all {
		verb, name := "try-restart", unit
		if reload, ok := strings.CutPrefix(unit, "reload:"); ok {
			verb, name = "try-reload-or-restart", reload
		}
		if name == self || name+".service" == self {
			continue
		}
		if failed := a.systemctl(ctx, verb, "--", name); failed != nil {
			err = errors.Join(err, failed)
		} else {
			done = append(done, unit)
		}
	}
	return done, err
}

func (a *Applier) systemctl(ctx context.Context, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, restartTime)
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, "systemctl", args...)
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &out, time.Second
	if err := a.Run(cmd); err != nil {
		return fmt.Errorf("systemctl %s: %w: %.300s", strings.Join(args, " "), err, strings.TrimSpace(out.String()))
	}
	return nil
}
