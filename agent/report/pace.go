package report

import (
	"context"
	"time"
)

const (
	// stretch is how long the reporter works without a rest, in parts of some
	// 10 µs each, and rest how long that is: a program that computes on all cores
	// loses little at once, and the same on all nodes.
	stretch = 60 * time.Microsecond
	rest    = 25 * time.Millisecond
	// aside is how long after the beat that is done which is done seldom.
	aside = time.Second
)

// pace breaks work up.
type pace struct {
	ctx   context.Context
	began time.Time
}

func newPace(ctx context.Context) *pace { return &pace{ctx, time.Now()} }

// step is said between two parts of the work, and rests where it is time to.
func (p *pace) step() {
	if time.Since(p.began) < stretch {
		return
	}
	select {
	case <-p.ctx.Done():
	case <-time.After(rest):
	}
	p.began = time.Now()
}
