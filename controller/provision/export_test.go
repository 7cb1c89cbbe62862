package provision_test

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestKickstartsOfAnExport(t *testing.T) {
	s, to := start(t), start(t)
	s.file(t, "a.ks", "<include(parts/b.ks)> <include(c.ks)>")
	s.file(t, "parts/b.ks", "<include(c.ks)>")
	s.file(t, "c.ks", "<include(a.ks)> \\<include(d.ks)>") // a circle is for whoever fills it in to find
	s.file(t, "other.ks", "x")
	all, err := s.p.Files("a.ks")
	if err != nil || len(all) != 3 || all["parts/b.ks"] != "<include(c.ks)>" {
		t.Fatalf("collected %q, %v", all, err)
	}
	to.file(t, "c.ks", all["c.ks"])
	undo, err := to.p.Add(all)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := to.p.Files("a.ks"); err != nil || !maps.Equal(got, all) {
		t.Errorf("added %q, %v", got, err)
	}
	undo()
	for name, there := range map[string]bool{"a.ks": false, "parts/b.ks": false, "c.ks": true} {
		if _, err := os.Stat(filepath.Join(to.dir, name)); (err == nil) != there {
			t.Errorf("after undoing, %s: %v", name, err)
		}
	}
	outside := t.TempDir()
	if err := os.Symlink(outside, filepath.Join(to.dir, "link")); err != nil {
		t.Fatal(err)
	}
	to.file(t, "differs.ks", "here")
	for name, text := range map[string]string{"../x.ks": "x", "/etc/x": "x", ".hidden": "x", "link/x.ks": "x", "differs.ks": "there", "nul.ks": "\x00", "big.ks": strings.Repeat("x", 1<<20+1)} {
		if _, err := to.p.Add(map[string]string{name: text, "fine.ks": "y"}); err == nil {
			t.Errorf("%s was added", name)
		}
		if _, err := os.Stat(filepath.Join(to.dir, "fine.ks")); err == nil {
			t.Errorf("beside %s, which was refused, another was added", name)
		}
	}
	if left, _ := os.ReadDir(outside); len(left) != 0 {
		t.Errorf("written outside: %v", left)
	}
	s.file(t, "gone.ks", "<include(nowhere.ks)>")
	if _, err := s.p.Files("gone.ks"); err == nil || !strings.Contains(err.Error(), "nowhere.ks") {
		t.Errorf("an included file that is not there: %v", err)
	}
}
