package lab

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func testLog(t *testing.T) *slog.Logger { return slog.New(slog.NewTextHandler(t.Output(), nil)) }

func TestCache(t *testing.T) {
	c := cache{dir: filepath.Join(t.TempDir(), "cache"), log: testLog(t)}
	made := 0
	build := func(_ context.Context, dir string) error {
		made++
		return os.WriteFile(filepath.Join(dir, "file"), []byte("whole"), 0o644)
	}
	failed := errors.New("mirror not reachable")
	_, err := c.entry(t.Context(), "thing", "1", func(_ context.Context, dir string) error {
		return errors.Join(failed, os.WriteFile(filepath.Join(dir, "file"), []byte("half"), 0o644))
	})
	if !errors.Is(err, failed) {
		t.Fatalf("a failed build gives %v", err)
	}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			dir, err := c.entry(t.Context(), "thing", "1", build)
			if got, _ := os.ReadFile(filepath.Join(dir, "file")); err != nil || string(got) != "whole" {
				t.Errorf("the entry has %q, %v", got, err)
			}
		})
	}
	all.Wait()
	if made != 1 {
		t.Errorf("four that wanted the same made it %d times", made)
	}
	first, _ := c.entry(t.Context(), "thing", "1", build)
	long := time.Now().Add(-2 * unusedFor)
	if err := os.Chtimes(first, long, long); err != nil {
		t.Fatal(err)
	}
	second, err := c.entry(t.Context(), "thing", "2", build)
	if err != nil || second == first || made != 2 {
		t.Fatalf("another recipe gives %s after %s, made %d, %v", second, first, made, err)
	}
	if _, err := os.Stat(first); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an entry of an old recipe that nobody used stays: %v", err)
	}
}

func TestCacheWaitEnds(t *testing.T) {
	c := cache{dir: t.TempDir(), log: testLog(t)}
	unlock, err := c.lock(t.Context(), "thing")
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.lock(ctx, "thing"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting for the lock ends with %v", err)
	}
}

func TestQEMU(t *testing.T) {
	spec := Spec{Name: "m", MAC: "52:54:00:00:00:01", Card: "virtio-net-pci", Memory: 512, CPUs: 2}
	with := func(change func(*Spec)) Spec { s := spec; change(&s); return s }
	for _, c := range []struct {
		name    string
		spec    Spec
		files   files
		has     string
		hasNot  string
		refused bool
	}{
		{name: "BIOS", spec: spec, files: files{tap: "tap1", accel: "tcg"},
			has: "-machine pc,graphics=off", hasNot: "pflash"},
		{name: "its own ROM", spec: spec, files: files{tap: "tap1"}, has: "mac=52:54:00:00:00:01,bootindex=1", hasNot: "romfile"},
		{name: "UEFI", spec: with(func(s *Spec) { s.Firmware = UEFI }), files: files{vars: "/v"}, has: "unit=1,file=/v"},
		{name: "PXE", spec: with(func(s *Spec) { s.Firmware, s.Boot = UEFI, PXE }), files: files{tap: "tap1"}, has: ",romfile=", hasNot: "IPv4PXESupport"},
		{name: "HTTP", spec: with(func(s *Spec) { s.Firmware, s.Boot = UEFI, HTTPBoot }), files: files{tap: "tap1"}, has: "IPv4PXESupport,string=n"},
		{name: "KVM", spec: spec, files: files{accel: "kvm"}, has: "-accel kvm -cpu host", hasNot: "tcg"},
		{name: "disk", spec: spec, files: files{disk: "/d"}, has: "file=/d -device virtio-blk-pci,drive=disk,bootindex=2"},
		{name: "CD", spec: with(func(s *Spec) { s.CDROM = "/c.iso" }), files: files{tap: "tap1"}, has: "file=/c.iso -device ide-cd,drive=cd,bootindex=0", hasNot: "bootindex=1"},
		{name: "kernel", spec: with(func(s *Spec) { s.Kernel, s.Cmdline = "/k", "a b,c" }), has: "-kernel /k -append a b,c"},
		{name: "PXE of a BIOS", spec: with(func(s *Spec) { s.Boot = PXE }), refused: true},
		{name: "another option in a name", spec: with(func(s *Spec) { s.Card = "e1000,romfile=" }), refused: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			args, err := qemu(c.spec, c.files)
			if (err != nil) != c.refused {
				t.Fatalf("error is %v", err)
			}
			line := strings.Join(args, " ")
			if !strings.Contains(line, c.has) || c.hasNot != "" && strings.Contains(line, c.hasNot) {
				t.Errorf("%q has not %q or has %q", line, c.has, c.hasNot)
			}
		})
	}
}

