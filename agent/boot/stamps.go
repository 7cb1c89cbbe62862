package boot

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"muster/agent/head"
	"muster/shared/wire"
)

// stamps sends steps to the head in order, beside the work, so that telling of
// a step does not delay the next one. One that the head does not get is sent
// again until there is a newer one.
type stamps struct {
	log   *slog.Logger
	queue chan stamp
}

type stamp struct {
	client *head.Client
	step   wire.Step
	done   chan<- struct{} // set for a mark in the queue, instead of a step
}

func newStamps(log *slog.Logger) *stamps {
	s := &stamps{log: log, queue: make(chan stamp, 64)}
	go s.run()
	return s
}

// put hands over a step; when too many wait it is dropped, the head is away.
func (s *stamps) put(c *head.Client, step wire.Step) {
	select {
	case s.queue <- stamp{client: c, step: step}:
	default:
	}
}

// flush waits until what was put has been sent, at most for the given time.
func (s *stamps) flush(limit time.Duration) {
	done := make(chan struct{})
	timeout := time.After(limit)
	select {
	case s.queue <- stamp{done: done}:
	case <-timeout:
		return
	}
	select {
	case <-done:
	case <-timeout:
	}
}

func (s *stamps) run() {
	for next := range s.queue {
		if next.done != nil {
			close(next.done)
			continue
		}
		s.send(next)
	}
}

func (s *stamps) send(next stamp) {
	delay := minDelay
	for {
		err := next.client.Step(context.Background(), next.step)
		if err == nil {
			return
		}
		if refused := (*head.Refused)(nil); errors.As(err, &refused) {
			s.log.Warn("the head does not take step "+next.step.Step, "error", err)
			return
		}
		if len(s.queue) > 0 {
			return
		}
		time.Sleep(delay)
		delay = min(2*delay, maxDelay)
	}
}
