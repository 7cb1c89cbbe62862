package apply_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"muster/agent/apply"
	"muster/agent/root"
	"muster/shared/wire"
)

// clean fails where a root has anything that a change leaves behind.
func clean(t *testing.T, dir string) {
	t.Helper()
	out, err := filepath.Glob(filepath.Join(dir, "*", ".muster-apply-*"))
	if err != nil || len(out) > 0 {
		t.Errorf("left behind: %v, %v", out, err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "var/lib/muster/apply")); err == nil {
		t.Error("the journal is left behind")
	}
}

func runs(t *testing.T, dir string) int {
	t.Helper()
	r, err := apply.Load(dir)
	if err != nil || r == nil {
		t.Fatalf("the record: %v, %v", r, err)
	}
	return r.Image.Version
}

func diff(got, want string) string {
	in := func(all, line string) bool { return slices.Contains(strings.Split(all, "\n"), line) }
	var out []string
	for line := range strings.SplitSeq(got, "\n") {
		if !in(want, line) {
			out = append(out, "+ "+line)
		}
	}
	for line := range strings.SplitSeq(want, "\n") {
		if !in(got, line) {
			out = append(out, "- "+line)
		}
	}
	return strings.Join(out, "\n")
}

func TestThereAndBack(t *testing.T) {
	w := newWorld(t)
	a, b := w.two()
	dir := w.root(a)
	if got := list(t, dir); got != a.list {
		t.Fatalf("the test's own root:\n%s", diff(got, a.list))
	}
	node := w.node(dir, nil)
	var same unix.Stat_t
	w.try(unix.Stat(filepath.Join(dir, "etc/same"), &same))
	got := w.apply(node, a, b, nil)
	if got.err != nil || got.last.Error != "" || len(got.last.Kept)+len(got.last.Left) > 0 {
		t.Fatalf("%+v", got)
	}
	if is := list(t, dir); is != b.list {
		t.Errorf("there:\n%s", diff(is, b.list))
	}
	if runs(t, dir) != 2 {
		t.Error("the record is of the old version")
	}
	var now unix.Stat_t
	w.try(unix.Stat(filepath.Join(dir, "etc/same"), &now))
	if now != same && (now.Ino != same.Ino || now.Ctim != same.Ctim) {
		t.Error("a file that is equal was touched")
	}
	if fetched := got.last.Fetched; fetched > 350_000 {
		t.Errorf("%d bytes came from the head: what the node has was not used", fetched)
	}
	if got := w.apply(node, b, a, nil); got.err != nil || got.last.Error != "" {
		t.Fatalf("%+v", got)
	}
	if is := list(t, dir); is != a.list || runs(t, dir) != 1 {
		t.Errorf("back:\n%s", diff(is, a.list))
	}
	clean(t, dir)
}

// TestSwitchedOff stops the machine at every step.
func TestSwitchedOff(t *testing.T) {
	w := newWorld(t)
	a, b := w.two()
	old, fresh := 0, 0
	for n := 0; ; n++ {
		dir := w.root(a)
		w.try(os.Mkdir(filepath.Join(dir, ".muster"), 0o700), os.WriteFile(filepath.Join(dir, ".muster/state"), []byte(`{"image":"sha 1","complete":true}`), 0o600))
		at, step := 0, ""
		got := w.apply(w.node(dir, func(s string) {
			if at++; at > n && step == "" {
				step = s
				panic("switched off")
			}
		}), a, b, nil)
		state, err := root.ReadState(dir)
		w.try(err)
		if is := list(t, dir); state.Complete && is != a.list && is != b.list && strings.HasPrefix(step, "put") {
			t.Errorf("at %q a disk that is neither passes for whole", step)
		}
		if err := w.node(dir, nil).Recover(); err != nil {
			t.Fatalf("after %q: %v", step, err)
		}
		is, version := list(t, dir), runs(t, dir)
		want, of := a.list, "old"
		if version == 2 {
			want, of = b.list, "new"
			fresh++
		} else {
			old++
		}
		if is != want {
			t.Fatalf("after %q it says that it is the %s version, and is not:\n%s", step, of, diff(is, want))
		}
		if state, _ := root.ReadState(dir); !state.Complete || version == 2 != (state.Image == "sha 2") {
			t.Errorf("after %q the disk says %+v of version %d", step, state, version)
		}
		clean(t, dir)
		if step == "" {
			if got.last.Error != "" || !got.last.Done {
				t.Errorf("%+v", got)
			}
			break
		}
	}
	if old < 2 || fresh < 20 {
		t.Errorf("%d ended with the old version and %d with the new one: steps are missing", old, fresh)
	}
}

