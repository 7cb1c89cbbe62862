package service

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
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

// story notes what happens, in order.
type story struct {
	mu    sync.Mutex
	lines []string
}

func (s *story) add(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, line)
}

func (s *story) part(name string, stage Stage) Part {
	return Part{Name: name, Stage: stage,
		Listen: func(context.Context) error { s.add("listen " + name); return nil },
		Run: func(ctx context.Context) error {
			wait(ctx)
			s.add("end " + name)
			return nil
		}}
}

// start runs a group until the test ends.
func start(t *testing.T, g *Group) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- g.Run(ctx, func() { close(ready) }) }()
	<-ready
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func TestStagesEndInOrder(t *testing.T) {
	var s story
	stop := start(t, New(slog.New(slog.DiscardHandler), []Part{s.part("store", Base), s.part("worker", Middle), s.part("web", Front)}, nil))
	stop()
	if got := strings.Join(s.lines, ", "); got != "listen store, listen worker, listen web, end web, end worker, end store" {
		t.Error(got)
	}
}

func TestPartsStopAndStart(t *testing.T) {
	var s story
	web, sweb := s.part("http", Front), s.part("https", Front)
	web.Door, sweb.Door = "API", "API"
	kept := s.part("store", Base)
	kept.Kept = "all is in it"
	reloaded := 0
	dns := s.part("dns", Front)
	dns.Reload = func(context.Context) error { reloaded++; return nil }
	g := New(slog.New(slog.DiscardHandler), []Part{kept, dns, s.part("off", Middle), web, sweb, {Name: "hidden", Hidden: true, Run: wait}}, []string{"off", "store", "hidden"})
	if err := g.Stop("dns"); !errors.Is(err, ErrEnding) {
		t.Errorf("before it runs: %v", err)
	}
	stop := start(t, g)
	up := func() string {
		out := []string{}
		for _, st := range g.Status() {
			if st.Up {
				out = append(out, st.Name)
			}
		}
		return strings.Join(out, " ")
	}
	ok := func(err error, want string) {
		t.Helper()
		if err != nil || up() != want {
			t.Errorf("up are %q (%v), want %q", up(), err, want)
		}
	}
	refused := func(err error, why string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("got %v, want %q", err, why)
		}
	}
	ok(nil, "store dns http https")
	ok(g.Stop("dns"), "store http https")
	ok(g.Stop("dns"), "store http https")
	ok(g.Reload(t.Context(), "dns"), "store http https")
	ok(g.Start("dns"), "store dns http https")
	ok(g.Restart("dns"), "store dns http https")
	ok(g.Reload(t.Context(), "dns"), "store dns http https")
	if reloaded != 1 {
		t.Errorf("reloaded %d times, once when it was up", reloaded)
	}
	ok(g.Start("off"), "store dns off http https")
	ok(g.Stop("http"), "store dns off https")
	refused(g.Stop("https"), "last way to the head's API")
	refused(g.Stop("store"), "all is in it")
	refused(g.Enable("store", false), "all is in it")
	refused(g.Stop("hidden"), "no service")
	ok(g.Enable("https", false), "store dns off https")
	refused(g.Enable("http", false), "last way")
	if d := g.Disabled(); !slices.Equal(d, []string{"off", "https"}) {
		t.Errorf("disabled are %v", d)
	}
	stop()
	if err := g.Start("dns"); !errors.Is(err, ErrEnding) {
		t.Errorf("afterwards: %v", err)
	}
	if n := strings.Count(strings.Join(s.lines, ","), "end dns"); n != 3 {
		t.Errorf("dns ended %d times: %v", n, s.lines)
	}
}

func TestDoorsStayOpenWhateverTheListSays(t *testing.T) {
	g := New(slog.New(slog.DiscardHandler), []Part{{Name: "a", Door: "API", Run: wait}, {Name: "b", Door: "API", Run: wait}}, []string{"a", "b"})
	if len(g.Disabled()) == 2 {
		t.Error("nobody could come in")
	}
}

func TestStartReportsWhyNot(t *testing.T) {
	taken := errors.New("port taken")
	var err error
	g := New(slog.New(slog.DiscardHandler), []Part{{Name: "dns", Listen: func(context.Context) error { return err }, Run: wait}}, nil)
	start(t, g)
	err = taken
	if err := g.Restart("dns"); !errors.Is(err, taken) || g.Status()[0].Up {
		t.Errorf("got %v, %+v", err, g.Status())
	}
	err = nil
	if err := g.Start("dns"); err != nil {
		t.Error(err)
	}
}

func TestGroupFailsWhenItsLastDoorStaysShut(t *testing.T) {
	taken := errors.New("port taken")
	var err error
	g := New(slog.New(slog.DiscardHandler), []Part{{Name: "http", Door: "API", Listen: func(context.Context) error { return err }, Run: wait}}, nil)
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- g.Run(context.Background(), func() { close(ready) }) }()
	<-ready
	err = taken
	if err := g.Restart("http"); !errors.Is(err, taken) {
		t.Errorf("restarting gives %v", err)
	}
	if err := <-done; !errors.Is(err, taken) {
		t.Errorf("the group ends with %v", err)
	}
}
