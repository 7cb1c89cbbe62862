package cli_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"muster/controller/app"
)

// serveHead is the program `head.bin DATA`: a head, until it is killed. It says
// when it is ready.
func serveHead() {
	ctx := context.Background()
	cfg := app.Defaults()
	cfg.Data, cfg.HTTP, cfg.HTTPS, cfg.Name = os.Args[1], "127.0.0.1:0", "127.0.0.1:0", "testhead"
	h, err := app.New(ctx, cfg, slog.New(slog.NewTextHandler(io.Discard, nil)), &slog.LevelVar{}, "test")
	if err == nil {
		err = h.Run(ctx, func() { fmt.Println("ready") })
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// A head that is killed while a command runs on many nodes ends that for its
// admin, who learns where it had ended, and on the nodes.
func TestHeadKilled(t *testing.T) {
	dir, err := os.MkdirTemp("", "muster") // the login socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	head := exec.Command("head.bin", dir)
	head.Stderr, head.SysProcAttr = os.Stderr, &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	ready, err := head.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := head.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { head.Process.Kill(); head.Wait() })
	if _, err := bufio.NewReader(ready).ReadString('\n'); err != nil {
		t.Fatal("the head did not start: ", err)
	}
	muster := func(args ...string) *exec.Cmd {
		cmd := exec.Command("muster.bin", args...)
		cmd.Env = append(os.Environ(), "MUSTER_DATA="+dir, "HOME="+dir)
		return cmd
	}
	var at struct{ HTTP string }
	raw, err := os.ReadFile(filepath.Join(dir, "head.json"))
	if err == nil {
		err = json.Unmarshal(raw, &at)
	}
	if err != nil {
		t.Fatal(err)
	}
	const count = 12
	if out, err := muster("net", "create", "lab", "--first-ip", "127.68.0.10", "--ip-count", "20", "--mask-bits", "24").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for i := range count {
		if out, err := muster("node", "create", "--mac", fmt.Sprintf("52:54:00:00:01:%02x", i)).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		stop, err := startAgent(at.HTTP, fmt.Sprintf("127.68.0.%d", 10+i))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(stop) // and waits for the commands, which have ended if nothing is left of them
	}
	cmd := muster("exec", "--json", "-n", "n[0-11]", "--", `echo begun; if [ $NODE != n3 ]; then sleep 1000; fi`)
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	for range count + 1 { // each has begun, and n3 has ended
		if line, err := lines.ReadString('\n'); err != nil {
			t.Fatalf("%q, %v; %s", line, err, complaint.String())
		}
	}
	if err := head.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	rest, _ := io.ReadAll(lines)
	err = cmd.Wait()
	if cmd.ProcessState.ExitCode() != 1 || !strings.Contains(complaint.String(), "broke off") || !strings.Contains(complaint.String(), "n[0-2,4-11]: ") || len(rest) > 0 {
		t.Errorf("it ended with %v, %q and said:\n%s", err, rest, complaint.String())
	}
}
