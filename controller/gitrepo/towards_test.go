package gitrepo

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"muster/shared/fault"
)

// abroad is an address of this machine that is no loopback one, for remotes that
// stand for other machines.
func abroad(t *testing.T) netip.Addr {
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() && !p.Addr().IsLoopback() && !p.Addr().IsLinkLocalUnicast() {
			return p.Addr()
		}
	}
	t.Skip("this machine has no address but loopback ones")
	return netip.Addr{}
}

// TestTowards: git goes to the addresses that were found good, and nowhere else.
func TestTowards(t *testing.T) {
	dir := t.TempDir()
	for _, args := range [][]string{{"init", "-q", "--bare", dir + "/x.git"}, {"-C", dir + "/x.git", "update-server-info"}} {
		if out, err := exec.Command("git", args...).CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v %s", args, err, out)
		}
	}
	files := http.FileServer(http.Dir(dir))
	var asked []string
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.Path)
		if strings.HasPrefix(r.URL.Path, "/moved/") {
			http.Redirect(w, r, strings.Replace(r.URL.String(), "/moved/", "/", 1), http.StatusFound)
			return
		}
		files.ServeHTTP(w, r)
	}))
	listener, err := net.Listen("tcp", abroad(t).String()+":0")
	if err != nil {
		t.Fatal(err)
	}
	server.Listener.Close()
	server.Listener = listener
	server.Start()
	defer server.Close()
	home := filepath.Join(t.TempDir(), "repos")
	if err := os.Mkdir(home, 0o700); err != nil {
		t.Fatal(err)
	}
	theirs := "" // the head's address
	g, err := newGit(home, nil, func(a string) bool { return a == theirs })
	if err != nil {
		t.Fatal(err)
	}
	r := &repo{dir: home, git: g, lock: make(chan struct{}, 1)}
	if err := r.create(t.Context()); err != nil {
		t.Fatal(err)
	}
	urls := []string{server.URL}
	if name, err := os.Hostname(); err == nil {
		if found, err := net.LookupHost(name); err == nil && len(found) == 1 && found[0] == abroad(t).String() {
			urls = append(urls, strings.Replace(server.URL, abroad(t).String(), name, 1))
		}
	}
	for _, url := range urls {
		theirs = ""
		for _, confined := range []bool{true, false} {
			if err := r.fetch(t.Context(), remote{url: url + "/x.git", confined: confined}); err != nil {
				t.Errorf("%s, confined %t: %v", url, confined, err)
			}
		}
		if err := r.fetch(t.Context(), remote{url: url + "/moved/x.git"}); err != nil {
			t.Errorf("%s: a redirect: %v", url, err)
		}
		if err := r.fetch(t.Context(), remote{url: url + "/moved/x.git", confined: true}); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "redirects") {
			t.Errorf("%s: a redirect: %v", url, err)
		}
		theirs, asked = abroad(t).String(), nil
		if err := r.fetch(t.Context(), remote{url: url + "/x.git", confined: true}); !fault.Is(err, fault.Forbidden) || len(asked) > 0 {
			t.Errorf("%s: an address of the head: %v, asked for %v", url, err, asked)
		}
	}
	for _, url := range []string{"http://127.0.0.1:1/x.git", "ssh://git@[::1]/x.git", "git@localhost:x.git", "git://169.254.1.1/x.git", "http://[fe80::1]/x.git", "http://0.0.0.0/x"} {
		if _, err := g.towards(t.Context(), remote{url: url, confined: true}); !fault.Is(err, fault.Forbidden) {
			t.Errorf("%s: %v", url, err)
		}
	}
	if _, err := g.towards(t.Context(), remote{url: "http://nobody.invalid/x.git", confined: true}); err == nil || errors.As(err, new(*failure)) {
		t.Errorf("a name that nobody knows: %v", err)
	}
	env, err := g.towards(t.Context(), remote{url: "ssh://git@192.0.2.1:2222/x.git", confined: true})
	if got := strings.Join(env, "\n"); err != nil || !strings.Contains(got, "-o HostName=192.0.2.1 -o HostKeyAlias='[192.0.2.1]:2222'") {
		t.Errorf("over ssh: %v %s", err, got)
	}
}
