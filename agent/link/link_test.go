package link

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/hashicorp/yamux"

	"muster/agent/command"
	"muster/agent/head"
	"muster/agent/headtest"
	"muster/agent/identity"
	"muster/shared/mux"
	"muster/shared/wire"
)

// start runs a link with commands until the test ends.
func start(t *testing.T, url string, tls *tls.Config, log io.Writer) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	logger := slog.New(slog.NewTextHandler(log, nil))
	commands := command.New(logger)
	done := make(chan struct{})
	go func() {
		defer close(done)
		Run(ctx, Config{
			Head: url, TLS: tls, Probe: 500 * time.Millisecond, Dialer: head.Dialer{Version: "test"}, Log: logger,
			Hello: func() wire.Hello { return wire.Hello{Agent: "test", BootID: "b", InImage: true} },
			Serve: func(ctx context.Context, s net.Conn, h wire.Header) {
				if h.Type == wire.StreamExec && h.Exec != nil {
					commands.Serve(ctx, s, *h.Exec)
				}
			},
		})
	}()
	t.Cleanup(func() { cancel(); <-done })
}

func exec(t *testing.T, s *yamux.Session, shell string) string {
	t.Helper()
	stream, err := s.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if err := wire.WriteHeader(stream, wire.Header{Type: wire.StreamExec, Exec: &wire.Exec{Shell: shell}}); err != nil {
		t.Fatal(err)
	}
	out := ""
	buf := make([]byte, wire.MaxFrame)
	for {
		kind, p, err := wire.ReadFrame(stream, buf)
		if err != nil {
			t.Fatal(err)
		}
		if kind == wire.FrameExit {
			var e wire.Exit
			if json.Unmarshal(p, &e); e.Status != 0 {
				t.Errorf("%s: %+v", shell, e)
			}
			return out
		}
		out += string(p)
	}
}

func TestExecOverLink(t *testing.T) {
	h := headtest.New(t)
	start(t, h.HTTP, nil, io.Discard)
	s := <-h.Sessions
	defer s.Close()
	if got := exec(t, s, "echo hello"); got != "hello\n" {
		t.Errorf("got %q", got)
	}
	if hello := <-h.Hellos; hello.Version != wire.Version || hello.BootID != "b" || !hello.InImage || hello.Agent != "test" {
		t.Errorf("hello %+v", hello)
	}
}

func TestReconnect(t *testing.T) {
	h := headtest.New(t)
	start(t, h.HTTP, nil, io.Discard)
	for range 3 {
		s := <-h.Sessions
		exec(t, s, "true")
		began := time.Now()
		s.Close()
		next := <-h.Sessions
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("came back after %v", took)
		}
		h.Sessions <- next
	}
}

