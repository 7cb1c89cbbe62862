package command

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/yamux"

	"muster/shared/wire"
)

// streams gives both ends of a stream as agent and head have it.
func streams(t testing.TB) (agent, head net.Conn) {
	t.Helper()
	a, b := net.Pipe()
	cfg := yamux.DefaultConfig()
	cfg.LogOutput = io.Discard
	server, err := yamux.Server(a, cfg)
	if err != nil {
		t.Fatal(err)
	}
	client, err := yamux.Client(b, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	if head, err = client.Open(); err != nil {
		t.Fatal(err)
	}
	if agent, err = server.Accept(); err != nil {
		t.Fatal(err)
	}
	return agent, head
}

// started is a command under test, seen from the head.
type started struct {
	net.Conn
	served chan struct{} // closed when Serve has returned
}

func begin(t testing.TB, e wire.Exec) *started {
	t.Helper()
	agent, head := streams(t)
	s := &started{head, make(chan struct{})}
	r := New(slog.New(slog.DiscardHandler))
	go func() {
		defer close(s.served)
		r.Serve(context.Background(), agent, e)
	}()
	return s
}

type result struct {
	stdout, stderr []byte
	exit           wire.Exit
}

// finish reads to the exit frame.
func (s *started) finish(t testing.TB) result {
	t.Helper()
	var res result
	buf := make([]byte, wire.MaxFrame)
	s.SetReadDeadline(time.Now().Add(20 * time.Second))
	for {
		kind, payload, err := wire.ReadFrame(s, buf)
		if err != nil {
			t.Fatalf("before an exit frame: %v (stdout %q, stderr %q)", err, res.stdout, res.stderr)
		}
		switch kind {
		case wire.FrameStdout:
			res.stdout = append(res.stdout, payload...)
		case wire.FrameStderr:
			res.stderr = append(res.stderr, payload...)
		case wire.FrameExit:
			if err := json.Unmarshal(payload, &res.exit); err != nil {
				t.Fatal(err)
			}
			if _, _, err := wire.ReadFrame(s, buf); err != io.EOF {
				t.Fatalf("after the exit frame: %v, want EOF", err)
			}
			s.Close()
			<-s.served
			return res
		}
	}
}

func run(t testing.TB, e wire.Exec, stdin string) result {
	t.Helper()
	s := begin(t, e)
	go func() { // fails when the command ends before it has read everything
		for in := []byte(stdin); len(in) > 0; {
			n := min(len(in), wire.MaxFrame)
			if wire.WriteFrame(s, wire.FrameStdin, in[:n]) != nil {
				return
			}
			in = in[n:]
		}
		wire.WriteFrame(s, wire.FrameStdin, nil)
	}()
	return s.finish(t)
}

func TestStatus(t *testing.T) {
	script := filepath.Join(t.TempDir(), "plain")
	os.WriteFile(script, []byte("#!/bin/sh\n"), 0o644)
	for _, tc := range []struct {
		name   string
		exec   wire.Exec
		status int
		err    string
	}{
		{"true", wire.Exec{Argv: []string{"true"}}, 0, ""},
		{"exit 7", wire.Exec{Shell: "exit 7"}, 7, ""},
		{"TERM", wire.Exec{Shell: "kill -TERM $$"}, 128 + 15, ""},
		{"KILL", wire.Exec{Argv: []string{"sh", "-c", "kill -9 $$"}}, 128 + 9, ""},
		{"shell finds nothing", wire.Exec{Shell: "no-such-command"}, 127, ""},
		{"missing", wire.Exec{Argv: []string{"no-such-command"}}, 127, "no-such-command"},
		{"missing path", wire.Exec{Argv: []string{"/nowhere/x"}}, 127, "/nowhere/x"},
		{"not executable", wire.Exec{Argv: []string{script}}, 126, "permission denied"},
		{"directory", wire.Exec{Argv: []string{"/tmp"}}, 126, "directory"},
		{"nothing", wire.Exec{}, 126, "no command"},
		{"both", wire.Exec{Shell: "true", Argv: []string{"true"}}, 126, "exactly one"},
		{"too long argument", wire.Exec{Argv: []string{"true", strings.Repeat("x", 200<<10)}}, 126, "too long"},
		{"bad environment", wire.Exec{Shell: "true", Env: []string{"=x"}}, 126, "NAME=value"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := run(t, tc.exec, "").exit
			if got.Status != tc.status || (tc.err == "") != (got.Error == "") || !strings.Contains(got.Error, tc.err) {
				t.Errorf("got %+v, want status %d and an error with %q", got, tc.status, tc.err)
			}
		})
	}
}

func TestBytes(t *testing.T) {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	in := bytes.Repeat(all, 4096) // 1 MiB, more than any buffer on the way
	got := run(t, wire.Exec{Shell: `echo "to stderr" >&2; cat`}, string(in))
	if !bytes.Equal(got.stdout, in) {
		t.Errorf("cat gave %d bytes back of %d, or different ones", len(got.stdout), len(in))
	}
	if string(got.stderr) != "to stderr\n" {
		t.Errorf("stderr %q", got.stderr)
	}
}

