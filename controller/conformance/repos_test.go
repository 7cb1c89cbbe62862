package conformance

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

func repoSetup(c *check) { c.POST("/repos", `{"name":"local"}`).uid() }

func repoRows() []row {
	const path = "/repo/local/iso"
	iso := func(c *check, text string) string {
		dir := c.TempDir()
		file := filepath.Join(dir, "x.iso")
		c.must(os.WriteFile(filepath.Join(dir, "file"), []byte(text), 0o644) == nil, "no file")
		out, err := exec.Command("xorriso", "-as", "mkisofs", "-quiet", "-R", "-o", file, filepath.Join(dir, "file")).CombinedOutput()
		c.must(err == nil, "xorriso: %v %s", err, out)
		raw, err := os.ReadFile(file)
		c.must(err == nil, "%v", err)
		return string(raw)
	}
	return []row{
		{"GET", "/repo/<UID>/iso", token, "the ISO as it was uploaded", func(c *check) {
			c.GET(path).refused(404)
			sent := iso(c, "one")
			c.PUT(path, sent).done()
			c.same(string(c.GET(path).bytes()), show(sent))
			c.GET("/repo/nobody/iso").reasoned(404, "No repo found for ID=nobody")
		}},
		{"PUT", "/repo/<UID>/iso", token, "replaces the ISO", func(c *check) {
			sent := iso(c, "another")
			c.PUT(path, iso(c, "one")).done()
			c.PUT(path, sent).done()
			c.PUT(path, upload).refused(400)
			c.same(string(c.GET(path).bytes()), show(sent))
		}},
		{"DELETE", "/repo/<UID>/iso", token, "removes the ISO; the repo stays", func(c *check) {
			c.PUT(path, iso(c, "one")).done()
			c.DELETE(path).done()
			c.GET(path).refused(404)
			c.GET("/repo/local").has("name", `"local"`)
		}},
		{"GET", "/repo/<UID>/iso/stat", token, "size and time", func(c *check) {
			sent := iso(c, "one")
			c.PUT(path, sent).done()
			o := c.GET(path+"/stat").has("size", show(len(sent)))
			if t, _ := o["mtime"].(float64); t < 1e9 {
				c.fail("mtime is %v", o["mtime"])
			}
			c.DELETE(path).done()
			c.GET(path + "/stat").refused(404)
		}},
	}
}

