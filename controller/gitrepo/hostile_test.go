package gitrepo_test

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"muster/controller/app/apptest"
)

// TestHostileRemotes: nothing that a remote does hangs or harms the head.
func TestHostileRemotes(t *testing.T) {
	h := apptest.Start(t, nil)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for name, answer := range map[string]func(w http.ResponseWriter, r *http.Request){
		"nonsense": func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("<html>\x1b[31mred\r\n")) },
		"broken": func(w http.ResponseWriter, _ *http.Request) {
			w.Write([]byte("001e# service=git-upload-pack\n0000fff"))
		},
		"elsewhere": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "file:///etc/x", http.StatusFound) },
		"no":        func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) },
		"endless": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
			for i := 0; i < 1<<20; i++ {
				if _, err := w.Write([]byte("zzzz\n")); err != nil {
					return
				}
			}
		},
	} {
		server := httptest.NewServer(http.HandlerFunc(answer))
		defer server.Close()
		path := create(h, object{"name": name, "upstream": server.URL + "/x.git"})
		for range 2 {
			if reason := refused(h, h.Token(), 502, "POST", path+"/sync", object{"action": "pull"}); strings.ContainsAny(reason, "\x1b\r\n") {
				t.Errorf("%s: %q", name, reason)
			}
		}
		a := h.As("", "GET", path+"/content", nil)
		if a.Status < 500 || a.Reason == "" {
			t.Errorf("%s: never synchronized, but reads answer %d %s", name, a.Status, a.Raw)
		}
	}
	// One that never answers: who gives up is not waited for.
	path := create(h, object{"name": "silent", "upstream": "http://" + silent.Addr().String() + "/x.git"})
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, "GET", h.HTTP+"/api/v1"+path+"/content", nil)
	if resp, err := http.DefaultClient.Do(req); err == nil {
		t.Errorf("answered %s", resp.Status)
	}
	h.OK("DELETE", path, nil) // ends the synchronization that goes on
	dir := filepath.Join(h.Data, "gitrepos", strings.TrimPrefix(path, "/gitrepo/"))
	eventually(t, "the directory is gone", func() bool { _, err := os.Stat(dir); return os.IsNotExist(err) })
}

// rawTree writes a tree of one entry that git itself would not make.
func rawTree(t testing.TB, dir, mode, name, oid string) string {
	t.Helper()
	raw, err := hex.DecodeString(oid)
	if err != nil {
		t.Fatal(err)
	}
	in := filepath.Join(t.TempDir(), "tree")
	write(t, filepath.Dir(in), "tree", mode+" "+name+"\x00"+string(raw))
	return git(t, dir, "hash-object", "-t", "tree", "-w", "--literally", in)
}

// TestHostileTrees: what a repository holds runs nothing, and does not get out
// of its tree, whether it is fetched or pushed.
func TestHostileTrees(t *testing.T) {
	h := apptest.Start(t, nil)
	src := source(t)
	marker := filepath.Join(t.TempDir(), "ran")
	write(t, src, "hook", "#!/bin/sh\ntouch "+marker+"\n")
	blob := git(t, src, "hash-object", "-w", "hook")
	modules := filepath.Join(t.TempDir(), "m")
	write(t, filepath.Dir(modules), "m", "[submodule \"x\"]\n\tpath = x\n\turl = -u./payload\n")
	for name, top := range map[string]string{
		"dotgit":  rawTree(t, src, "40000", ".git", rawTree(t, src, "40000", "hooks", rawTree(t, src, "100755", "post-checkout", blob))),
		"dotgit2": rawTree(t, src, "40000", "GIT~1", rawTree(t, src, "100755", "config", blob)),
		"dotdot":  rawTree(t, src, "100644", "..", blob),
		"slash":   rawTree(t, src, "100644", "../../b", blob),
		"modules": rawTree(t, src, "100644", ".gitmodules", git(t, src, "hash-object", "-w", modules)),
	} {
		git(t, src, "update-ref", "refs/heads/evil", git(t, src, "commit-tree", "-m", name, top))
		path := create(h, object{"name": name, "url": "file://" + src, "branch_map": []string{"evil"}})
		if reason := refused(h, h.Token(), 502, "POST", path+"/sync", object{"action": "reset"}); !strings.Contains(reason, "fsck") && !strings.Contains(reason, ":") {
			t.Errorf("%s: %s", name, reason)
		}
		own := create(h, object{"name": name + "-own"})
		if out, err := try(t, src, "push", withToken(raw(h, own+"/url"), h.Token()), "evil"); err == nil {
			t.Errorf("%s was pushed: %s", name, out)
		}
		if got := raw(h, own+"/content"); got != "" {
			t.Errorf("%s: %q", name, got)
		}
		h.OK("DELETE", path, nil)
		git(t, src, "update-ref", "-d", "refs/heads/evil")
	}
	// A commit of a few hundred bytes whose tree has 10^9 files.
	top := git(t, src, "hash-object", "-w", "README")
	entry, kind := "100644", "f"
	for range 9 {
		var in strings.Builder
		for i := range 10 {
			oid, err := hex.DecodeString(top)
			if err != nil {
				t.Fatal(err)
			}
			in.WriteString(entry + " " + kind + string(rune('0'+i)) + "\x00" + string(oid))
		}
		file := filepath.Join(t.TempDir(), "tree")
		write(t, filepath.Dir(file), "tree", in.String())
		top, entry, kind = git(t, src, "hash-object", "-t", "tree", "-w", "--literally", file), "40000", "d"
	}
	git(t, src, "update-ref", "refs/heads/bomb", git(t, src, "commit-tree", "-m", "bomb", top))
	path := create(h, object{"name": "bomb", "upstream": "file://" + src, "branch_map": []string{"bomb"}})
	if reason := refused(h, h.Token(), 409, "POST", path+"/sync", object{"action": "pull"}); !strings.Contains(reason, "too large") {
		t.Errorf("a bomb: %s", reason)
	}
	if _, err := os.Stat(marker); err == nil {
		t.Error("a program from a repository ran")
	}
}

