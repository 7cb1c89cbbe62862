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

func TestHardwareOfThisMachine(t *testing.T) {
	h := Hardware("52:54:00:12:34:56")
	if h["mac"] != "52:54:00:12:34:56" {
		t.Errorf("mac %v", h["mac"])
	}
	if h["cpu_count"] != runtime.NumCPU() {
		t.Errorf("cpu_count %v, want %d", h["cpu_count"], runtime.NumCPU())
	}
	kib, _ := h["ram_total"].(uint64)
	if raw, _ := os.ReadFile("/proc/meminfo"); !strings.Contains(string(raw), strings.TrimSpace(formatKiB(kib))) {
		t.Errorf("ram_total %d is not MemTotal of /proc/meminfo", kib)
	}
	for _, key := range []string{"cpu_arch", "cpu_model"} {
		if s, _ := h[key].(string); s == "" {
			t.Errorf("%s is %v", key, h[key])
		}
	}
	raw, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes", len(raw))
}

func formatKiB(n uint64) string {
	raw, _ := json.Marshal(n)
	return string(raw) + " kB"
}

func TestStatusOfThisMachine(t *testing.T) {
	s := Status("test")
	for _, key := range []string{"uptime", "load_avg", "ram_free", "ram_available", "kernel", "boot_id", "filesystems", "network", "os", "hostname"} {
		if s[key] == nil || s[key] == "" {
			t.Errorf("%s is missing", key)
		}
	}
	root, _ := s["filesystems"].(map[string]any)["/"].(map[string]any)
	if total, _ := root["total_kib"].(uint64); total == 0 {
		t.Errorf("the root file system is %v", root)
	}
	if raw, err := json.Marshal(s); err != nil || len(raw) > 64<<10 {
		t.Errorf("%d bytes, %v", len(raw), err)
	}
}

func TestRunSendsHardwareOnceAndAgainToANewHead(t *testing.T) {
	h := headtest.New(t)
	c := head.New(h.HTTP, head.Dialer{}, nil)
	defer c.Close()
	r := New(c, "test", "", slog.New(slog.DiscardHandler))
	r.every.Store(int64(100 * time.Millisecond))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); r.Run(ctx) }()
	if s := h.WaitStatus(1); s.Hardware["cpu_count"] == nil || s.Status["kernel"] == nil {
		t.Errorf("first report: %v", s)
	}
	if s := h.WaitStatus(2); s.Hardware != nil || s.Status["kernel"] == nil {
		t.Errorf("second report has hardware: %v", s.Hardware)
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
	mu   sync.Mutex
	fail int
	with error // how it fails; the head is away where nil
	got  chan wire.Status
}

func (f *flaky) PutStatus(_ context.Context, s wire.Status) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail--; f.fail >= 0 {
		if f.with != nil {
			f.got <- s
			return f.with
		}
		return errors.New("head is away")
	}
	f.got <- s
	return nil
}

func TestUnsentHardwareIsSentLater(t *testing.T) {
	f := &flaky{fail: 1, got: make(chan wire.Status, 10)}
	r := New(f, "test", "", slog.New(slog.DiscardHandler))
	r.every.Store(int64(50 * time.Millisecond))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go r.Run(ctx)
	if s := <-f.got; s.Hardware == nil {
		t.Error("the first report that got through has no hardware")
	}
}

// Packages come once, and again to a head that says it has none to keep.
func TestPackagesAreKept(t *testing.T) {
	f := &flaky{got: make(chan wire.Status, 10)}
	r := New(f, "test", "", slog.New(slog.DiscardHandler))
	r.every.Store(int64(50 * time.Millisecond))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go r.Run(ctx)
	sends := func(s wire.Status) bool { return s.Status["packages"] != nil }
	keeps := func(s wire.Status) bool { return slices.Equal(s.Keep, []string{"packages"}) }
	if s := <-f.got; !sends(s) || keeps(s) {
		t.Errorf("the first report keeps %v", s.Keep)
	}
	if s := <-f.got; sends(s) || !keeps(s) {
		t.Errorf("the second report keeps %v", s.Keep)
	}
	f.mu.Lock()
	f.fail, f.with = 1, &head.Refused{Status: 409, Reason: "nothing to keep"}
	f.mu.Unlock()
	for { // what was under way, the one that is refused, and then all again
		if s := <-f.got; sends(s) {
			break
		}
	}
}

func TestBeatIsAligned(t *testing.T) {
	r := New(nil, "", "", nil)
	now := time.Unix(1000, 3e8)
	if next := now.Add(r.untilBeat(now)); !next.Equal(time.Unix(1010, 0)) {
		t.Errorf("next beat at %v", next)
	}
	r.Every(60)
	if next := now.Add(r.untilBeat(now)); !next.Equal(time.Unix(1020, 0)) {
		t.Errorf("next beat at %v", next)
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
