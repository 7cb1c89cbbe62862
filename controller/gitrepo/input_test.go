package gitrepo_test

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"muster/controller/app/apptest"
	"muster/shared/kind"
	objects "muster/shared/object"
)

// FuzzBranchNames: what is taken as the name of a branch is one for git too, and
// is no option where git reads options.
func FuzzBranchNames(f *testing.F) {
	for _, s := range []string{"main", "feature/x-1", "ünï", "a@b", "-x", "--all", "a..b", "a/../b", ".a", "a/.b", "a.lock", "a.lock/b", "a.", "a//b", "/a", "a/",
		"@", "HEAD", "a@{1}", "a:b", "a b", "a\x00b", "a\nb", "a~1", "a^", "a?", "a*", "a[", `a\b`, "refs/heads/x", strings.Repeat("a", 300), "#", "=", "a,b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if objects.BranchName(s) != nil {
			return
		}
		if out, err := exec.Command("git", "check-ref-format", "--branch", s).CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != s {
			t.Errorf("%q is taken, but git says %v %s", s, err, out)
		}
	})
}

// FuzzURLs: of what is taken as a URL, git finds one of the permitted protocols
// in it, not the name of a program or an option.
func FuzzURLs(f *testing.F) {
	for _, s := range []string{"https://example.org/x.git", "http://u:p%40@h:80/x", "ssh://git@h/~x/y", "git://[::1]:9418/x", "git@h:x/y.git", "/srv/x.git", "file:///srv/x",
		"ext::sh -c id", "ext::id", "fd::3", "-u./x", "--upload-pack=id", "ssh://-oProxyCommand=id/x", "git@-oProxyCommand=id:x", "git@h:-x", "https://h/x\n", "https://h",
		"file://h/x", "/a/../b", "ftp://h/x", "HTTPS://h/x", "a::b", "h:x", "git@h::x", "ssh://h/-x", "https://h/x#y", "testgit::/x", "rsync://h/x", "file:///x::y"} {
		f.Add(s)
	}
	dir := f.TempDir()
	denied := regexp.MustCompile(`transport '(https|http|ssh|git|file)' not allowed`)
	specs := objects.All()
	spec := specs[slices.IndexFunc(specs, func(s *kind.Spec) bool { return s.Name == objects.KindGitrepo })]
	field, _ := spec.Field("url")
	f.Fuzz(func(t *testing.T, s string) {
		raw, err := json.Marshal(s)
		if err != nil {
			return
		}
		url, err := field.Format.Parse(raw)
		if err != nil {
			return
		}
		cmd := exec.Command("git", "ls-remote", url.(string))
		cmd.Dir = dir
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "GIT_CONFIG_NOSYSTEM=1", "GIT_ALLOW_PROTOCOL=", "LC_ALL=C"}
		if out, _ := cmd.CombinedOutput(); !denied.Match(out) {
			t.Errorf("%q: git says %s", s, out)
		}
	})
}

// TestIgnitionFromGit: other parts of the head read files of repositories.
func TestIgnitionFromGit(t *testing.T) {
	h := apptest.Start(t, nil)
	_, url, src := filled(t, h, "conf")
	commit(t, src, "node.ign", `{"ignition":{"version":"3.4.0"}}`)
	if err := os.Symlink("/etc/passwd", src+"/link"); err != nil {
		t.Fatal(err)
	}
	commit(t, src, "other", "x")
	git(t, src, "push", "-q", withToken(url, h.Token()), "main", "main:dev")
	h.OK("POST", "/nodes", object{"mac": "52:54:00:00:00:01"})
	for where, status := range map[string]int{
		"gitrepo:conf/node.ign": 200, "gitrepo:conf:dev/node.ign": 200, "gitrepo:conf:none/node.ign": 404, "gitrepo:none/node.ign": 404, "gitrepo:conf/link": 404,
		"gitrepo:conf/roles": 404, "gitrepo:conf/../../x": 400, "gitrepo:conf:--all/x": 400, "gitrepo:conf/": 400, "gitrepo:conf:../x": 400,
	} {
		h.OK("PUT", "/node/n0/attributes", object{"_ignition": where})
		if a := h.As("", "GET", "/ignition/n0", nil); a.Status != status || status == 200 && !strings.Contains(string(a.Raw), "3.4.0") {
			t.Errorf("%s: %d %s, want %d", where, a.Status, a.Raw, status)
		}
	}
}

