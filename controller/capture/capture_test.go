package capture_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"muster/controller/api"
	"muster/controller/api/apitest"
	"muster/controller/capture"
	"muster/controller/library"
	"muster/images/squashfs"
	"muster/shared/fault"
	"muster/shared/filesystem/filesystemtest"
	"muster/shared/kind"
	"muster/shared/object"
	"muster/shared/wire"
)

// machine is a node whose root file system is a directory, read by the tar of
// this machine. What it is told to do instead is done once.
type machine struct {
	root    string
	instead func(net.Conn)
	argv    []string
}

func (m *machine) Open(_ context.Context, uid string, h wire.Header) (net.Conn, error) {
	if m.root == "" {
		return nil, fault.New(fault.Conflict, "No agent of %s is connected.", uid)
	}
	here, there := net.Pipe()
	m.argv = h.Exec.Argv
	run := m.tar
	if m.instead != nil {
		run, m.instead = m.instead, nil
	}
	go func() {
		defer there.Close()
		if k, p, err := wire.ReadFrame(there, make([]byte, wire.MaxFrame)); err == nil && k == wire.FrameStdin && len(p) == 0 {
			run(there)
		}
	}()
	return here, nil
}

// frames sends what is written to it as one kind of frames.
type frames struct {
	to   net.Conn
	kind wire.FrameKind
}

func (f frames) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n := min(len(rest), wire.MaxFrame)
		if err := wire.WriteFrame(f.to, f.kind, rest[:n]); err != nil {
			return 0, err
		}
		rest = rest[n:]
	}
	return len(p), nil
}

func (m *machine) tar(to net.Conn) {
	cmd := exec.Command(m.argv[0], m.argv[1:]...)
	for i, a := range cmd.Args {
		if a == "--directory=/" {
			cmd.Args[i] = "--directory=" + m.root
		}
	}
	cmd.Stdout, cmd.Stderr = frames{to, wire.FrameStdout}, frames{to, wire.FrameStderr}
	end(to, cmd.Run())
}

// end says how a command ended.
func end(to net.Conn, err error) {
	status := `{"status":1}` // as where files changed while they were read
	if err != nil {
		status = `{"status":2}`
	}
	wire.WriteFrame(to, wire.FrameExit, []byte(status))
}

