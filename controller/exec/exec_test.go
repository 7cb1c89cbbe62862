package exec_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"muster/controller/api"
	"muster/controller/api/apitest"
	"muster/controller/fleet/fleettest"
	"muster/shared/wire"
)

// agent plays the part of a node's agent for one stream.
type agent struct {
	net.Conn
	header wire.Header
	buf    []byte
}

func (a *agent) read() (wire.FrameKind, []byte, error) {
	if a.buf == nil {
		a.buf = make([]byte, wire.MaxFrame)
	}
	return wire.ReadFrame(a, a.buf)
}

// stdin reads the whole input.
func (a *agent) stdin() string {
	var all []byte
	for {
		kind, p, err := a.read()
		if err != nil || kind == wire.FrameStdin && len(p) == 0 {
			return string(all)
		}
		all = append(all, p...)
	}
}

func (a *agent) write(kind wire.FrameKind, p string) {
	for len(p) > wire.MaxFrame {
		wire.WriteFrame(a, kind, []byte(p[:wire.MaxFrame]))
		p = p[wire.MaxFrame:]
	}
	wire.WriteFrame(a, kind, []byte(p))
}

func (a *agent) exit(status int, why string) {
	p, _ := json.Marshal(wire.Exit{Status: status, Error: why})
	a.write(wire.FrameExit, string(p))
}

// start runs a head with node n0, whose agent is played by play.
func start(t *testing.T, play func(*agent)) (*fleettest.Head, *fleettest.Agent) {
	h := fleettest.Start(t, "")
	link := h.Link(h.Node(1), wire.Hello{InImage: true}, func(c net.Conn, header wire.Header) {
		play(&agent{Conn: c, header: header})
	})
	h.WaitState("n0", "up")
	return h, link
}

func put(ctx context.Context, h *fleettest.Head, body string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, "PUT", h.Server.URL+api.Root+"/node/n0/exec", strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	return h.Server.Client().Do(req)
}

func TestCommand(t *testing.T) {
	h, _ := start(t, func(a *agent) {
		in := a.stdin()
		a.write(wire.FrameStdout, in)
		a.write(wire.FrameStderr, "\x00\xff\r\n")
		x := a.header.Exec
		a.exit(3, strings.Join(append(x.Argv, x.Shell, x.By, fmt.Sprint(x.TTY)), "|"))
	})
	stdin := strings.Repeat("many bytes é\r\n\x00", 20_000)
	body, _ := json.Marshal(map[string]any{"cmd": "cat  'a b'", "stdin": stdin})
	resp, err := put(t.Context(), h, string(body))
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(resp.Body)
	if err != nil || string(got) != stdin+"\x00\xff\r\n" {
		t.Errorf("%d bytes came back of %d, %v", len(got), len(stdin), err)
	}
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "application/octet-stream" {
		t.Errorf("status %d, %v", resp.StatusCode, resp.Header)
	}
	if resp.Trailer.Get("X-Exit-Status") != "3" || resp.Trailer.Get("X-Exit-Error") != `"cat  'a b'|admin1|false"` {
		t.Errorf("trailer %v", resp.Trailer)
	}
	resp, err = put(t.Context(), h, `{"cmd":["echo","a b",""]}`)
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, resp.Body)
	if resp.Trailer.Get("X-Exit-Error") != `"echo|a b|||admin1|false"` {
		t.Errorf("trailer %v", resp.Trailer)
	}
}

// TestOutputComesAsItIsMade: the head holds nothing back. The agent goes on
// only when the client has what was sent so far.
func TestOutputComesAsItIsMade(t *testing.T) {
	next := make(chan bool)
	h, _ := start(t, func(a *agent) {
		for i := range 5 {
			a.write(wire.FrameStdout, fmt.Sprintln(i))
			<-next
		}
		a.exit(0, "")
	})
	resp, err := put(t.Context(), h, `{"cmd":"x"}`)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(resp.Body)
	for i := range 5 {
		if line, err := lines.ReadString('\n'); err != nil || line != fmt.Sprintln(i) {
			t.Fatalf("%q, %v", line, err)
		}
		next <- true
	}
	if rest, err := io.ReadAll(lines); err != nil || len(rest) > 0 || resp.Trailer.Get("X-Exit-Status") != "0" {
		t.Errorf("%q, %v, %v", rest, err, resp.Trailer)
	}
}

func TestNoOutput(t *testing.T) {
	h, _ := start(t, func(a *agent) { a.exit(0, "") })
	resp, err := put(t.Context(), h, `{"cmd":"true"}`)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil || len(body) > 0 || resp.Trailer.Get("X-Exit-Status") != "0" || resp.Trailer.Get("X-Exit-Error") != "" {
		t.Errorf("%q, %v, %v", body, err, resp.Trailer)
	}
}

