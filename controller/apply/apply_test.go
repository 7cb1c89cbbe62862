package apply_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"muster/agent/simulate"
	"muster/controller/app/apptest"
	"muster/shared/client"
)

// cluster is a whole head with simulated nodes n0… that have roots.
type cluster struct {
	*apptest.Head
	roots string
	first netip.Addr
	image string // the directory that versions are made of
}

func start(t *testing.T, nodes int) *cluster {
	if os.Geteuid() != 0 {
		t.Skip("needs root, for the owners of files")
	}
	c := &cluster{Head: apptest.Start(t, nil), roots: t.TempDir(), first: netip.MustParseAddr("127.81.0.1"), image: t.TempDir()}
	c.OK("POST", "/nets", map[string]any{"name": "sim", "first_ip": c.first.String(), "ip_count": nodes, "mask_bits": 24})
	for i := range nodes {
		c.OK("POST", "/nodes", map[string]any{"mac": fmt.Sprintf("52:54:00:81:00:%02x", i)})
	}
	c.write("etc/motd", "one\n")
	c.write("etc/app/conf", "a=1\n")
	c.write("usr/bin/app", strings.Repeat("program ", 20_000))
	c.version()
	return c
}

// run runs agents for the first nodes until the test ends, and returns when they are up.
func (c *cluster) run(count int) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(c.Context()))
	done := make(chan error, 1)
	go func() {
		done <- simulate.Run(ctx, simulate.Config{Head: c.HTTP, First: c.first, Count: count, Version: "test", Log: slog.New(slog.DiscardHandler), Root: c.roots})
	}()
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			cancel()
			if err := <-done; err != nil {
				c.Error(err)
			}
		}
	}
	c.Cleanup(stop)
	c.await("up", count)
	return stop
}

// await returns when so many nodes have a state.
func (c *cluster) await(state string, count int) {
	c.Helper()
	after := ""
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		var s struct {
			Seq    int
			States map[string]string
		}
		c.Into(&s, "GET", "/nodes/states"+after, nil)
		n := 0
		for _, is := range s.States {
			if is == state {
				n++
			}
		}
		if n >= count {
			return
		}
		after = fmt.Sprintf("?after=%d", s.Seq)
	}
	c.Fatalf("no %d nodes are %s", count, state)
}

func (c *cluster) write(name, content string) {
	c.Helper()
	path := filepath.Join(c.image, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		c.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		c.Fatal(err)
	}
}

// version uploads what is in the image's directory.
func (c *cluster) version() {
	c.Helper()
	file := filepath.Join(c.TempDir(), "image")
	if out, err := exec.Command("mksquashfs", c.image, file, "-quiet", "-no-progress", "-no-fragments", "-comp", "zstd").CombinedOutput(); err != nil {
		c.Fatalf("mksquashfs: %v: %s", err, out)
	}
	content, err := os.ReadFile(file)
	if err != nil {
		c.Fatal(err)
	}
	c.OK("PUT", "/image/DefaultImage/content", content)
}

func (c *cluster) root(node int) string {
	addr := c.first
	for range node {
		addr = addr.Next()
	}
	return filepath.Join(c.roots, addr.String())
}

func (c *cluster) read(node int, name string) string {
	raw, err := os.ReadFile(filepath.Join(c.root(node), name))
	if err != nil {
		return err.Error()
	}
	return string(raw)
}

// apply asks for it, and gives each node's plan and its last line.
func (c *cluster) apply(body map[string]any) (plans, last map[string]client.Applied) {
	c.Helper()
	a := c.As(c.Token(), "POST", "/image/DefaultImage/apply", body)
	if a.Status != http.StatusOK {
		c.Fatalf("%v: %d %s", body, a.Status, a.Raw)
	}
	plans, last = map[string]client.Applied{}, map[string]client.Applied{}
	lines := bufio.NewScanner(bytes.NewReader(a.Raw))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var l client.Applied
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			c.Fatal(err)
		}
		if l.Status != nil {
			last[l.Node] = l
		} else {
			plans[l.Node] = l
		}
	}
	return plans, last
}

