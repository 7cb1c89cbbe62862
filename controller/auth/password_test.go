package auth

import (
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"muster/shared/fault"
)

var helper struct {
	once sync.Once
	path string
	err  error
}

// buildHelper builds the real muster-pam once for all tests.
func buildHelper(t *testing.T) string {
	t.Helper()
	helper.once.Do(func() {
		dir, err := os.MkdirTemp("", "muster-pam")
		if err != nil {
			helper.err = err
			return
		}
		helper.path = filepath.Join(dir, "muster-pam")
		cmd := exec.Command("go", "build", "-buildvcs=false", "-trimpath", "-ldflags", "-s -w", "-o", helper.path, "./muster-pam")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			helper.err = fmt.Errorf("building muster-pam (needs gcc and libpam0g-dev): %v: %s", err, out)
		}
	})
	if helper.err != nil {
		t.Fatal(helper.err)
	}
	return helper.path
}

func run(t *testing.T, stdin, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
}

// osUser makes a user of the operating system for the test.
func osUser(t *testing.T, password string) string {
	t.Helper()
	name := "mustert" + strconv.FormatInt(time.Now().UnixNano()%1_000_000_000, 36)
	run(t, "", "useradd", "--no-create-home", "--shell", "/bin/sh", name)
	t.Cleanup(func() { run(t, "", "userdel", name) })
	run(t, name+":"+password, "chpasswd")
	return name
}

// pamService installs the service file, unless the machine has one.
func pamService(t *testing.T, text string) {
	t.Helper()
	const path = "/etc/pam.d/muster"
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if os.IsExist(err) {
		t.Logf("%s exists and is used as it is", path)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(path) })
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	f.Close()
}

// quickPAM is like PAMFile on Debian, without the two seconds after a failure.
const quickPAM = "auth required pam_unix.so nodelay\naccount required pam_unix.so\n"

func password(user, pass string) string { return fmt.Sprintf(`{"user":%q,"pass":%q}`, user, pass) }

func TestPasswordLogin(t *testing.T) {
	needRoot(t)
	const secret = "Grüße: @/% \\ \" 'x'"
	helper := buildHelper(t)
	user := osUser(t, secret)
	pamService(t, PAMFile)
	f := start(t, func(c *Config) { c.Helper = helper })
	login := func(user, pass string) reply {
		return f.ask(t, http.DefaultClient, "POST", "login", password(user, pass))
	}
	login(user, secret).want(t, "an OS user without an admin object", 403, "no admin of muster")
	admin := Admin{UID: strings.Repeat("7", 32), Name: user, Roles: reader.Roles}
	f.set(admin)
	r := login(user, secret)
	if r.status != 200 || r.Data.User != user {
		t.Fatalf("login: %d %s", r.status, r.raw)
	}
	f.get(t, "read", r.Data.Token.Access).want(t, "logged in", 200, "")
	var wg sync.WaitGroup // each costs the two seconds of pam_faildelay
	for what, c := range map[string][2]string{
		"wrong password": {user, secret + "x"}, "empty password": {user, ""}, "password with a zero": {user, secret + "\x00"},
		"unknown user": {"mustertnobody", secret}, "locked user": {"daemon", "*"}, "long password": {user, strings.Repeat("x", maxPassword+1)},
		"an option": {"--pam-file", secret}, "other case": {strings.ToUpper(user), secret},
	} {
		wg.Go(func() {
			login(c[0], strings.ReplaceAll(c[1], "\x00", "\\u0000")).want(t, what, 401, "Wrong user name or password")
		})
	}
	wg.Wait()
	run(t, "", "chage", "--expiredate", "1", user)
	login(user, secret).want(t, "expired account", 403, "expired")
	run(t, "", "chage", "--expiredate", "-1", "--lastday", "0", user)
	login(user, secret).want(t, "password to be changed", 403, "does not let "+user+" in: You are required to change your password")
}

func TestLoginTakesExactlyOneKey(t *testing.T) {
	f := start(t, nil)
	for _, body := range []string{
		`{"user":"full"}`, `{"user":"full","pass":"x","secret":"y"}`, `{"pass":"x"}`, `{"user":"","pass":"x"}`, `{}`, ``, `null`, `[]`, `"full"`,
		`{"user":1,"pass":"x"}`, `{"user":"full","pass":7}`, `{"user":"a\u0000b","pass":"x"}`, `{"user":"full","pass":"a","pass":"b"}`,
		`{"user":"` + strings.Repeat("u", maxUser+1) + `","pass":"x"}`, `{"user":"full","pass":"x","otp":1}`, `{"user":"full","challenge":"c"}`,
		`{"user":"full","signature":"s"}`, `{"user":"full","signature":"s","challenge":"c","pass":"x"}`, `{"user":"full","pass":"x","challenge":"c"}`, "{\"user\":\"\xff\",\"pass\":\"x\"}",
	} {
		f.ask(t, http.DefaultClient, "POST", "login", body).want(t, body, 400, "")
	}
}

func TestHelperTrouble(t *testing.T) {
	dir := t.TempDir()
	script := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct {
		helper, reason string
		status         int
	}{
		{filepath.Join(dir, "none"), "install muster-pam", 503},
		{script("crash", "kill -SEGV $$"), "PAM could not check", 503},
		{script("module", "echo the directory is down >&2; exit 12"), "the directory is down", 503},
		{script("chatty", "head -c 1000000 /dev/zero | tr '\\0' x >&2; exit 10"), "Wrong user name", 401},
		{script("argv", `test $# = 0 && test "$(tr '\0' ' ')" = "full secret 127.0.0.1 "`), "", 200},
	} {
		f := start(t, func(cfg *Config) { cfg.Helper = c.helper })
		f.ask(t, http.DefaultClient, "POST", "login", password("full", "secret")).want(t, filepath.Base(c.helper), c.status, c.reason)
	}
}

