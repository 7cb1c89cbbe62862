package auth

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"muster/shared/sshsig"
)

// newKey gives a key and its line for the admin's keys.
func newKey(t *testing.T) (ssh.Signer, string) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return s, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(s.PublicKey()))) + " somebody@desk"
}

func (f *fixture) challengeFor(t *testing.T, user string) string {
	t.Helper()
	r := f.get(t, "login/challenge?user="+url.QueryEscape(user), "")
	if r.status != 200 || r.Data.Challenge == "" || r.header.Get("Cache-Control") != "no-store" {
		t.Fatalf("challenge: %s", r.raw)
	}
	return r.Data.Challenge
}

func (f *fixture) answer(t *testing.T, user, challenge, signature string) reply {
	t.Helper()
	body, err := json.Marshal(map[string]string{"user": user, "challenge": challenge, "signature": signature})
	if err != nil {
		t.Fatal(err)
	}
	return f.ask(t, http.DefaultClient, "POST", "login", string(body))
}

func signed(t *testing.T, key ssh.Signer, namespace, text string) string {
	t.Helper()
	s, err := sshsig.Sign(key, namespace, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSSHLogin(t *testing.T) {
	f := start(t, nil)
	key, line := newKey(t)
	other, otherLine := newKey(t)
	admin := reader
	admin.Keys = []string{otherLine, line}
	f.set(admin)
	sign := func(text string) string { return signed(t, key, SSHNamespace, text) }

	c := f.challengeFor(t, "reader")
	r := f.answer(t, "reader", c, sign(c))
	if r.status != 200 || r.Data.User != "reader" || r.Data.Token.ExpiresIn != 1200 {
		t.Fatalf("login: %s", r.raw)
	}
	f.get(t, "read", r.Data.Token.Access).want(t, "logged in", 200, "")
	f.answer(t, "reader", c, sign(c)).want(t, "the same again", 401, "has been used")
	f.answer(t, "reader", c, signed(t, other, SSHNamespace, c)).want(t, "the same challenge, another key", 401, "has been used")
	c = f.challengeFor(t, "reader")
	f.answer(t, "reader", c, sign(c+"\n")).want(t, "with a newline", 200, "")

	stranger, _ := newKey(t)
	for what, x := range map[string]struct {
		user      string
		challenge string
		sign      func(c string) string
		reason    string
	}{
		"a key that is not stored":  {"reader", "", func(c string) string { return signed(t, stranger, SSHNamespace, c) }, "not that of the challenge by one of the keys of admin reader"},
		"something else signed":     {"reader", "", func(c string) string { return sign(c + "x") }, "not that of the challenge by one of the keys of admin reader"},
		"an admin without keys":     {"full", "", sign, "not that of the challenge by one of the keys of admin full"},
		"a user who is no admin":    {"ghost", "", sign, "not that of the challenge by one of the keys of admin ghost"},
		"another namespace":         {"reader", "", func(c string) string { return signed(t, key, "file", c) }, `made for "file"`},
		"no signature":              {"reader", "", func(string) string { return "" }, "not one block"},
		"a challenge of another":    {"reader", f.challengeFor(t, "full"), sign, "for another user"},
		"a challenge of one's own":  {"reader", "pick me", sign, "malformed"},
		"an access token":           {"reader", r.Data.Token.Access, sign, "no challenge"},
		"a refresh token":           {"reader", r.Data.Token.Refresh, sign, "no challenge"},
		"an empty challenge's form": {"reader", "..", sign, "malformed"},
	} {
		c := x.challenge
		if c == "" {
			c = f.challengeFor(t, x.user)
		}
		f.answer(t, x.user, c, x.sign(c)).want(t, what, 401, x.reason)
		f.pass(perAddr.interval) // this is not about the limit
	}
	c = f.challengeFor(t, "reader")
	f.get(t, "me", c).want(t, "a challenge as a token", 401, "no token")
	f.get(t, "newtoken", c).want(t, "a challenge as a refresh token", 401, "no token")
	f.pass(challengeTTL)
	f.answer(t, "reader", c, sign(c)).want(t, "too late", 401, "expired")

	c = f.challengeFor(t, "reader")
	admin.Keys = []string{otherLine}
	f.set(admin)
	f.answer(t, "reader", c, sign(c)).want(t, "a key taken away", 401, "not that of")
	admin.Keys = []string{`from="10.0.0.1",no-pty ` + line}
	f.set(admin)
	f.answer(t, "reader", c, sign(c)).want(t, "a key with options", 401, `from="10.0.0.1",no-pty`)
	for _, bad := range []string{"", "?user=", "?user=a%0ab", "?user=" + strings.Repeat("u", maxUser+1)} {
		f.get(t, "login/challenge"+bad, "").want(t, bad, 400, "Cannot give a challenge")
	}
}

func TestChallengeIsOfOneHeadAndOneRun(t *testing.T) {
	f := start(t, nil)
	key, line := newKey(t)
	admin := reader
	admin.Keys = []string{line}
	f.set(admin)
	c := f.challengeFor(t, "reader")
	sig := signed(t, key, SSHNamespace, c)

	elsewhere := start(t, nil)
	elsewhere.set(admin)
	elsewhere.answer(t, "reader", c, sig).want(t, "at another head", 401, "bad signature")
	again, err := New(f.cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.checkSSH("reader", c, sig); err == nil || !strings.Contains(err.Error(), "last start") {
		t.Errorf("after a restart: %v", err)
	}
	cfg := f.cfg
	cfg.Head = "head2" // with the same secret
	namesake, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	namesake.challenges.life = f.challenges.life
	if err := namesake.checkSSH("reader", c, sig); err == nil {
		t.Error("a head takes the challenge of one with another name")
	}
	f.answer(t, "reader", c, sig).want(t, "where it belongs", 200, "")
}

// Of many who send the same answer at the same time one gets in.
func TestChallengeIsUsedOnce(t *testing.T) {
	f := start(t, nil)
	key, line := newKey(t)
	admin := reader
	admin.Keys = []string{line}
	f.set(admin)
	c := f.challengeFor(t, "reader")
	sig := signed(t, key, SSHNamespace, c)
	got := make(chan error)
	const tries = 16
	for range tries {
		go func() { got <- f.checkSSH("reader", c, sig) }()
	}
	in := 0
	for range tries {
		if <-got == nil {
			in++
		}
	}
	if in != 1 {
		t.Errorf("%d of %d got in", in, tries)
	}
	for i := range maxUsed {
		f.challenges.used[fmt.Sprint(i)] = f.now().Add(time.Minute)
	}
	c = f.challengeFor(t, "reader")
	if f.checkSSH("reader", c, signed(t, key, SSHNamespace, c)) == nil {
		t.Error("more used challenges are remembered than there is room for")
	}
	f.pass(challengeTTL)
	c = f.challengeFor(t, "reader")
	if err := f.checkSSH("reader", c, signed(t, key, SSHNamespace, c)); err != nil || len(f.challenges.used) > 2 {
		t.Errorf("when the others are over: %v, %d remembered", err, len(f.challenges.used))
	}
}

func TestSSHGuessingIsSlowed(t *testing.T) {
	f := start(t, nil)
	key, line := newKey(t)
	admin := reader
	admin.Keys = []string{line}
	f.set(admin)
	stranger, _ := newKey(t)
	c := f.challengeFor(t, "reader")
	for range perAddr.burst {
		f.answer(t, "reader", c, signed(t, stranger, SSHNamespace, c)).want(t, "a guess", 401, "")
	}
	f.answer(t, "reader", c, signed(t, stranger, SSHNamespace, c)).want(t, "one more", 429, "Too many")
	// Whoever comes from elsewhere is not locked out.
	body, _ := json.Marshal(map[string]string{"user": "reader", "challenge": c, "signature": signed(t, key, SSHNamespace, c)})
	f.ask(t, from("127.0.0.9", nil), "POST", "login", string(body)).want(t, "from elsewhere", 200, "")
}

// The commands of the package's documentation, with a real agent.
func TestSSHLoginWithOpenSSH(t *testing.T) {
	f := start(t, nil)
	dir := t.TempDir()
	run := func(stdin, name string, args ...string) string {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Stdin, cmd.Dir = strings.NewReader(stdin), dir
		cmd.Env = append(os.Environ(), "SSH_AUTH_SOCK="+filepath.Join(f.dir, "agent"))
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s %q: %v", name, args, err)
		}
		return string(out)
	}
	agent := exec.Command("ssh-agent", "-D", "-a", filepath.Join(f.dir, "agent"))
	out, err := agent.StdoutPipe() // it says where it listens once it does
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { agent.Process.Kill(); agent.Wait() })
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"ed25519", "ecdsa", "rsa"} {
		run("", "ssh-keygen", "-q", "-N", "", "-t", kind, "-f", kind)
		run("", "ssh-add", "-q", kind)
		if err := os.Remove(filepath.Join(dir, kind)); err != nil { // only the agent has it now
			t.Fatal(err)
		}
		pub, err := os.ReadFile(filepath.Join(dir, kind+".pub"))
		if err != nil {
			t.Fatal(err)
		}
		admin := reader
		admin.Keys = []string{strings.TrimSpace(string(pub))}
		f.set(admin)
		c := f.challengeFor(t, "reader")
		sig := run(c, "ssh-keygen", "-q", "-Y", "sign", "-n", SSHNamespace, "-f", kind+".pub")
		f.answer(t, "reader", c, sig).want(t, kind, 200, "")
	}
}
