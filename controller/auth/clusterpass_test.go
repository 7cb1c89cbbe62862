package auth

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// tryPassword asks as controller/install does.
func (f *fixture) tryPassword(t *testing.T, pass string) reply {
	t.Helper()
	return f.ask(t, http.DefaultClient, "POST", "password", `{"pass":"`+pass+`"}`)
}

func TestClusterPassword(t *testing.T) {
	f := start(t, nil)
	path, try := filepath.Join(f.dir, clusterPassFile), func(pass string) reply { return f.tryPassword(t, pass) }
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	pass := strings.TrimSpace(string(raw))
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 || len(pass) < 20 {
		t.Errorf("%s has mode %v and %d characters", path, info.Mode(), len(pass))
	}
	try(pass).want(t, "the one that was made", 200, "")
	for _, wrong := range []string{"", pass + "x", pass[1:], strings.ToLower(pass)} {
		try(wrong).want(t, "another one", 401, "not the password")
	}
	if err := os.WriteFile(path, []byte("chosen by hand\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	try("chosen by hand").want(t, "the one that was written", 200, "")
	try(pass).want(t, "the former one", 401, "")
	if err := os.WriteFile(path, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	try("").want(t, "none", 503, "no password")
}

func TestGuessingTheClusterPasswordIsSlow(t *testing.T) {
	f := start(t, nil)
	for range perAddrAndUser.burst {
		f.tryPassword(t, "guess").want(t, "a guess", 401, "")
	}
	r := f.tryPassword(t, "guess")
	r.want(t, "one guess more", 429, "Too many")
	if r.header.Get("Retry-After") == "" {
		t.Error("it is not said for how long to wait")
	}
	f.pass(perAddrAndUser.interval + time.Second)
	f.tryPassword(t, "guess").want(t, "after the wait", 401, "")
}
