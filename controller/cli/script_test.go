package cli_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"muster/controller/app"
	"muster/controller/cli"
)

// TestMain makes this program the commands `muster.bin` and `head.bin` inside of
// scripts.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"head.bin": serveHead,
		"muster.bin": func() {
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
			defer stop()
			env := cli.Env{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv, Version: "v1.2.3-test"}
			os.Exit(cli.Main(ctx, env, os.Args[1:]))
		},
	})
}

// TestScripts runs testdata/*.txtar, each against a head of its own. In them
// `muster` runs inside of this process, which is quick, and `exec muster.bin` as a
// program; the scripts' own commands are in commands_test.go.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",

		RequireUniqueNames: true,
		Setup: func(env *testscript.Env) error {
			h := startHead(t, env.Defer)
			env.Setenv("MUSTER_DATA", h.data)
			env.Setenv("DATA", h.data)
			env.Setenv("HTTP", h.HTTP)
			env.Setenv("HTTPS", h.HTTPS)
			env.Setenv("HOME", filepath.Join(env.WorkDir, "home"))
			env.Setenv("TMPDIR", env.WorkDir)
			env.Values["head"] = h
			return nil
		},
		Condition: func(cond string) (bool, error) {
			if cond != "root" {
				return false, fmt.Errorf("unknown condition %q", cond)
			}
			return os.Geteuid() == 0, nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"muster": musterCommand, "agent": agentCommand, "fingerprint": fingerprintCommand,
			"readfile": readfileCommand, "sshagent": sshagentCommand,
		},
	})
}

// head is one that runs in this process.
type head struct {
	data        string
	HTTP, HTTPS string
}

func startHead(t testing.TB, atEnd func(func())) *head {
	t.Helper()
	// The login socket's path must be short.
	data, err := os.MkdirTemp("", "muster")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cfg := app.Defaults()
	cfg.Data, cfg.HTTP, cfg.HTTPS, cfg.Name = data, "127.0.0.1:0", "127.0.0.1:0", "testhead"
	h, err := app.New(ctx, cfg, slog.New(slog.NewTextHandler(io.Discard, nil)), &slog.LevelVar{}, "test")
	if err != nil {
		t.Fatal(err)
	}
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- h.Run(ctx, func() { close(ready) }) }()
	atEnd(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the head ended with %v", err)
		}
		os.RemoveAll(data)
	})
	select {
	case <-ready:
	case err := <-done:
		done <- err
		t.Fatal("the head did not start: ", err)
	case <-time.After(time.Minute):
		t.Fatal("the head does not become ready")
	}
	out := &head{data: data}
	raw, err := os.ReadFile(filepath.Join(data, "head.json"))
	if err == nil {
		err = json.Unmarshal(raw, out)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}