func TestKeptOnTheNode(t *testing.T) {
	w := newWorld(t)
	a, b := w.two()
	for name, try := range map[string]struct {
		do   func(p func(string) string) error
		kept string
	}{
		"changed":       {func(p func(string) string) error { return os.WriteFile(p("etc/motd"), []byte("mine"), 0o644) }, "/etc/motd"},
		"mode":          {func(p func(string) string) error { return os.Chmod(p("etc/motd"), 0o600) }, "/etc/motd"},
		"removed":       {func(p func(string) string) error { return os.Remove(p("etc/motd")) }, "/etc/motd"},
		"in the way":    {func(p func(string) string) error { return os.WriteFile(p("new"), []byte("mine"), 0o644) }, "/new"},
		"other kind":    {func(p func(string) string) error { os.Remove(p("etc/motd")); return os.Mkdir(p("etc/motd"), 0o755) }, ""},
		"own directory": {func(p func(string) string) error { return os.WriteFile(p("dir-to-file/own"), []byte("mine"), 0o644) }, "/dir-to-file"},
		"to be removed": {func(p func(string) string) error { return os.WriteFile(p("gone/deep/er"), []byte("mine"), 0o644) }, "/gone/deep/er"},
		"one of two":    {func(p func(string) string) error { return os.WriteFile(p("pair2"), []byte("mine"), 0o644) }, "/pair2"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := w.root(a)
			w.try(try.do(func(name string) string { return filepath.Join(dir, name) }))
			was := list(t, dir)
			dry := w.apply(w.node(dir, nil), a, b, func(x *wire.Apply) { x.DryRun = true })
			if now := list(t, dir); now != was {
				t.Errorf("a dry run changed\n%s", diff(now, was))
			}
			got := w.apply(w.node(dir, nil), a, b, nil)
			if got.err != nil || fmt.Sprint(got.last.Kept) != fmt.Sprint(dry.plan.Kept) {
				t.Errorf("%+v, in the dry run %+v", got, dry)
			}
			if try.kept != "" && !slices.ContainsFunc(got.last.Kept, func(n wire.PathNote) bool { return n.Path == try.kept }) {
				t.Errorf("kept: %v", got.last.Kept)
			}
			r, err := apply.Load(dir)
			w.try(err)
			if r.Image.Version != 2 || try.kept != "" && !slices.Contains(r.Differs, try.kept[1:]) {
				t.Errorf("noted: %+v", r)
			}
			dir = w.root(a)
			w.try(try.do(func(name string) string { return filepath.Join(dir, name) }))
			if got := w.apply(w.node(dir, nil), a, b, func(x *wire.Apply) { x.Force = true }); got.err != nil || got.last.Error != "" || len(got.last.Kept) > 0 {
				t.Fatalf("forced: %+v", got)
			}
			if is := list(t, dir); is != b.list {
				t.Errorf("forced:\n%s", diff(is, b.list))
			}
		})
	}
}

// TestLinksOfUsers has what is written go through no link of the node's own.
func TestLinksOfUsers(t *testing.T) {
	w := newWorld(t)
	a, b := w.two()
	for _, force := range []bool{false, true} {
		dir, outside := w.root(a), t.TempDir()
		w.try(os.WriteFile(filepath.Join(outside, "motd"), []byte("outside"), 0o644), os.RemoveAll(filepath.Join(dir, "etc")), os.Symlink(outside, filepath.Join(dir, "etc")))
		got := w.apply(w.node(dir, nil), a, b, func(x *wire.Apply) { x.Force = force })
		if got.err != nil {
			t.Fatal(got.err)
		}
		if raw, _ := os.ReadFile(filepath.Join(outside, "motd")); string(raw) != "outside" {
			t.Errorf("force %v: written outside: %q", force, raw)
		}
		if entries, _ := os.ReadDir(outside); len(entries) != 1 {
			t.Errorf("force %v: outside are %v", force, entries)
		}
		if !force && len(got.last.Kept) == 0 {
			t.Errorf("nothing is said of it: %+v", got.last)
		}
	}
}

func TestBrokenTrees(t *testing.T) {
	w := newWorld(t)
	source := t.TempDir()
	w.try(os.WriteFile(filepath.Join(source, "QQ"), []byte("x"), 0o644))
	a := w.make(1, source)
	w.try(os.WriteFile(filepath.Join(source, "QQ"), []byte("y"), 0o644), os.WriteFile(filepath.Join(source, "ZZZ"), []byte("z"), 0o644))
	b := w.make(2, source)
	before, after := w.between(a, b)
	for name, names := range map[string][2]string{"up": {"QQ", ".."}, "here": {"QQ", "./"}, "absolute": {"ZZZ", "/et"}, "NUL": {"ZZZ", "a\x00b"}} {
		dir := w.root(a)
		was := list(t, dir)
		broken := []byte(strings.ReplaceAll(string(after), names[0], names[1]))
		if string(broken) == string(after) {
			t.Fatalf("%s: the test breaks nothing", name)
		}
		if got := w.send(w.node(dir, nil), b, before, broken, nil); got.err == nil {
			t.Errorf("%s is taken: %+v", name, got)
		}
		if is := list(t, dir); is != was {
			t.Errorf("%s: changed\n%s", name, diff(is, was))
		}
	}
}