// TestHelperIsKilled with all that it started.
func TestHelperIsKilled(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "slow")
	if err := os.WriteFile(path, []byte("#!/bin/sh\nsleep 600 &\necho $! > "+dir+"/child\nwait\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	f := start(t, func(c *Config) { c.Helper = path })
	f.passwords.timeout = time.Second
	f.ask(t, http.DefaultClient, "POST", "login", password("full", "secret")).want(t, "slow helper", 503, "did not answer")
	text, err := os.ReadFile(filepath.Join(dir, "child"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err == unix.ESRCH {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 5000)
	for err == unix.EINTR {
		n, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 5000)
	}
	if n != 1 {
		t.Fatalf("what the helper started still runs (%v)", err)
	}
}

func TestGuessingIsSlowed(t *testing.T) {
	needRoot(t)
	helper := buildHelper(t)
	user := osUser(t, "right-Password-1")
	pamService(t, quickPAM)
	f := start(t, func(c *Config) { c.Helper = helper })
	f.set(Admin{UID: strings.Repeat("7", 32), Name: user, Roles: reader.Roles})
	attacker, admin := from("127.0.0.66", nil), from("127.0.0.5", nil)
	try := func(c *http.Client, user, pass string) reply {
		return f.ask(t, c, "POST", "login", password(user, pass))
	}
	for i := range perAddrAndUser.burst {
		try(attacker, user, fmt.Sprint("guess", i)).want(t, "guess", 401, "Wrong")
	}
	r := try(attacker, user, "right-Password-1")
	r.want(t, "one too many, even if right", 429, "Too many failed logins")
	if after, err := strconv.Atoi(r.header.Get("Retry-After")); err != nil || after < 1 || after > 10 {
		t.Errorf("Retry-After: %q", r.header.Get("Retry-After"))
	}
	try(admin, user, "right-Password-1").want(t, "the admin from elsewhere", 200, "")
	for i := range perAddr.burst - perAddrAndUser.burst {
		try(attacker, fmt.Sprint("mustertno", i), "x").want(t, "other names", 401, "Wrong")
	}
	try(attacker, "mustertnone", "x").want(t, "too many names", 429, "")
	if err := f.secrets.add("full", otp); err != nil {
		t.Fatal(err)
	}
	f.ask(t, attacker, "POST", "login", line("full", otp+"x")).want(t, "a wrong secret from there", 429, "")
	f.ask(t, attacker, "POST", "login", line("full", otp)).want(t, "a right secret from there", 200, "")
	f.pass(11 * time.Second)
	try(attacker, user, "right-Password-1").want(t, "after a while", 200, "")
}

// TestLimiter: many attackers cannot lock out an address that is known to be
// the user's, outcomes that are open count, and memory is bounded.
func TestLimiter(t *testing.T) {
	clock := time.Unix(1_800_000_000, 0)
	l := newLimiter(func() time.Time { return clock })
	wrong := fault.New(fault.Unauthenticated, "wrong")
	home, abroad := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	a, _ := l.begin(home, "admin")
	a.done(nil)
	for i := range perUser.burst {
		a, wait := l.begin(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), "admin")
		if a == nil {
			t.Fatalf("guess %d has to wait %v", i, wait)
		}
		a.done(wrong)
	}
	if a, wait := l.begin(abroad, "admin"); a != nil || wait > perUser.interval {
		t.Fatalf("a new address may guess: %v, waits %v", a != nil, wait)
	}
	if a, _ = l.begin(home, "admin"); a == nil {
		t.Fatal("the known address is locked out")
	}
	a.done(nil)
	clock = clock.Add(perUser.interval)
	if a, _ = l.begin(abroad, "admin"); a == nil {
		t.Fatal("a new address is locked out for long")
	}

	var open []*attempt
	for range 2 * perAddr.burst {
		if a, _ := l.begin(netip.MustParseAddr("2001:db8::1"), "other"); a != nil {
			open = append(open, a)
		}
	}
	if len(open) != perAddrAndUser.burst {
		t.Fatalf("%d guesses run at once", len(open))
	}
	if a, _ := l.begin(netip.MustParseAddr("2001:db8::2"), "other"); a != nil {
		t.Fatal("another address of the same /64 counts as another place")
	}
	for _, a := range open {
		a.done(fault.New(fault.Unavailable, "PAM is down"))
	}
	if a, _ := l.begin(netip.MustParseAddr("2001:db8::1"), "other"); a == nil {
		t.Fatal("PAM being down counts as guessing")
	}

	for i := range 2 * maxCounted {
		if a, _ := l.begin(netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)}), fmt.Sprint(i)); a != nil {
			a.done(nil)
		}
	}
	if n, m := len(l.counters.at), len(l.proven.at); n > maxCounted || m > maxCounted {
		t.Fatalf("%d counters and %d known addresses are kept", n, m)
	}
}

func TestPAMFileIsWhatTheHelperPrints(t *testing.T) {
	out, err := exec.Command(buildHelper(t), "--pam-file").Output()
	if err != nil || string(out) != PAMFile || !strings.Contains(PAMFile, "common-account") {
		t.Fatalf("%v: %q", err, out)
	}
}
