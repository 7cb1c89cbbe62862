package build

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"muster/images/recipe"
)

func sum(b []byte) string   { return fmt.Sprintf("%x", sha256.Sum256(b))[:16] }
func line(row []any) string { return fmt.Sprintln(row...) }

func options(t testing.TB, text string) (Options, *watcher) {
	t.Helper()
	r, err := recipe.Read("r.toml", strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	w := &watcher{t: t}
	return Options{Recipe: r, Dir: t.TempDir(), Cache: t.TempDir(), Temp: t.TempDir(), Watcher: w}, w
}

func baseTar(t testing.TB, root, dir string) {
	t.Helper()
	if out, err := exec.Command("tar", "-C", root, "-czf", filepath.Join(dir, "base.tar.gz"), ".").CombinedOutput(); err != nil {
		t.Fatalf("tar: %v %s", err, out)
	}
}

// quietAfter holds a test to leaving nothing mounted and no file in dirs.
func quietAfter(t testing.TB, dirs ...string) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		if strings.Contains(string(mounts), dir) {
			t.Errorf("something is mounted in %s", dir)
		}
		left, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range left {
			if !strings.HasPrefix(e.Name(), "base-") {
				t.Errorf("%s is left in %s", e.Name(), dir)
			}
		}
	}
}

const everything = `
exclude = ["etc/ssh", "usr/share/doc/*"]
epoch   = 1600000000
[base]
source = "base.tar.gz"
[[files]]
path    = "/etc/motd"
content = "hello\n"
owner   = "daemon:adm"
mode    = "4640"
[[files]]
path   = "/srv/from"
source = "beside"
[[files]]
path = "/etc/link"
link = "../srv/from"
[[files]]
path = "/srv/dir/"
mode = "1777"
[[scripts]]
name = "look"
run  = '''
test -e /proc/self/status && test -c /dev/null && test -w /dev/null && test ! -e /dev/kmsg
test "$$" -lt 300
test -n "$SOURCE_DATE_EPOCH"
echo inside; id -u >/etc/who
echo made >/etc/made; echo junk >/tmp/junk; echo junk >/run/junk
rm /etc/version
test -d /sys/kernel; ! mkdir /sys/x 2>/dev/null
sleep 1000 &
'''
[[scripts]]
file = "setup.sh"
`