// TestAbortEndsTheCommand: who hangs up takes the command with him.
func TestAbortEndsTheCommand(t *testing.T) {
	ended := make(chan error, 1)
	h, _ := start(t, func(a *agent) {
		a.stdin()
		a.write(wire.FrameStdout, "begun")
		_, _, err := a.read() // returns when the head closes the stream
		ended <- err
	})
	ctx, cancel := context.WithCancel(t.Context())
	resp, err := put(ctx, h, `{"cmd":"sleep 1000"}`)
	if err != nil {
		t.Fatal(err)
	}
	io.ReadFull(resp.Body, make([]byte, 5))
	cancel()
	if err := apitest.Receive(t, ended); err == nil {
		t.Error("the agent was sent something instead of the end")
	}
}

func TestTimeout(t *testing.T) {
	for name, output := range map[string]string{"with output": "begun", "without output": ""} {
		t.Run(name, func(t *testing.T) {
			ended := make(chan error, 1)
			h, _ := start(t, func(a *agent) {
				a.stdin()
				if output != "" {
					a.write(wire.FrameStdout, output)
				}
				_, _, err := a.read()
				ended <- err
			})
			resp, err := put(t.Context(), h, `{"cmd":"sleep 1000","timeout":0.3}`)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			if err != nil || string(body) != output || resp.Trailer.Get("X-Exit-Status") != "124" || !strings.Contains(resp.Trailer.Get("X-Exit-Error"), "0.3 s") {
				t.Errorf("%q, %v, header %v, trailer %v", body, err, resp.Header, resp.Trailer)
			}
			apitest.Receive(t, ended)
		})
	}
}

func TestRefusedBeforeAnythingIsSent(t *testing.T) {
	h, _ := start(t, func(a *agent) { t.Errorf("the agent was asked: %+v", a.header.Exec) })
	for _, body := range []string{``, `{}`, `[]`, `null`, `{"cmd":""}`, `{"cmd":"  \n"}`, `{"cmd":null}`, `{"cmd":5}`, `{"cmd":[]}`, `{"cmd":[""]}`, `{"cmd":[5]}`, `{"cmd":{}}`,
		`{"stdin":"x"}`, `{"cmd":"x","stdin":5}`, `{"cmd":"x","timeout":-1}`, `{"cmd":"x","timeout":"1"}`, `{"cmd":"x","timeout":1e300}`, `{"cmd":"x","nodes":"n1"}`, `{"cmd":"x","cmd":"y"}`} {
		h.Refused("PUT", "/node/n0/exec", body)
	}
	if reason := h.Refused("PUT", "/node/nobody/exec", `{"cmd":"x"}`); reason != "No node found for ID=nobody" {
		t.Error(reason)
	}
	h.Node(2)
	if reason := h.Refused("PUT", "/node/n1/exec", `{"cmd":"x"}`); reason != "The agent of node n1 is not connected; the node is unknown." {
		t.Error(reason)
	}
	h.Fleet.Stamp(h.Get("node/n1")["uid"].(string), wire.Step{Step: "image", Error: "no route"})
	if reason := h.Refused("PUT", "/node/n1/exec", `{"cmd":"x"}`); reason != "The agent of node n1 is not connected; the node is failed since 2030-01-01T00:00:00Z (image: no route)." {
		t.Error(reason)
	}
	h.Refused("GET", "/node/n0/shell", nil) // no websocket
	h.Refused("GET", "/node/n0/shell?rows=0", nil)
	h.Refused("GET", "/node/nobody/shell", nil)
}

// TestNodeVanishes: an answer that is not whole must not look as if it were.
func TestNodeVanishes(t *testing.T) {
	for name, vanish := range map[string]func(*fleettest.Agent, *agent){
		"the link is cut":             func(l *fleettest.Agent, _ *agent) { l.Socket.UnderlyingConn().Close() },
		"the session ends":            func(l *fleettest.Agent, _ *agent) { l.Session.Close() },
		"the stream ends":             func(_ *fleettest.Agent, a *agent) { a.Close() },
		"half a frame":                func(_ *fleettest.Agent, a *agent) { a.Conn.Write([]byte{1, 0, 0, 1, 0, 'x'}); a.Close() },
		"a frame that is too large":   func(_ *fleettest.Agent, a *agent) { a.Conn.Write([]byte{1, 0xff, 0xff, 0xff, 0xff, 'x'}) },
		"an exit that is no exit":     func(_ *fleettest.Agent, a *agent) { a.write(wire.FrameExit, "what?") },
		"an exit of the wrong shape":  func(_ *fleettest.Agent, a *agent) { a.write(wire.FrameExit, `{"status":"x"}`) },
		"frames that do not belong":   func(_ *fleettest.Agent, a *agent) { a.write(99, "x"); a.write(wire.FrameStdin, "y"); a.Close() },
		"an error instead of an exit": func(_ *fleettest.Agent, a *agent) { a.write(wire.FrameExit, "") },
	} {
		for _, begun := range []bool{true, false} {
			t.Run(fmt.Sprint(name, ", begun ", begun), func(t *testing.T) {
				t.Parallel()
				var link *fleettest.Agent
				read := make(chan bool)
				h, link := start(t, func(a *agent) {
					a.stdin()
					if begun {
						a.write(wire.FrameStdout, "output")
						<-read
					}
					vanish(link, a)
				})
				resp, err := put(t.Context(), h, `{"cmd":"x"}`)
				if err != nil {
					if begun {
						t.Fatal(err)
					}
					return
				}
				if begun {
					io.ReadFull(resp.Body, make([]byte, 6))
					read <- true
				}
				rest, err := io.ReadAll(resp.Body)
				if err == nil && resp.StatusCode < 400 {
					t.Errorf("status %d, %q, trailer %v: that looks complete", resp.StatusCode, rest, resp.Trailer)
				}
			})
		}
	}
}

