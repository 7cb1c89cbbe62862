package attributes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"muster/shared/wire"
)

func attributes(values string) wire.Attributes {
	a := wire.Attributes{UID: "u", Name: "n0"}
	if err := json.Unmarshal([]byte(values), &a.Values); err != nil {
		panic(err)
	}
	return a
}

func TestFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	changes := 0
	k := New(Config{Dir: dir, Log: slog.New(slog.DiscardHandler), Changed: func(map[string]json.RawMessage) { changes++ }})
	take := func(values string) (os.FileInfo, string) {
		t.Helper()
		if err := k.Take(t.Context(), attributes(values)); err != nil {
			t.Fatal(err)
		}
		fi, err := os.Stat(filepath.Join(dir, FileINI))
		if err != nil {
			t.Fatal(err)
		}
		text, _ := os.ReadFile(filepath.Join(dir, FileINI))
		return fi, string(text)
	}
	first, text := take(`{"role":"gpu node","n":3.50,"t":true,"evil":"x\n[node]\nname = other","semi":";x","empty":"","odd name":"x","a=b":"x"}`)
	want := "; written by muster-agent; other changes are lost\n[node]\nuid = u\nname = n0\n\n[attributes]\n" +
		"empty = \"\"\nevil = \"x\\n[node]\\nname = other\"\nn = 3.50\nrole = gpu node\nsemi = \";x\"\nt = true\n"
	if text != want {
		t.Errorf("got\n%s\nwant\n%s", text, want)
	}
	if first.Mode() != 0o600 {
		t.Errorf("the mode is %v", first.Mode())
	}
	var back wire.Attributes
	raw, _ := os.ReadFile(filepath.Join(dir, FileJSON))
	if err := json.Unmarshal(raw, &back); err != nil || string(back.Values["a=b"]) != `"x"` || string(back.Values["n"]) != "3.50" || back.Name != "n0" {
		t.Errorf("%s: %v", raw, err)
	}
	same, _ := take(`{"n":3.50,"role":"gpu node","t":true,"evil":"x\n[node]\nname = other","semi":";x","empty":"","odd name":"x","a=b":"x"}`)
	if !os.SameFile(first, same) || changes != 1 {
		t.Errorf("the same attributes were written anew, or told of: %d times", changes)
	}
	other, text := take(`{}`)
	if os.SameFile(first, other) || changes != 2 || !strings.HasSuffix(text, "[attributes]\n") {
		t.Errorf("after a change there is %s, told of %d times", text, changes)
	}
	if left, _ := filepath.Glob(dir + "/.*"); len(left) > 0 {
		t.Errorf("%v are left", left)
	}
}

// TestInitScripts has them run in order, once in a boot, when the first
// attributes are there, and one that fails.
func TestInitScripts(t *testing.T) {
	dir, site, vendor := t.TempDir(), t.TempDir(), t.TempDir()
	script := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	script(vendor+"/10-first", "echo vendor >> "+dir+"/out")
	script(site+"/10-first", `echo "site $MUSTER_NODE $(grep role "$MUSTER_ATTRIBUTES")" >> `+dir+"/out")
	script(vendor+"/20-fails", "echo 20 >> "+dir+"/out; exit 4")
	script(site+"/30-last", "echo 30 >> "+dir+"/out")
	script(site+"/.hidden", "echo hidden >> "+dir+"/out")
	failed := []string{}
	var last map[string]Result
	limits := map[time.Duration]bool{}
	start := func(boot string) {
		k := New(Config{Dir: dir, Log: slog.New(slog.DiscardHandler), Init: &Init{
			Dirs: []string{site, vendor, dir + "/none"}, BootID: boot, Log: slog.New(slog.DiscardHandler),
			Run: func(ctx context.Context, limit time.Duration, env []string, path string) error {
				limits[limit] = true
				cmd := exec.CommandContext(ctx, path)
				cmd.Env = append(env, "PATH=/bin:/usr/bin")
				return cmd.Run()
			},
			Told:   func(r map[string]Result) { last = r },
			Failed: func(name string, err error) { failed = append(failed, name+": "+err.Error()) },
		}})
		for range 2 {
			if err := k.Take(t.Context(), attributes(`{"role":"x","_init_secs":"7"}`)); err != nil {
				t.Fatal(err)
			}
		}
		k.Wait()
	}
	start("boot-1")
	start("boot-1") // the agent was restarted
	out, _ := os.ReadFile(dir + "/out")
	if got, want := string(out), "site n0 role = x\n20\n30\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if len(failed) != 1 || failed[0] != "20-fails: exit status 4" || len(limits) != 1 || !limits[7*time.Second] {
		t.Errorf("failed: %v, limits %v", failed, limits)
	}
	if last["10-first"].Status != "ok" || last["20-fails"].Status != "failed" || last["20-fails"].Error == "" || last["30-last"].Status != "ok" {
		t.Errorf("results %v", last)
	}
	start("boot-2")
	if out, _ := os.ReadFile(dir + "/out"); strings.Count(string(out), "30") != 2 {
		t.Errorf("after another boot: %s", out)
	}
}

func TestUnwritable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	k := New(Config{Dir: file, Log: slog.New(slog.DiscardHandler)})
	if err := k.Take(t.Context(), attributes(`{}`)); err == nil || !errors.Is(err, os.ErrExist) && !strings.Contains(err.Error(), "not a directory") {
		t.Errorf("into a file: %v", err)
	}
}

func FuzzINI(f *testing.F) {
	for _, s := range []string{`"x"`, `"a\nb"`, `" x"`, `5`, `true`, `"[x]"`, `"\u2028"`, `{}`, `x`} {
		f.Add("name", []byte(s))
	}
	f.Add("a\nb", []byte(`"x"`))
	f.Fuzz(func(t *testing.T, name string, raw []byte) {
		text := string(ini(wire.Attributes{UID: name, Name: name, Values: map[string]json.RawMessage{name: raw}}))
		if n := strings.Count(text, "\n"); n != 6 && n != 7 {
			t.Errorf("%q = %q makes %d lines: %s", name, raw, n, fmt.Sprint(text))
		}
	})
}
