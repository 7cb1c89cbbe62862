package app_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"muster/controller/app/apptest"
	"muster/shared/object"
)

// TestNoSecretIsLogged does all that has to do with secrets, rightly and
// wrongly, with the log at its most talkative.
func TestNoSecretIsLogged(t *testing.T) {
	h := apptest.Start(t, nil)
	password, err := os.ReadFile(filepath.Join(h.Data, "cluster-password"))
	if err != nil {
		t.Fatal(err)
	}
	signing, err := os.ReadFile(filepath.Join(h.Data, "token-secret"))
	if err != nil {
		t.Fatal(err)
	}
	_, tokens := h.NewAdmin("someone", object.RoleAuthUser)
	secrets := map[string]string{
		"a wrong password": "wrong-password-7731", "a one-time secret": "one-time-secret-7732", "a signature": "signature-7733",
		"a node's password": "ipmi-password-7734", "the cluster's password": strings.TrimSpace(string(password)), "the signing secret": string(signing),
		"an access token": tokens.Access, "a refresh token": tokens.Refresh, "the first admin's token": h.Token(), "a wrong cluster password": "guess-7735",
	}
	var got struct{ Challenge string }
	h.Into(&got, "GET", "/login/challenge?user=someone", nil)
	secrets["a challenge"] = got.Challenge
	for _, c := range [][3]string{
		{"POST", "/login", `{"user":"someone","pass":"` + secrets["a wrong password"] + `"}`},
		{"POST", "/login", `{"user":"someone","secret":"` + secrets["a one-time secret"] + `"}`},
		{"POST", "/login", `{"user":"someone","challenge":"` + got.Challenge + `","signature":"` + secrets["a signature"] + `"}`},
		{"POST", "/install/password", `{"admin_pass":"` + secrets["the cluster's password"] + `"}`},
		{"POST", "/install/password", `{"admin_pass":"` + secrets["a wrong cluster password"] + `"}`},
		{"POST", "/nodes", `{"mac":"52:54:00:00:00:01","attributes":{"_ipmi_pass":"` + secrets["a node's password"] + `"}}`},
		{"PATCH", "/node/n0", `{"attributes":{"_ipmi_pass":"` + secrets["a node's password"] + `","x":[]}}`},
		{"POST", "/admin/someone/newtoken", `{"timeout":60}`},
		{"POST", "/admin/someone/revoke", ``},
	} {
		h.As(h.Token(), c[0], c[1], c[2])
	}
	h.As(tokens.Refresh, "GET", "/newtoken", nil)
	h.As(tokens.Access, "POST", "/logout", nil)
	h.As(tokens.Access+"x", "GET", "/nodes", nil)
	if a := h.As(h.Token(), "POST", "/logout", nil); a.Status != http.StatusOK {
		t.Errorf("logout: %d %s", a.Status, a.Raw)
	}
	h.Stop()
	log := h.Logged.String()
	if !strings.Contains(log, "login refused") || !strings.Contains(log, "logged out") || !strings.Contains(log, "tokens revoked") {
		t.Errorf("what happened is not in the log:\n%s", log)
	}
	for what, secret := range secrets {
		if strings.Contains(log, secret) {
			t.Errorf("%s is in the log", what)
		}
	}
}