// git runs it in dir and gives what it prints.
func (c *check) git(dir string, args ...string) string {
	cmd := exec.Command("git", append([]string{"-c", "init.defaultBranch=main", "-c", "user.name=jo", "-c", "user.email=jo@desk"}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "HOME="+dir, "GIT_TERMINAL_PROMPT=0")
	out, err := cmd.CombinedOutput()
	c.must(err == nil, "git %v: %v: %s", args, err, out)
	return string(out)
}

// upstream is a repository with two branches that the head follows.
type upstream struct{ dir, url string }

// gitSetup makes the repository `mirror` of an upstream on this machine.
func (u *upstream) setup(c *check) {
	u.dir = filepath.Join(c.TempDir(), "work")
	c.must(os.MkdirAll(u.dir, 0o755) == nil, "no directory")
	c.git(u.dir, "init", "-q")
	u.commit(c, "file.txt", "one\n")
	c.git(u.dir, "branch", "side")
	u.url = gitServer(c, u.dir)
	c.POST("/gitrepos", `{"name":"mirror","upstream":`+show(u.url)+`,"branch_map":["main:main","side:side"]}`).uid()
	c.POST("/gitrepo/mirror/sync", `{"action":"reset"}`).ok()
}

func (u *upstream) commit(c *check, name, text string) {
	path := filepath.Join(u.dir, name)
	c.must(os.MkdirAll(filepath.Dir(path), 0o755) == nil && os.WriteFile(path, []byte(text), 0o644) == nil, "%s cannot be written", path)
	c.git(u.dir, "add", "-A")
	c.git(u.dir, "commit", "-qm", "change "+name)
}

func (u *upstream) rows() []row {
	const r = "/gitrepo/mirror/"
	sync := func(method string) func(*check) {
		ask := func(c *check, body string) *answer { return c.me().do(method, r+"sync", body) }
		return func(c *check) {
			u.commit(c, "dir/"+method+".txt", "from upstream\n")
			ask(c, `{"action":"status"}`).ok()
			c.GET(r + "content/dir/" + method + ".txt").refused(404)
			ask(c, `{"action":"pull"}`).ok()
			c.same(c.GET(r+"content/dir/"+method+".txt").text(), `"from upstream\n"`)
			for _, action := range []string{"checkout", "reset", "rebase"} {
				ask(c, `{"action":"`+action+`"}`).ok()
			}
			ask(c, `{"action":"explode"}`).refused(400, "status", "checkout", "reset", "pull", "rebase")
			c.me().do(method, r+"sync?action=status&branchmap=main", "").ok().mentions("main")
			c.me().do(method, r+"sync?action=explode", "").refused(400, "explode")
			ask(c, `{}`).refused(400, "action")
			ask(c, ``).refused(400)
		}
	}
	return []row{
		{"GET", "/gitrepo/<UID>/url", public, "the URL to clone from this head; it can be cloned", func(c *check) {
			url := strings.TrimSpace(c.anybody().GET(r + "url").text("http"))
			if url == u.url {
				c.fail("it is the upstream's")
			}
			to := filepath.Join(c.TempDir(), "clone")
			c.git(c.TempDir(), "-c", "http.sslVerify=false", "clone", "-q", url, to)
			if got := c.git(to, "show", "HEAD:file.txt"); got != "one\n" {
				c.fail("the clone has %q", got)
			}
			c.anybody().GET("/gitrepo/nobody/url").reasoned(404, "No gitrepo found for ID=nobody")
		}},
		{"GET", "/gitrepo/<UID>/repo", public, "the repository's top: where its HEAD is", func(c *check) {
			c.anybody().GET(r + "repo").bytes()
		}},
		{"GET", "/gitrepo/<UID>/repo/<PATH>", public, "a file of the repository; nothing outside of it", func(c *check) {
			c.anybody().GET(r + "repo/HEAD").text("ref: refs/heads/")
			for _, out := range []string{"..%2f..%2fmuster.db", "%2e%2e/%2e%2e/muster.db", "%2fetc%2fpasswd", "nothing"} {
				c.anybody().GET(r + "repo/" + out).refused(0)
			}
		}},
		{"GET", "/gitrepo/<UID>/content", public, "what lies at the top of the work tree", func(c *check) {
			c.anybody().GET(r + "content").text("file.txt")
		}},
		{"GET", "/gitrepo/<UID>/content/<PATH>", public, "a file of the work tree; nothing outside of it", func(c *check) {
			c.same(c.anybody().GET(r+"content/file.txt").text(), `"one\n"`)
			for _, out := range []string{"..%2f..%2fmuster.db", "%2e%2e/%2e%2e/muster.db", "%2fetc%2fpasswd", ".git/config", "nothing"} {
				c.anybody().GET(r + "content/" + out).refused(0)
			}
			c.PATCH("/gitrepo/mirror", `{"public":false}`).done()
			c.anybody().GET(r + "content/file.txt").refused(401)
			c.GET(r + "content/file.txt").text("one")
			c.PATCH("/gitrepo/mirror", `{"public":true}`).done()
		}},
		{"GET", "/gitrepo/<UID>/sync", token, "status, checkout, reset, pull or rebase, asked in the body of a GET", sync("GET")},
		{"POST", "/gitrepo/<UID>/sync", token, "the same as a POST", sync("POST")},
		{"GET", "/gitrepo/<UID>/branches", token, "the branches, with and without a body", func(c *check) {
			c.GET(r+"branches").ok().mentions("main", "side")
			c.GET(r+"branches", `{"all":true}`).ok().mentions("main", "side")
			if a := c.GET(r+"branches", `{"filter":"si*"}`).ok(); strings.Contains(string(a.data), `"main"`) {
				c.fail("%s: is not filtered: %s", a.call, a.data)
			}
			c.GET(r+"branches", `{"colour":1}`).refused(400, "colour")
			if a := c.GET(r + "branches?filter=si*").ok(); strings.Contains(string(a.data), `"main"`) || !strings.Contains(string(a.data), `"side"`) {
				c.fail("%s: the query's filter counts for nothing: %s", a.call, a.data)
			}
		}},
		{"DELETE", "/gitrepo/<UID>/branches", token, "deletes those named, or all", func(c *check) {
			c.DELETE(r+"branches", `{"branches":["side"]}`).ok()
			if a := c.GET(r + "branches").ok(); strings.Contains(string(a.data), `"side"`) {
				c.fail("%s: a deleted branch is there: %s", a.call, a.data)
			}
			c.DELETE(r + "branches").refused(400)
			c.DELETE(r+"branches", `{"branches":["--all","../x"]}`).refused(0)
			c.DELETE(r+"branches", `{"all":true}`).ok()
			if a := c.GET(r + "branches").ok(); strings.Contains(string(a.data), `"main"`) {
				c.fail("%s: not all are deleted: %s", a.call, a.data)
			}
		}},
	}
}

// mentions says that the answer's data names all of these.
func (a *answer) mentions(words ...string) {
	for _, w := range words {
		if !strings.Contains(string(a.data), `"`+w+`"`) {
			a.fail("%s: %q is not in %.300s", a.call, w, a.data)
		}
	}
}