func (c *cluster) all(l map[string]client.Applied, count, status int) {
	c.Helper()
	if len(l) != count {
		c.Fatalf("%d nodes answered, not %d: %+v", len(l), count, l)
	}
	for _, n := range l {
		if *n.Status != status {
			c.Errorf("%s: status %d, want %d: %s %v", n.Node, *n.Status, status, n.Error, n.Kept)
		}
	}
}

// fill gives the nodes the first version.
func (c *cluster) fill(count int) {
	c.Helper()
	_, last := c.apply(map[string]any{"nodes": "n[0-" + fmt.Sprint(count-1) + "]", "force": true})
	c.all(last, count, 0)
}

func TestApply(t *testing.T) {
	c := start(t, 4)
	c.run(3)
	_, last := c.apply(map[string]any{"nodes": "n[0-2]"})
	c.all(last, 3, 1)
	if got := last["n0"].Error; !strings.Contains(got, "--force compares all") {
		t.Errorf("a root of which nothing is known: %q", got)
	}
	c.fill(3)
	if got := c.read(1, "etc/motd"); got != "one\n" {
		t.Fatalf("filled: %q", got)
	}
	program, err := os.Stat(filepath.Join(c.root(0), "usr/bin/app"))
	if err != nil {
		t.Fatal(err)
	}
	c.write("etc/motd", "two\n")
	c.write("etc/new", "new\n")
	os.Remove(filepath.Join(c.image, "etc/app/conf"))
	c.version()

	plans, last := c.apply(map[string]any{"nodes": "n[0-3,7]", "dry_run": true})
	if len(plans) != 3 || len(last) != 5 {
		t.Fatalf("%+v\n%+v", plans, last)
	}
	files := plans["n0"].Files
	if got := fmt.Sprint(files); got != "[{/etc/app/conf removed} {/etc/motd changed} {/etc/new added}]" {
		t.Errorf("the plan: %s", got)
	}
	if got := c.read(0, "etc/motd"); got != "one\n" {
		t.Errorf("a dry run wrote %q", got)
	}
	if off := last["n3"]; !off.Off || *off.Status != 0 {
		t.Errorf("a node that is off, and will boot the version: %+v", off)
	}
	if no := last["n7"]; *no.Status != 1 || !strings.Contains(no.Error, "n7") {
		t.Errorf("no node: %+v", no)
	}

	_, last = c.apply(map[string]any{"nodes": "n[0-2]", "version": "2"})
	c.all(last, 3, 0)
	for i := range 3 {
		l := last[fmt.Sprint("n", i)]
		if l.From != 1 || l.To != 2 || l.Changed != 1 || l.Added != 1 || l.Removed != 1 {
			t.Errorf("%+v", l)
		}
		if c.read(i, "etc/motd") != "two\n" || c.read(i, "etc/new") != "new\n" || !strings.Contains(c.read(i, "etc/app/conf"), "no such file") {
			t.Errorf("node %d is not of the version: %q %q", i, c.read(i, "etc/motd"), c.read(i, "etc/app/conf"))
		}
	}
	if now, err := os.Stat(filepath.Join(c.root(0), "usr/bin/app")); err != nil || !os.SameFile(now, program) || !now.ModTime().Equal(program.ModTime()) {
		t.Error("a file that is equal was written anew")
	}
	c.said("n0", 2)
	var steps []struct{ Step, Detail string }
	c.Into(&steps, "GET", "/node/n0/timeline", nil)
	if !slices.ContainsFunc(steps, func(s struct{ Step, Detail string }) bool { return strings.Contains(s.Detail, "applied") }) {
		t.Errorf("the timeline does not say so: %v", steps)
	}
	// Back again.
	_, last = c.apply(map[string]any{"nodes": "n[0-3]", "version": "1"})
	if off := last["n3"]; *off.Status != 1 || !strings.Contains(off.Error, "boots DefaultImage:2") {
		t.Errorf("a node that is off, and will boot another version: %+v", off)
	}
	if on := last["n0"]; on.Boots != "DefaultImage:2" {
		t.Errorf("what the node boots next: %q", on.Boots)
	}
	delete(last, "n3")
	c.all(last, 3, 0)
	if c.read(2, "etc/motd") != "one\n" || c.read(2, "etc/app/conf") != "a=1\n" || !strings.Contains(c.read(2, "etc/new"), "no such file") {
		t.Error("the older version is not what it was")
	}
	if raw := c.OK("GET", "/audit?action=apply", nil); !bytes.Contains(raw, []byte("n[0-2]")) {
		t.Errorf("the audit trail: %s", raw)
	}
}

