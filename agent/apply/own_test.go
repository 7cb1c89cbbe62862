package apply_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"muster/agent/apply"
	"muster/agent/head"
	"muster/agent/overlay"
	"muster/agent/pull"
	"muster/shared/wire"
)

// TestOverlays has a version change what lies below the node's own files, and
// nothing of them.
func TestOverlays(t *testing.T) {
	w := newWorld(t)
	a, b := w.two()
	dir := w.root(a)
	own := overlay.New(overlay.Config{Root: dir, Log: slog.New(slog.DiscardHandler)})
	file := wire.OverlayFile{Overlay: "o", Path: "/etc/motd", Mode: 0o644, Content: []byte("the node's\n")}
	_, err := own.Take(wire.Overlay{Digest: "1", Files: []wire.OverlayFile{file}})
	w.try(err)
	node := apply.New(apply.Config{Root: dir, Source: pull.New(w.server.URL, head.Dialer{}), Log: slog.New(slog.DiscardHandler), Own: own})
	got := w.apply(node, a, b, func(x *wire.Apply) { x.Force = true })
	if got.err != nil || got.last.Error != "" || len(got.last.Kept) > 0 || len(got.last.Left) != 1 {
		t.Fatalf("%+v", got)
	}
	if raw, _ := os.ReadFile(filepath.Join(dir, "etc/motd")); string(raw) != "the node's\n" {
		t.Errorf("the overlay's file is %q", raw)
	}
	if own.Wants("1") {
		t.Error("the keeper wants its files anew")
	}
	_, err = own.Take(wire.Overlay{Digest: "2", Failed: nil, Files: []wire.OverlayFile{}})
	w.try(err)
	if is := list(t, dir); withoutTime(is, "/etc/motd") != withoutTime(b.list, "/etc/motd") {
		t.Errorf("without the overlay:\n%s", diff(is, b.list))
	}
	clean(t, dir)
}

// withoutTime leaves out the line of a file that an overlay put back, which has
// the time of that.
func withoutTime(list, name string) string {
	var out []string
	for line := range strings.SplitSeq(list, "\n") {
		if fields := strings.Fields(line); len(fields) > 4 && fields[0] == name {
			line = strings.Join(append(fields[:3:3], fields[4:]...), " ")
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n")
}

// TestMounted has nothing written to another file system that is mounted below
// the root.
func TestMounted(t *testing.T) {
	w := newWorld(t)
	a, b := w.two()
	dir := w.root(a)
	etc := filepath.Join(dir, "etc")
	if err := unix.Mount("tmpfs", etc, "tmpfs", 0, ""); err != nil {
		t.Skip("no file system can be mounted: ", err)
	}
	defer unix.Unmount(etc, unix.MNT_DETACH)
	w.try(os.WriteFile(filepath.Join(etc, "motd"), []byte("one\n"), 0o644))
	got := w.apply(w.node(dir, nil), a, b, func(x *wire.Apply) { x.Force = true })
	if got.err != nil || len(got.last.Kept) == 0 || !strings.Contains(got.last.Kept[0].Note, "mounted") {
		t.Errorf("%+v", got)
	}
	if raw, _ := os.ReadFile(filepath.Join(etc, "motd")); string(raw) != "one\n" {
		t.Errorf("written: %q", raw)
	}
}
