package auth

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// serveSocket runs the socket until the test ends.
func (f *fixture) serveSocket(t *testing.T) string {
	t.Helper()
	part := f.Socket()
	if err := part.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- part.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return f.socket.path
}

type answer struct {
	Success bool
	Reason  string
}

func tell(t *testing.T, path, line string) (a answer) {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, line); err != nil {
		t.Fatal(err)
	}
	conn.(*net.UnixConn).CloseWrite()
	raw, err := bufio.NewReader(conn).ReadBytes('\n')
	if err != nil {
		t.Fatalf("%q: %v after %q", line, err, raw)
	}
	if err := json.Unmarshal(raw, &a); err != nil {
		t.Fatal(err)
	}
	return a
}

// socketChild is this program run by a test as somebody else: it says one
// line, copies the answer, and never returns.
func socketChild(path, line string) {
	conn, err := net.Dial("unix", path)
	if err == nil {
		_, err = io.WriteString(conn, line+"\n")
	}
	if err == nil {
		_, err = io.Copy(os.Stdout, conn)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// tellAs is tell from a process of another user.
func tellAs(t *testing.T, uid, gid uint32, path, line string) (a answer) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{"MUSTER_TEST_SOCKET=" + path, "MUSTER_TEST_LINE=" + line, "GORACE=atexit_sleep_ms=0"}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, errs.String())
	}
	if err := json.Unmarshal(out.Bytes(), &a); err != nil {
		t.Fatalf("%v in %q", err, out.String())
	}
	return a
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: it acts as several users of the operating system")
	}
}

const otp = "0123456789abcdef"

func line(user, secret string) string {
	return fmt.Sprintf(`{"user":%q,"secret":%q}`+"\n", user, secret)
}

func TestSocketLogin(t *testing.T) {
	needRoot(t)
	f := start(t, nil)
	path := f.serveSocket(t)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o666 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
	login := func(user, secret string) reply {
		return f.ask(t, http.DefaultClient, "POST", "login", line(user, secret))
	}
	if a := tell(t, path, line("full", otp)); !a.Success || a.Reason != "" {
		t.Fatalf("root as an admin: %+v", a)
	}
	login("reader", otp).want(t, "somebody else's secret", 401, "secret")
	login("full", otp+"x").want(t, "a wrong secret", 401, "secret")
	login("full", otp).want(t, "once", 200, "")
	login("full", otp).want(t, "twice", 401, "secret")

	tell(t, path, line("full", otp))
	f.pass(60*time.Second - time.Nanosecond)
	tell(t, path, line("full", otp+"2"))
	login("full", otp).want(t, "within 60 s", 200, "")
	f.pass(60 * time.Second)
	login("full", otp+"2").want(t, "after 60 s", 401, "secret")

	tell(t, path, strings.TrimSpace(line("stranger", otp))) // without a newline
	login("stranger", otp).want(t, "not an admin", 403, "no admin of muster")
}

func TestSocketKnowsItsPeer(t *testing.T) {
	needRoot(t)
	f := start(t, nil)
	path := f.serveSocket(t)
	other, err := user.Lookup("nobody")
	if err != nil {
		t.Skip("there is no user nobody")
	}
	uid, _ := strconv.ParseUint(other.Uid, 10, 32)
	gid, _ := strconv.ParseUint(other.Gid, 10, 32)
	f.set(Admin{UID: strings.Repeat("9", 32), Name: "nobody", Roles: reader.Roles})
	for _, name := range []string{"full", "root", "Nobody", "nobody "} {
		if a := tellAs(t, uint32(uid), uint32(gid), path, line(name, otp)); a.Success || !strings.Contains(a.Reason, "yourself only") {
			t.Errorf("nobody as %q: %+v", name, a)
		}
		if f.secrets.take(name, otp) {
			t.Errorf("the secret for %q was kept", name)
		}
	}
	if a := tellAs(t, uint32(uid), uint32(gid), path, line("nobody", otp)); !a.Success {
		t.Fatalf("nobody as himself: %+v", a)
	}
	f.ask(t, http.DefaultClient, "POST", "login", line("nobody", otp)).want(t, "nobody", 200, "")
	if a := tellAs(t, 3_999_999_999, uint32(gid), path, line("nobody", otp)); a.Success || !strings.Contains(a.Reason, "3999999999") {
		t.Errorf("a uid without a name: %+v", a)
	}
}