func TestManyCommandsAtOnce(t *testing.T) {
	h, _ := start(t, func(a *agent) {
		a.write(wire.FrameStdout, a.stdin()+a.header.Exec.Shell)
		a.exit(0, "")
	})
	var all sync.WaitGroup
	for i := range 30 {
		all.Go(func() {
			in := strings.Repeat(fmt.Sprint(i), 3000)
			resp, err := put(t.Context(), h, fmt.Sprintf(`{"cmd":"c%d","stdin":%q}`, i, in))
			if err != nil {
				t.Error(err)
				return
			}
			body, err := io.ReadAll(resp.Body)
			if err != nil || string(body) != in+fmt.Sprint("c", i) || resp.Trailer.Get("X-Exit-Status") != "0" {
				t.Errorf("command %d: %d bytes, %v, %v", i, len(body), err, resp.Trailer)
			}
		})
	}
	all.Wait()
}

func shell(t *testing.T, h *fleettest.Head, query string) *websocket.Conn {
	ws, _, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(h.Server.URL, "http")+api.Root+"/node/n0/shell"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ws.Close() })
	ws.SetReadDeadline(time.Now().Add(20 * time.Second))
	return ws
}

func TestShell(t *testing.T) {
	h, _ := start(t, func(a *agent) {
		x := a.header.Exec
		a.write(wire.FrameStdout, fmt.Sprintf("%dx%d tty=%v login=%v %v|", x.Rows, x.Cols, x.TTY, x.Login, x.Env))
		for {
			kind, p, err := a.read()
			switch {
			case err != nil:
				return
			case kind == wire.FrameResize:
				a.write(wire.FrameStdout, fmt.Sprintf("resized to %dx%d|", binary.BigEndian.Uint16(p), binary.BigEndian.Uint16(p[2:])))
			case string(p) == "exit\r":
				a.exit(5, "")
				return
			default:
				a.write(wire.FrameStdout, string(p)+"|")
			}
		}
	})
	ws := shell(t, h, "?rows=40&cols=132&term=xterm")
	read := func(want string) {
		t.Helper()
		got := ""
		for len(got) < len(want) {
			kind, p, err := ws.ReadMessage()
			if err != nil || kind != websocket.BinaryMessage {
				t.Fatalf("%q so far, %d, %q, %v", got, kind, p, err)
			}
			got += string(p)
		}
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	read("40x132 tty=true login=true [TERM=xterm]|")
	ws.WriteMessage(websocket.BinaryMessage, []byte("\x00\x1b[A\xff"))
	read("\x00\x1b[A\xff|")
	ws.WriteMessage(websocket.BinaryMessage, nil) // no end of input
	ws.WriteMessage(websocket.TextMessage, []byte(`{"rows":24,"cols":80}`))
	read("resized to 24x80|")
	ws.WriteMessage(websocket.BinaryMessage, []byte("exit\r"))
	kind, p, err := ws.ReadMessage()
	if err != nil || kind != websocket.TextMessage || string(p) != `{"status":5}` {
		t.Errorf("at the end: %d, %q, %v", kind, p, err)
	}
	if _, _, err := ws.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
		t.Errorf("then: %v", err)
	}
}

// TestShellEnds: when one side goes, the other learns of it.
func TestShellEnds(t *testing.T) {
	ended := make(chan bool, 10)
	h, link := start(t, func(a *agent) {
		defer func() { ended <- true }()
		for {
			if _, _, err := a.read(); err != nil {
				return
			}
		}
	})
	ws := shell(t, h, "")
	ws.UnderlyingConn().Close()
	apitest.Receive(t, ended)
	for _, nonsense := range []string{`{"rows":0,"cols":0}`, `x`, `{"rows":70000,"cols":1}`, `[]`} {
		ws = shell(t, h, "?cmd=top")
		ws.WriteMessage(websocket.TextMessage, []byte(nonsense))
		apitest.Receive(t, ended)
	}
	ws = shell(t, h, "")
	ws.WriteMessage(websocket.BinaryMessage, make([]byte, 1<<20))
	apitest.Receive(t, ended)
	ws = shell(t, h, "")
	link.Session.Close()
	kind, p, err := ws.ReadMessage()
	if err != nil || kind != websocket.TextMessage || !strings.Contains(string(p), "broke off") {
		t.Errorf("the node has gone: %d, %q, %v", kind, p, err)
	}
}
