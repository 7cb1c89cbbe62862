package authority

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"muster/shared/fault"
)

const uid = "0123456789abcdef0123456789abcdef"

func open(t testing.TB, cfg Config) *Authority {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	if cfg.Head == "" {
		cfg.Head = "head1"
	}
	a, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func request(t testing.TB, key crypto.Signer, tmpl *x509.CertificateRequest) []byte {
	t.Helper()
	if tmpl == nil {
		tmpl = &x509.CertificateRequest{}
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, tmpl, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func (a *Authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(a.Bundle())
	return pool
}

func TestSurvivesRestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	first := open(t, Config{Dir: dir})
	second := open(t, Config{Dir: dir})
	if first.Fingerprint() != second.Fingerprint() || !bytes.Equal(first.leaf.Leaf.Raw, second.leaf.Leaf.Raw) {
		t.Fatal("a restart changed the authority or its server certificate")
	}
	block, rest := pem.Decode(first.Bundle())
	sum := sha256.Sum256(block.Bytes)
	if len(rest) > 0 || hex.EncodeToString(sum[:]) != first.Fingerprint() {
		t.Fatal("the bundle is not what the fingerprint names")
	}
	cert := must(x509.ParseCertificate(block.Bytes))
	if !cert.IsCA || !cert.MaxPathLenZero || time.Until(cert.NotAfter) < 9*365*24*time.Hour {
		t.Fatalf("CA %v, path %v, until %v", cert.IsCA, cert.MaxPathLenZero, cert.NotAfter)
	}
	for _, e := range must(os.ReadDir(dir)) {
		if info := must(e.Info()); info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", e.Name(), info.Mode())
		}
	}
	// A crash after the key was written leaves a key without certificates.
	os.Remove(filepath.Join(dir, "ca.crt"))
	os.Remove(filepath.Join(dir, "server.crt"))
	open(t, Config{Dir: dir})
	// Another authority's certificate beside our key is an error, not a surprise.
	os.WriteFile(filepath.Join(dir, "ca.crt"), open(t, Config{}).Bundle(), 0o600)
	if _, err := Open(Config{Dir: dir, Head: "head1"}); err == nil || !strings.Contains(err.Error(), "does not belong") {
		t.Fatalf("a foreign certificate: %v", err)
	}
}

func TestServerCertificateFollowsNamesAndTime(t *testing.T) {
	var shift atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(shift.Load())) }
	dir := t.TempDir()
	a := open(t, Config{Dir: dir, Now: now})
	before := a.leaf.Leaf
	if !slices.Equal(before.DNSNames, []string{"head1", "localhost"}) || len(before.IPAddresses) != 2 {
		t.Fatalf("%v %v", before.DNSNames, before.IPAddresses)
	}
	addrs := []netip.Addr{netip.MustParseAddr("::ffff:192.0.2.1"), netip.MustParseAddr("127.0.0.1"), {}}
	a = open(t, Config{Dir: dir, Now: now, Names: []string{"head1", "cluster.example"}, Addrs: addrs})
	leaf := a.leaf.Leaf
	if before.Equal(leaf) || !slices.Equal(leaf.DNSNames, []string{"cluster.example", "head1", "localhost"}) || len(leaf.IPAddresses) != 3 {
		t.Fatalf("%v %v", leaf.DNSNames, leaf.IPAddresses)
	}
	for _, name := range []string{"192.0.2.1", "::1", "cluster.example"} {
		if err := leaf.VerifyHostname(name); err != nil {
			t.Error(err)
		}
	}
	shift.Store(int64(serverLifetime - renewBefore - time.Hour))
	if got := must(a.current()); !got.Leaf.Equal(leaf) {
		t.Fatal("renewed too early")
	}
	shift.Store(int64(serverLifetime - renewBefore + time.Hour))
	renewed := must(a.current()).Leaf
	if renewed.Equal(leaf) || !renewed.NotAfter.After(leaf.NotAfter) {
		t.Fatal("not renewed when near its end")
	}
	if again := open(t, Config{Dir: dir, Now: now, Names: a.cfg.Names, Addrs: addrs}); !again.leaf.Leaf.Equal(renewed) {
		t.Fatal("the renewed certificate was not kept")
	}
	os.WriteFile(filepath.Join(dir, "server.crt"), []byte("rubbish"), 0o600)
	open(t, Config{Dir: dir, Now: now})

	shift.Store(int64(caLifetime - 10*24*time.Hour))
	a = open(t, Config{Dir: dir, Now: now})
	if end := a.leaf.Leaf.NotAfter; end.After(a.cert.NotAfter) {
		t.Fatal("a server certificate outlives its CA")
	}
	once := must(a.current())
	if again := must(a.current()); once != again {
		t.Fatal("one that ends with the CA is issued over and over")
	}
	shift.Store(int64(caLifetime + time.Hour))
	if _, err := Open(Config{Dir: dir, Head: "head1", Now: now}); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Fatalf("an expired CA: %v", err)
	}
}

// handshake connects a client with cert (may be nil) and gives the name that
// the server verified, "" for none.
func handshake(t *testing.T, a *Authority, client *tls.Config) (name string, err error) {
	t.Helper()
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	result := make(chan error, 1)
	server := tls.Server(far, a.TLSConfig())
	go func() { result <- server.Handshake(); far.Close() }()
	c := tls.Client(near, client)
	if err = c.Handshake(); err == nil {
		one := make([]byte, 1)
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		c.Read(one) // TLS 1.3: the server's refusal comes after the client's handshake
	}
	near.Close()
	if serverErr := <-result; serverErr != nil {
		return "", serverErr
	}
	if chains := server.ConnectionState().VerifiedChains; len(chains) > 0 {
		name = chains[0][0].Subject.CommonName
	}
	return name, err
}