// TestCutOff: a client that goes away leaves nothing that runs.
func TestCutOff(t *testing.T) {
	h := apptest.Start(t, nil)
	path, url, src := filled(t, h, "x")
	big := make([]byte, 4<<20)
	if _, err := rand.Read(big); err != nil {
		t.Fatal(err)
	}
	commit(t, src, "big", string(big))
	git(t, src, "push", "-q", withToken(url, h.Token()), "main")
	tip := git(t, src, "rev-parse", "main")
	want := fmt.Sprintf("%04xwant %s no-progress\n00000009done\n", len(tip)+22, tip)
	for range 4 {
		ctx, cancel := context.WithCancel(t.Context())
		req, _ := http.NewRequestWithContext(ctx, "POST", url+"/git-upload-pack", strings.NewReader(want))
		req.Header.Set("Content-Type", "application/x-git-upload-pack-request")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(resp.Body, make([]byte, 1000)); err != nil || resp.StatusCode != 200 {
			t.Errorf("%d %v", resp.StatusCode, err)
		}
		cancel()
		resp.Body.Close()
	}
	// A push that breaks off in the middle of the pack changes nothing.
	pack := "00a6" + tip + " " + strings.Repeat("0", 40) + " refs/heads/main\x00 report-status\n"
	pack = fmt.Sprintf("%04x", len(pack)) + pack[4:] + "0000PACK\x00\x00\x00\x02\x00\x00\x00\x09half"
	req, _ := http.NewRequestWithContext(t.Context(), "POST", url+"/git-receive-pack", io.MultiReader(strings.NewReader(pack), broken(t)))
	req.SetBasicAuth("x", h.Token())
	req.Header.Set("Content-Type", "application/x-git-receive-pack-request")
	if resp, err := http.DefaultClient.Do(req); err == nil {
		resp.Body.Close()
	}
	dir := filepath.Join(h.Data, "gitrepos", strings.TrimPrefix(path, "/gitrepo/"))
	eventually(t, "git has ended", func() bool { return !running(t, dir) })
	if got := git(t, src, "ls-remote", url, "refs/heads/main"); !strings.HasPrefix(got, tip) {
		t.Errorf("the branch is %s", got)
	}
	commit(t, src, "after", "x")
	git(t, src, "push", "-q", withToken(url, h.Token()), "main")
	if got := raw(h, path+"/content/after"); got != "x" {
		t.Errorf("afterwards: %q", got)
	}
}

// broken is a body that breaks off.
func broken(t testing.TB) io.Reader {
	r, w := io.Pipe()
	t.Cleanup(func() { w.Close() })
	go w.CloseWithError(errors.New("the client is gone"))
	return r
}

// running says whether a process of git works on a directory.
func running(t testing.TB, dir string) bool {
	t.Helper()
	procs, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range procs {
		if line, err := os.ReadFile(p); err == nil && strings.Contains(string(line), dir) {
			return true
		}
	}
	return false
}
