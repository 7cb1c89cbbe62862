package repo_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"muster/controller/api/apitest"
	"muster/controller/app/apptest"
)

// run runs a program in a directory and gives what it says.
func run(t testing.TB, dir, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatal(name + " is not installed: scripts/deps test")
	}
	cmd := exec.Command(path, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "HOME="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// debian makes a repository as Debian's ISOs have it, with one package.
func debian(t testing.TB, dir string) {
	pkg := filepath.Join(t.TempDir(), "hello")
	write(t, filepath.Join(pkg, "DEBIAN/control"), "Package: muster-hello\nVersion: 1.0~rc1+deb12\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\nDescription: a greeting\n")
	write(t, filepath.Join(pkg, "usr/share/muster-hello"), strings.Repeat("hello\n", 5000))
	pool := filepath.Join(dir, "pool/main/m/muster-hello")
	binary := filepath.Join(dir, "dists/bookworm/main/binary-amd64")
	for _, d := range []string{pool, binary} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	run(t, dir, "dpkg-deb", "--root-owner-group", "-b", pkg, pool)
	write(t, filepath.Join(binary, "Packages"), run(t, dir, "apt-ftparchive", "packages", "pool"))
	release := run(t, filepath.Join(dir, "dists/bookworm"), "apt-ftparchive", "-o", "APT::FTPArchive::Release::Codename=bookworm",
		"-o", "APT::FTPArchive::Release::Components=main", "-o", "APT::FTPArchive::Release::Architectures=amd64", "release", ".")
	write(t, filepath.Join(dir, "dists/bookworm/Release"), release)
	if err := os.Symlink("bookworm", filepath.Join(dir, "dists/stable")); err != nil {
		t.Fatal(err)
	}
}

// iso uploads a directory as the ISO of a new repo.
func iso(t testing.TB, h *apptest.Head, name, dir string, fields apitest.Map) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "x.iso")
	run(t, dir, "xorriso", "-as", "mkisofs", "-quiet", "-R", "-J", "-o", file, ".")
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if fields == nil {
		fields = apitest.Map{}
	}
	fields["name"] = name
	h.OK("POST", "/repos", fields)
	h.OK("PUT", "/repo/"+name+"/iso", f)
}

