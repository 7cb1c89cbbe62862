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
	// What ends ctx from outside is a wanted stop, whatever cause it names: a
	// signal's is an error of its own in some versions of Go.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	var once sync.Once
	var failed error
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
			once.Do(func() { failed = fmt.Errorf("%s: %w", p.Name, err) })
			cancel()
		})
	}
	if ready != nil {
		ready()
	}
	wg.Wait()
	return failed
}
