package auth

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"muster/controller/auth/authority"
)

var (
	node1 = strings.Repeat("1", 32)
	node2 = strings.Repeat("2", 32)
)

// serveTLS serves the fixture with the authority's configuration.
func (f *fixture) serveTLS(t *testing.T, ca *authority.Authority) string {
	t.Helper()
	srv := httptest.NewUnstartedServer(f.handler)
	srv.Listener = tls.NewListener(srv.Listener, ca.TLSConfig())
	srv.Start()
	t.Cleanup(srv.Close)
	return "https://" + srv.Listener.Addr().String() + "/api/v1/"
}

// nodeTLS is a node's side: its certificate, and the head's CA as only root.
func nodeTLS(t *testing.T, ca *authority.Authority, uid string) (*tls.Config, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.SignNode(csr, uid, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca.Bundle())
	return &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{{Certificate: cert.Chain, PrivateKey: key}}}, cert.Serial
}

func openCA(t *testing.T) *authority.Authority {
	t.Helper()
	ca, err := authority.Open(authority.Config{Dir: t.TempDir(), Head: "head1"})
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func TestNodeByCertificateOrAddress(t *testing.T) {
	f := start(t, nil)
	ca := openCA(t)
	url := f.serveTLS(t, ca)
	f.nodes[netip.MustParseAddr("127.0.0.9")] = node1
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca.Bundle())
	noCert := &tls.Config{RootCAs: pool}

	r := f.ask(t, from("127.0.0.9", nil), "GET", "node", "")
	if r.want(t, "by address", 200, ""); r.Data.Node != node1 || r.Data.Addr != "127.0.0.9" {
		t.Fatalf("by address: %s", r.raw)
	}
	f.ask(t, from("127.0.0.8", nil), "GET", "node", "").want(t, "unknown address", 404, "No node found for ID=127.0.0.8")
	f.ask(t, from("127.0.0.8", nil), "GET", "node", "", "X-Forwarded-For", "127.0.0.9").want(t, "forwarded by nobody we trust", 404, "127.0.0.8")

	config, serial := nodeTLS(t, ca, node1)
	f.enrolled[node1] = serial
	f.ask(t, from("127.0.0.9", nil), "GET", "node", "").want(t, "enrolled, address only", 403, "enrolled")
	f.ask(t, from("127.0.0.9", noCert), "GET", url+"node", "").want(t, "enrolled, https without certificate", 403, "enrolled")
	r = f.ask(t, from("127.0.0.7", config), "GET", url+"node", "")
	if r.want(t, "certificate from any address", 200, ""); r.Data.Node != node1 {
		t.Fatalf("by certificate: %s", r.raw)
	}
	f.ask(t, from("127.0.0.9", config), "GET", url+"read", "").want(t, "a certificate is no token", 401, "needs a token")

	_, serial = nodeTLS(t, ca, node1)
	f.enrolled[node1] = serial
	f.ask(t, from("127.0.0.9", config), "GET", url+"node", "").want(t, "former certificate", 403, "enrolled again")
	delete(f.enrolled, node1)
	delete(f.nodes, netip.MustParseAddr("127.0.0.9"))
	f.ask(t, from("127.0.0.9", config), "GET", url+"node", "").want(t, "deleted node", 403, "deleted")

	// The certificate of another authority does not even get through TLS.
	foreign, _ := nodeTLS(t, openCA(t), node2)
	foreign.RootCAs = pool
	foreign.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &foreign.Certificates[0], nil }
	if res, err := from("127.0.0.9", foreign).Get(url + "node"); err == nil {
		res.Body.Close()
		t.Fatalf("another authority's certificate got %s", res.Status)
	}
}

func TestOnlyHeadsAreHeads(t *testing.T) {
	f := start(t, nil)
	f.heads[netip.MustParseAddr("127.0.0.77")] = true
	f.ask(t, http.DefaultClient, "GET", "head", "").want(t, "own address", 200, "")
	f.ask(t, from("127.0.0.77", nil), "GET", "head", "").want(t, "registered", 200, "")
	f.ask(t, from("127.0.0.2", nil), "GET", "head", "").want(t, "other loopback", 403, "127.0.0.2")
	f.ask(t, from("127.0.0.2", nil), "GET", "head", "", "X-Forwarded-For", "127.0.0.1").want(t, "forged", 403, "127.0.0.2")
}

func TestClientAddr(t *testing.T) {
	f := start(t, func(c *Config) {
		c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/30"), netip.MustParsePrefix("127.0.0.1/32")}
	})
	for _, c := range []struct{ peer, want, forwarded string }{
		{"192.0.2.7:99", "192.0.2.7", ""},
		{"192.0.2.7:99", "192.0.2.7", "10.9.9.9"},
		{"[::ffff:192.0.2.7]:99", "192.0.2.7", ""},
		{"[fe80::1%eth0]:99", "fe80::1", ""},
		{"10.0.0.1:99", "10.0.0.1", ""},
		{"10.0.0.1:99", "198.51.100.1", "198.51.100.1"},
		{"10.0.0.1:99", "198.51.100.1", "127.0.0.1, 198.51.100.1"},
		{"10.0.0.1:99", "198.51.100.1", "1.1.1.1,198.51.100.1 , 10.0.0.2"},
		{"10.0.0.1:99", "198.51.100.1", "::ffff:198.51.100.1"},
		{"[::ffff:127.0.0.1]:99", "198.51.100.1", "198.51.100.1"},
		{"127.0.0.1:99", "invalid IP", "rubbish"},
		{"127.0.0.1:99", "invalid IP", "198.51.100.1, "},
		{"127.0.0.1:99", "198.51.100.1", "rubbish, 198.51.100.1"},
		{"127.0.0.1:99", "invalid IP", strings.Repeat("127.0.0.1,", 50) + "127.0.0.1"},
		{"@", "invalid IP", ""},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = c.peer
		if c.forwarded != "" {
			r.Header.Set("X-Forwarded-For", c.forwarded)
		}
		if got := f.clientAddr(r).String(); got != c.want {
			t.Errorf("peer %s forwarding %q: %s, want %s", c.peer, c.forwarded, got, c.want)
		}
		if c.want == "invalid IP" {
			if _, err := f.Authenticate(r, "head"); err == nil {
				t.Errorf("peer %s forwarding %q is a head", c.peer, c.forwarded)
			}
		}
	}
}

func TestOwnAddress(t *testing.T) {
	for addr, want := range map[string]bool{"127.0.0.1": true, "::1": true, "::ffff:127.0.0.1": true, "127.0.0.2": false, "127.1.0.1": false, "192.0.2.1": false} {
		if got := OwnAddress(netip.MustParseAddr(addr)); got != want {
			t.Errorf("OwnAddress(%s) = %v", addr, got)
		}
	}
	if OwnAddress(netip.Addr{}) {
		t.Error("no address is one of ours")
	}
}