// get asks without a token, as a package manager does.
func get(t testing.TB, url string, header ...string) (int, string, http.Header) {
	t.Helper()
	req, err := http.NewRequest("GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
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

// aptRoot is a private root for apt.
type aptRoot struct{ dir string }

func newAptRoot(t testing.TB, sources string) aptRoot {
	a := aptRoot{t.TempDir()}
	for _, d := range []string{"etc/apt/preferences.d", "etc/apt/apt.conf.d", "etc/apt/trusted.gpg.d", "lib/apt/lists/partial", "cache/archives/partial", "lib/dpkg"} {
		if err := os.MkdirAll(filepath.Join(a.dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(a.dir, "lib/dpkg/status"), "")
	write(t, filepath.Join(a.dir, "etc/apt/sources.list.d/muster.sources"), sources)
	return a
}

func (a aptRoot) get(args ...string) *exec.Cmd {
	d := a.dir
	cmd := exec.Command("apt-get", append([]string{"-q", "-o", "Dir::Etc=" + d + "/etc/apt", "-o", "Dir::State=" + d + "/lib/apt", "-o", "Dir::State::status=" + d + "/lib/dpkg/status",
		"-o", "Dir::Cache=" + d + "/cache", "-o", "APT::Architecture=amd64", "-o", "APT::Architectures=amd64", "-o", "APT::Sandbox::User=root",
		"-o", "APT::Update::Error-Mode=any", "-o", "Acquire::http::Proxy=false", "-o", "Acquire::Retries=0", "-o", "Acquire::Languages=none"}, args...)...)
	cmd.Dir, cmd.Env = d, append(os.Environ(), "LC_ALL=C", "APT_CONFIG=/dev/null")
	return cmd
}

// downloads says whether apt gets the package, and what it said.
func (a aptRoot) downloads(t testing.TB) (bool, string) {
	if _, err := exec.LookPath("apt-get"); err != nil {
		t.Fatal("apt-get is not installed: scripts/deps test")
	}
	said, err := a.get("update").CombinedOutput()
	if err != nil {
		return false, string(said)
	}
	more, err := a.get("download", "muster-hello").CombinedOutput()
	debs, _ := filepath.Glob(filepath.Join(a.dir, "muster-hello_*.deb"))
	return err == nil && len(debs) == 1, string(said) + string(more)
}

func sources(t testing.TB, h *apptest.Head, distro string) string {
	t.Helper()
	status, text, _ := get(t, h.HTTP+"/api/v1/distro/"+distro+"/sources")
	if status != http.StatusOK {
		t.Fatalf("sources of %s: %d %s", distro, status, text)
	}
	return text
}

// The whole way: a Debian repository in an ISO, uploaded, used by a real apt
// with the file that the head gives.
func TestAptInstallsFromAnISO(t *testing.T) {
	h := apptest.Start(t, nil)
	dir := t.TempDir()
	debian(t, dir)
	iso(t, h, "local", dir, apitest.Map{"check": false})
	h.OK("POST", "/distros", apitest.Map{"name": "mine", "repos": []string{"local"}})
	if got := string(h.OK("GET", "/distro/mine", nil)); !strings.Contains(got, `"packaging":"deb"`) {
		t.Errorf("the ISO does not tell the packaging: %s", got)
	}
	text := sources(t, h, "mine")
	if ok, said := newAptRoot(t, text).downloads(t); !ok {
		t.Fatalf("apt does not get the package with\n%s\n%s", text, said)
	}
	// Without a signature it must say so before apt believes it.
	h.OK("PATCH", "/repo/local", apitest.Map{"check": true})
	if ok, said := newAptRoot(t, sources(t, h, "mine")).downloads(t); ok || !strings.Contains(said, "not signed") {
		t.Errorf("apt takes unsigned packages: %s", said)
	}
}

func TestAptChecksTheKey(t *testing.T) {
	h := apptest.Start(t, nil)
	dir, home := t.TempDir(), t.TempDir()
	debian(t, dir)
	if err := os.Chmod(home, 0o700); err != nil {
		t.Fatal(err)
	}
	gpg := func(args ...string) string {
		return run(t, home, "gpg", append([]string{"--homedir", home, "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""}, args...)...)
	}
	t.Cleanup(func() { exec.Command("gpgconf", "--homedir", home, "--kill", "all").Run() })
	armored := func(name string) string {
		gpg("--quick-gen-key", name, "ed25519", "sign", "never")
		return gpg("--armor", "--export", name)
	}
	right, wrong := armored("right@example.org"), armored("wrong@example.org")
	gpg("-u", "right@example.org", "--clearsign", "-o", filepath.Join(dir, "dists/bookworm/InRelease"), filepath.Join(dir, "dists/bookworm/Release"))
	iso(t, h, "signed", dir, apitest.Map{"keys": []string{right}})
	h.OK("POST", "/distros", apitest.Map{"name": "d", "repos": []string{"signed"}})
	if ok, said := newAptRoot(t, sources(t, h, "d")).downloads(t); !ok {
		t.Errorf("with the right key: %s", said)
	}
	// The same as an upstream that is down and a mirror that is not.
	h.OK("POST", "/repos", apitest.Map{"name": "up", "urls": "http://127.0.0.2:9/none stable main", "mirrors": h.HTTP + "/repo/signed/tree/", "keys": right})
	h.OK("POST", "/distros", apitest.Map{"name": "mirrored", "repos": "up"})
	if ok, said := newAptRoot(t, sources(t, h, "mirrored")).downloads(t); !ok {
		t.Errorf("apt does not go to the mirror: %s", said)
	}
	h.OK("PATCH", "/repo/signed", apitest.Map{"keys": []string{wrong}})
	if ok, said := newAptRoot(t, sources(t, h, "d")).downloads(t); ok || !strings.Contains(said, "NO_PUBKEY") {
		t.Errorf("with a wrong key: %s", said)
	}
	if status, key, _ := get(t, h.HTTP+"/repo/signed/key/0"); status != 200 || key != strings.TrimSpace(wrong)+"\n" {
		t.Errorf("the key itself: %d %s", status, key)
	}
	for _, n := range []string{"1", "-1", "x", ""} {
		if status, _, _ := get(t, h.HTTP+"/repo/signed/key/"+n); status != 404 {
			t.Errorf("key %s: %d", n, status)
		}
	}
}

// rpms makes a package in each of the directories, and their repodata.
func rpms(t testing.TB, dir string, sub ...string) {
	for _, s := range sub {
		at := filepath.Join(dir, s)
		spec := filepath.Join(t.TempDir(), "x.spec")
		name := strings.ToLower("muster-" + s)
		write(t, spec, "Name: "+name+"\nVersion: 1\nRelease: 1\nSummary: x\nLicense: MIT\nBuildArch: noarch\n%description\nx\n%files\n")
		write(t, filepath.Join(at, "Packages/.keep"), "")
		run(t, t.TempDir(), "rpmbuild", "-bb", "--define", "_rpmdir "+at, "--define", "_build_name_fmt Packages/%%{NAME}.rpm", "--define", "_topdir "+t.TempDir(), spec)
		run(t, at, "createrepo_c", "-q", ".")
	}
}

func TestDnfReadsAnISO(t *testing.T) {
	if _, err := exec.LookPath("dnf"); err != nil {
		t.Fatal("dnf is not installed: scripts/deps test")
	}
	h := apptest.Start(t, nil)
	dir := t.TempDir()
	rpms(t, dir, "BaseOS", "AppStream")
	iso(t, h, "dvd", dir, apitest.Map{"full_name": "The DVD, 100% local", "check": false})
	h.OK("POST", "/distros", apitest.Map{"name": "rocky", "repos": []string{"dvd"}, "release": "9"})
	text := sources(t, h, "rocky")
	root := t.TempDir()
	write(t, filepath.Join(root, "repos/muster.repo"), text)
	said := run(t, root, "dnf", "-q", "--installroot="+root, "--releasever=9", "--setopt=reposdir="+root+"/repos", "--setopt=cachedir="+root+"/cache",
		"--setopt=plugins=0", "repoquery", "--qf", "%{name} %{repoid} %{location}", "muster-*")
	for _, want := range []string{"muster-baseos dvd-BaseOS", "muster-appstream dvd-AppStream"} {
		if !strings.Contains(said, want) {
			t.Errorf("dnf does not find %q with\n%s\n%s", want, text, said)
		}
	}
}

func TestTree(t *testing.T) {
	h := apptest.Start(t, nil)
	dir := t.TempDir()
	content := strings.Repeat("0123456789", 10_000)
	write(t, filepath.Join(dir, "sub/a b&<c>#1?.txt"), content)
	write(t, filepath.Join(dir, "evil.html"), "<script>alert(1)</script>")
	iso(t, h, "r", dir, nil)
	root := h.HTTP + "/repo/r/tree/"
	file := root + "sub/a%20b&%3Cc%3E%231%3F.txt"
	status, body, header := get(t, file)
	if status != 200 || body != content || header.Get("Content-Type") != "application/octet-stream" {
		t.Errorf("%d with %d bytes, %v", status, len(body), header)
	}
	if status, body, _ := get(t, file, "Range", "bytes=50005-50009"); status != 206 || body != "56789" {
		t.Errorf("a part: %d %q", status, body)
	}
	if status, _, _ := get(t, file, "If-None-Match", header.Get("ETag")); status != http.StatusNotModified {
		t.Errorf("again: %d", status)
	}
	if status, _, header := get(t, root+"sub"); status != 301 || header.Get("Location") != "/repo/r/tree/sub/" {
		t.Errorf("a directory without its slash: %d %v", status, header)
	}
	if status, body, _ := get(t, root+"sub/"); status != 200 || !strings.Contains(body, `<a href="./a%20b&amp;%3Cc%3E%231%3F.txt">a b&amp;&lt;c&gt;#1?.txt</a>`) || !strings.Contains(body, `href="../"`) {
		t.Errorf("the listing: %d %s", status, body)
	}
	if _, body, header := get(t, root+"evil.html"); header.Get("Content-Type") != "application/octet-stream" || header.Get("X-Content-Type-Options") != "nosniff" || !strings.HasPrefix(body, "<script>") {
		t.Errorf("a page: %v", header)
	}
	for _, path := range []string{"gone", "sub/..%2f..%2f..%2fetc/passwd", "%2e%2e/%2e%2e/etc/passwd", "sub/gone/", "evil.html/", "sub%00", "..%5c..%5cetc"} {
		if status, body, _ := get(t, root+path); status != 404 && status != 307 && status != 301 || strings.Contains(body, "root:") {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	r := string(h.OK("GET", "/repo/r", nil))
	var uid string
	fmt.Sscanf(r[strings.Index(r, `"uid":"`):], `"uid":"%32s`, &uid)
	if !strings.Contains(r, `"tree":"/repo/`+uid+`/tree/"`) {
		t.Errorf("the object does not say where its tree is: %s", r)
	}
	// What is no ISO, or not all of one, does not take its place.
	whole := h.As(h.Token(), "GET", "/repo/r/iso", nil).Raw
	for what, sent := range map[string][]byte{"no ISO at all": []byte("no ISO at all"), "nothing": {}, "half of it": whole[:len(whole)/2]} {
		if a := h.As(h.Token(), "PUT", "/repo/r/iso", sent); a.Status != 400 || !strings.Contains(a.Reason, "ISO 9660") {
			t.Errorf("%s as an ISO: %d %s", what, a.Status, a.Raw)
		}
	}
	if status, body, _ := get(t, file); status != 200 || body != content {
		t.Errorf("after uploads that were refused the tree answers %d with %d bytes", status, len(body))
	}
	h.OK("DELETE", "/repo/r/iso", nil)
	if status, _, _ := get(t, root); status != 404 {
		t.Errorf("a tree without a file: %d", status)
	}
}

func TestSources(t *testing.T) {
	h := apptest.Start(t, nil)
	h.OK("POST", "/repos", apitest.Map{"name": "Cent OS", "full_name": "CentOS", "urls": []string{"http://a.example/$releasever/os/", "http://b.example/metalink?x=1"},
		"disable": []bool{false, true}, "keys": "file:///etc/pki/rpm-gpg/KEY", "mirrors": []string{"http://m.example/", ""}, "rhel_entitlement": "123"})
	h.OK("POST", "/repos", apitest.Map{"name": "alpine", "urls": "https://dl.example/alpine v3.20 main community", "keys": "https://k.example/a.rsa.pub"})
	h.OK("POST", "/repos", apitest.Map{"name": "keyed", "urls": "https://d.example/debian", "keys": "https://k.example/a.gpg"})
	h.OK("POST", "/distros", apitest.Map{"name": "c", "repos": []string{"Cent OS"}, "release": "9"})
	h.OK("POST", "/distros", apitest.Map{"name": "alpine", "repos": []string{"alpine"}, "packaging": "apk"})
	h.OK("POST", "/distros", apitest.Map{"name": "deb", "repos": []string{"keyed"}, "release": "trixie"})
	for distro, want := range map[string]string{
		"c": "# c: belongs in /etc/yum.repos.d/NAME.repo\n" +
			"\n[Cent-OS-1]\nname=CentOS (1)\nbaseurl=http://a.example/9/os/\n        http://m.example/\nenabled=1\ngpgcheck=1\ngpgkey=file:///etc/pki/rpm-gpg/KEY\n" +
			"sslverify=1\nsslcacert=/etc/rhsm/ca/redhat-uep.pem\nsslclientkey=/etc/pki/entitlement/123-key.pem\nsslclientcert=/etc/pki/entitlement/123.pem\n" +
			"\n[Cent-OS-2]\nname=CentOS (2)\nmetalink=http://b.example/metalink?x=1\nenabled=0\ngpgcheck=1\ngpgkey=file:///etc/pki/rpm-gpg/KEY\n" +
			"sslverify=1\nsslcacert=/etc/rhsm/ca/redhat-uep.pem\nsslclientkey=/etc/pki/entitlement/123-key.pem\nsslclientcert=/etc/pki/entitlement/123.pem\n",
		"alpine": "# alpine: belongs in /etc/apk/repositories\n# alpine\n# its key belongs in /etc/apk/keys: https://k.example/a.rsa.pub\nhttps://dl.example/alpine/v3.20/main\nhttps://dl.example/alpine/v3.20/community\n",
		"deb": "# deb: belongs in /etc/apt/sources.list.d/NAME.sources\n\nX-Repolib-Name: keyed\nTypes: deb\nURIs: https://d.example/debian\nSuites: trixie\nComponents: main\n" +
			"# To be fetched: curl -fsSL -o /etc/apt/keyrings/keyed.gpg 'https://k.example/a.gpg'\nSigned-By: /etc/apt/keyrings/keyed.gpg\n",
	} {
		if got := sources(t, h, distro); got != want {
			t.Errorf("%s:\n%s\nwant:\n%s", distro, got, want)
		}
	}
	h.OK("POST", "/repos", apitest.Map{"name": "empty"})
	h.OK("POST", "/distros", apitest.Map{"name": "none"})
	h.OK("POST", "/distros", apitest.Map{"name": "void", "repos": []string{"empty"}})
	h.OK("POST", "/distros", apitest.Map{"name": "mixed", "repos": []string{"alpine"}, "packaging": "rpm"})
	h.OK("POST", "/distros", apitest.Map{"name": "suiteless", "repos": []string{"keyed"}, "packaging": "deb"})
	for distro, status := range map[string]int{"none": 409, "void": 409, "mixed": 409, "suiteless": 409, "nobody": 404} {
		if got, text, _ := get(t, h.HTTP+"/api/v1/distro/"+distro+"/sources"); got != status || !strings.Contains(text, `"reason"`) {
			t.Errorf("%s: %d %s", distro, got, text)
		}
	}
	for _, host := range []string{"x/y", "a b", "x'y", "a:b:c", "$(id)", "x\"", "h:99999"} {
		if got, text, _ := get(t, h.HTTP+"/api/v1/distro/c/sources", "Host", host); got != 400 {
			t.Errorf("Host %q: %d %s", host, got, text)
		}
	}
}

func TestPackagingIsInferred(t *testing.T) {
	h := apptest.Start(t, nil)
	for n, c := range []struct{ name, release, url, want string }{
		{"a", "", "", "rpm"}, {"b", "bookworm", "", "deb"}, {"Alpine Linux", "", "", "apk"}, {"c", "", "http://x.example/ubuntu", "deb"},
		{"d", "el9", "http://x.example/ubuntu", "rpm"}, {"Rocky 9", "", "http://x.example/", "rpm"}, {"e", "", "http://x.example/y noble main", "deb"}, {"sidecar", "", "", "rpm"},
	} {
		r := fmt.Sprintf("r%d", n)
		fields := apitest.Map{"name": r}
		if c.url != "" {
			fields["urls"] = []string{c.url}
		}
		h.OK("POST", "/repos", fields)
		h.OK("POST", "/distros", apitest.Map{"name": c.name, "release": c.release, "repos": []string{r}})
		if got := string(h.OK("GET", "/distro/"+strings.ReplaceAll(c.name, " ", "%20"), nil)); !strings.Contains(got, `"packaging":"`+c.want+`"`) {
			t.Errorf("%v: %s", c, got)
		}
	}
}
