package identity

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"muster/agent/head"
	"muster/agent/headtest"
)

func enrol(t *testing.T, ticket Ticket) (*Identity, error) {
	t.Helper()
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	id, now, err := key.Enrol(context.Background(), head.Dialer{}, ticket)
	if err == nil && time.Since(now) > time.Minute {
		t.Errorf("the head's clock came back as %v", now)
	}
	return id, err
}

func TestEnrol(t *testing.T) {
	h := headtest.New(t)
	h.Mint("once")
	ticket := Ticket{URL: h.HTTPS, Hash: h.Hash(), Key: "once", MAC: "52:54:00:00:00:01"}
	id, err := enrol(t, ticket)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "state")
	if err := id.Save(dir); err != nil {
		t.Fatal(err)
	}
	files, _ := os.ReadDir(dir)
	for _, f := range files {
		if fi, _ := f.Info(); fi.Mode() != 0o600 {
			t.Errorf("%s has mode %v", f.Name(), fi.Mode())
		}
	}
	if len(files) != 3 {
		t.Errorf("%d files, want 3", len(files))
	}
	again, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	c := head.New(h.HTTPS, head.Dialer{}, again.TLS())
	defer c.Close()
	h.Refuse = func(r *http.Request) string {
		if len(r.TLS.PeerCertificates) == 0 {
			return "no certificate was shown"
		}
		return ""
	}
	var text string
	if _, err := c.Call(context.Background(), "GET", pathBundle, nil, &text); err != nil {
		t.Errorf("with the certificate: %v", err)
	}
	h.Refuse = nil
	var refused *head.Refused
	if _, err := enrol(t, ticket); !errors.As(err, &refused) || !strings.Contains(err.Error(), "used already") {
		t.Errorf("the key a second time: %v", err)
	}
}

// A machine whose clock is years off can enrol; here it is the head whose
// certificates begin in the future.
func TestEnrolWithWrongClock(t *testing.T) {
	h := headtest.New(t)
	h.Authority = headtest.NewAuthority(t, time.Now().AddDate(20, 0, 0))
	h.Mint("once")
	srv := httptest.NewUnstartedServer(h)
	srv.TLS = h.TLSConfig("127.0.0.1")
	srv.StartTLS()
	defer srv.Close()
	if _, err := enrol(t, Ticket{URL: srv.URL, Hash: h.Hash(), Key: "once"}); err != nil {
		t.Error(err)
	}
}

func TestEnrolRefusesImpostors(t *testing.T) {
	h := headtest.New(t)
	other := headtest.NewAuthority(t, time.Now().Add(-time.Hour))
	serve := func(cert tls.Certificate) string {
		srv := httptest.NewUnstartedServer(h)
		srv.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
		srv.Config.ErrorLog = nil
		srv.StartTLS()
		t.Cleanup(srv.Close)
		return srv.URL
	}
	stolen := other.Server("127.0.0.1")
	stolen.Certificate[1] = h.Cert.Raw // shows the right authority, which did not sign
	for name, url := range map[string]string{
		"another authority": serve(other.Server("127.0.0.1")),
		"not signed by it":  serve(stolen),
		"another host":      serve(h.Server("10.9.9.9")),
		"plain http":        h.HTTP,
	} {
		t.Run(name, func(t *testing.T) {
			h.Mint("once")
			if _, err := enrol(t, Ticket{URL: url, Hash: h.Hash(), Key: "once"}); err == nil {
				t.Error("enrolled")
			}
		})
	}
}

func TestTrustOnFirstUse(t *testing.T) {
	h := headtest.New(t)
	ca, err := TrustOnFirstUse(context.Background(), head.Dialer{}, h.HTTPS)
	if err != nil || !ca.Equal(h.Cert) {
		t.Fatalf("%v, %v", ca, err)
	}
	id := &Identity{CA: ca}
	dir := t.TempDir()
	if err := id.Save(dir); err != nil {
		t.Fatal(err)
	}
	if id, err = Load(dir); err != nil {
		t.Fatal(err)
	}
	impostor := headtest.New(t)
	c := head.New(impostor.HTTPS, head.Dialer{}, id.TLS())
	defer c.Close()
	if _, err := c.Boot(context.Background(), "", ""); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a head with another authority: %v", err)
	}
	// A head that gives somebody else's authority is not believed.
	impostor.Authority = h.Authority
	if _, err := TrustOnFirstUse(context.Background(), head.Dialer{}, impostor.HTTPS); err == nil {
		t.Error("trusted an authority that did not sign the connection")
	}
}

func TestLoadBroken(t *testing.T) {
	dir := t.TempDir()
	if id, err := Load(dir); err != nil || id.CA != nil || id.Cert != nil {
		t.Errorf("empty directory: %v, %v", id, err)
	}
	os.WriteFile(filepath.Join(dir, fileCA), []byte("nonsense"), 0o600)
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), fileCA) {
		t.Errorf("broken authority: %v", err)
	}
}
