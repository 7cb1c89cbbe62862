package client

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"time"
)

// Untrusted says that the head's certificate is signed by nobody whom
// the client trusts, or speaks for another name.
type Untrusted struct{ Err error }

func (e *Untrusted) Error() string {
	var other x509.HostnameError
	if errors.As(e.Err, &other) {
		return fmt.Sprintf("the head's certificate is not for %q: use one of its names or addresses (%v)", other.Host, e.Err)
	}
	return "the head's certificate is signed by an authority that is not trusted here: " + e.Err.Error()
}

// Unwrap gives the cause.
func (e *Untrusted) Unwrap() error { return e.Err }

// Unknown says whether nobody is known who signed the certificate, rather than
// that something is wrong with it.
func (e *Untrusted) Unknown() bool {
	var unknown x509.UnknownAuthorityError
	return errors.As(e.Err, &unknown)
}

func untrusted(err error) error {
	var verify *tls.CertificateVerificationError
	if errors.As(err, &verify) {
		return &Untrusted{verify.Err}
	}
	return nil
}

// TLS is a configuration that trusts the authorities in PEM, and no others.
// Without any it trusts those of the operating system.
func TLS(authorities []byte) (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(authorities) == 0 {
		return cfg, nil
	}
	cfg.RootCAs = x509.NewCertPool()
	if !cfg.RootCAs.AppendCertsFromPEM(authorities) {
		return nil, errors.New("no certificate in PEM form")
	}
	return cfg, nil
}

// FetchAuthority asks the head which authority signed its certificate: the
// last one of the chain that it shows. Nothing vouches for the answer but its
// fingerprint, which somebody must compare.
func FetchAuthority(ctx context.Context, head string) (*x509.Certificate, error) {
	u, err := ParseHead(head)
	if err != nil {
		return nil, err
	}
	if u.Scheme != "https" {
		return nil, fmt.Errorf("%s has no certificate: it is not https", head)
	}
	addr := u.Host
	if u.Port() == "" {
		addr = net.JoinHostPort(u.Hostname(), "443")
	}
	d := tls.Dialer{
		NetDialer: &net.Dialer{Timeout: 10 * time.Second},
		// Nothing is sent over this connection, and nothing read but the chain.
		Config: &tls.Config{InsecureSkipVerify: true, ServerName: u.Hostname(), MinVersion: tls.VersionTLS12},
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("the head at %s cannot be asked for its certificate: %w", head, err)
	}
	defer conn.Close()
	chain := conn.(*tls.Conn).ConnectionState().PeerCertificates
	ca := chain[len(chain)-1] // a server always shows one
	if !ca.IsCA {
		return nil, fmt.Errorf("the head at %s shows no authority for its certificate: get its ca.crt in another way and name the file", head)
	}
	return ca, nil
}

// Fingerprint is the lower-case hex SHA-256 of a certificate.
func Fingerprint(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return hex.EncodeToString(sum[:])
}

// PEM is the form in which certificates are kept in files.
func PEM(cert *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
}