// lay makes files, by path from root.
func lay(t *testing.T, root string, files map[string][]byte) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// has says whether an image has a file.
func has(t *testing.T, image []byte, path string) bool {
	t.Helper()
	r, err := squashfs.Open(bytes.NewReader(image), int64(len(image)))
	if err != nil {
		t.Fatal(err)
	}
	found := false
	err = r.Walk(func(e squashfs.Entry) error {
		found = found || e.Path == path
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestCapture(t *testing.T) {
	node := &machine{root: t.TempDir()}
	lay(t, node.root, map[string][]byte{
		"etc/hostname": []byte("n0"), "etc/ssh/ssh_host_rsa_key": []byte("secret"), "tmp/x": nil,
		"var/log/syslog": []byte("much"), "srv/data": []byte("more"),
	})
	dir := filepath.Join(filesystemtest.Small(t, 16<<20), "captures")
	recorded := make(chan map[string]string, 100)
	h := withCapture(t, node, dir, recorded)
	h.Create("nodes", `{"mac":"52:54:00:00:00:01"}`)
	h.Create("images", `{"name":"i"}`)
	const path = "/image/i/capture"

	h.OK("POST", path, `{"uid":"n0","exclude":["/var/log/*","srv"]}`)
	if d := apitest.Receive(t, recorded); d["capture"] != "i" || !strings.HasPrefix(d["cmd"], "tar ") {
		t.Errorf("the audit trail has %v", d)
	}
	first := h.Do("GET", "/image/i/content", nil).Raw
	for name, want := range map[string]bool{"etc/hostname": true, "etc/ssh/ssh_host_rsa_key": false, "tmp/x": false, "tmp": true, "var/log/syslog": false, "srv/data": false} {
		if has(t, first, name) != want {
			t.Errorf("%s in the image: %v", name, !want)
		}
	}
	h.OK("GET", path+"?uid=n0&credentials=true&compress=gzip", nil)
	if got := h.Do("GET", "/image/i/content", nil).Raw; !has(t, got, "etc/ssh/ssh_host_rsa_key") || !has(t, got, "srv/data") {
		t.Error("a capture with credentials and all data lacks them")
	}
	before := h.Do("GET", "/image/i/content", nil).Raw

	large := make([]byte, 24<<20)
	rand.Read(large)
	for _, tc := range []struct {
		name, body, says string
		status           int
		instead          func(net.Conn)
	}{
		{"no node", `{}`, "uid", 400, nil},
		{"no such node", `{"uid":"n7"}`, "n7", 404, nil},
		{"nothing to exclude", `{"uid":"n0","exclude":"/"}`, "exclude", 400, nil},
		{"newline", `{"uid":"n0","exclude":["a\nb"]}`, "exclude", 400, nil},
		{"compression", `{"uid":"n0","compress":"zip"}`, "zip", 400, nil},
		{"tar fails", `{"uid":"n0"}`, "cannot stat", 502, func(c net.Conn) {
			wire.WriteFrame(c, wire.FrameStderr, []byte("tar: cannot stat\n"))
			end(c, os.ErrNotExist)
		}},
		{"no tar", `{"uid":"n0"}`, "tar", 502, func(c net.Conn) {
			wire.WriteFrame(c, wire.FrameExit, []byte(`{"status":127,"error":"there is no tar"}`))
		}},
		{"no archive", `{"uid":"n0"}`, "could not be made an image", 409, func(c net.Conn) {
			wire.WriteFrame(c, wire.FrameStdout, []byte("hello"))
			end(c, nil)
		}},
		{"broken off", `{"uid":"n0"}`, "broke off", 502, func(c net.Conn) { wire.WriteFrame(c, wire.FrameStdout, large[:1000]) }},
		{"full disk", `{"uid":"n0"}`, "full", 507, func(c net.Conn) { frames{c, wire.FrameStdout}.Write(large) }},
	} {
		node.instead = tc.instead
		a := h.Do("POST", path, tc.body)
		if a.Status != tc.status || !strings.Contains(a.Reason, tc.says) || strings.Contains(a.Reason, dir) {
			t.Errorf("%s: %d %s, want %d and %q", tc.name, a.Status, a.Raw, tc.status, tc.says)
		}
		node.instead = nil
		unchanged(t, h, dir, before)
	}
	// The archive has room, what is made of it has not.
	lay(t, node.root, map[string][]byte{"opt/large": large[:9<<20]})
	if a := h.Do("POST", path, `{"uid":"n0"}`); a.Status != 507 || !strings.Contains(a.Reason, "full") {
		t.Errorf("no room for the squashfs: %d %s", a.Status, a.Raw)
	}
	unchanged(t, h, dir, before)
	if err := os.Remove(filepath.Join(node.root, "opt/large")); err != nil {
		t.Fatal(err)
	}

	// One at a time; a client that goes away ends its own.
	begun, ended := make(chan bool), make(chan bool)
	node.instead = func(c net.Conn) { close(begun); io.Copy(io.Discard, c); close(ended) }
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		req, _ := http.NewRequestWithContext(ctx, "POST", h.Server.URL+api.Root+path, strings.NewReader(`{"uid":"n0"}`))
		h.Server.Client().Do(req)
	}()
	apitest.Receive(t, begun)
	if reason := h.Refused("POST", path, `{"uid":"n0"}`); !strings.Contains(reason, "Another capture") {
		t.Errorf("a second one at once: %s", reason)
	}
	cancel()
	apitest.Receive(t, ended)
	node.root = ""
	if a := h.Do("POST", "/image/none/capture", `{"uid":"n0"}`); a.Status != 404 {
		t.Errorf("an image that is none: %d %s", a.Status, a.Raw)
	}
}

// unchanged fails where the image has other content, or something was left.
func unchanged(t *testing.T, h *apitest.Head, dir string, content []byte) {
	t.Helper()
	if !bytes.Equal(h.Do("GET", "/image/i/content", nil).Raw, content) {
		t.Error("the image has another content")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left in the directory: %v, %v", left, err)
	}
}

// withCapture is a head that captures, and where it notes what is read.
func withCapture(t *testing.T, node *machine, dir string, recorded chan<- map[string]string) *apitest.Head {
	log := slog.New(slog.DiscardHandler)
	blobs, err := library.OpenBlobs(t.TempDir(), log)
	if err != nil {
		t.Fatal(err)
	}
	return apitest.Start(t, apitest.Options{Routes: func(h *apitest.Head) [][]api.Route {
		lib := library.New(library.Options{Objects: h.Registry, Blobs: blobs, Head: apitest.HeadName, Log: log, Now: time.Now, Extra: func() []string { return nil }})
		c, err := capture.New(capture.Options{
			Nodes: h.Registry, Agents: node, Library: lib, Dir: dir, Log: log,
			Record: func(_ context.Context, _ kind.Author, _ *object.Node, detail map[string]string) error {
				recorded <- detail
				return nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		return [][]api.Route{lib.Routes(), c.Routes()}
	}})
}
