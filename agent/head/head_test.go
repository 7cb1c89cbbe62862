package head_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"muster/agent/head"
	"muster/agent/headtest"
)

// A report travels as it is, and its bytes may be used again at once.
func TestSend(t *testing.T) {
	h := headtest.New(t)
	c := head.New(h.HTTP+"/", head.Dialer{Version: "test"}, nil)
	defer c.Close()
	report := []byte(`{"report":"a.1","status":{"x":1.50}}`)
	now, err := c.Send(t.Context(), report)
	clear(report)
	if err != nil || time.Since(now).Abs() > time.Minute {
		t.Errorf("%v, %v", now, err)
	}
	if s := h.WaitStatus(1); s.Report != "a.1" || s.Status["x"] != 1.5 {
		t.Errorf("there came %v", s)
	}
	h.Refuse = func(*http.Request) string { return "not you" }
	_, err = c.Send(t.Context(), []byte("{}"))
	if r := (*head.Refused)(nil); !errors.As(err, &r) || r.Status != http.StatusForbidden || r.Reason != "not you" {
		t.Errorf("a refusal gives %v", err)
	}
}

// What answers is not always a head, or not a whole answer.
func TestStrangeAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		status  int
		body    string
		want    string
		refused bool
	}{
		"no head":        {200, "<html>", "not one of a head", false},
		"empty":          {200, "", "not one of a head", false},
		"too much":       {200, strings.Repeat(" ", 5<<20), "larger than", false},
		"other data":     {200, `{"success":true,"data":5}`, "does not fit", false},
		"a problem":      {503, `{"reason":"the disk is full"}`, "the disk is full", false},
		"too many":       {429, "", "Too Many", false},
		"a redirect":     {302, "", "HTTP 302", true},
		"a plain no":     {404, "what?", "Not Found", true},
		"a reason given": {409, `{"error":"lost track"}`, "lost track", true},
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "http://192.0.2.1/")
			w.WriteHeader(c.status)
			w.Write([]byte(c.body))
		}))
		client := head.New(srv.URL, head.Dialer{}, nil)
		_, err := client.Boot(context.Background(), "", "")
		if err == nil || !strings.Contains(err.Error(), c.want) || errors.As(err, new(*head.Refused)) != c.refused {
			t.Errorf("%s: %v", name, err)
		}
		client.Close()
		srv.Close()
	}
}
