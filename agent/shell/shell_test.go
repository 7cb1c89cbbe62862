package shell

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
)

// The test binary is the shell when it is called by one of its names, as the
// agent is.
func TestMain(m *testing.M) {
	if status, ok := Main(os.Args); ok {
		os.Exit(status)
	}
	os.Exit(m.Run())
}

// sh runs the shell or a tool in this process, in a directory of its own.
func sh(t *testing.T, dir, stdin string, args ...string) (out string, status int) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "stdin")
	if err := os.WriteFile(file, []byte(stdin), 0o600); err != nil {
		t.Fatal(err)
	}
	in, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	var b bytes.Buffer
	status, ok := call(env{Stdin: in, Stdout: &b, Stderr: &b, Dir: dir}, args)
	if !ok {
		t.Fatalf("%q is no tool", args[0])
	}
	return b.String(), status
}

func TestScripts(t *testing.T) {
	for script, want := range map[string]string{
		`echo hello | grep -v x | wc`:                                           "      1       1       6 \n",
		`for i in 1 2 3; do echo $i; done | tail -n 2`:                          "2\n3\n",
		`mkdir -p a/b; echo x > a/b/c; cat a/b/c; ls a; cd a/b; pwd | tail`:     "x\nb\n" + "DIR/a/b\n",
		`x=$(printf '%03d' 7); test "$x" = 007 && echo "$x"`:                    "007\n",
		`touch one; mv one two; cp two three; rm two; ls; ln -s three l; cat l`: "three\n",
		`no-such-thing; echo $?`:                                                "\"no-such-thing\": executable file not found in $PATH\n127\n",
		`grep -q nothing /proc/cpuinfo || echo none`:                            "none\n",
		`echo packed | gzip | gunzip`:                                           "packed\n",
		`/bin/echo from outside`:                                                "from outside\n",
		`echo a >&2; exit 3`:                                                    "a\n",
	} {
		dir := t.TempDir()
		got, _ := sh(t, dir, "", "sh", "-c", script)
		if want := strings.ReplaceAll(want, "DIR", dir); got != want {
			t.Errorf("%s\ngot  %q\nwant %q", script, got, want)
		}
	}
}

func TestStatusAndParameters(t *testing.T) {
	for _, tc := range []struct {
		stdin  string
		args   []string
		out    string
		status int
	}{
		{"", []string{"sh", "-c", "exit 7"}, "", 7},
		{"", []string{"sh", "-c", `echo "$0 $1 $2"`, "zero", "one", "two words"}, "zero one two words\n", 0},
		{"echo a\nfalse\n", []string{"sh"}, "a\n", 1},
		{"echo a; exit 4\necho b\n", []string{"-sh"}, "a\n", 4},
		{"", []string{"sh", "-x"}, "sh: -x is no option here; there are -c, -i and -l\n", 2},
		{"", []string{"false"}, "", 1},
		{"", []string{"echo", "-n", "x", "$y"}, "x $y", 0},
		{"", []string{"[", "1", "=", "1", "]"}, "", 0},
		{"", []string{"cat", "/nowhere"}, "cat: open /nowhere: no such file or directory\n", 1},
		{"", []string{"resume"}, "resume: no boot is held up\n", 1},
		{"", []string{"sleep", "x"}, "sleep: \"x\" is not a number of seconds\n", 1},
	} {
		out, status := sh(t, t.TempDir(), tc.stdin, tc.args...)
		if out != tc.out || status != tc.status {
			t.Errorf("%q: %q, status %d; want %q, %d", tc.args, out, status, tc.out, tc.status)
		}
	}
}

func TestTools(t *testing.T) {
	for _, tc := range []struct{ script, want string }{
		{"ps", "PPID"}, {"free", "MemTotal"}, {"df", "tmpfs"}, {"mount", "proc"}, {"uname -a", "Linux"}, {"ip addr", "lo"},
		{"ip route; echo done", "done"}, {"date", "20"}, {"uptime", "."}, {"tools", "umount"}, {"env", "PATH="}, {"hostname", ""},
		{"find /proc/sys/net/core", "somaxconn"},
	} {
		if out, status := sh(t, t.TempDir(), "", "sh", "-c", tc.script); status != 0 || !strings.Contains(out, tc.want) {
			t.Errorf("%s: status %d, %.200q", tc.script, status, out)
		}
	}
}

// tar works in the process's own directory, so it is run as one.
func TestTar(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("abc"), 0o644); err != nil {
		t.Fatal(err)
	}
	os.Mkdir(filepath.Join(dir, "x"), 0o755)
	for _, args := range [][]string{{"-c", "-f", "t.tar", "f"}, {"-x", "-f", "t.tar", "x"}} {
		cmd := exec.Command(self, args...)
		cmd.Args[0], cmd.Dir = "tar", dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%q: %v, %s", args, err, out)
		}
	}
	if got, err := os.ReadFile(filepath.Join(dir, "x/f")); string(got) != "abc" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestInteractive(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Args[0] = "-sh"
	cmd.Dir = t.TempDir()
	blocking, err := pty.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	defer blocking.Close()
	fd, err := syscall.Dup(int(blocking.Fd())) // blocking has no deadlines
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	tty := os.NewFile(uintptr(fd), "tty")
	defer tty.Close()
	seen := ""
	expect := func(want string) {
		t.Helper()
		tty.SetReadDeadline(time.Now().Add(10 * time.Second))
		buf := make([]byte, 4096)
		for !strings.Contains(seen, want) {
			n, err := tty.Read(buf)
			seen += string(buf[:n])
			if err != nil {
				t.Fatalf("waiting for %q: %v, saw %q", want, err, seen)
			}
		}
		_, seen, _ = strings.Cut(seen, want)
	}
	expect("# ")
	tty.WriteString("echo $((6*7))\r")
	expect("42")
	expect("# ")
	tty.WriteString("for x in a b\r")
	expect("> ")
	tty.WriteString("do echo got-$x; done\r")
	expect("got-b")
	tty.WriteString("rubbish\x03echo cle\x1b[Daned\x7f\x7f\r")
	expect("# ")
	tty.WriteString("echo beg''un; sleep 100\r")
	expect("begun")
	tty.WriteString("\x03")
	expect("# ")
	tty.WriteString("exit 5\r")
	cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != 5 {
		t.Errorf("status %d, want 5", got)
	}
}

func TestNames(t *testing.T) {
	for _, name := range Names() {
		if name == "" || filepath.Base(name) != name {
			t.Errorf("%q", name)
		}
	}
}
