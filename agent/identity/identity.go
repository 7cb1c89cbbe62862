// Package identity is how a node proves who it is, and how it knows its head.
//
// The head is known by its certificate authority: by the SHA-256 that the boot
// command line gives, by a file, or on a service's first contact by trust on
// first use. Whichever it was, from then on only that authority counts. The
// node proves itself by a certificate that it got for a one-time key; its
// private key is made here and never leaves.
//
// Clocks: a diskless machine may start in 1970. At enrolment the head's
// certificate is therefore judged as of the moment when it began to be valid;
// everything but the time is checked in full. The caller sets the clock from
// the answer, and every later connection is judged by the clock.
package identity

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"muster/shared/filesystem"
)

// The files of a state directory, mode 0600.
const (
	fileCA   = "ca.pem"
	fileCert = "cert.pem"
	fileKey  = "key.pem"
)

// Identity is what is kept. The zero value is a machine that is known by its
// address and talks to any head.
type Identity struct {
	CA   *x509.Certificate // of the head; nil when it was never learned
	Cert *tls.Certificate  // the node's own; nil when it never enrolled
}

// TLS is the client configuration: only the pinned authority counts, and the
// node shows its certificate when it has one. It must not be used without CA.
func (id *Identity) TLS() *tls.Config {
	pool := x509.NewCertPool()
	if id.CA != nil {
		pool.AddCert(id.CA)
	}
	c := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool}
	if id.Cert != nil {
		c.Certificates = []tls.Certificate{*id.Cert}
	}
	return c
}

// Load reads a state directory. Files that are not there leave their part of
// the identity empty; a broken one is an error.
func Load(dir string) (*Identity, error) {
	id := &Identity{}
	ca, err := os.ReadFile(filepath.Join(dir, fileCA))
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	default:
		if id.CA, err = ParseCA(ca); err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Join(dir, fileCA), err)
		}
	}
	cert, err := tls.LoadX509KeyPair(filepath.Join(dir, fileCert), filepath.Join(dir, fileKey))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the node's certificate in %s: %w", dir, err)
	}
	if err == nil {
		id.Cert = &cert
	}
	return id, nil
}

// Save writes what the identity has to a state directory, each file whole or
// not at all; the certificate last, so that it never stands without its key.
func (id *Identity) Save(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if id.CA != nil {
		if err := write(dir, fileCA, "CERTIFICATE", id.CA.Raw); err != nil {
			return err
		}
	}
	if id.Cert == nil {
		return nil
	}
	key, err := x509.MarshalPKCS8PrivateKey(id.Cert.PrivateKey)
	if err != nil {
		return err
	}
	if err := write(dir, fileKey, "PRIVATE KEY", key); err != nil {
		return err
	}
	return write(dir, fileCert, "CERTIFICATE", id.Cert.Certificate...)
}

func write(dir, name, kind string, blocks ...[]byte) error {
	f, err := os.CreateTemp(dir, "."+name+"*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	for _, b := range blocks {
		if err = pem.Encode(f, &pem.Block{Type: kind, Bytes: b}); err != nil {
			break
		}
	}
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, name))
	}
	if err != nil {
		return err
	}
	return filesystem.SyncDir(dir)
}

// ParseCA gives the first certificate authority in a PEM text.
func ParseCA(text []byte) (*x509.Certificate, error) {
	all, err := parseAll(text)
	for _, c := range all {
		if c.IsCA {
			return c, nil
		}
	}
	if err == nil {
		err = errors.New("no certificate of a certificate authority in it")
	}
	return nil, err
}

func parseAll(text []byte) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return all, nil
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return all, err
		}
		all = append(all, c)
	}
}

// Pinned is the client configuration for a head of which only the SHA-256 of
// its authority's certificate is known, in lower-case hexadecimal. The head's
// chain must have that certificate in it, and it must have signed the head's
// own, which must be valid for host. On success found gets the authority.
func Pinned(hash, host string, found func(*x509.Certificate)) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, // VerifyConnection does it, by the hash
		VerifyConnection: func(cs tls.ConnectionState) error {
			for _, c := range cs.PeerCertificates {
				if sum := sha256.Sum256(c.Raw); c.IsCA && hex.EncodeToString(sum[:]) == hash {
					if err := verify(cs.PeerCertificates, c, host); err != nil {
						return err
					}
					found(c)
					return nil
				}
			}
			return fmt.Errorf("the server at %s is not the head that booted this machine: no certificate with SHA-256 %s in its chain", host, hash)
		},
	}
}

// verify checks a server's chain against an authority, as of the moment when
// the server's certificate began to be valid.
func verify(chain []*x509.Certificate, ca *x509.Certificate, host string) error {
	if len(chain) == 0 {
		return errors.New("the server showed no certificate")
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(ca)
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	when := chain[0].NotBefore
	if ca.NotBefore.After(when) {
		when = ca.NotBefore
	}
	_, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, DNSName: host, CurrentTime: when})
	return err
}
