package provision_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"muster/controller/api"
	"muster/controller/api/apitest"
	"muster/controller/provision"
	"muster/shared/fault"
)

// site is a head with one node, n0, at the address of the test's requests.
type site struct {
	*apitest.Head
	dir   string
	state string // of the node
	ask   bool   // requests come from the node
	uid   string
	bin   string
	root  string
	p     *provision.Provision
}

func start(t *testing.T, root ...string) *site {
	s := &site{root: strings.Join(root, ""), dir: t.TempDir(), state: "booting", bin: filepath.Join(t.TempDir(), "ignition")}
	s.Head = apitest.Start(t, apitest.Options{
		Live: func(string) ([]byte, []byte) {
			return []byte(`{"serial":"S 1","disks":[{"name":"sda"}],"bad":"x;reboot"}`), []byte(`{"state":"booting"}`)
		},
		Routes: func(h *apitest.Head) [][]api.Route {
			s.p = provision.New(provision.Options{
				Objects: h.Registry, Dir: s.dir, Log: slog.New(slog.DiscardHandler), Ignition: s.bin,
				NodeAt: func(a netip.Addr) (string, bool) { return s.uid, s.ask && a.IsLoopback() },
				Status: func(string) (map[string]any, error) {
					return map[string]any{"state": s.state, "kernel": []byte("x"), "load": 0.5}, nil
				},
				RootURL: s.root,
				Head:    func() map[string]any { return map[string]any{"name": apitest.HeadName, "ip": "10.0.0.1"} },
				GitFile: gitFile, Heads: func(a string) bool { return a == "10.0.0.1" },
			})
			return [][]api.Route{s.p.Routes()}
		},
	})
	h := s.Head
	h.Create("nets", `{"name":"lab","first_ip":"127.9.0.10","ip_count":5,"mask_bits":24}`)
	s.uid = h.Create("nodes", `{"mac":"52:54:00:00:00:09","attributes":{"rack":"r7","rootpw":"$6$salt$x.y/z","evil":"x\nreboot"}}`)
	return s
}

func gitFile(_ context.Context, repo, path string, limit int64) ([]byte, error) {
	if repo != "conf" || path != "nodes/a.bu" || limit < 1000 {
		return nil, fault.New(fault.NotFound, "No file %s in gitrepo %s", path, repo)
	}
	return []byte("variant: fcos\nversion: 1.5.0\nstorage:\n  files:\n    - path: /etc/hostname\n      contents:\n        inline: <name>\n"), nil
}

