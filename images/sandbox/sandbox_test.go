package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestMain is also the program that TestKilled kills.
func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == "victim" {
		fmt.Println(victim(os.Args[2], os.Args[3]))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// victim does what is worst to be killed in.
func victim(parent, word string) error {
	dir, _, err := Work(parent, "work-")
	if err != nil {
		return err
	}
	return Private(func() error {
		l, err := Overlay(dir, "/usr")
		if err != nil {
			return err
		}
		script := "setsid sleep " + word + " & echo ready; sleep " + word
		return Run(context.Background(), l.Root, Command{Argv: []string{"sh", "-c", script}, Bare: true, Env: []string{"PATH=" + os.Getenv("PATH")}, Stdout: os.Stdout})
	})
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

// A program that is killed leaves nothing running and nothing mounted, and its
// directory goes with the next one.
func TestKilled(t *testing.T) {
	needRoot(t)
	parent, word := t.TempDir(), fmt.Sprintf("9%d", time.Now().UnixNano())
	cmd := exec.Command(os.Args[0], "victim", parent, word)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := make([]byte, 6)
	if _, err := io.ReadFull(out, said); err != nil || string(said) != "ready\n" {
		rest, _ := io.ReadAll(out)
		t.Fatalf("%q %s, %v", said, rest, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	// Its pipe ends when the last of its programs has.
	if rest, err := io.ReadAll(out); err != nil || len(rest) > 0 {
		t.Errorf("%q, %v", rest, err)
	}
	_ = cmd.Wait() // killed
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, name := range all {
		if raw, err := os.ReadFile(name); err == nil && bytes.Contains(raw, []byte(word)) && !bytes.Contains(raw, []byte("victim")) {
			t.Errorf("%s still runs", raw)
		}
	}
	left, err := os.ReadDir(parent)
	if err != nil || len(left) != 1 {
		t.Fatalf("%v, %v", left, err)
	}
	old := time.Now().Add(-2 * young)
	if err := os.Chtimes(filepath.Join(parent, left[0].Name()), old, old); err != nil {
		t.Fatal(err)
	}
	dir, remove, err := Work(parent, "work-")
	if err != nil {
		t.Fatal(err)
	}
	if now, _ := os.ReadDir(parent); len(now) != 1 || filepath.Join(parent, now[0].Name()) != dir {
		t.Errorf("left: %v", now)
	}
	if _, err := Lock(dir); !errors.Is(err, ErrLocked) {
		t.Errorf("a lock of what is in use: %v", err)
	}
	if err := remove(); err != nil {
		t.Error(err)
	}
}

// What a root has in place of the directories that are mounted at, or of the
// resolvers, leads nowhere else.
func TestPoints(t *testing.T) {
	needRoot(t)
	for _, c := range []struct{ link, target, want string }{
		{"dev", "/etc", "no directory"}, {"run", "../../../etc", "no directory"}, {"etc/resolv.conf", "/etc/passwd", ""}, {"etc/resolv.conf", "../run/resolve/stub.conf", ""},
	} {
		root := t.TempDir()
		if err := os.Mkdir(filepath.Join(root, "etc"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(c.target, filepath.Join(root, c.link)); err != nil {
			t.Fatal(err)
		}
		before, err := os.ReadDir(root)
		if err != nil {
			t.Fatal(err)
		}
		err = Private(func() error {
			script := `test "$(cat /etc/passwd)" != "$(cat /etc/resolv.conf)"; if [ "$1" = stub ]; then cat "$2/run/resolve/stub.conf" >/dev/null; fi`
			kind := ""
			if strings.Contains(c.target, "stub") {
				kind = "stub"
			}
			return Run(context.Background(), root, Command{Argv: []string{"sh", "-ec", script, "x", kind, root}, Outside: true, Env: []string{"PATH=" + os.Getenv("PATH")}})
		})
		if (err == nil) != (c.want == "") || (err != nil && !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v", c.link, err)
		}
		if after, _ := os.ReadDir(root); len(after) != len(before) {
			t.Errorf("%s: the root has %v now", c.link, after)
		}
	}
}
