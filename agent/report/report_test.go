package report

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"muster/agent/head"
	"muster/agent/headtest"
	"muster/shared/wire"
)

// values gives a table's entries as they come to a head.
func values(t *testing.T, table *table) map[string]any {
	t.Helper()
	raw, _, _ := table.whole(nil, nothing)
	if len(raw) > 1<<20 {
		t.Fatalf("%d bytes", len(raw))
	}
	out := map[string]any{}
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// since gives the entries that are new, and those that are gone.
func since(t *testing.T, table *table, change uint64) (fresh map[string]any, gone []string) {
	t.Helper()
	raw, gone, _ := table.since(nil, change)
	if err := json.Unmarshal(raw, &fresh); err != nil {
		t.Fatal(err)
	}
	return fresh, gone
}

func takesAll(string) bool { return true }

func TestHardwareOfThisMachine(t *testing.T) {
	i := inventory{t: newTable(), root: "/", mac: "52:54:00:12:34:56"}
	i.look(t.Context(), takesAll)
	h := values(t, i.t)
	if h["mac"] != "52:54:00:12:34:56" {
		t.Errorf("mac %v", h["mac"])
	}
	if h["cpu_count"] != float64(runtime.NumCPU()) {
		t.Errorf("cpu_count %v, want %d", h["cpu_count"], runtime.NumCPU())
	}
	kib, _ := h["ram_total"].(float64)
	if raw, _ := os.ReadFile("/proc/meminfo"); !strings.Contains(string(raw), strings.TrimSpace(formatKiB(uint64(kib)))) {
		t.Errorf("ram_total %v is not MemTotal of /proc/meminfo", kib)
	}
	for _, key := range []string{"cpu_arch", "cpu_model"} {
		if s, _ := h[key].(string); s == "" {
			t.Errorf("%s is %v", key, h[key])
		}
	}
	before := i.t.change()
	i.look(t.Context(), takesAll)
	if fresh, gone := since(t, i.t, before); len(fresh)+len(gone) > 0 {
		t.Errorf("nothing changed, and yet %v and %v did", fresh, gone)
	}
	i.look(t.Context(), func(part string) bool { return part == "memory" })
	if h := values(t, i.t); len(h) != 1 || h["ram_total"] == nil {
		t.Errorf("of the memory alone there is %v", h)
	}
}

func formatKiB(n uint64) string {
	raw, _ := json.Marshal(n)
	return string(raw) + " kB"
}

func TestStatusOfThisMachine(t *testing.T) {
	r := New(Config{Version: "test", Log: slog.New(slog.DiscardHandler)})
	r.look(t.Context(), r.settings.Load())
	s := values(t, r.status)
	for _, key := range []string{"time", "uptime", "load_avg", "ram_free", "ram_available", "kernel", "boot_id", "filesystems", "network", "os", "hostname", "users", "modules", "packages"} {
		if s[key] == nil || s[key] == "" {
			t.Errorf("%s is missing", key)
		}
	}
	if load, _ := s["load_avg"].([]any); len(load) != 3 {
		t.Errorf("load_avg %v", s["load_avg"])
	}
	if len(s["packages"].(map[string]any)) < 10 {
		t.Errorf("packages %v", s["packages"])
	}
	root, _ := s["filesystems"].(map[string]any)["/"].(map[string]any)
	if total, _ := root["total_kib"].(float64); total == 0 {
		t.Errorf("the root file system is %v", root)
	}
	before := r.status.change()
	r.look(t.Context(), r.settings.Load())
	fresh, _ := since(t, r.status, before)
	for _, key := range []string{"packages", "modules", "kernel", "users", "os", "boot_id"} {
		if fresh[key] != nil {
			t.Errorf("%s is sent again", key)
		}
	}
}

func TestRunSendsHardwareOnceAndAgainToANewHead(t *testing.T) {
	h := headtest.New(t)
	c := head.New(h.HTTP, head.Dialer{}, nil)
	defer c.Close()
	r := New(Config{Send: c, Version: "test", Log: slog.New(slog.DiscardHandler)})
	r.every.Store(int64(100 * time.Millisecond))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); r.Run(ctx) }()
	if s := h.WaitStatus(1); s.Hardware["cpu_count"] == nil || s.Status["kernel"] == nil {
		t.Errorf("first report: %v", s)
	}
	if s := h.WaitStatus(2); s.Hardware != nil || s.Status["time"] == nil || s.Status["kernel"] != nil || s.Since == "" {
		t.Errorf("second report: %v", s)
	}
	r.Every(0)
	for n := 3; ; n++ {
		if s := h.WaitStatus(n); s.Hardware != nil {
			break
		}
	}
	cancel()
	<-done
}

