package module

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
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