func TestLongShellCommand(t *testing.T) {
	got := run(t, wire.Exec{Shell: "# " + strings.Repeat("x", 1<<20) + "\ncat; echo end"}, "input\n")
	if string(got.stdout) != "input\nend\n" || got.exit.Status != 0 {
		t.Errorf("got %q, %+v", got.stdout, got.exit)
	}
}

func TestEnvironment(t *testing.T) {
	t.Setenv("LEAKED", "from the agent")
	got := string(run(t, wire.Exec{Shell: "env; pwd", Env: []string{"GREETING=hello world", "USER=other"}}, "").stdout)
	for _, want := range []string{"PATH=" + searchPath, "HOME=/root", "GREETING=hello world", "USER=other", "\n/root\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in:\n%s", want, got)
		}
	}
	if strings.Contains(got, "LEAKED") || strings.Contains(got, "USER=root") {
		t.Errorf("too much in:\n%s", got)
	}
}

func TestOutputStreams(t *testing.T) {
	s := begin(t, wire.Exec{Shell: "echo one; read x; echo $x"})
	buf := make([]byte, wire.MaxFrame)
	if _, p, err := wire.ReadFrame(s, buf); err != nil || string(p) != "one\n" {
		t.Fatalf("first line while the command runs: %q, %v", p, err)
	}
	wire.WriteFrame(s, wire.FrameStdin, []byte("two\n"))
	if got := s.finish(t); string(got.stdout) != "two\n" {
		t.Errorf("got %q", got.stdout)
	}
}

// A child left behind holds the pipes open; the command has ended all the same,
// and all that it wrote itself arrives.
func TestBackgroundChild(t *testing.T) {
	began := time.Now()
	got := run(t, wire.Exec{Shell: "sleep 30 & echo $!; head -c 60000 /dev/zero; exit 3"}, "")
	if time.Since(began) > 10*time.Second {
		t.Error("waited for the background child")
	}
	pid, zeros, _ := bytes.Cut(got.stdout, []byte("\n"))
	if got.exit.Status != 3 || len(zeros) != 60000 {
		t.Errorf("status %d and %d bytes, want 3 and 60000", got.exit.Status, len(zeros))
	}
	n, _ := strconv.Atoi(string(pid))
	if err := syscall.Kill(n, syscall.SIGKILL); err != nil {
		t.Errorf("the child did not outlive its command: %v", err)
	}
}

func TestUnreadInput(t *testing.T) {
	if got := run(t, wire.Exec{Shell: "exec <&-; sleep 0.1; exit 5"}, strings.Repeat("x", 3<<20)); got.exit.Status != 5 {
		t.Errorf("got %+v", got.exit)
	}
}

func TestPTY(t *testing.T) {
	s := begin(t, wire.Exec{Shell: "tty; stty size; read x; stty size; echo got $x", TTY: true, Rows: 24, Cols: 80})
	size := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, 50), 132)
	wire.WriteFrame(s, wire.FrameResize, size)
	wire.WriteFrame(s, wire.FrameStdin, []byte("typed\n"))
	got := s.finish(t)
	out := string(got.stdout)
	for _, want := range []string{"/dev/pts/", "50 132\r\n", "got typed\r\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in %q", want, out)
		}
	}
	if got.exit.Status != 0 {
		t.Errorf("got %+v", got.exit)
	}
}

func TestPTYInterruptAndEnd(t *testing.T) {
	s := begin(t, wire.Exec{Argv: []string{"cat"}, TTY: true})
	wire.WriteFrame(s, wire.FrameStdin, []byte("x\n"))
	seen := ""
	for buf := make([]byte, wire.MaxFrame); strings.Count(seen, "x") < 2; { // the terminal's echo and cat's output
		_, p, err := wire.ReadFrame(s, buf)
		if err != nil {
			t.Fatal(err)
		}
		seen += string(p)
	}
	wire.WriteFrame(s, wire.FrameStdin, []byte{3})
	if got := s.finish(t); got.exit.Status != 130 {
		t.Errorf("^C gave %+v, want 130", got.exit)
	}
	if got := run(t, wire.Exec{Shell: "cat", TTY: true}, ""); got.exit.Status != 0 {
		t.Errorf("end of input on a pty gave %+v", got.exit)
	}
}

// A daemon that keeps the terminal open does not keep the command.
func TestPTYBackgroundChild(t *testing.T) {
	began := time.Now()
	got := run(t, wire.Exec{Shell: "trap '' HUP; setsid sleep 30 & echo $!; exit 4", TTY: true}, "")
	if time.Since(began) > 10*time.Second || got.exit.Status != 4 {
		t.Errorf("%+v after %v", got.exit, time.Since(began))
	}
	if pid, err := strconv.Atoi(strings.TrimSpace(string(got.stdout))); err == nil {
		syscall.Kill(pid, syscall.SIGKILL)
	}
}

// TestLogin reads no profile of whoever tests, which may do anything.
func TestLogin(t *testing.T) {
	got := run(t, wire.Exec{Login: true, Env: []string{"TERM=dumb", "HOME=" + t.TempDir()}}, "echo I am $0\n")
	if !strings.Contains(string(got.stdout), "I am -") {
		t.Errorf("not a login shell: %q %q", got.stdout, got.stderr)
	}
}