func TestSocketRefusesBadLines(t *testing.T) {
	f := start(t, nil)
	path := f.serveSocket(t)
	for what, l := range map[string]string{
		"short secret": line("full", "short"), "no secret": `{"user":"full"}`, "no user": `{"secret":"` + otp + `"}`,
		"unknown key": `{"user":"full","secret":"` + otp + `","x":1}`, "twice": `{"user":"full","user":"root","secret":"` + otp + `"}`,
		"list": "[1]", "garbage": "\x00\xff\xfe", "empty": "\n", "nothing": "", "half": `{"user":"full","sec`,
		"control character": line("full\x00", otp), "wrong type": `{"user":1,"secret":2}`, "null": "null",
		"too long": line("full", strings.Repeat("x", maxLine)), "long secret": line("full", strings.Repeat("x", maxOneTime+1)),
		"long user": line(strings.Repeat("u", maxUser+1), otp),
	} {
		if a := tell(t, path, l); a.Success || a.Reason == "" {
			t.Errorf("%s: %+v", what, a)
		}
	}
}

// TestSocketBoundsConnections: idle ones are cut, and nobody holds them all.
func TestSocketBoundsConnections(t *testing.T) {
	f := start(t, nil)
	f.socket.timeout = time.Second
	path := f.serveSocket(t)
	var idle []net.Conn
	for range connsPerUID {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		idle = append(idle, conn)
	}
	extra, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer extra.Close()
	if got, _ := io.ReadAll(extra); len(got) != 0 {
		t.Fatalf("one connection too many was served: %q", got)
	}
	before := time.Now()
	if got, _ := io.ReadAll(idle[0]); !strings.Contains(string(got), "no line came") {
		t.Fatalf("an idle connection was told %q", got)
	}
	if waited := time.Since(before); waited > lineTimeout {
		t.Fatalf("cut after %v", waited)
	}
}

func TestSocketIsReplacedOrLeft(t *testing.T) {
	f := start(t, nil)
	path := f.serveSocket(t)
	second := newSocket(path, f.secrets, f.cfg.Log)
	if err := second.listen(t.Context()); err == nil || !strings.Contains(err.Error(), "another head") {
		t.Fatalf("stealing a living socket: %v", err)
	}
	if a := tell(t, path, line("full", "bad")); a.Reason == "" {
		t.Fatal("the living socket suffered")
	}

	// What a killed head leaves: the file, and nobody behind it.
	stale := filepath.Join(f.dir, "stale.sock")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	third := newSocket(stale, f.secrets, f.cfg.Log)
	if err := third.listen(t.Context()); err != nil {
		t.Fatalf("replacing a stale socket: %v", err)
	}
	third.ln.Close()

	file := filepath.Join(f.dir, "file")
	if err := os.WriteFile(file, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := newSocket(file, f.secrets, f.cfg.Log).listen(t.Context()); err == nil || !strings.Contains(err.Error(), "in the way") {
		t.Fatalf("a file in the way: %v", err)
	}
	if got, _ := os.ReadFile(file); string(got) != "mine" {
		t.Fatal("a file in the way was removed")
	}
	if err := newSocket("/tmp/"+strings.Repeat("x", 108), f.secrets, f.cfg.Log).listen(t.Context()); err == nil || !strings.Contains(err.Error(), "shorter data directory") {
		t.Fatalf("a long path: %v", err)
	}
}

func TestSecretsAreBounded(t *testing.T) {
	f := start(t, nil)
	for i := range 2 * oneTimePerUser {
		if err := f.secrets.add("full", fmt.Sprintf("secret number %8d", i)); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(f.secrets.byUser["full"]); n != oneTimePerUser {
		t.Fatalf("%d secrets of one user are kept", n)
	}
	if f.secrets.take("full", "secret number        7") || !f.secrets.take("full", "secret number       15") {
		t.Fatal("not the latest are kept")
	}
	var err error
	for i := 0; i < oneTimeUsers+1 && err == nil; i++ {
		err = f.secrets.add(fmt.Sprint("user", i), otp)
	}
	if err == nil || len(f.secrets.byUser) > oneTimeUsers {
		t.Fatalf("%d users are kept, error %v", len(f.secrets.byUser), err)
	}
	f.pass(oneTimeTTL)
	if err := f.secrets.add("full", otp); err != nil || len(f.secrets.byUser) != 1 {
		t.Fatalf("after a minute %d users are kept, error %v", len(f.secrets.byUser), err)
	}
}

func TestStartedBy(t *testing.T) {
	want, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := StartedBy(t.Context()); err != nil || got != want.Username {
		t.Fatalf("StartedBy = %q, %v; want %q", got, err, want.Username)
	}
}

func FuzzSocketLine(f *testing.F) {
	for _, seed := range []string{line("full", otp), `{"user":"x","secret":"y"`, "[]", "null", "\n", strings.Repeat("[", 5000), "{\"user\":\"\\ud800\"}"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		user, secret, err := readLine(bytes.NewReader(in))
		if err == nil && (checkUser(user) != nil || len(in) > maxLine && !bytes.Contains(in[:maxLine], []byte("\n"))) {
			t.Fatalf("%q gave %q, %q", in, user, secret)
		}
	})
}
