package app

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"muster/controller/library"
)

// digestBut asks as machines that boot do, until the answer is another one.
func digestBut(t *testing.T, a *agentArchive, not string) string {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if sum, err := a.digest(); err == nil && sum != not {
			return sum
		}
	}
	_, err := a.digest()
	t.Fatalf("no other archive of the agent: %v", err)
	return ""
}

// staticProgram is the content of one, as small as it can be.
func staticProgram(t *testing.T) []byte {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte("package main\n\nfunc main() {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "build", "-o", "program", "main.go")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	content, err := os.ReadFile(filepath.Join(dir, "program"))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// An agent that is installed or replaced while the head runs is what machines
// get from then on.
func TestAgentIsReplaced(t *testing.T) {
	dir := t.TempDir()
	blobs, err := library.OpenBlobs(filepath.Join(dir, "files"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "muster-agent")
	a := newAgentArchive(program, blobs, dir, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.run(ctx) }()
	install := func(content string) {
		t.Helper()
		if err := os.WriteFile(program+".new", []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(program+".new", program); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		if _, err := a.digest(); strings.Contains(err.Error(), "missing") {
			break
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	self := staticProgram(t)
	install(string(self))
	first := digestBut(t, a, "")
	install(string(self) + "a newer build")
	second := digestBut(t, a, first)
	if err := os.Remove(program); err != nil {
		t.Fatal(err)
	}
	if sum, err := a.digest(); err != nil || sum != second {
		t.Errorf("without the program: %q, %v, want the archive of the last one", sum, err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if again := newAgentArchive(program, blobs, dir, a.log); again.recall() {
		t.Error("an archive of a program that is not there is taken at the next start")
	}
}