func TestHandshakes(t *testing.T) {
	a, other := open(t, Config{}), open(t, Config{})
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	certOf := func(a *Authority, uid string) tls.Certificate {
		return tls.Certificate{Certificate: must(a.SignNode(request(t, key, nil), uid, time.Hour)).Chain, PrivateKey: key}
	}
	client := func(certs ...tls.Certificate) *tls.Config {
		c := &tls.Config{RootCAs: a.pool(), ServerName: "head1"}
		if len(certs) > 0 {
			c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &certs[0], nil }
		}
		return c
	}
	if name, err := handshake(t, a, client()); err != nil || name != "" {
		t.Fatalf("without certificate: %q, %v", name, err)
	}
	if name, err := handshake(t, a, client(certOf(a, uid))); err != nil || name != uid {
		t.Fatalf("with a certificate: %q, %v", name, err)
	}
	if name, err := handshake(t, a, client(certOf(other, uid))); err == nil {
		t.Fatalf("another authority's certificate was taken for %q", name)
	}
	// The head's own certificate is for servers, not for a node.
	if name, err := handshake(t, a, client(*a.leaf)); err == nil {
		t.Fatalf("the server's certificate was taken for the node %q", name)
	}
	old := client()
	old.MaxVersion = tls.VersionTLS11
	if _, err := handshake(t, a, old); err == nil {
		t.Fatal("TLS 1.1 was accepted")
	}
	wrong := client()
	wrong.ServerName = "head2"
	if _, err := handshake(t, a, wrong); err == nil {
		t.Fatal("the client took the head for another")
	}
}

func TestNodeCertificate(t *testing.T) {
	a := open(t, Config{})
	keys := map[string]crypto.Signer{
		"P-256": must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)), "P-384": must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)),
		"RSA 2048": must(rsa.GenerateKey(rand.Reader, 2048)),
	}
	_, keys["Ed25519"], _ = ed25519.GenerateKey(rand.Reader)
	greedy := &x509.CertificateRequest{Subject: pkix.Name{CommonName: "root", Organization: []string{"x"}}, DNSNames: []string{"head1"}, IPAddresses: []net.IP{{127, 0, 0, 1}}}
	serials := map[string]bool{}
	for name, key := range keys {
		got, err := a.SignNode(request(t, key, greedy), uid, time.Hour)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		cert := must(x509.ParseCertificate(got.Chain[0]))
		if cert.Subject.String() != "CN="+uid || !slices.Equal(cert.DNSNames, []string{uid}) || len(cert.IPAddresses) != 0 || cert.IsCA {
			t.Errorf("%s: %v %v %v CA %v", name, cert.Subject, cert.DNSNames, cert.IPAddresses, cert.IsCA)
		}
		for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth} {
			if _, err := cert.Verify(x509.VerifyOptions{Roots: a.pool(), KeyUsages: []x509.ExtKeyUsage{usage}, DNSName: uid}); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if got.Serial != cert.SerialNumber.Text(16) || serials[got.Serial] || !bytes.Equal(got.Chain[1], a.cert.Raw) || time.Until(got.NotAfter) > time.Hour {
			t.Errorf("%s: serial %s, until %v", name, got.Serial, got.NotAfter)
		}
		serials[got.Serial] = true
	}
	long := must(a.SignNode(request(t, keys["P-256"], nil), uid, 100*365*24*time.Hour))
	if long.NotAfter.After(a.cert.NotAfter) {
		t.Error("a node's certificate outlives the CA")
	}
}

func TestBadRequests(t *testing.T) {
	a := open(t, Config{})
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	good := request(t, key, nil)
	tampered := bytes.Clone(good)
	tampered[len(tampered)-1] ^= 1
	for what, der := range map[string][]byte{
		"nothing": nil, "garbage": []byte("garbage"), "cut": good[:len(good)-1], "more behind": append(bytes.Clone(good), 0),
		"tampered": tampered, "huge": make([]byte, maxCSR+1), "a certificate": a.cert.Raw,
		"PEM":       pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: good}),
		"P-224":     request(t, must(ecdsa.GenerateKey(elliptic.P224(), rand.Reader)), nil),
		"P-521":     request(t, must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader)), nil),
		"short RSA": request(t, must(rsa.GenerateKey(rand.Reader, 1024)), nil),
		"stuffed":   request(t, key, &x509.CertificateRequest{DNSNames: slices.Repeat([]string{strings.Repeat("x", 60)}, 200)}),
	} {
		if got, err := a.SignNode(der, uid, time.Hour); !fault.Is(err, fault.Invalid) || got != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, bad := range []string{"", "head1", strings.ToUpper(uid), uid + "0", "../" + uid[3:]} {
		if _, err := a.SignNode(good, bad, time.Hour); err == nil {
			t.Errorf("a certificate for %q was made", bad)
		}
	}
	if _, err := a.SignNode(good, uid, 0); err == nil {
		t.Error("a certificate without life was made")
	}
}

func FuzzSignNode(f *testing.F) {
	a := open(f, Config{})
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	good := request(f, ed, nil)
	f.Add(good)
	f.Add(request(f, must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)), &x509.CertificateRequest{DNSNames: []string{"x"}}))
	f.Add(good[:20])
	f.Add([]byte{0x30, 0x84, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, der []byte) {
		got, err := a.SignNode(der, uid, time.Hour)
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Fatalf("not a fault of the request: %v", err)
			}
			return
		}
		cert, err := x509.ParseCertificate(got.Chain[0])
		if err != nil || cert.IsCA || cert.Subject.CommonName != uid {
			t.Fatalf("signed %v, %v", cert, err)
		}
	})
}
