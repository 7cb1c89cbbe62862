package exec_test

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"muster/controller/api"
	"muster/controller/api/apitest"
	"muster/controller/fleet/fleettest"
	"muster/shared/wire"
)

// answer is one line of an exec on many nodes.
type answer struct {
	Node, Encoding, Error string
	Stdout, Stderr        *string
	Status                *int
}

// startMany runs a head with nodes n0 to n(count-1), each played by play with
// its number; those in down have no agent.
func startMany(t *testing.T, count int, play func(i int, a *agent), down ...int) *fleettest.Head {
	h := fleettest.Start(t, "")
	for i := range count {
		uid := h.Node(byte(i + 1))
		if slices.Contains(down, i) {
			continue
		}
		h.Link(uid, wire.Hello{InImage: true}, func(c net.Conn, header wire.Header) { play(i, &agent{Conn: c, header: header}) })
		h.WaitState(fmt.Sprint("n", i), "up")
	}
	return h
}

func post(ctx context.Context, h *fleettest.Head, body any) (*http.Response, error) {
	raw, _ := json.Marshal(body)
	req, err := http.NewRequestWithContext(ctx, "POST", h.Server.URL+api.Root+"/exec", strings.NewReader(string(raw)))
	if err != nil {
		return nil, err
	}
	return h.Server.Client().Do(req)
}

// stream gives the lines of an answer as they come.
func stream(t *testing.T, h *fleettest.Head, body any) (next func() (answer, bool)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	resp, err := post(ctx, h, body)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "application/x-ndjson" {
		text, _ := io.ReadAll(resp.Body)
		t.Fatalf("status %d, %v: %s", resp.StatusCode, resp.Header, text)
	}
	in := bufio.NewReader(resp.Body)
	return func() (answer, bool) {
		raw, err := in.ReadBytes('\n')
		if err == io.EOF && len(raw) == 0 {
			return answer{}, false
		}
		var a answer
		if err == nil {
			err = json.Unmarshal(raw, &a)
		}
		if err != nil {
			t.Fatalf("%q: %v", raw, err)
		}
		return a, true
	}
}

// result is what came of one node.
type result struct {
	out, err, why string
	status        int // -1: none
	ends          int // lines that end it
}

func collect(t *testing.T, next func() (answer, bool)) map[string]*result {
	t.Helper()
	all := map[string]*result{}
	for a, ok := next(); ok; a, ok = next() {
		r := all[a.Node]
		if r == nil {
			r = &result{status: -1}
			all[a.Node] = r
		}
		for to, text := range map[*string]*string{&r.out: a.Stdout, &r.err: a.Stderr} {
			if text == nil {
				continue
			}
			if a.Encoding == "base64" {
				raw, err := base64.StdEncoding.DecodeString(*text)
				if err != nil {
					t.Fatal(err)
				}
				*text = string(raw)
			}
			*to += *text
		}
		if a.Status != nil {
			r.status = *a.Status
		}
		if a.Error != "" {
			r.why = a.Error
		}
		if a.Status != nil || a.Error != "" {
			r.ends++
		}
	}
	return all
}

type body map[string]any

func TestMany(t *testing.T) {
	h := startMany(t, 4, func(i int, a *agent) {
		in := a.stdin()
		a.write(wire.FrameStdout, in+fmt.Sprint(" n", i, "é"))
		a.write(wire.FrameStderr, "\x00\xff\r\n")
		a.exit(i, a.header.Exec.Shell+"|"+a.header.Exec.By)
	}, 3)
	stdin := strings.Repeat("many bytes é\r\n\x00", 20_000)
	got := collect(t, stream(t, h, body{"nodes": []string{"n[0-1]", "n2", "n1", "n3", "n7"}, "cmd": "cat", "stdin": stdin}))
	for i, name := range []string{"n0", "n1", "n2"} {
		r := got[name]
		if r == nil || r.out != stdin+fmt.Sprint(" n", i, "é") || r.err != "\x00\xff\r\n" || r.status != i || r.why != "cat|admin1" || r.ends != 1 {
			t.Fatalf("%s: %+.200v", name, r)
		}
	}
	if r := got["n3"]; r == nil || r.status != -1 || !strings.Contains(r.why, "not connected") {
		t.Errorf("a node that is down: %+v", r)
	}
	if r := got["n7"]; r == nil || r.status != -1 || r.why != "No node found for ID=n7" {
		t.Errorf("a node that there is not: %+v", r)
	}
	if len(got) != 5 {
		t.Errorf("%d nodes answered", len(got))
	}
}

