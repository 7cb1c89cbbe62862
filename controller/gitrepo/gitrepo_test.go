package gitrepo_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"muster/controller/app/apptest"
)

type object = map[string]any

// git runs real git as a user's, and gives what it prints.
func git(t testing.TB, dir string, args ...string) string {
	t.Helper()
	out, err := try(t, dir, args...)
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(out)
}

func try(t testing.TB, dir string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", args...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0", "LC_ALL=C",
		"GIT_AUTHOR_NAME=User", "GIT_AUTHOR_EMAIL=user@example.org", "GIT_COMMITTER_NAME=User", "GIT_COMMITTER_EMAIL=user@example.org"}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// write puts files into a directory: a name, then its content.
func write(t testing.TB, dir string, files ...string) {
	t.Helper()
	for i := 0; i < len(files); i += 2 {
		path := filepath.Join(dir, files[i])
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(files[i+1]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// commit writes files and commits them.
func commit(t testing.TB, dir string, files ...string) string {
	t.Helper()
	write(t, dir, files...)
	git(t, dir, "add", "-A")
	git(t, dir, "commit", "-q", "-m", "change "+files[0])
	return git(t, dir, "rev-parse", "HEAD")
}

// source is a repository with one commit.
func source(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	git(t, dir, "init", "-q", "-b", "main")
	commit(t, dir, "README", "first\n", "roles/web/task.yml", "- web\n", "bytes", "\x00\x01\xff")
	return dir
}

// create makes a gitrepo object and gives its path in the API.
func create(h *apptest.Head, fields object) string {
	h.Helper()
	var uid string
	h.Into(&uid, "POST", "/gitrepos", fields)
	return "/gitrepo/" + uid
}

// raw reads an endpoint that answers without envelope.
func raw(h *apptest.Head, path string) string {
	h.Helper()
	a := h.As("", "GET", path, nil)
	if a.Status != http.StatusOK {
		h.Fatalf("GET %s: %d %s", path, a.Status, a.Raw)
	}
	return string(a.Raw)
}

// refused sends what must fail with this status and gives the reason.
func refused(h *apptest.Head, token string, status int, method, path string, body any) string {
	h.Helper()
	a := h.As(token, method, path, body)
	if a.Status != status || a.Success == nil || *a.Success || a.Reason == "" {
		h.Errorf("%s %s %v: %d %.400s, want %d and a reason", method, path, body, a.Status, a.Raw, status)
	}
	return a.Reason
}

// withToken puts a token into a URL as git's users do.
func withToken(url, token string) string {
	return strings.Replace(url, "://", "://any:"+token+"@", 1)
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// filled is a repository without remote to which a source was pushed.
func filled(t testing.TB, h *apptest.Head, name string) (path, url, src string) {
	t.Helper()
	path = create(h, object{"name": name})
	url = raw(h, path+"/url")
	src = source(t)
	git(t, src, "push", "-q", withToken(url, h.Token()), "main")
	return path, url, src
}

func TestPushCloneFetch(t *testing.T) {
	h := apptest.Start(t, nil)
	path, url, src := filled(t, h, "config files")
	if !strings.HasPrefix(url, h.HTTP+"/api/v1"+path+"/repo") || strings.ContainsAny(url, " \n") {
		t.Fatalf("the URL is %q", url)
	}
	work := t.TempDir()
	git(t, work, "clone", "-q", url, "all")
	clone := filepath.Join(work, "all")
	if got := git(t, clone, "rev-parse", "HEAD"); got != git(t, src, "rev-parse", "HEAD") {
		t.Errorf("cloned %s", got)
	}
	if log := string(h.OK("GET", "/audit?action=push", nil)); !strings.Contains(log, `"refs":"main ..`+git(t, src, "rev-parse", "--short=12", "HEAD")+`"`) ||
		!strings.Contains(log, `"name":"config files"`) || !strings.Contains(log, `"admin":"`+h.Admin+`"`) || !strings.Contains(log, `"from":"127.0.0.1"`) {
		t.Errorf("the audit trail: %s", log)
	}
	second := commit(t, src, "README", "second\n")
	git(t, src, "tag", "-m", "a tag", "v1")
	git(t, src, "push", "-q", "--follow-tags", withToken(url, h.Token()), "main", "main:feature/x")
	git(t, clone, "pull", "-q")
	if got := git(t, clone, "rev-parse", "HEAD"); got != second {
		t.Errorf("fetched %s", got)
	}
	if got := git(t, clone, "tag"); got != "v1" {
		t.Errorf("tags: %s", got)
	}
	for _, version := range []string{"0", "1", "2"} {
		dir := "shallow" + version
		git(t, work, "-c", "protocol.version="+version, "clone", "-q", "--depth", "1", "-b", "feature/x", url, dir)
		if n := git(t, filepath.Join(work, dir), "rev-list", "--count", "HEAD"); n != "1" {
			t.Errorf("protocol %s: a shallow clone has %s commits", version, n)
		}
		git(t, filepath.Join(work, dir), "-c", "protocol.version="+version, "fetch", "-q", "--unshallow")
		git(t, filepath.Join(work, dir), "fsck", "--strict")
	}
	git(t, work, "clone", "-q", "--filter=blob:none", "--no-checkout", url, "partial")
	if missing := git(t, filepath.Join(work, "partial"), "rev-list", "--objects", "--missing=print", "HEAD"); !strings.Contains(missing, "?") {
		t.Error("a clone without blobs has all of them")
	}
	git(t, filepath.Join(work, "partial"), "checkout", "-q", "main")
	if _, err := exec.LookPath(git(t, work, "--exec-path") + "/git-remote-http"); err != nil {
		t.Fatal(err)
	}
	if got := git(t, work, "ls-remote", url); strings.Contains(got, "refs/remotes") || !strings.Contains(got, "refs/tags/v1^{}") {
		t.Errorf("advertised: %s", got)
	}
}

// TestDumb: clients that know no more than files get the same.
func TestDumb(t *testing.T) {
	h := apptest.Start(t, nil)
	path, url, src := filled(t, h, "x")
	git(t, src, "tag", "-m", "a", "v1")
	commit(t, src, "more", "more")
	git(t, src, "push", "-q", "--follow-tags", withToken(url, h.Token()), "main", "main:a/b")
	work := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "git", "clone", "-q", url, "dumb")
	cmd.Dir, cmd.Env = work, append(os.Environ(), "GIT_SMART_HTTP=0", "GIT_TERMINAL_PROMPT=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	if a, b := git(t, work+"/dumb", "rev-parse", "origin/a/b"), git(t, src, "rev-parse", "main"); a != b {
		t.Errorf("%s and %s", a, b)
	}
	for p, want := range map[string]string{
		"/repo/HEAD": "ref: refs/heads/main\n", "/repo/x.git/HEAD": "ref: refs/heads/main\n", "/repo/refs/heads/a/b": git(t, src, "rev-parse", "main") + "\n",
	} {
		if got := raw(h, path+p); got != want {
			t.Errorf("%s: %q", p, got)
		}
	}
	if got := raw(h, path+"/repo"); !strings.Contains(got, "HEAD\n") {
		t.Errorf("the repository holds %q", got)
	}
	for _, p := range []string{"config", "hooks/update", "logs/HEAD", "refs/remotes/origin/main", "packed-refs", "refs/heads/nothing", "objects/", "objects/zz/x",
		"..%2Fstate.json", "%2e%2e/state.json", "refs/heads/..%2f..%2fconfig", "refs/heads/--git-dir", "HEAD%00", "x.git/config", "objects/pack/..%2f..%2fconfig"} {
		refused(h, "", 404, "GET", path+"/repo/"+p, nil)
	}
}

func TestContent(t *testing.T) {
	h := apptest.Start(t, nil)
	path, url, src := filled(t, h, "x")
	for link, to := range map[string]string{"out": "/etc/passwd", "up": "../../../gitconfig", "dirup": "..", "in": "roles/web", "loop": "loop"} {
		if err := os.Symlink(to, filepath.Join(src, link)); err != nil {
			t.Fatal(err)
		}
	}
	commit(t, src, "page.html", "<script>alert(1)</script>", "ä ö", "umlaut", ".gitattributes", "* filter=evil\n*.txt text eol=crlf\n", "hooks/post-checkout", "#!/bin/sh\ntouch /tmp/never")
	git(t, src, "push", "-q", withToken(url, h.Token()), "main")
	for p, want := range map[string]string{
		"":             ".gitattributes\nREADME\nbytes\ndirup\nhooks/\nin\nloop\nout\npage.html\nroles/\nup\nä ö\n",
		"/README":      "first\n",
		"/bytes":       "\x00\x01\xff",
		"/roles":       "web/\n",
		"/roles/":      "web/\n",
		"/in/task.yml": "- web\n",
		"/%C3%A4%20ö":  "umlaut",
	} {
		if got := raw(h, path+"/content"+p); got != want {
			t.Errorf("%s: %q, want %q", p, got, want)
		}
	}
	if a := h.As("", "GET", path+"/content/page.html", nil); !strings.HasPrefix(a.Header.Get("Content-Type"), "text/plain") || a.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("a page of a repository is served as %v", a.Header)
	}
	for _, p := range []string{"out", "up", "dirup", "dirup/state.json", "loop", "nothing", ".git", ".git/config", "README/x"} {
		refused(h, "", 404, "GET", path+"/content/"+p, nil)
	}
	for _, p := range []string{"..%2f..%2fstate.json", "%2e%2e%2fx", "a%00b", "%2Fetc%2Fpasswd", "roles%2f..%2fREADME"} {
		refused(h, "", 400, "GET", path+"/content/"+p, nil)
	}
	req, _ := http.NewRequest("GET", h.HTTP+"/api/v1"+path+"/content/README", nil)
	req.Header.Set("Range", "bytes=2-3")
	if a := h.Send(http.DefaultClient, req); a.Status != 206 || string(a.Raw) != "rs" {
		t.Errorf("a range: %d %q", a.Status, a.Raw)
	}
}

func TestPrivate(t *testing.T) {
	h := apptest.Start(t, nil)
	path, url, _ := filled(t, h, "secret")
	h.OK("PATCH", path, object{"public": false})
	_, reader := h.NewAdmin("reader", "role.authuser")
	_, nobody := h.NewAdmin("nobody")
	for _, p := range []string{"/url", "/repo", "/repo/HEAD", "/repo/info/refs", "/repo/info/refs?service=git-upload-pack", "/content", "/content/README"} {
		refused(h, "", 401, "GET", path+p, nil)
		refused(h, nobody.Access, 403, "GET", path+p, nil)
		if a := h.As(reader.Access, "GET", path+p, nil); a.Status != 200 {
			t.Errorf("%s with a token: %d %s", p, a.Status, a.Raw)
		}
	}
	refused(h, "", 400, "POST", path+"/repo/git-upload-pack", "0000")
	work := t.TempDir()
	if out, err := try(t, work, "clone", "-q", url, "a"); err == nil {
		t.Errorf("cloned without a token: %s", out)
	}
	if out, err := try(t, work, "clone", "-q", withToken(url, "wrong"), "a"); err == nil {
		t.Errorf("cloned with a wrong token: %s", out)
	}
	git(t, work, "clone", "-q", withToken(url, reader.Access), "basic")
	git(t, work, "clone", "-q", strings.Replace(url, "://", "://"+reader.Access+":@", 1), "user")
	git(t, work, "-c", "http.extraHeader=Authorization: Bearer "+reader.Access, "clone", "-q", url, "bearer")
	clone := filepath.Join(work, "basic")
	before := git(t, work, "ls-remote", withToken(url, reader.Access))
	commit(t, clone, "README", "forged")
	for _, u := range []string{url, withToken(url, reader.Access)} {
		if out, err := try(t, clone, "push", u, "main"); err == nil {
			t.Errorf("pushed without the permission: %s", out)
		}
	}
	if after := git(t, work, "ls-remote", withToken(url, reader.Access)); after != before {
		t.Errorf("%s became %s", before, after)
	}
}

func TestDeleteRemovesTheDirectory(t *testing.T) {
	h := apptest.Start(t, nil)
	path, _, _ := filled(t, h, "x")
	dir := filepath.Join(h.Data, "gitrepos", strings.TrimPrefix(path, "/gitrepo/"))
	if _, err := os.Stat(dir); err != nil {
		t.Fatal(err)
	}
	h.OK("DELETE", path, nil)
	refused(h, "", 404, "GET", path+"/content", nil)
	eventually(t, "the directory is gone", func() bool { _, err := os.Stat(dir); return os.IsNotExist(err) })
}

func TestBranches(t *testing.T) {
	h := apptest.Start(t, nil)
	path, url, src := filled(t, h, "x")
	git(t, src, "push", "-q", withToken(url, h.Token()), "main:feature/a", "main:feature/b", "main:old")
	names := func(body any) string {
		t.Helper()
		var list []struct {
			Name, Commit, Subject string
			Head                  bool
		}
		h.Into(&list, "GET", path+"/branches", body)
		var out []string
		for _, b := range list {
			name := b.Name
			if b.Head {
				name = "*" + name
			}
			if b.Commit != git(t, src, "rev-parse", "main") || b.Subject != "change README" {
				t.Errorf("%+v", b)
			}
			out = append(out, name)
		}
		return strings.Join(out, " ")
	}
	for body, want := range map[string]string{
		"":                                      "feature/a feature/b *main old",
		"{}":                                    "feature/a feature/b *main old",
		`{"filter":"feature/*"}`:                "feature/a feature/b",
		`{"filter":"l"}`:                        "old",
		`{"filter":"?????"}`:                    "",
		`{"branchmap":["main","none"]}`:         "*main",
		`{"branch_map":"old","all":true}`:       "old",
		`{"branchmap":["old:x"],"filter":"ma"}`: "",
	} {
		var b any = body
		if body == "" {
			b = nil
		}
		if got := names(b); got != want {
			t.Errorf("%s: %q, want %q", body, got, want)
		}
	}
	for query, want := range map[string]string{"?filter=feature/*": "feature/a feature/b", "?branchmap=main,old&all=true": "*main old", "?all=false": "feature/a feature/b *main old"} {
		var list []struct {
			Name string
			Head bool
		}
		h.Into(&list, "GET", path+"/branches"+query, nil)
		var out []string
		for _, b := range list {
			out = append(out, map[bool]string{true: "*"}[b.Head]+b.Name)
		}
		if got := strings.Join(out, " "); got != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
	refused(h, h.Token(), 400, "GET", path+"/branches?all=perhaps", nil)
	for _, bad := range []any{`{"filter":5}`, `{"x":1}`, `{"branchmap":"--all"}`, `{"branchmap":"a","branch_map":"b"}`, object{"filter": strings.Repeat("*", 2000)}, "[]"} {
		refused(h, h.Token(), 400, "GET", path+"/branches", bad)
	}
	for _, bad := range []any{"{}", `{"all":false}`, `{"all":true,"branches":["main"]}`, nil, `{"branches":"main"}`} {
		refused(h, h.Token(), 400, "DELETE", path+"/branches", bad)
	}
	refused(h, h.Token(), 404, "DELETE", path+"/branches", `{"branches":["old","--all"]}`)
	_, reader := h.NewAdmin("reader", "role.authuser")
	refused(h, reader.Access, 403, "DELETE", path+"/branches", `{"all":true}`)
	h.OK("DELETE", path+"/branches", `{"branches":["old","feature/a"]}`)
	if got := names(nil); got != "feature/b *main" {
		t.Errorf("left: %s", got)
	}
	if log := string(h.OK("GET", "/audit?action=delete%20branches", nil)); !strings.Contains(log, `"branches":"feature/a, old"`) || !strings.Contains(log, `"admin":"`+h.Admin+`"`) {
		t.Errorf("the audit trail: %s", log)
	}
	h.OK("DELETE", path+"/branches", `{"branches":["main"]}`)
	if got := names(nil); got != "*feature/b" {
		t.Errorf("left: %s", got)
	}
	h.OK("DELETE", path+"/branches", `{"all":true}`)
	if got, tree := names(nil), raw(h, path+"/content"); got != "" || tree != "" {
		t.Errorf("left: %q %q", got, tree)
	}
	git(t, src, "push", "-q", withToken(url, h.Token()), "main:again")
	if got := names(nil); got != "*again" {
		t.Errorf("pushed again: %s", got)
	}
}

func TestLog(t *testing.T) {
	h := apptest.Start(t, nil)
	path, url, src := filled(t, h, "x")
	for i := range 3 {
		commit(t, src, "n", fmt.Sprint(i))
	}
	git(t, src, "commit", "-q", "--allow-empty", "-m", "subject — é\x02 x\n\nbody")
	git(t, src, "push", "-q", withToken(url, h.Token()), "main:other")
	var log []struct{ Commit, Subject string }
	h.Into(&log, "GET", path+"/log?branch=other&limit=2", nil)
	if len(log) != 2 || log[0].Commit != git(t, src, "rev-parse", "HEAD") || !strings.HasPrefix(log[0].Subject, "subject — é") || log[1].Subject != "change n" {
		t.Errorf("%+v", log)
	}
	h.Into(&log, "GET", path+"/log", nil)
	if len(log) != 1 {
		t.Errorf("%+v", log)
	}
	refused(h, h.Token(), 404, "GET", path+"/log?branch=nothing", nil)
	refused(h, h.Token(), 400, "GET", path+"/log?branch=--all", nil)
	refused(h, h.Token(), 400, "GET", path+"/log?limit=0", nil)
	empty := create(h, object{"name": "empty"})
	if got := h.OK("GET", empty+"/log", nil); string(got) != "[]" {
		t.Errorf("an empty repository has the log %s", got)
	}
	if got := raw(h, empty+"/content"); got != "" {
		t.Errorf("an empty repository has %q", got)
	}
	git(t, t.TempDir(), "clone", "-q", raw(h, empty+"/url"), "empty")
}

func asJSON(v any) string { b, _ := json.Marshal(v); return string(b) }