// TestRequestsOfClients that no client of git would send.
func TestRequestsOfClients(t *testing.T) {
	h := apptest.Start(t, nil)
	path, url, src := filled(t, h, "x")
	post := func(service, media, encoding, body string) int {
		t.Helper()
		req, err := http.NewRequest("POST", url+"/"+service, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth("x", h.Token())
		req.Header.Set("Content-Type", media)
		req.Header.Set("Content-Encoding", encoding)
		req.Header.Set("Git-Protocol", "version=2\x20--x")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return 0 // the answer had begun and was cut off
		}
		defer resp.Body.Close()
		return resp.StatusCode
	}
	const up, down = "application/x-git-upload-pack-request", "application/x-git-receive-pack-request"
	for _, c := range []struct {
		service, media, encoding, body string
		below                          int
	}{
		{"git-upload-pack", "text/plain", "", "0000", 500}, {"git-upload-archive", "application/x-git-upload-archive-request", "", "0000", 500},
		{"git-upload-pack", up, "gzip", "no gzip", 500}, {"git-upload-pack", up, "br", "0000", 500},
		{"HEAD", up, "", "", 500}, {"..%2fgit-upload-pack", up, "", "", 500},
		{"git-upload-pack", up, "", strings.Repeat("\xff", 1<<20), 600}, {"git-receive-pack", down, "", strings.Repeat("0", 1<<20), 600},
		{"git-upload-pack", up, "", "0032want " + strings.Repeat("0", 40) + "\n00000009done\n", 600},
	} {
		if got := post(c.service, c.media, c.encoding, c.body); got >= c.below || got > 0 && got < 200 {
			t.Errorf("%s %s %.40q: %d", c.service, c.media, c.body, got)
		}
	}
	refused(h, "", 401, "GET", path+"/repo/info/refs?service=git-receive-pack", nil)
	if a := h.As("", "GET", path+"/repo/info/refs?service=git-receive-pack", nil); !strings.HasPrefix(a.Header.Get("WWW-Authenticate"), "Basic ") {
		t.Errorf("git is not asked for a password: %v", a.Header)
	}
	if a := h.As("", "GET", path+"/repo/info/refs?service=git-upload-archive", nil); a.Status != 200 || strings.Contains(string(a.Raw), "#") {
		t.Errorf("another service: %d %s", a.Status, a.Raw)
	}
	// The host of the URL is the one that was asked for, unless it is none.
	for host, want := range map[string]string{"head.example:81": "http://head.example:81/", "[::1]:80": "http://[::1]:80/", "a$(id)": "", "-x": ""} {
		req, _ := http.NewRequest("GET", h.HTTP+"/api/v1"+path+"/url", nil)
		req.Host = host
		if a := h.Send(http.DefaultClient, req); want == "" && a.Status != 400 || !strings.HasPrefix(string(a.Raw), want) {
			t.Errorf("host %q: %d %s", host, a.Status, a.Raw)
		}
	}
	commit(t, src, "still", "alive")
	git(t, src, "push", "-q", withToken(url, h.Token()), "main")
}

// TestNoGit: a head without git says what to install.
func TestNoGit(t *testing.T) {
	path := os.Getenv("PATH")
	h := apptest.Start(t, nil)
	t.Setenv("PATH", t.TempDir())
	repo := create(h, object{"name": "x"})
	if reason := refused(h, "", 503, "GET", repo+"/repo/HEAD", nil); !strings.Contains(reason, "install the package git") {
		t.Errorf("the reason is %q", reason)
	}
	t.Setenv("PATH", path)
	raw(h, repo+"/repo/HEAD")
}
