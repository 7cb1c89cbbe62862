package install_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"muster/controller/app"
	"muster/controller/app/apptest"
	"muster/controller/install"
)

// start runs a head whose packages are these files.
func start(t *testing.T, names ...string) (*apptest.Head, string) {
	dir := t.TempDir()
	for _, n := range names {
		if err := os.WriteFile(filepath.Join(dir, n), []byte("the package "+n), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return apptest.Start(t, func(c *app.Config) { c.Packages = dir }), dir
}

// all is what scripts/packages makes.
var all = []string{
	"muster-agent_1.2.3_amd64.deb", "muster-agent_1.2.3_arm64.deb", "muster-agent-1.2.3-1.x86_64.rpm", "muster-agent-1.2.3-1.aarch64.rpm",
	"muster-agent-1.2.3-x86_64.tar.gz", "muster-agent-1.2.3-aarch64.tar.gz", "muster-1.2.3-x86_64.tar.gz",
}

func get(t *testing.T, h *apptest.Head, path, host string) (int, string, http.Header) {
	t.Helper()
	req, err := http.NewRequest("GET", h.HTTP+"/api/v1/install/"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if host != "" {
		req.Host = host
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b), resp.Header
}

// check has a script looked at: by a shell, and by shellcheck where it is.
func check(t *testing.T, text string) {
	t.Helper()
	for _, cmd := range [][]string{{"sh", "-n"}, {"shellcheck", "--shell=sh", "-"}} {
		if _, err := exec.LookPath(cmd[0]); err != nil {
			continue
		}
		c := exec.Command(cmd[0], cmd[1:]...)
		c.Stdin = strings.NewReader(text)
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("%v: %s", cmd, out)
		}
	}
}

var downloads = regexp.MustCompile(`/api/v1/install/client/download/[^']*`)

func TestInstallerFitsBest(t *testing.T) {
	h, _ := start(t, all...)
	for query, want := range map[string]string{
		"cpu=x86_64&os=debian&pkg=deb":   "deb/muster-agent_1.2.3_amd64.deb",
		"cpu=aarm64&os=debian":           "deb/muster-agent_1.2.3_arm64.deb",
		"cpu=arm64&os=rhel8":             "rpm/muster-agent-1.2.3-1.aarch64.rpm",
		"cpu=amd64&os=rocky9&pkg=tar":    "tar/muster-agent-1.2.3-x86_64.tar.gz",
		"cpu=aarch64&os=sonic":           "tar/muster-agent-1.2.3-aarch64.tar.gz",
		"cpu=x86_64&os=rhel&pkg=deb":     "rpm/muster-agent-1.2.3-1.x86_64.rpm", // which cannot be installed there
		"cpu=x86_64":                     "tar/muster-agent-1.2.3-x86_64.tar.gz",
		"cpu=x86_64&pkg=rpm":             "rpm/muster-agent-1.2.3-1.x86_64.rpm",
		"cpu=X86_64&os=Ubuntu24.04":      "deb/muster-agent_1.2.3_amd64.deb",
		"cpu=x86_64&os=cumulus5&pkg=tar": "tar/muster-agent-1.2.3-x86_64.tar.gz",
	} {
		status, text, _ := get(t, h, "client/installer?"+query, "")
		if status != 200 || !strings.HasPrefix(text, "#!/bin/sh\n") {
			t.Errorf("%s: %d %.200s", query, status, text)
		}
		if got := downloads.FindAllString(text, -1); len(got) != 1 || !strings.HasSuffix(got[0], "/"+want) {
			t.Errorf("%s gives %v, want %s", query, got, want)
		}
		check(t, text)
	}
	// Whoever does not say what it is gets what is good for all.
	if _, text, _ := get(t, h, "client/installer?os=rhel8", ""); len(downloads.FindAllString(text, -1)) != 2 || !strings.Contains(text, "muster-agent-1.2.3-1.aarch64.rpm") {
		t.Errorf("without a processor: %s", text)
	}
	for _, query := range []string{"cpu=sparc", "os=plan9", "os=rhelium", "pkg=msi", "pkg=tar%27%3Bid", "cpu=%0a"} {
		if status, text, _ := get(t, h, "client/installer?"+query, ""); status != 400 || !strings.Contains(text, "none of") {
			t.Errorf("%s: %d %s", query, status, text)
		}
	}
	for _, path := range []string{"client/installer", "head/scyld-install"} {
		status, text, _ := get(t, h, path, "")
		if status != 200 {
			t.Errorf("%s: %d", path, status)
		}
		check(t, text)
	}
}

func TestInstallerFallsBack(t *testing.T) {
	h, dir := start(t, "muster-agent-1.2.3-x86_64.tar.gz")
	if _, text, _ := get(t, h, "client/installer?cpu=x86_64&os=rhel8&pkg=rpm", ""); !strings.Contains(text, "download/tar/muster-agent-1.2.3-x86_64.tar.gz") {
		t.Errorf("asked for rpm where there is tar: %s", text)
	}
	// Without a package the script says so, to the shell that it is piped into.
	if _, text, _ := get(t, h, "client/installer?cpu=aarm64", ""); strings.Contains(text, "download/") || !strings.Contains(text, "has no package") {
		t.Errorf("asked for what there is not: %s", text)
	}
	if err := os.Remove(filepath.Join(dir, "muster-agent-1.2.3-x86_64.tar.gz")); err != nil {
		t.Fatal(err)
	}
	status, text, _ := get(t, h, "client/download/tar/muster-agent-1.2.3-x86_64.tar.gz", "")
	if status != 404 || !strings.Contains(text, "make packages") {
		t.Errorf("a package that is gone: %d %s", status, text)
	}
}

// The head makes packages of its own programs where it was given none.
func TestOwnPrograms(t *testing.T) {
	agent := filepath.Join(t.TempDir(), "muster-agent")
	if err := os.WriteFile(agent, []byte("#!/bin/sh\necho agent\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	h := apptest.Start(t, func(c *app.Config) { c.Agent, c.Packages = agent, "/nowhere" })
	_, text, _ := get(t, h, "client/installer?pkg=deb&cpu="+install.NativeCPU(), "")
	path := strings.TrimPrefix(downloads.FindString(text), "/api/v1/install/")
	status, body, _ := get(t, h, path, "")
	if status != 200 || !strings.Contains(text, digest(body)) {
		t.Fatalf("%s: %d with %d bytes, which the script does not expect", path, status, len(body))
	}
	root := t.TempDir()
	tar := exec.Command("tar", "-xz", "-C", root)
	tar.Stdin = strings.NewReader(body)
	if out, err := tar.CombinedOutput(); err != nil {
		t.Fatalf("tar: %s", out)
	}
	out, err := exec.Command(filepath.Join(root, "usr/bin/muster-agent")).Output()
	if err != nil || string(out) != "agent\n" {
		t.Errorf("the agent in the package: %q, %v", out, err)
	}
	if _, err := os.Stat(filepath.Join(root, "usr/lib/systemd/system/muster-agent.service")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(root, "etc")); err == nil {
		t.Error("tar would write over the admin's configuration")
	}
}

func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

func TestDownload(t *testing.T) {
	h, dir := start(t, append(all, "secret", "muster-agent_1.2.3_amd64.deb.txt")...)
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "muster-agent_6.6.6_amd64.deb")); err != nil {
		t.Fatal(err)
	}
	status, body, header := get(t, h, "client/download/deb/muster-agent_1.2.3_amd64.deb", "")
	if status != 200 || body != "the package muster-agent_1.2.3_amd64.deb" || header.Get("Content-Type") != "application/octet-stream" {
		t.Errorf("%d %q %v", status, body, header)
	}
	for _, path := range []string{"deb/secret", "deb/muster-agent_1.2.3_amd64.deb.txt", "tar/muster-agent_1.2.3_amd64.deb", "deb/..%2f..%2fetc%2fpasswd", "deb/muster-agent_6.6.6_amd64.deb", "deb/%00"} {
		if status, body, _ := get(t, h, "client/download/"+path, ""); status != 404 || !strings.Contains(body, `"reason"`) {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	if status, _, _ := get(t, h, "client/download/exe/x", ""); status != 400 {
		t.Errorf("packaging exe: %d", status)
	}
}

func TestRepo(t *testing.T) {
	h, _ := start(t, all...)
	status, body, _ := get(t, h, "repo", "")
	var answer struct {
		Success bool
		Data    struct {
			CABundle, Fingerprint, HTTPS string
			Packages                     []struct{ Name, URL, SHA256, CPU, PkgSys string }
		}
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil || status != 200 || !answer.Success || len(answer.Data.Packages) != len(all) {
		t.Fatalf("%d %v %s", status, err, body)
	}
	for _, p := range answer.Data.Packages {
		resp, err := http.Get(p.URL)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if digest(string(b)) != p.SHA256 {
			t.Errorf("%s: %s gives %q", p.Name, p.URL, b)
		}
	}
	if !strings.HasPrefix(answer.Data.CABundle, "-----BEGIN CERTIFICATE-----") || !regexp.MustCompile(`^sha256:[0-9a-f]{64}$`).MatchString(answer.Data.Fingerprint) || !strings.HasPrefix(answer.Data.HTTPS, "https://127.0.0.1:") {
		t.Errorf("%+v", answer.Data)
	}
}

func TestPassword(t *testing.T) {
	h, _ := start(t)
	right, err := os.ReadFile(filepath.Join(h.Data, "cluster-password"))
	if err != nil {
		t.Fatal(err)
	}
	if a := h.As("", "POST", "/install/password", map[string]string{"admin_pass": strings.TrimSpace(string(right))}); a.Status != 200 || !*a.Success {
		t.Errorf("the right one: %d %s", a.Status, a.Raw)
	}
	for body, status := range map[string]int{`{}`: 400, `{"admin_pass":5}`: 400, `{"admin_pass":"x","y":1}`: 400, `[]`: 400} {
		if a := h.As("", "POST", "/install/password", body); a.Status != status || a.Reason == "" {
			t.Errorf("%s: %d %s", body, a.Status, a.Raw)
		}
	}
	for n := range 50 {
		a := h.As("", "POST", "/install/password", `{"admin_pass":"wrong"}`)
		if a.Status == 429 {
			return
		}
		if a.Status != 401 || *a.Success {
			t.Fatalf("guess %d: %d %s", n, a.Status, a.Raw)
		}
	}
	t.Error("50 guesses are not slowed down")
}

// What a request says must not become part of a program.
func TestHostIsNoProgram(t *testing.T) {
	h, _ := start(t, all...)
	for _, host := range []string{"$(touch /tmp/x)", "a'b", "a;b", "a b", "a/b", "`id`", "a\\b"} {
		for _, path := range []string{"client/installer", "client/installer?cpu=x86_64", "head/scyld-install", "repo"} {
			if status, text, _ := get(t, h, path, host); status != 400 {
				t.Errorf("%s by the host %q: %d %s", path, host, status, text)
			}
		}
	}
	if _, text, _ := get(t, h, "client/installer", "head.example:81"); !strings.Contains(text, "here='http://head.example:81'\n") {
		t.Error("a proper host does not come back")
	}
}

func TestPackageVersion(t *testing.T) {
	for build, want := range map[string]string{
		"v1.2.3": "1.2.3", "v1.2-5-gabc123-dirty": "1.2.5.gabc123.dirty", "e49e360": "0.0~e49e360", "1234567": "0.0~1234567", "unknown": "0.0~unknown", "test": "0.0~test", "v$(id)": "0.0~v.id",
	} {
		if got := install.PackageVersion(build); got != want {
			t.Errorf("%s becomes %s, want %s", build, got, want)
		}
	}
}