// A head that dies without a word, as when its power or the network fails.
func TestDeadPeer(t *testing.T) {
	h := headtest.New(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var silent atomic.Bool
	go func() {
		for {
			agent, err := l.Accept()
			if err != nil {
				return
			}
			defer agent.Close()
			head, err := net.Dial("tcp", h.Plain.Listener.Addr().String())
			if err != nil {
				return
			}
			defer head.Close()
			forward := func(from, to net.Conn) {
				buf := make([]byte, 4096)
				for {
					n, err := from.Read(buf)
					if err != nil {
						return
					}
					if !silent.Load() {
						to.Write(buf[:n])
					}
				}
			}
			go forward(agent, head)
			go forward(head, agent)
		}
	}()
	log := make(lines, 100)
	start(t, "http://"+l.Addr().String(), nil, log)
	exec(t, <-h.Sessions, "true")
	silent.Store(true)
	log.wait(t, "no link to the head")
	silent.Store(false)
	exec(t, <-h.Sessions, "true")
}

func TestTLS(t *testing.T) {
	h := headtest.New(t)
	h.Mint("k")
	key, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	id, _, err := key.Enrol(context.Background(), head.Dialer{}, identity.Ticket{URL: h.HTTPS, Hash: h.Hash(), Key: "k"})
	if err != nil {
		t.Fatal(err)
	}
	start(t, h.HTTPS, id.TLS(), io.Discard)
	s := <-h.Sessions
	defer s.Close()
	exec(t, s, "true")
	if peers := h.Peers(); len(peers) != 1 || !peers[0].Equal(id.Cert.Leaf) {
		t.Errorf("the link was made with %v", peers)
	}
}

// lines is a log whose lines can be waited for.
type lines chan string

func (l lines) Write(p []byte) (int, error) { l <- string(p); return len(p), nil }

func (l lines) wait(t *testing.T, want string) {
	t.Helper()
	for {
		select {
		case line := <-l:
			if strings.Contains(line, want) {
				return
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("nothing was logged about %q", want)
		}
	}
}

func TestOtherAuthorityRefused(t *testing.T) {
	h, other := headtest.New(t), headtest.New(t)
	log := make(lines, 100)
	start(t, h.HTTPS, (&identity.Identity{CA: other.Cert}).TLS(), log)
	log.wait(t, "certificate")
	select {
	case <-h.Sessions:
		t.Error("linked to a head of another authority")
	default:
	}
}

func TestRefusalIsLogged(t *testing.T) {
	h := headtest.New(t)
	var asked atomic.Int32
	h.Refuse = func(*http.Request) string {
		if asked.Add(1) < 3 {
			return "No node found for ID=127.0.0.1"
		}
		return ""
	}
	log := make(lines, 100)
	start(t, h.HTTP, nil, log)
	log.wait(t, "No node found")
	s := <-h.Sessions // and it goes on trying
	s.Close()
}

// Whatever a head sends, as messages or within streams, the agent lives on.
func TestGarbage(t *testing.T) {
	h := headtest.New(t)
	start(t, h.HTTP, nil, io.Discard)
	s := <-h.Sessions
	for _, garbage := range []string{"", "\xff\xff\xff\xff", "\x00\x00\x00\x02{]", "\x00\x00\x00\x02{}", "\x00\x00\x00\x10{\"type\":\"other\"}", "GET / HTTP/1.1\r\n\r\n"} {
		stream, err := s.Open()
		if err != nil {
			t.Fatal(err)
		}
		stream.Write([]byte(garbage))
		stream.Close()
	}
	exec(t, s, "true")
	s.Close()
	s = <-h.Sessions
	exec(t, s, "true")
	s.Close()
}

// FuzzSession feeds the agent's side of a link with bytes of a hostile head,
// after a correct handshake.
func FuzzSession(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte("\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00"))                         // opens a stream
	f.Add([]byte("\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x06\x00\x00\x00\x02{}"))       // with a header
	f.Add([]byte("\x00\x00\x00\x01\x00\x00\x00\x01\xff\xff\xff\xff"))                         // larger than the window
	f.Add([]byte("\x00\x02\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00")) // ping, go away
	f.Add([]byte("\x07nonsense"))
	f.Fuzz(func(t *testing.T, data []byte) {
		agent, hostile := net.Pipe()
		go io.Copy(io.Discard, hostile)
		go func() {
			hostile.SetWriteDeadline(time.Now().Add(time.Second))
			hostile.Write(data)
			hostile.Close()
		}()
		session := mux.New(mux.Config{Streams: maxStreams}).Server(agent)
		defer session.Close()
		c := Config{Log: slog.New(slog.DiscardHandler), Serve: func(_ context.Context, s net.Conn, _ wire.Header) { s.Close() }}
		var streams sync.WaitGroup
		c.serve(context.Background(), session, &streams)
		streams.Wait()
	})
}

func TestNotAHead(t *testing.T) {
	for name, handle := range map[string]http.HandlerFunc{
		"plain answer": func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") },
		"hangs up after the handshake": func(w http.ResponseWriter, r *http.Request) {
			var up websocket.Upgrader
			if ws, err := up.Upgrade(w, r, nil); err == nil {
				ws.Close()
			}
		},
		"says nonsense": func(w http.ResponseWriter, r *http.Request) {
			var up websocket.Upgrader
			if ws, err := up.Upgrade(w, r, nil); err == nil {
				ws.WriteMessage(websocket.TextMessage, []byte("{"))
				ws.Close()
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			srv := &http.Server{Handler: handle}
			go srv.Serve(l)
			defer srv.Close()
			log := make(lines, 100)
			start(t, "http://"+l.Addr().String(), nil, log)
			log.wait(t, "no link to the head")
		})
	}
}
