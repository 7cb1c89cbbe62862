package service

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
)

func wait(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestWantedStop(t *testing.T) {
	ctx, cancel := context.WithCancelCause(context.Background())
	parts := []Part{{Name: "one", Run: wait}, {Name: "two", Run: func(ctx context.Context) error { wait(ctx); return nil }}}
	// A cause that is not context.Canceled, as of a signal.
	err := Run(ctx, slog.New(slog.DiscardHandler), parts, func() { cancel(errors.New("terminated signal received")) })
	if err != nil {
		t.Errorf("a wanted stop gives %v", err)
	}
}

func TestFirstFailureStopsAll(t *testing.T) {
	for name, end := range map[string]error{"broken": errors.New("broken"), "ended by itself": nil} {
		parts := []Part{{Name: "good", Run: wait}, {Name: "bad", Run: func(context.Context) error { return end }}}
		err := Run(context.Background(), slog.New(slog.DiscardHandler), parts, nil)
		if err == nil || !strings.Contains(err.Error(), "bad: "+name) {
			t.Errorf("got %v, want the failure of bad: %s", err, name)
		}
	}
}

func TestListenFailsBeforeAnythingRuns(t *testing.T) {
	parts := []Part{
		{Name: "runs", Run: func(context.Context) error { t.Error("it ran"); return nil }},
		{Name: "port", Listen: func(context.Context) error { return errors.New("taken") }, Run: wait},
	}
	if err := Run(context.Background(), slog.New(slog.DiscardHandler), parts, nil); err == nil || err.Error() != "port: taken" {
		t.Errorf("got %v", err)
	}
}
