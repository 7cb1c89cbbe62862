package lab_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"muster/scripts/lab"
)

const nodeAddress = "10.77.0.100"

// TestInstall makes a node of a Debian that runs already, as its admin does:
// by piping what the head gives into a shell. The system is a root of its own
// in a network of its own; only its init does not run.
func TestInstall(t *testing.T) {
	if testing.Short() {
		t.Skip("installs a system, which takes minutes the first time")
	}
	if os.Geteuid() != 0 {
		t.Skip("the lab's network namespace needs root")
	}
	ctx, log := t.Context(), slog.New(slog.NewTextHandler(t.Output(), nil))
	dir := *cacheDir
	if dir == "" {
		var err error
		if dir, err = lab.CacheDir(); err != nil {
			t.Fatal(err)
		}
	}
	tar, err := lab.MakeSystem(ctx, dir, log)
	if err != nil {
		t.Fatal(err)
	}
	n, err := lab.NewNetwork(ctx, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	program := build(t)
	packages := filepath.Join(t.TempDir(), "packages")
	must(t, exec.Command("go", "run", "muster/scripts/packages", "-only", "amd64", "-bin", withPAM(t, program), "-out", packages, "-version", "v1.2.3"))
	h := n.NewHead(program, t.TempDir(), "--packages", packages)
	if err := h.Start(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Stop(); err != nil {
			t.Error(err)
		}
	})
	admin := func(args ...string) string {
		t.Helper()
		out, err := h.CLI(ctx, args...)
		if err != nil {
			t.Fatalf("muster %v: %v\n%s", args, err, h.LogTail(20))
		}
		return strings.TrimSpace(out)
	}
	admin("net", "create", "lab", "--first-ip", nodeAddress, "--ip-count", "10", "--mask-bits", "24")
	admin("node", "create", "--mac", "52:54:00:00:00:01")

	root := filepath.Join(t.TempDir(), "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	must(t, exec.Command("tar", "-xf", tar, "-C", root, "--exclude=./dev/*"))
	must(t, exec.Command("mknod", filepath.Join(root, "dev/null"), "c", "1", "3"))
	inside := plugIn(t, n)
	system := func(script string) *exec.Cmd {
		cmd := exec.Command("ip", "netns", "exec", inside, "chroot", root, "sh", "-c", script)
		cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"}
		return cmd
	}
	// Twice: a second run updates, and keeps what was configured.
	for range 2 {
		said := must(t, system("curl -fsS "+h.URL+"/api/v1/install/client/installer | sh"))
		if !strings.Contains(said, "installing muster-agent_1.2.3_amd64.deb") {
			t.Fatalf("the installer did not install the package for dpkg:\n%s", said)
		}
	}
	if said := must(t, system("dpkg -s muster-agent; dpkg -V muster-agent; systemctl is-enabled muster-agent")); !strings.Contains(said, "Version: 1.2.3") || !strings.HasSuffix(said, "enabled\n") {
		t.Errorf("the package is not installed as it should be: %s", said)
	}
	startAsUnit(t, system, root)
	admin("wait", "-n", "n0", "up", "--timeout", "60s")
	if got := admin("exec", "-n", "n0", "--", "cat /etc/muster/agent.conf; dpkg -s muster-agent | grep ^Status"); !strings.Contains(got, "MUSTER_HEAD=https://10.77.0.1:8443") || !strings.Contains(got, "install ok installed") {
		t.Errorf("the node answers %q", got)
	}
	headScript(t, h, n, root, system)
}

// must runs a command that has to succeed and gives what it says.
func must(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
	return string(out)
}

// withPAM puts muster-pam beside the programs and gives their directory.
func withPAM(t *testing.T, program string) string {
	dir := filepath.Dir(program)
	must(t, exec.Command("go", "build", "-trimpath", "-o", filepath.Join(dir, "muster-pam"), "muster/controller/auth/muster-pam"))
	return dir
}

// plugIn makes a namespace with a cable to the lab's switch, for a system that
// is another machine to the head.
func plugIn(t *testing.T, n *lab.Network) string {
	name := n.Name + "-node"
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "delete", name).Run() })
	for _, args := range []string{
		"netns add " + name,
		"-n " + n.Name + " link add cable type veth peer name eth0 netns " + name,
		"-n " + n.Name + " link set cable master " + lab.Bridge + " up",
		"-n " + name + " address add " + nodeAddress + "/24 dev eth0",
		"-n " + name + " link set eth0 up",
		"-n " + name + " link set lo up",
	} {
		must(t, exec.Command("ip", strings.Fields(args)...))
	}
	return name
}

// startAsUnit runs the agent as systemd would by its unit, until the test ends.
func startAsUnit(t *testing.T, system func(string) *exec.Cmd, root string) {
	unit, err := os.ReadFile(filepath.Join(root, "usr/lib/systemd/system/muster-agent.service"))
	if err != nil {
		t.Fatal(err)
	}
	settings, command := "", ""
	for line := range strings.Lines(string(unit)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "EnvironmentFile="); ok {
			settings = path
		}
		if text, ok := strings.CutPrefix(strings.TrimSpace(line), "ExecStart="); ok {
			command = text
		}
	}
	if settings == "" || command == "" {
		t.Fatalf("the unit starts nothing:\n%s", unit)
	}
	log := &strings.Builder{}
	cmd := system(". " + settings + "; exec " + command)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		err := cmd.Wait()
		if t.Failed() {
			t.Logf("the agent ended with %v:\n%s", err, log)
		}
	})
}

// headScript lets the script for heads go as far as a system without a running
// init lets it: the cluster's password, its authority, the package.
func headScript(t *testing.T, h *lab.Head, n *lab.Network, root string, system func(string) *exec.Cmd) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.URL+"/api/v1/install/head/scyld-install", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := n.HTTPClient().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	script, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	password, err := os.ReadFile(filepath.Join(h.Data, "cluster-password"))
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"scyld-install": string(script), "right": string(password), "wrong": `guess"\`} {
		if err := os.WriteFile(filepath.Join(root, "root", name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for args, want := range map[string]string{
		"--password-file /root/wrong": "the head refuses", "--fingerprint 00 --password-file /root/right": "this is another head",
		"--name 'a b'": "no host name", "--data ../x": "must be an absolute path", "--nonsense": "unknown option",
	} {
		out, err := system("sh /root/scyld-install " + args).CombinedOutput()
		if err == nil || !strings.Contains(string(out), want) {
			t.Errorf("scyld-install %s: %v %s", args, err, out)
		}
	}
	if _, err := os.Stat(filepath.Join(root, "usr/bin/muster")); err == nil {
		t.Error("what was refused has installed muster")
	}
	said := must(t, system("sh /root/scyld-install --no-start --name head2 --password-file /root/right && muster --version; cat /etc/muster/muster.toml"))
	for _, want := range []string{"trusting the authority", "installing muster-1.2.3-x86_64.tar.gz", `name = "head2"`, `data = "/var/lib/muster"`} {
		if !strings.Contains(said, want) {
			t.Errorf("scyld-install does not say %q: %s", want, said)
		}
	}
	joinHeads(t, h, root, system)
}

// joinHeads runs what was installed, and lets the script make it known.
func joinHeads(t *testing.T, h *lab.Head, root string, system func(string) *exec.Cmd) {
	second := system("mount -t proc proc /proc; exec muster serve --config /etc/muster/muster.toml")
	log := &strings.Builder{}
	second.Stdout, second.Stderr = log, log
	if err := second.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = second.Process.Signal(os.Interrupt)
		if err := second.Wait(); err != nil {
			t.Errorf("the second head ended with %v:\n%s", err, log)
		}
	}()
	access, err := h.Login(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "root/token"), []byte(access), 0o600); err != nil {
		t.Fatal(err)
	}
	must(t, system("timeout 60 sh -c 'until muster head ls >/dev/null 2>&1; do sleep 0.2; done'"))
	must(t, system("sh /root/scyld-install --name head2 --password-file /root/right --token-file /root/token"))
	uid, err := os.ReadFile(filepath.Join(root, "var/lib/muster/head-uid"))
	if err != nil {
		t.Fatal(err)
	}
	var known struct{ Name, UID, SSHPublic string }
	if err := h.JSON(t.Context(), &known, "head", "get", strings.TrimSpace(string(uid))); err != nil || known.Name != "head2" {
		t.Errorf("the first head knows %+v, %v", known, err)
	}
}
