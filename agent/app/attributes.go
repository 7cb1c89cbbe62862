package app

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"time"

	"muster/agent/attributes"
	"muster/agent/command"
	"muster/agent/head"
	"muster/agent/program"
	"muster/agent/report"
	"muster/shared/wire"
)

// newKeeper makes what keeps the node's attributes: the reporter goes by some
// of them, and init scripts run when they are there.
func newKeeper(o options, client *head.Client, commands *command.Runner, reporter *report.Reporter, log *slog.Logger) *attributes.Keeper {
	scripts := &attributes.Init{
		Dirs: o.init, BootID: report.BootID(), Log: log,
		Run: func(ctx context.Context, limit time.Duration, env []string, path string) error {
			fi, err := os.Stat(path)
			if err == nil {
				err = program.Trusted(fi)
			}
			if err != nil {
				return err
			}
			if problem := program.Run(ctx, commands, program.Limits{Time: limit}, env, path).Problem(); problem != "" {
				return errors.New(problem)
			}
			return nil
		},
		Told: func(results map[string]attributes.Result) { reporter.Set("init", results) },
		Failed: func(name string, err error) {
			ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
			defer cancel()
			if err := client.Step(ctx, wire.Step{Step: wire.StepInit, Detail: name, Error: err.Error()}); err != nil {
				log.Warn("the head was not told of the init script that failed", "name", name, "error", err)
			}
		},
	}
	return attributes.New(attributes.Config{
		Dir: o.state, Log: log, Init: scripts,
		Changed: func(values map[string]json.RawMessage) { reporter.Configure(report.ParseSettings(values)) },
	})
}
