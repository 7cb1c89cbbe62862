package cli_test

import (
	"bytes"
	"context"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"muster/controller/cli"
)

// TestShell: a terminal on a node has this one's size, follows it, takes what
// is typed, ends with the status of what ran in it, and leaves the terminal as
// it was.
func TestShell(t *testing.T) {
	h := startHead(t, func(fn func()) { t.Cleanup(fn) })
	getenv := func(name string) string {
		return map[string]string{"MUSTER_DATA": h.data, "TERM": "vt100"}[name]
	}
	run := func(in io.Reader, out io.Writer, args ...string) int {
		return cli.Main(t.Context(), cli.Env{Stdin: in, Stdout: out, Stderr: os.Stderr, Getenv: getenv}, args)
	}
	for _, line := range []string{"net create lab --first-ip 127.66.1.10 --ip-count 5 --mask-bits 24", "node create --mac 52:54:00:00:00:01"} {
		if run(strings.NewReader(""), io.Discard, strings.Fields(line)...) != 0 {
			t.Fatal(line)
		}
	}
	stop, err := startAgent(h.HTTP, "127.66.1.10")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	outer, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer outer.Close()
	defer tty.Close()
	if err := pty.Setsize(outer, &pty.Winsize{Rows: 33, Cols: 77}); err != nil {
		t.Fatal(err)
	}
	before, err := term.GetState(int(tty.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	screen := &screen{changed: make(chan struct{}, 1)}
	go io.Copy(screen, outer)
	done := make(chan int, 1)
	go func() { done <- run(tty, tty, "shell", "n0") }()

	outer.WriteString("stty size; echo $TERM\n")
	screen.await(t, "33 77")
	screen.await(t, "vt100")
	if err := pty.Setsize(outer, &pty.Winsize{Rows: 44, Cols: 99}); err != nil {
		t.Fatal(err)
	}
	unix.Kill(os.Getpid(), unix.SIGWINCH) // the test is not the terminal's own session
	outer.WriteString("until stty size | grep 44; do sleep 0.05; done; echo re''sized\n")
	screen.await(t, "44 99")
	screen.await(t, "resized")
	outer.WriteString("exit 5\n")
	select {
	case status := <-done:
		if status != 5 {
			t.Errorf("exit status %d, want 5", status)
		}
	case <-time.After(30 * time.Second):
		t.Fatalf("the shell does not end:\n%s", screen.text())
	}
	after, err := term.GetState(int(tty.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	if *before != *after {
		t.Error("the terminal is not as it was before")
	}
}

// screen is what a terminal has shown.
type screen struct {
	mu      sync.Mutex
	all     bytes.Buffer
	changed chan struct{}
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case s.changed <- struct{}{}:
	default:
	}
	return s.all.Write(p)
}

func (s *screen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all.String()
}

func (s *screen) await(t *testing.T, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for !strings.Contains(s.text(), text) {
		select {
		case <-s.changed:
		case <-ctx.Done():
			t.Fatalf("%q does not appear:\n%s", text, s.text())
		}
	}
}
