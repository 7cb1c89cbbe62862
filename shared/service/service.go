// Package service runs a fixed group of long-lived parts as one: all of them
// listen first, then all run, and the first one to stop stops the rest.
//
// Listening before running means that "ready" is one moment, and that a port
// already taken is reported before anything has begun. A part whose Run
// returns while the group is still wanted is a failure even when it returns
// nil: nothing here is meant to finish early.
package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
)

// Part is one member of a group. Listen (optional) opens sockets and must
// return at once; Run serves until ctx ends and returns only when everything
// it started has stopped.
type Part struct {
	Name   string
	Listen func(ctx context.Context) error
	Run    func(ctx context.Context) error
}

// Run runs the parts until ctx ends or one of them stops. Parts stop in no
// order; Run returns when all have. The result is nil after a wanted stop.
func Run(ctx context.Context, log *slog.Logger, parts []Part, ready func()) error {
	for _, p := range parts {
		if p.Listen == nil {
			continue
		}
		if err := p.Listen(ctx); err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for _, p := range parts {
		wg.Go(func() {
			err := p.Run(ctx)
			if ctx.Err() != nil {
				if err != nil && !errors.Is(err, context.Canceled) {
					log.Warn("stopped with an error", "part", p.Name, "error", err)
				}
				return
			}
			if err == nil {
				err = errors.New("ended by itself")
			}
			cancel(fmt.Errorf("%s: %w", p.Name, err))
		})
	}
	if ready != nil {
		ready()
	}
	wg.Wait()
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}