func TestManySets(t *testing.T) {
	h := startMany(t, 3, func(_ int, a *agent) {
		a.write(wire.FrameStdout, a.stdin())
		a.exit(0, "")
	})
	h.OK("PATCH", "/node/n1/attributes", `{"rack":"r1"}`)
	h.Create("attribs", `{"name":"blue"}`)
	h.OK("PATCH", "/node/n2", `{"groups":["blue"]}`)
	h.Create("dyngroups", `{"name":"first","selector":"a[rack] == \"r1\""}`)
	for want, b := range map[string]body{
		"n0,n1,n2": {"selector": "up", "nodes": "n[0-2]"},
		"n1":       {"selector": `a[rack] == "r1"`},
		"n2":       {"group": "blue", "nodes": []string{"n0", "n2"}},
		" n1":      {"group": "first", "selector": "up"},
		"n0":       {"nodes": []string{"52:54:00:00:00:01"}},
	} {
		b["cmd"], b["stdin"], b["encoding"] = []string{"cat"}, base64.StdEncoding.EncodeToString([]byte("\xff\x00")), "base64"
		got := collect(t, stream(t, h, b))
		var names []string
		for name, r := range got {
			if r.out != "\xff\x00" || r.status != 0 {
				t.Errorf("%v: %+v", b, r)
			}
			names = append(names, name)
		}
		slices.Sort(names)
		if strings.Join(names, ",") != strings.TrimSpace(want) {
			t.Errorf("%v ran on %v, want %s", b, names, want)
		}
	}
	for _, b := range []string{``, `{}`, `{"cmd":"x"}`, `{"cmd":"x","nodes":[]}`, `{"cmd":"x","nodes":""}`, `{"cmd":"x","nodes":5}`, `{"cmd":"x","nodes":[5]}`, `{"cmd":"x","nodes":"n[0"}`, `{"cmd":"x","nodes":"n[0-99999999]"}`,
		`{"nodes":"n0"}`, `{"cmd":"","nodes":"n0"}`, `{"cmd":"x","nodes":"nope"}`, `{"cmd":"x","selector":"(("}`, `{"cmd":"x","selector":"a[no] == 1"}`, `{"cmd":"x","group":"nope"}`, `{"cmd":"x","nodes":"n0","group":"blue"}`,
		`{"cmd":"x","nodes":"n0","timeout":-1}`, `{"cmd":"x","nodes":"n0","fanout":-1}`, `{"cmd":"x","nodes":"n0","max_output":-1}`, `{"cmd":"x","nodes":"n0","encoding":"hex"}`, `{"cmd":"x","nodes":"n0","encoding":"base64","stdin":"%"}`, `{"cmd":"x","nodes":"n0","more":1}`} {
		h.Refused("POST", "/exec", b)
	}
}

// Nodes that are slow, down, flooding, or gone in the middle hold up nobody.
func TestManyHoldUpNobody(t *testing.T) {
	release := make(chan bool)
	h := startMany(t, 6, func(i int, a *agent) {
		a.stdin()
		switch i {
		case 0: // hangs
			<-release
		case 1: // writes without end
			for wire.WriteFrame(a, wire.FrameStdout, make([]byte, wire.MaxFrame)) == nil {
			}
			return
		case 2: // goes away in the middle of a frame
			a.Conn.Write([]byte{1, 0, 0, 1, 0, 'x'})
			return
		}
		a.exit(0, "")
	}, 5)
	next := stream(t, h, body{"nodes": "n[0-5]", "cmd": "x", "fanout": 5, "max_output": 300_000})
	got := map[string]string{}
	for len(got) < 5 {
		a, ok := next()
		if !ok {
			t.Fatal("the answer ended while n0 runs")
		}
		if len(got) == 0 && a.Node != "n5" {
			t.Errorf("%+v came before the node that is down", a)
		}
		if a.Error != "" || a.Status != nil {
			got[a.Node] = a.Error
		}
	}
	if _, ok := got["n0"]; ok || got["n3"] != "" || got["n4"] != "" || !strings.Contains(got["n1"], "300000 bytes") || !strings.Contains(got["n2"], "broke off") {
		t.Errorf("%v", got)
	}
	close(release)
	if a, ok := next(); !ok || a.Node != "n0" || *a.Status != 0 {
		t.Errorf("%+v", a)
	}
	if a, ok := next(); ok {
		t.Errorf("after the end: %+v", a)
	}
}