func TestBuild(t *testing.T) {
	root := tinyRoot(t)
	opt, w := options(t, everything)
	baseTar(t, root, opt.Dir)
	for name, text := range map[string]string{"beside": "beside\n", "setup.sh": "#!/usr/bin/cat\nread by cat\n"} {
		if err := os.WriteFile(filepath.Join(opt.Dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	if _, err := Build(t.Context(), opt, a); err != nil {
		t.Fatal(err, "\n", w.said.String())
	}
	for _, want := range []string{"take the base from base.tar.gz", "inside", "read by cat"} {
		if !strings.Contains(w.said.String(), want) {
			t.Errorf("not told: %q in\n%s", want, w.said.String())
		}
	}
	got := extracted(t, a)
	for name, want := range map[string]string{"etc/motd": "hello\n", "etc/link": "beside\n", "etc/who": "0\n", "etc/made": "made\n", "etc/machine-id": ""} {
		if raw, err := os.ReadFile(filepath.Join(got, name)); err != nil || string(raw) != want {
			t.Errorf("%s: %q, %v", name, raw, err)
		}
	}
	for _, name := range []string{"etc/version", "etc/ssh", "tmp/junk", "run/junk", "var/log/apt/history.log", "etc/resolv.conf", "dev/null"} {
		if _, err := os.Lstat(filepath.Join(got, name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is in the image (%v)", name, err)
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(got, "etc/motd"), &st); err != nil || st.Mode&0o7777 != 0o4640 || st.Uid != 1 || st.Gid != 4 || st.Mtim.Sec != 1600000000 {
		t.Errorf("motd: %+v, %v", st, err)
	}
	if err := unix.Stat(filepath.Join(got, "srv/dir"), &st); err != nil || st.Mode&0o7777 != 0o1777 {
		t.Errorf("srv/dir: %o, %v", st.Mode, err)
	}
	quietAfter(t, opt.Temp, opt.Cache)

	// Again, with the base from the cache: the same bytes.
	w.said.Reset()
	if _, err := Build(t.Context(), opt, b); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(w.said.String(), "* base from "+opt.Cache) || strings.Contains(w.said.String(), "take the base") {
		t.Errorf("the cache was not used:\n%s", w.said.String())
	}
	x, _ := os.ReadFile(a)
	y, _ := os.ReadFile(b)
	if sum(x) != sum(y) {
		t.Errorf("two builds differ:\n%s\n%s", listing(t, got), listing(t, extracted(t, b)))
	}
}

func TestBuildFails(t *testing.T) {
	root := tinyRoot(t)
	if err := os.Symlink("/../../../"+t.TempDir(), filepath.Join(root, "escape")); err != nil {
		t.Fatal(err)
	}
	base, cache := t.TempDir(), t.TempDir()
	baseTar(t, root, base)
	for text, want := range map[string]string{
		"[[scripts]]\nname = \"x\"\nrun = \"echo why; false; echo no\"": "script x: it ended with exit status 1",
		"[[scripts]]\nfile = \"none\"":                                  "none",
		"[[files]]\npath = \"/a\"\ncontent = \"\"\nowner = \"nobody1\"": "no user \"nobody1\"",
		"[[files]]\npath = \"/escape/x\"\ncontent = \"\"":               "escapes",
		"[[files]]\npath = \"/etc/x\"\nsource = \"/dev/zero\"":          "no regular file",
	} {
		opt, w := options(t, "[base]\nsource = \"base.tar.gz\"\n"+text)
		opt.Dir, opt.Cache = base, cache
		out := filepath.Join(t.TempDir(), "out")
		_, err := Build(t.Context(), opt, out)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
		var failed *Failed
		if errors.As(err, &failed) && (len(failed.Said) != 1 || failed.Said[0] != "why") {
			t.Errorf("said %q", failed.Said)
		}
		if _, err := os.Stat(out); err == nil {
			t.Errorf("%s: there is an image\n%s", text, w.said.String())
		}
		quietAfter(t, opt.Temp, opt.Cache)
	}
	opt, _ := options(t, "packages = [\"x\"]\n[base]\nsource = \"base.tar.gz\"")
	baseTar(t, root, opt.Dir)
	if _, err := Build(t.Context(), opt, filepath.Join(t.TempDir(), "out")); err == nil || !strings.Contains(err.Error(), "no package manager") {
		t.Errorf("packages without a manager: %v", err)
	}
	quietAfter(t, opt.Temp, opt.Cache)
	t.Setenv("PATH", t.TempDir())
	for tool, text := range map[string]string{
		"mmdebstrap": "[base]\ntool = \"mmdebstrap\"\nrelease = \"bookworm\"",
		"dnf":        "packages = [\"x\"]\n[base]\ntool = \"dnf\"\nrepos = [{url = \"file:///x\", unsigned = true}]",
	} {
		opt, _ := options(t, text)
		if _, err := Build(t.Context(), opt, filepath.Join(t.TempDir(), "out")); err == nil || !strings.Contains(err.Error(), "the program "+tool+" is missing: install") {
			t.Errorf("%s: %v", tool, err)
		}
	}
}

// running says whether a process has the word among its arguments.
func running(t testing.TB, word string) bool {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range all {
		if raw, err := os.ReadFile(name); err == nil && strings.Contains(string(raw), word) {
			return true
		}
	}
	return false
}

func TestBuildInterrupted(t *testing.T) {
	root := tinyRoot(t)
	word := fmt.Sprintf("9%d", time.Now().UnixNano())
	opt, w := options(t, "[base]\nsource = \"base.tar.gz\"\n[[scripts]]\nrun = \"sleep "+word+" & sleep "+word+" & echo ready; wait\"")
	baseTar(t, root, opt.Dir)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w.hook = func(line string) {
		if line == "ready" {
			if !running(t, word) {
				t.Error("the script's programs cannot be seen")
			}
			cancel()
		}
	}
	out := filepath.Join(t.TempDir(), "out")
	if _, err := Build(ctx, opt, out); !errors.Is(err, context.Canceled) {
		t.Errorf("%v\n%s", err, w.said.String())
	}
	if running(t, word) {
		t.Error("a program of the script still runs")
	}
	quietAfter(t, opt.Temp, opt.Cache)
}