func TestProtected(t *testing.T) {
	w := newWorld(t)
	source := t.TempDir()
	w.try(os.MkdirAll(filepath.Join(source, "etc"), 0o755), os.WriteFile(filepath.Join(source, "etc/machine-id"), []byte("image's"), 0o444), os.WriteFile(filepath.Join(source, "etc/a"), nil, 0o644))
	a := w.make(1, source)
	dir := w.root(a)
	w.try(os.WriteFile(filepath.Join(dir, "etc/machine-id"), []byte("machine's"), 0o444))
	w.try(os.WriteFile(filepath.Join(source, "etc/machine-id"), []byte("another"), 0o444), os.MkdirAll(filepath.Join(source, "var/lib/muster"), 0o755), os.WriteFile(filepath.Join(source, "var/lib/muster/image.json"), []byte("x"), 0o644))
	b := w.make(2, source)
	if got := w.apply(w.node(dir, nil), a, b, func(x *wire.Apply) { x.Force = true }); got.err != nil || got.last.Error != "" {
		t.Fatalf("%+v", got)
	}
	if raw, _ := os.ReadFile(filepath.Join(dir, "etc/machine-id")); string(raw) != "machine's" || runs(t, dir) != 2 {
		t.Errorf("the machine's id is %q now", raw)
	}
}

func TestGivenUp(t *testing.T) {
	w := newWorld(t)
	a, b := w.two()
	dir := w.root(a)
	w.hold = make(chan struct{})
	defer close(w.hold)
	node := w.node(dir, nil)
	want := wire.Apply{Image: b.image}
	w.giveUp(node, want, a, b)
	if is := list(t, dir); is != a.list || runs(t, dir) != 1 {
		t.Errorf("given up:\n%s", diff(is, a.list))
	}
	clean(t, dir)
}

func TestRules(t *testing.T) {
	w := newWorld(t)
	a, b := w.two()
	dir := w.root(a)
	w.try(os.WriteFile(filepath.Join(dir, "etc/muster"), nil, 0o644), os.Remove(filepath.Join(dir, "etc/muster")), os.Mkdir(filepath.Join(dir, "etc/muster"), 0o755),
		os.WriteFile(filepath.Join(dir, "etc/muster/restart"), []byte("# of the image\n/etc/motd motd.service\n/etc/same never.service\n/new/** reload:new\n"), 0o644))
	got := w.apply(w.node(dir, nil), a, b, func(x *wire.Apply) {
		x.DryRun, x.Rules = true, "/usr/* big.service motd.service; /usr/large --now; /etc/** etc@1"
	})
	if want := "[big.service motd.service etc@1 reload:new]"; fmt.Sprint(got.plan.Restart) != want {
		t.Errorf("%v, want %s", got.plan.Restart, want)
	}
}

func TestBooted(t *testing.T) {
	dir := t.TempDir()
	one := wire.Image{Name: "i", Digest: "1", Version: 1}
	if r, err := apply.Load(dir); r != nil || err != nil {
		t.Errorf("nothing noted: %v, %v", r, err)
	}
	if err := apply.Booted(dir, one, []string{"etc/hosts"}); err != nil {
		t.Fatal(err)
	}
	r, err := apply.Load(dir)
	if err != nil || r.Said() != (apply.Said{Name: "i", Version: 1, Digest: "1"}) {
		t.Errorf("%+v, %v", r, err)
	}
	// A disk that is booted again keeps what is known of it.
	r.Differs = []string{"etc/motd"}
	raw, _ := json.Marshal(r)
	os.WriteFile(filepath.Join(dir, "var/lib/muster/image.json"), raw, 0o600)
	if err := apply.Booted(dir, one, nil); err != nil {
		t.Fatal(err)
	}
	if r, _ := apply.Load(dir); len(r.Differs) != 1 {
		t.Errorf("%+v", r)
	}
	if err := apply.Booted(dir, wire.Image{Name: "i", Digest: "2", Version: 2}, nil); err != nil {
		t.Fatal(err)
	}
	if r, _ := apply.Load(dir); r.Image.Version != 2 || len(r.Differs) != 0 {
		t.Errorf("%+v", r)
	}
}
