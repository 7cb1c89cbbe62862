package app_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"muster/controller/app/apptest"
	"muster/controller/auth/authority"
	"muster/shared/wire"
)

// A node that comes with a certificate which has expired is refused, and its
// timeline and the log say why it is down.
func TestExpiredCertificate(t *testing.T) {
	h := apptest.Start(t, nil)
	h.OK("POST", "/nets", `{"name":"lab","first_ip":"127.69.0.9","ip_count":4,"mask_bits":24}`)
	h.OK("POST", "/nodes", `{"mac":"52:54:00:00:00:01"}`)
	var node struct{ UID string }
	h.Into(&node, "GET", "/node/n0", nil)
	past := func() time.Time { return time.Now().Add(-2 * time.Hour) }
	ca, err := authority.Open(authority.Config{Dir: filepath.Join(h.Data, "ca"), Head: apptest.Name, Now: past})
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.SignNode(csr, node.UID, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{
		DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 69, 0, 9)}}).DialContext,
		TLSClientConfig: &tls.Config{
			InsecureSkipVerify: true, // it is the head that is tested
			Certificates:       []tls.Certificate{{Certificate: cert.Chain, PrivateKey: key}},
		},
	}}
	defer client.CloseIdleConnections()
	if resp, err := client.Get(h.HTTPS + wire.PathBoot); err == nil {
		resp.Body.Close()
		t.Fatalf("the certificate was taken: %s", resp.Status)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if text := string(h.OK("GET", "/node/n0/timeline", nil)); strings.Contains(text, "its certificate has expired") && strings.Contains(h.Logged.String(), "identity was refused") {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("the timeline has %s; the log:\n%s", text, h.Logged.String())
		}
	}
}