// alive says whether a process runs, zombies aside.
func alive(pid int) bool {
	s, ok := readStat(pid)
	return ok && s.state != 'Z'
}

func TestAbortKillsEverything(t *testing.T) {
	for name, shell := range map[string]string{
		"children":            "sleep 60 & echo $!; sleep 60",
		"own session":         "setsid sleep 60 & echo $!; wait",
		"daemon":              "(setsid sh -c 'echo $$; exec sleep 60' &); sleep 60",
		"deaf":                "trap '' HUP TERM; sh -c \"trap '' HUP TERM; echo \\$\\$; while :; do sleep 1; done\"",
		"stopped":             "sleep 60 & echo $!; kill -STOP $!; wait",
		"flood":               "sleep 60 & echo $!; cat /dev/zero",
		"without environment": "env -i sleep 60 & echo $!; wait",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := begin(t, wire.Exec{Shell: shell})
			buf := make([]byte, wire.MaxFrame)
			_, p, err := wire.ReadFrame(s, buf)
			if err != nil {
				t.Fatal(err)
			}
			line, _, _ := bytes.Cut(p, []byte("\n"))
			pid, err := strconv.Atoi(string(line))
			if err != nil || !alive(pid) {
				t.Fatalf("%q: %v", p, err)
			}
			// Input that nobody reads must not hide the end of the stream.
			for range 3 {
				wire.WriteFrame(s, wire.FrameStdin, make([]byte, wire.MaxFrame))
			}
			s.Close()
			select {
			case <-s.served:
			case <-time.After(10 * time.Second):
				t.Fatal("Serve goes on after the stream's end")
			}
			if alive(pid) {
				t.Error("a descendant survived")
			}
		})
	}
}

func TestCancelKills(t *testing.T) {
	agent, head := streams(t)
	ctx, cancel := context.WithCancelCause(context.Background())
	served := make(chan struct{})
	go func() {
		defer close(served)
		New(slog.New(slog.DiscardHandler)).Serve(ctx, agent, wire.Exec{Shell: "echo; sleep 60"})
	}()
	wire.ReadFrame(head, make([]byte, wire.MaxFrame))
	cancel(errors.New("shutting down"))
	<-served
}

// A reader that does not read holds the command up, not the node's memory.
func TestSlowReader(t *testing.T) {
	s := begin(t, wire.Exec{Shell: "cat /dev/zero & cat /dev/zero >&2; wait"})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	time.Sleep(500 * time.Millisecond) // long enough to fill gigabytes, were it unbounded
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 2<<20 {
		t.Errorf("grew by %d bytes", grown)
	}
	s.Close()
	<-s.served
}

func TestTooMany(t *testing.T) {
	agent, head := streams(t)
	r := New(slog.New(slog.DiscardHandler))
	for range MaxCommands {
		r.slots <- struct{}{}
	}
	go r.Serve(context.Background(), agent, wire.Exec{Shell: "true"})
	s := &started{head, make(chan struct{})}
	close(s.served)
	if got := s.finish(t); got.exit.Status != 126 || !strings.Contains(got.exit.Error, "256") {
		t.Errorf("got %+v", got.exit)
	}
}

func TestReapLeavesOwnChildren(t *testing.T) {
	r := New(slog.New(slog.DiscardHandler))
	stop := make(chan struct{})
	reaped := make(chan struct{})
	go func() {
		defer close(reaped)
		for {
			select {
			case <-stop:
				return
			default:
				r.Reap()
			}
		}
	}()
	for i := range 20 {
		agent, head := streams(t)
		s := &started{head, make(chan struct{})}
		go func() {
			defer close(s.served)
			r.Serve(context.Background(), agent, wire.Exec{Shell: fmt.Sprint("exit ", i)})
		}()
		if got := s.finish(t); got.exit.Status != i {
			t.Errorf("got %+v, want status %d", got.exit, i)
		}
	}
	close(stop)
	<-reaped
}

// FuzzFrames: whatever comes on a stream, Serve ends and leaves no process.
func FuzzFrames(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte("\x00\x00\x00\x00\x03abc\x00\x00\x00\x00\x00"))
	f.Add([]byte("\x04\x00\x00\x00\x04\x00\x10\x00\x20"))
	f.Add([]byte("\x04\x00\x00\x00\x01\x00"))
	f.Add([]byte("\x00\xff\xff\xff\xff"))
	f.Add([]byte("\x09\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		agent, head := net.Pipe()
		go io.Copy(io.Discard, head)
		go func() {
			head.Write(data)
			head.Close()
		}()
		New(slog.New(slog.DiscardHandler)).Serve(context.Background(), agent, wire.Exec{Argv: []string{"cat"}})
	})
}

func FuzzStat(f *testing.F) {
	f.Add([]byte("1 (a) b) S 0 1 1 0"))
	f.Add([]byte("1 (x S"))
	f.Fuzz(func(t *testing.T, raw []byte) { parseStat(1, raw) })
}