func (s *site) file(t *testing.T, name, text string) {
	path := filepath.Join(s.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// text sends a request whose answer is plain text.
func (s *site) text(t *testing.T, path string) string {
	t.Helper()
	a := s.Do("GET", path, nil)
	if a.Status != http.StatusOK || !strings.HasPrefix(a.Header.Get("Content-Type"), "text/plain") {
		t.Errorf("%s: %d, %s, %s", path, a.Status, a.Header, a.Raw)
	}
	return string(a.Raw)
}

func (s *site) refused(t *testing.T, path string, words ...string) {
	t.Helper()
	reason := s.Refused("GET", path, nil)
	for _, w := range words {
		if !strings.Contains(reason, w) {
			t.Errorf("%s: %q does not say %q", path, reason, w)
		}
	}
}

func TestFiles(t *testing.T) {
	s := start(t)
	s.file(t, "basic.ks", "rootpw <a[rootpw]>\n")
	s.file(t, "parts/disk.ks", "clearpart")
	s.file(t, ".secret", "x")
	s.file(t, "big.ks", strings.Repeat("x", 1<<20+1))
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte("outside"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, to := range map[string]string{"out.ks": outside, "up.ks": "../../../../etc/passwd", "loop.ks": "loop.ks", "in.ks": "basic.ks", "parts/up": ".."} {
		if err := os.Symlink(to, filepath.Join(s.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(s.dir, "pipe.ks"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"basic.ks": "rootpw <a[rootpw]>\n", "parts/disk.ks": "clearpart", "in.ks": "rootpw <a[rootpw]>\n"} {
		if got := s.text(t, "/kickstart/"+name); got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
	for _, name := range []string{"none.ks", "parts", "out.ks", "up.ks", "loop.ks", "pipe.ks", "big.ks", ".secret", "parts/%2e%2e/basic.ks", "%2e%2e%2fetc%2fpasswd",
		"..%2f..%2f..%2f..%2fetc%2fpasswd", "%2fetc%2fpasswd", "basic.ks%00", "basic.ks%2fx", "parts%5c..", strings.Repeat("a", 300), "parts/up/basic.ks%2f.."} {
		s.refused(t, "/kickstart/"+name)
	}
	s.refused(t, "/kickstart/none.ks", "none.ks")
}

func TestKickstart(t *testing.T) {
	s := start(t)
	s.Create("bootconfigs", `{"name":"install","kickstart":"basic.ks"}`)
	s.Create("bootconfigs", `{"name":"none"}`)
	s.file(t, "part.ks", "# <a[rack]>\n")
	s.file(t, "basic.ks", "network --hostname=<hostname> --ip=<n[ip]>\nrootpw --iscrypted <a[rootpw]>\nurl <root_url()>/x <head[name]>\n"+
		"<include(part.ks)>serial <quote(h[serial])> on <h[disks.0.name]> load <s[load]>\ncat <<EOF >/etc/x\nEOF\n")
	s.refused(t, "/bootconfig/install/kickstart", "?node=")
	got := s.text(t, "/bootconfig/install/kickstart?node=n0")
	want := "network --hostname=n0 --ip=127.9.0.10\nrootpw --iscrypted $6$salt$x.y/z\nurl " + s.Server.URL + "/x head1\n" +
		"# r7\nserial 'S 1' on sda load 0.5\ncat <<EOF >/etc/x\nEOF\n"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	s.refused(t, "/bootconfig/install/kickstart?node=nobody", "nobody")
	s.refused(t, "/bootconfig/none/kickstart?node=n0", "names no kickstart")
	s.refused(t, "/bootconfig/nobody/kickstart?node=n0")
	s.ask = true
	if s.text(t, "/bootconfig/install/kickstart") != want {
		t.Error("another kickstart for the node that asks")
	}
	for text, words := range map[string][]string{
		"\n<a[gone]>":             {"basic.ks, line 2", "<a[gone]>"},
		"<a[evil]>":               {"control character"},
		"<bad>":                   {"has ;", "quote"},
		"<include(basic.ks)>":     {"basic.ks → basic.ks"},
		"<include(../x)>":         {"../x"},
		"<include(/etc/passwd)>":  {"/etc/passwd"},
		"<include(not-there.ks)>": {"not-there.ks"},
	} {
		s.file(t, "basic.ks", text)
		s.refused(t, "/bootconfig/install/kickstart", append(words, "n0")...)
	}
	s.OK("PATCH", "/bootconfig/install", `{"kickstart":"gone.ks"}`)
	if a := s.Do("GET", "/bootconfig/install/kickstart", nil); a.Status != 404 || !strings.Contains(a.Reason, "gone.ks") {
		t.Errorf("a kickstart that is gone: %d %s", a.Status, a.Raw)
	}
}

// TestInstaller: what an installer gets from where its command line sends it.
func TestInstaller(t *testing.T) {
	s := start(t)
	s.Create("bootconfigs", `{"name":"install","kickstart":"basic.ks"}`)
	s.file(t, "basic.ks", "hello <name>\n")
	s.refused(t, "/boot/v1/kickstart", "No node found")
	s.ask = true
	s.refused(t, "/boot/v1/kickstart", "_boot_config")
	s.OK("PATCH", "/node/n0/attributes", `{"_boot_config":"install"}`)
	for _, path := range []string{"/boot/v1/kickstart", "/boot/v1/autoinstall/user-data"} {
		if got := s.text(t, path); got != "hello n0\n" {
			t.Errorf("%s: %q", path, got)
		}
	}
	if got := s.text(t, "/boot/v1/autoinstall/meta-data"); got != "instance-id: "+s.uid+"\nlocal-hostname: n0\n" {
		t.Error(got)
	}
	if got := s.text(t, "/boot/v1/autoinstall/vendor-data"); got != "" {
		t.Error(got)
	}
	s.state = "up"
	s.refused(t, "/boot/v1/kickstart", "is up")
	s.refused(t, "/boot/v1/autoinstall/user-data", "is up")
}

func TestZTP(t *testing.T) {
	s := start(t)
	s.file(t, "switch.sh", "#!/bin/sh\nhostname <name>\n")
	s.refused(t, "/ztp/script", "No node found")
	s.ask = true
	s.refused(t, "/ztp/script", "ztp:")
	for attr, words := range map[string][]string{"DefaultBoot": {"DefaultBoot"}, "ztp:": {"ztp:"}, "ztp:../../etc/passwd": {"../../etc/passwd"}, "ztp:none.sh": {"none.sh"}} {
		s.OK("PATCH", "/node/n0/attributes", apitest.Map{"_boot_config": attr})
		s.refused(t, "/ztp/script", words...)
	}
	s.OK("PATCH", "/node/n0/attributes", `{"_boot_config":"ztp:switch.sh"}`)
	if got := s.text(t, "/ztp/script"); got != "#!/bin/sh\nhostname n0\n" {
		t.Error(got)
	}
}

const ign = `{"ignition":{"version":"3.4.0"},"storage":{"files":[{"path":"/etc/<a[rack]>","contents":{"source":"data:,r"}}]}}`

func TestIgnition(t *testing.T) {
	s := start(t)
	served := map[string]string{"/good.ign": ign, "/bad.ign": `{"ignition":{"version":"99.0.0"}}`, "/secret": "root:x:0:0", "/big": strings.Repeat("{", 1<<20+1)}
	remote := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch text, ok := served[r.URL.Path]; {
		case ok:
			fmt.Fprint(w, text)
		case r.URL.Path == "/to-file":
			http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
		case r.URL.Path == "/to-link-local":
			http.Redirect(w, r, "http://169.254.169.254/latest", http.StatusFound)
		case r.URL.Path == "/round":
			http.Redirect(w, r, "/round", http.StatusFound)
		default:
			http.NotFound(w, r)
		}
	}))
	defer remote.Close()
	s.file(t, "node.ign", ign)
	s.file(t, "node.bu", "variant: fcos\nversion: 1.5.0\nstorage:\n  files:\n    - path: /etc/rack\n      contents:\n        inline: <json(a[rack])>\n")
	s.file(t, "invalid.ign", `{"ignition":{"version":"3.4.0"},"storage":{"files":[{"path":"relative"}]}}`)
	s.file(t, "invalid.bu", "variant: fcos\nversion: 1.5.0\nstorage:\n  files:\n    - path: /x\n      nonsense: 1\n      contents:\n        local: node.ign\n")
	s.file(t, "text.ign", "hello")
	s.refused(t, "/ignition/n0", "_ignition")
	s.refused(t, "/ignition/nobody", "nobody")
	own := s.Server.URL + "/api/v1/gitrepo/conf/content/nodes/a.bu"
	for where, want := range map[string]string{
		"node.ign": "/etc/r7", "node.bu": `"path":"/etc/rack"`, "gitrepo:conf/nodes/a.bu": "data:,n0", own: "data:,n0", remote.URL + "/good.ign": "/etc/<a[rack]>",
	} {
		s.OK("PATCH", "/node/n0/attributes", apitest.Map{"_ignition": where})
		for _, id := range []string{"n0", s.uid} {
			if got := s.text(t, "/ignition/"+id); !strings.Contains(got, want) || !strings.HasPrefix(got, "{") {
				t.Errorf("%s: %s", where, got)
			}
		}
	}
	for where, words := range map[string][]string{
		"../node.ign": {"../node.ign"}, "none.ign": {"none.ign"}, "invalid.ign": {"not valid", "path"}, "invalid.bu": {"not valid"}, "text.ign": {"not valid"},
		"gitrepo:conf/none": {"none"}, "gitrepo:other/nodes/a.bu": {"other"}, "file:///etc/passwd": {"only http"}, "ftp://x/y": {"only http"}, "http://": {"http"},
		remote.URL + "/bad.ign": {"no valid Ignition"},
	} {
		s.OK("PATCH", "/node/n0/attributes", apitest.Map{"_ignition": where})
		s.refused(t, "/ignition/n0", words...)
	}
	for path, word := range map[string]string{"/none": "404", "/to-file": "only http", "/to-link-local": "169.254.169.254", "/round": "redirects", "/big": "more than"} {
		s.OK("PATCH", "/node/n0/attributes", apitest.Map{"_ignition": strings.Replace(remote.URL, "//", "//user:topsecret@", 1) + path})
		a := s.Do("GET", "/ignition/n0", nil)
		if a.Status != http.StatusBadGateway || !strings.Contains(a.Reason, word) || strings.Contains(a.Reason, "topsecret") {
			t.Errorf("%s: %d %s", path, a.Status, a.Raw)
		}
	}
	s.OK("PATCH", "/node/n0/attributes", apitest.Map{"_ignition": remote.URL + "/secret"})
	if reason := s.Refused("GET", "/ignition/n0", nil); strings.Contains(reason, "root:x") {
		t.Errorf("an answer that is no configuration is quoted: %s", reason)
	}
}

func TestIgnitionBinary(t *testing.T) {
	s := start(t)
	s.refused(t, "/ignition/bin", s.bin)
	if err := os.WriteFile(s.bin, []byte("\x7fELF binary"), 0o755); err != nil {
		t.Fatal(err)
	}
	a := s.Do("GET", "/ignition/bin", nil)
	if a.Status != 200 || string(a.Raw) != "\x7fELF binary" || a.Header.Get("Content-Type") != "application/octet-stream" {
		t.Errorf("%d %v %q", a.Status, a.Header, a.Raw)
	}
}
