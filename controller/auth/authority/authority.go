// Package authority is the head's certificate authority: its own key, the
// head's server certificate, and the certificates of nodes.
//
// It decides nothing about who may have a certificate: whoever calls SignNode
// has checked the one-time key. It remembers no certificates either; that a
// node's former one is void follows from the serial, which the caller keeps.
package authority

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"muster/controller/auth/keyfile"
)

const (
	caLifetime     = 10 * 365 * 24 * time.Hour
	serverLifetime = 397 * 24 * time.Hour // what browsers accept
	renewBefore    = 30 * 24 * time.Hour
	// backdate covers clocks that run a little behind the head's.
	backdate = time.Hour
)

// Config is what Open needs.
type Config struct {
	Dir   string       // for the keys and certificates; made with mode 0700
	Head  string       // host name of the head
	Names []string     // further names that clients use for it
	Addrs []netip.Addr // further addresses
	Now   func() time.Time
	Log   *slog.Logger
}

// Authority holds the CA's key. It is safe for concurrent use.
type Authority struct {
	cfg    Config
	key    crypto.Signer
	cert   *x509.Certificate
	server crypto.Signer

	mu   sync.Mutex
	leaf *tls.Certificate // the server's, with the CA's behind it
}

// Open loads the CA and the server certificate, or makes them on first start.
func Open(cfg Config) (*Authority, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Head == "" {
		return nil, errors.New("the certificate authority needs the name of its head")
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	a := &Authority{cfg: cfg}
	var err error
	if a.key, err = loadKey(a.path("ca.key")); err != nil {
		return nil, err
	}
	if a.server, err = loadKey(a.path("server.key")); err != nil {
		return nil, err
	}
	if a.cert, err = a.loadCA(); err != nil {
		return nil, err
	}
	if err := a.Rename(cfg.Names, cfg.Addrs); err != nil {
		return nil, err
	}
	return a, nil
}

func (a *Authority) path(name string) string { return filepath.Join(a.cfg.Dir, name) }

// Fingerprint is the lower-case hex SHA-256 of the CA's certificate in DER:
// what an agent pins.
func (a *Authority) Fingerprint() string {
	sum := sha256.Sum256(a.cert.Raw)
	return hex.EncodeToString(sum[:])
}

// Bundle is the CA's certificate in PEM.
func (a *Authority) Bundle() []byte { return encodeCert(a.cert.Raw) }

// TLSConfig is for the https listener: TLS 1.2 or later, with a client
// certificate if the client has one of this CA. Others fail the handshake.
func (a *Authority) TLSConfig() *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"h2", "http/1.1"},
		ClientAuth:     tls.VerifyClientCertIfGiven,
		ClientCAs:      pool,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return a.current() },
		Time:           a.cfg.Now,
	}
}

// loadKey reads a P-256 key, or makes one.
func loadKey(path string) (crypto.Signer, error) {
	data, err := keyfile.LoadOrCreate(path, func() ([]byte, error) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), err
	})
	if err != nil {
		return nil, fmt.Errorf("a key of the certificate authority: %w", err)
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("%s holds no PEM block: restore it from a backup", path)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	signer, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s holds a %T; an ECDSA key is needed", path, key)
	}
	return signer, nil
}

// loadCA reads the CA's certificate, or makes it for the key. The key is
// written first, so a crash between the two leaves nothing to repair.
func (a *Authority) loadCA() (*x509.Certificate, error) {
	path := a.path("ca.crt")
	data, err := keyfile.LoadOrCreate(path, a.newCA)
	if err != nil {
		return nil, fmt.Errorf("the certificate of the certificate authority: %w", err)
	}
	cert, err := decodeCert(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if !samePublic(cert.PublicKey, a.key.Public()) {
		return nil, fmt.Errorf("%s does not belong to ca.key beside it: restore both from one backup", path)
	}
	if left := cert.NotAfter.Sub(a.cfg.Now()); left <= 0 {
		return nil, fmt.Errorf("%s expired on %s: move the directory away for a new authority, then all nodes must boot again to enrol", path, cert.NotAfter.Format(time.DateOnly))
	} else if left < 365*24*time.Hour && a.cfg.Log != nil {
		a.cfg.Log.Warn("the certificate authority expires within a year", "file", path, "expires", cert.NotAfter)
	}
	return cert, nil
}

func (a *Authority) newCA() ([]byte, error) {
	tmpl, err := a.template(caLifetime)
	if err != nil {
		return nil, err
	}
	tmpl.Subject = pkix.Name{CommonName: "muster CA of " + commonName(a.cfg.Head)}
	tmpl.IsCA, tmpl.BasicConstraintsValid, tmpl.MaxPathLenZero = true, true, true
	tmpl.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, a.key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	return encodeCert(der), nil
}

// template is a certificate with a random serial that is valid from now on.
func (a *Authority) template(life time.Duration) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	now := a.cfg.Now()
	return &x509.Certificate{
		SerialNumber: serial.Add(serial, big.NewInt(1)), // never 0 (RFC 5280 §4.1.2.2)
		NotBefore:    now.Add(-backdate),
		NotAfter:     now.Add(life),
	}, nil
}

// commonName cuts a name to the 64 characters of RFC 5280, appendix A.1, less
// what we put before it.
func commonName(s string) string {
	const max = 64 - len("muster CA of ")
	return s[:min(len(s), max)]
}

func samePublic(a any, b crypto.PublicKey) bool {
	k, ok := a.(*ecdsa.PublicKey)
	return ok && k.Equal(b)
}

func encodeCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func decodeCert(data []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("holds no certificate in PEM")
	}
	return x509.ParseCertificate(block.Bytes)
}

// readCert gives the stored certificate, nil when there is none.
func readCert(path string) (*x509.Certificate, error) {
	data, err := keyfile.Read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return decodeCert(data)
}