// A node that has stopped reading holds up neither the others nor, once its
// time is over, the answer.
func TestManyNodeStopsReading(t *testing.T) {
	h := startMany(t, 3, func(i int, a *agent) {
		if i == 0 {
			<-t.Context().Done()
			return
		}
		a.write(wire.FrameStdout, fmt.Sprint(len(a.stdin())))
		a.exit(0, "")
	})
	next := stream(t, h, body{"nodes": "n[0-2]", "cmd": "wc -c", "stdin": strings.Repeat("x", 4<<20), "timeout": 3})
	var order []string
	for a, ok := next(); ok; a, ok = next() {
		if a.Status != nil {
			order = append(order, fmt.Sprint(a.Node, " ", *a.Status))
		}
	}
	if len(order) != 3 || order[2] != "n0 124" || !strings.HasSuffix(order[0], " 0") || !strings.HasSuffix(order[1], " 0") {
		t.Errorf("they ended as %v", order)
	}
}

func TestManyTimeoutAndFanout(t *testing.T) {
	running := make(chan int, 10)
	h := startMany(t, 3, func(i int, a *agent) {
		a.stdin()
		running <- i
		if _, _, err := a.read(); err == nil {
			t.Error("more than the input came")
		}
	})
	got := collect(t, stream(t, h, body{"nodes": "n[0-2]", "cmd": "x", "timeout": 0.1, "fanout": 1}))
	for i, name := range []string{"n0", "n1", "n2"} {
		if n := apitest.Receive(t, running); n != i {
			t.Errorf("node %d began as number %d", n, i)
		}
		if r := got[name]; r.status != 124 || !strings.Contains(r.why, "0.1 s") {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// When the client goes, the command ends on every node, and those that have
// not begun never do.
func TestManyClientGone(t *testing.T) {
	begun, ended := make(chan int, 10), make(chan int, 10)
	h := startMany(t, 4, func(i int, a *agent) {
		begun <- i
		a.stdin()
		a.write(wire.FrameStdout, "begun")
		a.read()
		ended <- i
	})
	ctx, cancel := context.WithCancel(t.Context())
	resp, err := post(ctx, h, body{"nodes": "n[0-3]", "cmd": "x", "fanout": 3})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for range 3 {
		apitest.Receive(t, begun)
	}
	cancel()
	for range 3 {
		apitest.Receive(t, ended)
	}
	select {
	case i := <-begun:
		t.Errorf("node %d began after the client had gone", i)
	default:
	}
}

func FuzzOutput(f *testing.F) {
	f.Add([]byte("a\xc3\xa9\xff"), uint8(2))
	f.Add([]byte("\xf0\x9f\x98\x80\xf0\x9f"), uint8(1))
	to := make(chan []byte, 1)
	h := fleettest.Start(f, "")
	h.Link(h.Node(1), wire.Hello{InImage: true}, func(c net.Conn, header wire.Header) {
		for p := range slices.Chunk(<-to, len(header.Exec.Shell)) {
			wire.WriteFrame(c, wire.FrameStdout, p)
		}
		(&agent{Conn: c}).exit(0, "")
	})
	h.WaitState("n0", "up")
	f.Fuzz(func(t *testing.T, data []byte, step uint8) {
		if len(data) > 10_000 {
			return
		}
		to <- data
		got := collect(t, stream(t, h, body{"nodes": "n0", "cmd": strings.Repeat("x", int(step)+1)}))
		if got["n0"].out != string(data) {
			t.Errorf("%q came back as %q", data, got["n0"].out)
		}
	})
}