// said waits until a node reports that it is of a version.
func (c *cluster) said(node string, version int) {
	c.Helper()
	var got map[string]any
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		c.Into(&got, "GET", "/node/"+node+"/status", nil)
		if image, _ := got["image"].(map[string]any); image["version"] == float64(version) {
			return
		}
	}
	c.Errorf("%s does not report version %d: %v", node, version, got)
}

func TestChangesOnTheNode(t *testing.T) {
	c := start(t, 2)
	c.run(2)
	c.fill(2)
	own := filepath.Join(c.root(1), "etc/motd")
	if err := os.WriteFile(own, []byte("mine\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	c.write("etc/motd", "two\n")
	c.version()
	plans, last := c.apply(map[string]any{"nodes": "n[0-1]"})
	if *last["n0"].Status != 0 || *last["n1"].Status != 1 {
		t.Errorf("%+v", last)
	}
	for _, l := range []client.Applied{plans["n1"], last["n1"]} {
		if fmt.Sprint(l.Kept) != "[{/etc/motd it was changed on the node}]" {
			t.Errorf("kept: %v", l.Kept)
		}
	}
	if c.read(1, "etc/motd") != "mine\n" {
		t.Error("the change is gone")
	}
	// It is known later too that the file is not the version's.
	if _, last = c.apply(map[string]any{"nodes": "n1"}); len(last["n1"].Kept) != 1 {
		t.Errorf("again: %+v", last["n1"])
	}
	_, last = c.apply(map[string]any{"nodes": "n1", "force": true})
	if c.all(last, 1, 0); c.read(1, "etc/motd") != "two\n" {
		t.Error("--force leaves it")
	}
}

func TestWhatIsRefused(t *testing.T) {
	c := start(t, 1)
	for name, try := range map[string]struct {
		path   string
		body   any
		status int
	}{
		"no nodes":   {"/image/DefaultImage/apply", map[string]any{}, 400},
		"no image":   {"/image/none/apply", map[string]any{"nodes": "n0"}, 404},
		"no version": {"/image/DefaultImage/apply", map[string]any{"nodes": "n0", "version": "9"}, 404},
		"fanout":     {"/image/DefaultImage/apply", map[string]any{"nodes": "n0", "fanout": -1}, 400},
		"timeout":    {"/image/DefaultImage/apply", map[string]any{"nodes": "n0", "timeout": -1}, 400},
		"unknown":    {"/image/DefaultImage/apply", map[string]any{"nodes": "n0", "restrat": true}, 400},
	} {
		if a := c.As(c.Token(), "POST", try.path, try.body); a.Status != try.status {
			t.Errorf("%s: %d %s", name, a.Status, a.Raw)
		}
	}
	_, reader := c.NewAdmin("reader", "role.imagingadmin", "-NodesExecCommand")
	if a := c.As(reader.Access, "POST", "/image/DefaultImage/apply", map[string]any{"nodes": "n0"}); a.Status != http.StatusForbidden {
		t.Errorf("who may not run commands on nodes: %d", a.Status)
	}
}
