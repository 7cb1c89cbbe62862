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
	go func() { done <- l.Devices(ctx, cold) }()
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

func TestCanWait(t *testing.T) {
	for modalias, want := range map[string]bool{
		"pci:v00008086d00007010sv00001AF4sd00001100bc01sc01i80": true,
		"pci:v00001AF4d00001000sv00001AF4sd00000001bc02sc00i00": false,
		"pci:v00008086d00001237sv00001AF4sd00001100bc06sc00i00": false,
		"virtio:d00000001v00001AF4":                             false,
		"pci:":                                                  false,
	} {
		if canWait(modalias) != want {
			t.Errorf("%s: %v", modalias, !want)
		}
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
		go func() { done <- l.watch(ctx, events, cold) }()
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
