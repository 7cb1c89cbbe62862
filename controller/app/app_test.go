package app_test

import (
	"net/http"
	"strings"
	"testing"

	"muster/controller/app"
	"muster/controller/app/apptest"
)

func TestStartStopAndStartAgain(t *testing.T) {
	h := apptest.Start(t, nil)
	if a := h.As("", "GET", "/cluster/time", nil); a.Status != http.StatusOK {
		t.Fatalf("a head that is ready answers %d %s", a.Status, a.Raw)
	}
	uid, tokens := h.NewAdmin("someone", "role.authuser")
	h.Stop()
	h = apptest.Start(t, func(c *app.Config) { c.Data = h.Data })
	if a := h.As(tokens.Access, "GET", "/whoami", nil); a.Status != http.StatusOK || !strings.Contains(string(a.Data), uid) {
		t.Errorf("after a restart a token is no longer good: %d %s", a.Status, a.Raw)
	}
	if got := h.OK("GET", "/admin/someone", nil); !strings.Contains(string(got), uid) {
		t.Errorf("after a restart the admin is %s", got)
	}
}
