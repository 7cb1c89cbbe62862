package app_test

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"muster/controller/app"
	"muster/controller/app/apptest"
	"muster/shared/client"
	"muster/shared/object"
)

// serial is a machine's serial line as QEMU offers it: a socket.
type serial struct {
	*testing.T
	net.Listener
	conn net.Conn
}

func newSerial(t *testing.T, path string) *serial {
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return &serial{T: t, Listener: l}
}

// accept waits for the head.
func (s *serial) accept() {
	s.Helper()
	err := s.Listener.(*net.UnixListener).SetDeadline(time.Now().Add(time.Minute))
	if err == nil {
		s.conn, err = s.Accept()
	}
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { s.conn.Close() })
}

func (s *serial) say(text string) {
	s.Helper()
	if _, err := io.WriteString(s.conn, text); err != nil {
		s.Fatal(err)
	}
}

// typed is what was typed, of this length.
func (s *serial) typed(want string) {
	s.Helper()
	got := make([]byte, len(want))
	s.conn.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := io.ReadFull(s.conn, got); err != nil || string(got) != want {
		s.Errorf("typed was %q, %v, want %q", got, err, want)
	}
}

// onlooker watches a console by the API.
type onlooker struct {
	*testing.T
	*client.Console
	seen  string
	state client.ConsoleState
}

func watch(t *testing.T, h *apptest.Head, tokens client.Tokens, mode string) *onlooker {
	t.Helper()
	api, err := client.New(client.Options{Head: h.HTTP, Tokens: tokens})
	if err != nil {
		t.Fatal(err)
	}
	c, err := api.Console(t.Context(), "n0", mode)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); api.Close() })
	return &onlooker{T: t, Console: c}
}

// until takes what comes until it is as wanted.
func (o *onlooker) until(what string, wanted func() bool) {
	o.Helper()
	defer time.AfterFunc(time.Minute, func() { o.Close() }).Stop()
	for !wanted() {
		said, state, err := o.Next()
		if err != nil {
			o.Fatalf("%s: %v; seen was %q, %+v", what, err, o.seen, o.state)
		}
		if o.seen += string(said); state != nil {
			o.state = *state
		}
	}
}

func (o *onlooker) sees(text string) {
	o.Helper()
	o.until(text, func() bool { return strings.Contains(o.seen, text) })
}

func (o *onlooker) mode(want, writer string) {
	o.Helper()
	o.until(want+" of "+writer, func() bool { return o.state.Mode == want && o.state.Writer == writer })
}