// flaky takes nothing at first.
type flaky struct {
	mu    sync.Mutex
	fail  int
	with  error // how it fails; the head is away where nil
	got   chan wire.Status
	clock time.Time
}

func (f *flaky) Send(_ context.Context, report []byte) (time.Time, error) {
	var s wire.Status
	if err := json.Unmarshal(report, &s); err != nil {
		return f.clock, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail--; f.fail >= 0 {
		if f.with != nil {
			f.got <- s
			return f.clock, f.with
		}
		return f.clock, errors.New("head is away")
	}
	f.got <- s
	return f.clock, nil
}

func TestUnsentHardwareIsSentLater(t *testing.T) {
	f := &flaky{fail: 1, got: make(chan wire.Status, 10)}
	r := New(Config{Send: f, Version: "test", Log: slog.New(slog.DiscardHandler)})
	r.every.Store(int64(50 * time.Millisecond))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go r.Run(ctx)
	if s := <-f.got; s.Hardware == nil {
		t.Error("the first report that got through has no hardware")
	}
}

// What did not change comes once, and again to a head that does not have what
// a report builds on.
func TestOnlyChangesTravel(t *testing.T) {
	f := &flaky{got: make(chan wire.Status, 10), clock: time.Now().Add(-30 * time.Hour)}
	r := New(Config{Send: f, Version: "test", Log: slog.New(slog.DiscardHandler)})
	r.every.Store(int64(50 * time.Millisecond))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go r.Run(ctx)
	first := <-f.got
	if first.Status["packages"] == nil || first.Hardware == nil || first.Since != "" || first.Status["time"] == nil {
		t.Errorf("the first report is no whole one: since %q, keeps %v", first.Since, first.Keep)
	}
	second := <-f.got
	if second.Status["packages"] != nil || second.Hardware != nil || second.Since != first.Report || !slices.Equal(second.Drop, []string{"time"}) {
		t.Errorf("the second report is since %q and drops %v", second.Since, second.Drop) // the clock is known to be wrong by now
	}
	f.mu.Lock()
	f.fail, f.with = 1, &head.Refused{Status: 409, Reason: "nothing to build on"}
	f.mu.Unlock()
	for { // what was under way, the one that is refused, and then all again
		if s := <-f.got; s.Status["packages"] != nil && s.Hardware != nil && s.Since == "" {
			break
		}
	}
	r.Set("init", 5)
	for s := range f.got {
		if raw, _ := json.Marshal(s.Status["init"]); string(raw) == "5" {
			break
		}
	}
}

func TestBeatIsAligned(t *testing.T) {
	r := New(Config{Log: slog.New(slog.DiscardHandler)})
	now := time.Unix(1000, 3e8)
	if next := now.Add(untilBeat(now, r.beat())); !next.Equal(time.Unix(1010, 0)) {
		t.Errorf("next beat at %v", next)
	}
	r.Every(60)
	if next := now.Add(untilBeat(now, r.beat())); !next.Equal(time.Unix(1020, 0)) {
		t.Errorf("next beat at %v", next)
	}
	r.Configure(ParseSettings(map[string]json.RawMessage{"_status_secs": json.RawMessage("20")}))
	if r.beat() != 20*time.Second {
		t.Errorf("with an attribute the beat is %v", r.beat())
	}
}

const status = `Package: one
Status: install ok installed
Version: 1.0-1
Description: first
 with more lines

Package: gone
Status: deinstall ok config-files
Version: 2

Package: last
Version: 3:4
Status: install ok installed`

func TestPackages(t *testing.T) {
	got := parseDpkg(strings.NewReader(status))
	if len(got) != 2 || got["one"] != "1.0-1" || got["last"] != "3:4" {
		t.Errorf("got %v", got)
	}
}

func FuzzDpkg(f *testing.F) {
	f.Add(status)
	f.Add(strings.Repeat("x", 40<<10) + "\nPackage: a\n")
	f.Fuzz(func(t *testing.T, s string) { parseDpkg(strings.NewReader(s)) })
}
