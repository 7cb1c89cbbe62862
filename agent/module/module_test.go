package module

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"muster/initramfs/modindex"
)

func TestOpen(t *testing.T) {
	root := t.TempDir()
	if _, err := Open(root, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "no modules") {
		t.Errorf("no archive: %v", err)
	}
	write := func(release string) {
		file := filepath.Join(root, modindex.Path(release))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		f, err := os.Create(file)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		ix := &modindex.Index{Release: release, Boot: []string{"none"}, Modules: []modindex.Module{{Name: "none", Path: "none.ko"}}}
		if err := ix.Write(f); err != nil {
			t.Fatal(err)
		}
	}
	write("1.2.3-other")
	if _, err := Open(root, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "1.2.3-other") {
		t.Errorf("archive of another kernel: %v", err)
	}
	release, err := kernelRelease()
	if err != nil {
		t.Fatal(err)
	}
	write(release)
	l, err := Open(root, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Common(); err == nil || !strings.Contains(err.Error(), "none.ko") {
		t.Errorf("a module without its file: %v", err)
	}
	if err := l.Load("built-in"); err != nil {
		t.Errorf("a module that is not listed: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cold, done := make(chan struct{}), make(chan error)
	go func() { done <- l.Devices(ctx, func() bool { return false }, cold) }()
	<-cold
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func FuzzEvent(f *testing.F) {
	f.Add([]byte("add@/devices/x\x00ACTION=add\x00MODALIAS=virtio:d00000001v00001AF4\x00"))
	f.Add([]byte("remove@/devices/x\x00ACTION=remove\x00MODALIAS=x"))
	f.Add([]byte{0, 0})
	f.Fuzz(func(t *testing.T, event []byte) { addedAlias(event) })
}

func TestAddedAlias(t *testing.T) {
	if got := addedAlias([]byte("add@/d\x00ACTION=add\x00SUBSYSTEM=virtio\x00MODALIAS=virtio:d1v2\x00")); got != "virtio:d1v2" {
		t.Errorf("got %q", got)
	}
	if got := addedAlias([]byte("remove@/d\x00ACTION=remove\x00MODALIAS=virtio:d1v2\x00")); got != "" {
		t.Errorf("got %q", got)
	}
}

func TestReach(t *testing.T) {
	for modalias, want := range map[string]reach{
		"pci:v00008086d00007010sv00001AF4sd00001100bc01sc01i80": everything,
		"pci:v00001AF4d00001000sv00001AF4sd00000001bc02sc00i00": cards,
		"pci:v00008086d00001237sv00001AF4sd00001100bc0Csc03i30": anyNetwork, // USB
		"virtio:d00000001v00001AF4":                             cards,
		"virtio:d00000010v00001AF4":                             anyNetwork,
		"cpu:type:x86,ven0000":                                  everything,
		"vmbus:635161f83edfc546913ff2d2f965ed0e":                cards,
		"usb:v0BDAp8153d3000dc00":                               anyNetwork,
		"acpi:VMBUS:":                                           anyNetwork,
		"pci:":                                                  anyNetwork,
		"":                                                      anyNetwork,
	} {
		if got := of(modalias); got != want {
			t.Errorf("%s: %v, want %v", modalias, got, want)
		}
	}
}

// A device is driven once, when the reach comes to it.
func TestWiden(t *testing.T) {
	l := &Loader{ix: &modindex.Index{}, log: slog.New(slog.DiscardHandler), done: map[string]*result{}, seen: map[string]bool{}}
	for _, modalias := range []string{"usb:x", "cpu:x", "usb:x"} {
		if names := l.wanted(modalias); names != nil {
			t.Errorf("%s is driven at once, by %q", modalias, names)
		}
	}
	l.widen(anyNetwork)
	if len(l.later) != 1 || l.later[0] != "cpu:x" {
		t.Errorf("left for later: %q", l.later)
	}
	l.widen(everything)
	l.widen(anyNetwork)
	if len(l.later) != 0 || l.reach != everything {
		t.Errorf("left for later: %q, reach %v", l.later, l.reach)
	}
}

// Events come while the devices that are there already are looked at.
func TestEventsWhileLooking(t *testing.T) {
	release, err := kernelRelease()
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	file := filepath.Join(root, modindex.Path(release))
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	ix := &modindex.Index{Release: release, Modules: []modindex.Module{{Name: "gone", Path: "gone.ko"}}, Aliases: []modindex.Alias{{Pattern: "*", Name: "gone"}}}
	if err := errors.Join(ix.Write(f), f.Close()); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		var warned atomic.Int32
		l, err := Open(root, slog.New(counter{slog.DiscardHandler, &warned}))
		if err != nil {
			t.Fatal(err)
		}
		kernel, events := net.Pipe()
		cold, done := make(chan struct{}), make(chan error)
		ctx, cancel := context.WithCancel(context.Background())
		go func() { done <- l.watch(ctx, events, func() bool { return true }, cold) }()
		const n = 50
		for i := range n {
			fmt.Fprintf(kernel, "add@/d\x00ACTION=add\x00MODALIAS=test:%d\x00", i)
		}
		<-cold
		l.Rest()
		for warned.Load() < n { // each device's driver was tried, and is not there
			runtime.Gosched()
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// counter counts log records.
type counter struct {
	slog.Handler
	n *atomic.Int32
}

func (c counter) Enabled(context.Context, slog.Level) bool  { return true }
func (c counter) Handle(context.Context, slog.Record) error { c.n.Add(1); return nil }
