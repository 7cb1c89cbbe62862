package exec_test

import (
	"net"
	"strings"
	"testing"
	"time"

	"muster/controller/fleet/fleettest"
	"muster/shared/wire"
)

// TestNobodyIsHeldUp has a node whose command floods, one that reads no input,
// and one that takes nothing from its connection any more: other commands, on
// the same nodes where their connections live, are answered meanwhile.
func TestNobodyIsHeldUp(t *testing.T) {
	flooding, stuck := make(chan struct{}, 1), make(chan struct{}, 1)
	h := startMany(t, 2, func(_ int, a *agent) {
		switch a.header.Exec.Shell {
		case "flood":
			for sent := 0; ; sent += wire.MaxFrame {
				if wire.WriteFrame(a, wire.FrameStdout, []byte(strings.Repeat("x", wire.MaxFrame))) != nil {
					return
				}
				if sent == 4<<20 {
					flooding <- struct{}{}
				}
			}
		case "stuck":
			stuck <- struct{}{}
			<-t.Context().Done()
		default:
			a.stdin()
			a.write(wire.FrameStdout, "here\n")
			a.exit(0, "")
		}
	})
	deaf(h)
	// The client of the flood reads nothing of it after the first line.
	next := stream(t, h, map[string]any{"nodes": "n0", "cmd": "flood", "max_output": 1 << 40})
	next()
	<-flooding
	stream(t, h, map[string]any{"nodes": "n1", "cmd": "stuck", "stdin": strings.Repeat("y", 4<<20)})
	<-stuck
	stream(t, h, map[string]any{"nodes": "n2", "cmd": "stuck", "stdin": strings.Repeat("y", 4<<20)})
	for range 20 {
		all := collect(t, stream(t, h, map[string]any{"nodes": "n[0-1]", "cmd": "echo", "timeout": 20}))
		for _, name := range []string{"n0", "n1"} {
			if r := all[name]; r == nil || r.out != "here\n" || r.status != 0 {
				t.Fatalf("%s: %+v", name, r)
			}
		}
	}
	all := collect(t, stream(t, h, map[string]any{"nodes": "n[0-2]", "cmd": "echo", "timeout": 1}))
	if r := all["n2"]; r == nil || r.why == "" || r.ends != 1 {
		t.Errorf("a node that takes nothing: %+v", r)
	}
}

// deaf makes node n2, linked and up, which reads nothing of its connection.
func deaf(h *fleettest.Head) {
	ws := h.Dial(h.Node(3))
	if tcp, ok := ws.NetConn().(*net.TCPConn); ok {
		tcp.SetReadBuffer(4 << 10)
	}
	if err := ws.WriteJSON(wire.Hello{InImage: true}); err != nil {
		h.Fatal(err)
	}
	h.WaitState("n2", "up")
	ws.SetReadDeadline(time.Now().Add(10 * time.Second))
	var hello wire.Hello
	if err := ws.ReadJSON(&hello); err != nil {
		h.Fatal(err)
	}
}
