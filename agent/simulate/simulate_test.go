package simulate

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"muster/agent/headtest"
	"muster/shared/wire"
)

// Each agent comes from its own address, reports, and runs what it is told.
func TestAgents(t *testing.T) {
	h := headtest.New(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, Config{Head: h.HTTP, First: netip.MustParseAddr("127.71.0.254"), Count: 3, Version: "test", Log: slog.New(slog.DiscardHandler)})
	}()
	from := map[string]bool{}
	for range 3 {
		session := <-h.Sessions
		host, _, _ := strings.Cut(session.RemoteAddr().String(), ":")
		from[host] = true
		for cmd, want := range map[string]string{"echo  a b": "a b\n", "echo $((6*7))": "42\n", "false": ""} {
			stream, err := session.Open()
			if err != nil {
				t.Fatal(err)
			}
			wire.WriteHeader(stream, wire.Header{Type: wire.StreamExec, Exec: &wire.Exec{Shell: cmd}})
			wire.WriteFrame(stream, wire.FrameStdin, []byte("input"))
			wire.WriteFrame(stream, wire.FrameStdin, nil)
			out, exit := "", wire.Exit{Status: -1}
			for exit.Status < 0 {
				kind, p, err := wire.ReadFrame(stream, make([]byte, wire.MaxFrame))
				if err != nil {
					t.Fatal(cmd, err)
				}
				if kind == wire.FrameExit {
					if err := json.Unmarshal(p, &exit); err != nil {
						t.Fatal(err)
					}
				} else {
					out += string(p)
				}
			}
			if out != want || (exit.Status == 1) != (cmd == "false") {
				t.Errorf("%s: %q, %+v", cmd, out, exit)
			}
		}
	}
	for _, addr := range []string{"127.71.0.254", "127.71.0.255", "127.71.1.0"} {
		if !from[addr] {
			t.Errorf("no agent came from %s: %v", addr, from)
		}
	}
	h.WaitStatus(3)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