func TestConsole(t *testing.T) {
	c, err := newConsole(filepath.Join(t.TempDir(), "console"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	found := make(chan string)
	go func() {
		word, err := c.WaitFor(t.Context(), 0, "panic", "login:")
		if err != nil {
			t.Error(err)
		}
		found <- word
	}()
	for _, part := range []string{"\x1b[2J\x1b[1;1Hbooting\r\n", "n0 log", "in: "} {
		if _, err := c.Write([]byte(part)); err != nil {
			t.Fatal(err)
		}
	}
	if word := <-found; word != "login:" {
		t.Errorf("found %q", word)
	}
	if got := c.Tail(2); got != "booting\nn0 login:" {
		t.Errorf("tail is %q", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.WaitFor(ctx, c.Mark(), "login:"); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting for what was said before the mark ends with %v", err)
	}
}

func TestRunInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	ready := filepath.Join(t.TempDir(), "ready")
	go func() {
		defer cancel()
		for t.Context().Err() == nil {
			if _, err := os.Stat(ready); err == nil {
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
	begin := time.Now()
	err := run(ctx, "sh", "-c", `touch "$0"; sleep 60`, ready)
	if !errors.Is(err, context.Canceled) || time.Since(begin) > 9*time.Second {
		t.Errorf("an interrupted command ends with %v after %s", err, time.Since(begin))
	}
	_, err = output(t.Context(), exec.Command("sh", "-c", "echo no such thing >&2; exit 3"))
	if failed, ok := errors.AsType[*CommandError](err); !ok || failed.Status() != 3 || failed.Stderr != "no such thing" {
		t.Errorf("a failed command gives %v", err)
	}
}

func network(t *testing.T) *Network {
	if os.Geteuid() != 0 {
		t.Skip("a network namespace needs root")
	}
	n, err := NewNetwork(t.Context(), testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// TestNetwork serves HTTP inside of the network, where the host has no way to.
func TestNetwork(t *testing.T) {
	n := network(t)
	if _, err := n.Tap(t.Context()); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "serve")
	if err := os.WriteFile(filepath.Join(dir, "serve.go"), []byte(`package main
import ("fmt"; "net"; "net/http")
func main() {
	l, err := net.Listen("tcp", "10.77.0.1:80")
	if err != nil { panic(err) }
	fmt.Println("ready")
	panic(http.Serve(l, http.FileServer(http.Dir("/nowhere"))))
}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("go", "build", "-o", program, filepath.Join(dir, "serve.go")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	server := n.Command(program)
	stdout, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p, err := start(server)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stdout.Read(make([]byte, 16)); err != nil {
		t.Fatal(err)
	}
	resp, err := n.HTTPClient().Get("http://10.77.0.1/")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusNotFound {
		t.Errorf("the server inside answers %s", resp.Status)
	}
	if _, err := os.Stat("/sys/class/net/" + Bridge); err == nil {
		t.Errorf("%s is on the host", Bridge)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if <-p.done; p.err == nil {
		t.Error("the server inside outlived the network")
	}
}

// TestSweep leaves a network as a killed run does, and a living one beside it.
func TestSweep(t *testing.T) {
	living, dead := network(t), network(t)
	p, err := start(dead.Command("sleep", "600"))
	if err != nil {
		t.Fatal(err)
	}
	files, err := dead.workDir()
	if err != nil {
		t.Fatal(err)
	}
	beside := func(n *Network) string {
		name := n.Name + "-node"
		t.Cleanup(func() { _ = removeNamespace(name) })
		if err := run(t.Context(), "ip", "netns", "add", name); err != nil {
			t.Fatal(err)
		}
		return name
	}
	stays, goes := beside(living), beside(dead)
	dead.lock.Close() // as the kernel does when the owner is killed
	if err := Sweep(testLog(t)); err != nil {
		t.Fatal(err)
	}
	<-p.done
	out, err := output(t.Context(), exec.Command("ip", "netns", "list"))
	if err != nil {
		t.Fatal(err)
	}
	names := strings.Fields(out)
	for name, want := range map[string]bool{living.Name: true, stays: true, dead.Name: false, goes: false} {
		if slices.Contains(names, name) != want {
			t.Errorf("%s: left is %v, wanted %v", name, !want, want)
		}
	}
	if _, err := os.Stat(files); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the killed run's files stay: %v", err)
	}
	dead.lock = nil
}
