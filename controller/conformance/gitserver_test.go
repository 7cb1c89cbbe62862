package conformance

import (
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
)

// gitServer serves a repository over HTTP, as upstreams do, by git's own
// http-backend, and gives its URL.
func gitServer(c *check, dir string) string {
	out, err := exec.Command("git", "--exec-path").Output()
	c.must(err == nil, "git: %v", err)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		(&cgi.Handler{
			Path: filepath.Join(strings.TrimSpace(string(out)), "git-http-backend"),
			Env:  []string{"GIT_PROJECT_ROOT=" + filepath.Dir(dir), "GIT_HTTP_EXPORT_ALL=1", "HOME=" + filepath.Dir(dir)},
		}).ServeHTTP(w, r)
	}))
	c.Cleanup(s.Close)
	return s.URL + "/" + filepath.Base(dir) + "/.git"
}