func TestConsole(t *testing.T) {
	dir := t.TempDir()
	h := apptest.Start(t, func(c *app.Config) { c.ConsoleSize, c.ConsoleFiles = 4, 3 })
	line := newSerial(t, filepath.Join(dir, "n0.serial"))
	h.OK("POST", "/nodes", `{"mac":"52:54:00:00:00:01","power_uri":"qemu://`+dir+`/n0.qmp"}`)
	line.accept()
	line.say("\x1b[2J\x1b[1;1HFirmware \x1b]0;evil title\x07\x1b[6nOK\r\nlogin: ")
	root := client.Tokens{User: h.Admin, Access: h.Token()}
	_, reader := h.NewAdmin("reader", object.RoleAuthUser)
	_, operator := h.NewAdmin("operator", object.RoleProductionAdmin)

	a := watch(t, h, root, client.ConsoleWrite)
	a.sees("login: ")
	if want := "\x1b[2J\x1b[1;1HFirmware OK\r\nlogin: "; a.seen != want {
		t.Errorf("the screen is %q, want %q", a.seen, want)
	}
	a.mode("write", h.Admin)
	if err := a.Type([]byte("root\r")); err != nil {
		t.Fatal(err)
	}
	line.typed("root\r")
	b := watch(t, h, operator, client.ConsoleWrite)
	b.mode("read", h.Admin)
	b.Type([]byte("not heard"))
	c := watch(t, h, reader, client.ConsoleTake)
	c.until("why it may not", func() bool { return strings.Contains(c.state.Reason, "NodesExecCommand") })
	c.Mode(client.ConsoleTake)
	b.Mode(client.ConsoleTake)
	a.mode("read", "operator")
	b.mode("write", "operator")
	b.Type([]byte("\x03"))
	line.typed("\x03")
	line.say("\r\n# ")
	c.sees("login: \r\n# ") // the last screen, and what follows
	for _, o := range []*onlooker{a, b} {
		o.sees("\r\n# ")
	}

	// The line breaks off and comes back by itself.
	line.conn.Close()
	a.until("the line is down", func() bool { return !a.state.Connected && a.state.Reason != "" })
	line.accept()
	a.until("the line is back", func() bool { return a.state.Connected })
	line.say("\r\nKernel panic - not syncing: sysrq \x1b[31mtriggered\x1b[0m crash\r\nmore\r\n")
	waitFor(t, "the panic as the reason", func() bool {
		var n struct {
			Status struct{ State, Reason string }
		}
		h.Into(&n, "GET", "/node/n0", nil)
		return n.Status.State == "failed" && n.Status.Reason == "console: Kernel panic - not syncing: sysrq triggered crash"
	})
	a.sees("more")

	log := h.As(reader.Access, "GET", "/node/n0/console/log?lines=3", nil)
	lines := strings.Split(strings.TrimSpace(string(log.Raw)), "\n")
	if len(lines) != 3 || !strings.HasSuffix(lines[1], "Z Kernel panic - not syncing: sysrq triggered crash") || !strings.HasSuffix(lines[2], "Z more") {
		t.Errorf("the log ends with %q", lines)
	}
	line.say(strings.Repeat(strings.Repeat("x", 99)+"\n", 300) + "at the end\n")
	waitFor(t, "the log's end", func() bool {
		log = h.As(reader.Access, "GET", "/node/n0/console/log", nil)
		return strings.Contains(string(log.Raw), "at the end")
	})
	if n := len(log.Raw); n > 3*4096 || n < 2*4096-200 {
		t.Errorf("three files of 4 KiB hold %d bytes", n)
	}
	files, _ := filepath.Glob(filepath.Join(h.Data, "console", "*", "log*"))
	if len(files) != 3 {
		t.Errorf("the log's files are %v", files)
	}

	// What is refused, and what ends.
	want(t, "no websocket", h.As(h.Token(), "GET", "/node/n0/console", nil), http.StatusBadRequest, "websocket")
	want(t, "a mode", h.As(h.Token(), "GET", "/node/n0/console?mode=all", nil), http.StatusBadRequest, "take")
	want(t, "lines", h.As(h.Token(), "GET", "/node/n0/console/log?lines=-1", nil), http.StatusBadRequest, "lines")
	set := func(token, uri string) apptest.Answer {
		raw, _ := json.Marshal(map[string]any{"attributes": map[string]string{"_console_uri": uri}})
		return h.As(token, "PATCH", "/node/n0", string(raw))
	}
	want(t, "a socket of the head's", set(operator.Access, "qemu:///run/docker.sock"), http.StatusForbidden, "fulladmin")
	want(t, "a BMC", set(operator.Access, "ipmi://a:b@127.0.0.1:1/?interface=lan"), http.StatusOK, "")
	a.until("the other target's reason", func() bool { return !a.state.Connected && strings.Contains(a.state.Reason, "needs IPMI 2.0") })
	if strings.Contains(h.Logged.String(), "evil title") {
		t.Error("the console reached the head's log")
	}
	set(h.Token(), "none")
	a.until("the end", func() bool { return a.state.Ended })
	want(t, "no console", h.As(h.Token(), "GET", "/node/n0/console", nil), http.StatusNotFound, "_console_uri")
	if raw := h.OK("GET", "/audit", nil); !strings.Contains(string(raw), `"action":"console"`) {
		t.Errorf("the audit trail has no word of it: %.500s", raw)
	}
	h.OK("DELETE", "/node/n0", nil)
	waitFor(t, "the log to go with its node", func() bool {
		left, _ := filepath.Glob(filepath.Join(h.Data, "console", "*"))
		return len(left) == 0
	})
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s did not come", what)
		}
	}
}
