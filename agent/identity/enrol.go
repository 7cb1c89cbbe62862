package identity

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"muster/agent/head"
	"muster/shared/wire"
)

// Key is a private key with the request for its certificate. Making it takes a
// while on a slow machine and can be done before there is a network.
type Key struct {
	private *ecdsa.PrivateKey
	csr     []byte
}

// NewKey makes an ECDSA P-256 key.
func NewKey() (*Key, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, private)
	return &Key{private, csr}, err
}

// Ticket is what the boot command line gives for enrolment.
type Ticket struct {
	URL  string // https URL of the head
	Hash string // of its authority's certificate, see Pinned
	Key  string // one-time key
	MAC  string // of the interface that was booted from
}

// Enrol trades the ticket for a certificate. The head's clock comes back too.
// A *head.Refused error is final: the key was used or has expired.
func (k *Key) Enrol(ctx context.Context, d head.Dialer, t Ticket) (*Identity, time.Time, error) {
	u, err := url.Parse(t.URL)
	if err != nil || u.Scheme != "https" {
		return nil, time.Time{}, fmt.Errorf("%s=%q is not an https URL", wire.CmdlineHTTPS, t.URL)
	}
	var ca *x509.Certificate
	client := head.New(t.URL, d, Pinned(t.Hash, u.Hostname(), func(c *x509.Certificate) { ca = c }))
	defer client.Close()
	var got wire.Enrolled
	now, err := client.Call(ctx, http.MethodPost, wire.PathEnrol, wire.Enrol{Key: t.Key, CSR: k.csr, MAC: t.MAC}, &got)
	if err != nil {
		return nil, now, err
	}
	if len(got.Chain) == 0 {
		return nil, now, errors.New("the head answered the enrolment without a certificate")
	}
	leaf, err := x509.ParseCertificate(got.Chain[0])
	if err != nil {
		return nil, now, fmt.Errorf("the certificate that the head gave: %w", err)
	}
	if err := leaf.CheckSignatureFrom(ca); err != nil {
		return nil, now, fmt.Errorf("the certificate that the head gave is not signed by its authority: %w", err)
	}
	if public, ok := leaf.PublicKey.(*ecdsa.PublicKey); !ok || !public.Equal(&k.private.PublicKey) {
		return nil, now, errors.New("the certificate that the head gave is for another key")
	}
	cert := &tls.Certificate{Certificate: got.Chain[:1], PrivateKey: k.private, Leaf: leaf}
	return &Identity{CA: ca, Cert: cert}, now, nil
}

// pathBundle gives the head's authority as PEM, to anyone.
const pathBundle = "/api/v1/cluster/cabundle"

// TrustOnFirstUse asks a head for its authority, over a connection that is not
// verified, and checks that it is the one which signed that connection. Whoever
// answers at this moment is trusted from then on: the caller keeps what it
// gets and does not ask again.
func TrustOnFirstUse(ctx context.Context, d head.Dialer, headURL string) (*x509.Certificate, error) {
	u, err := url.Parse(headURL)
	if err != nil {
		return nil, err
	}
	var shown []*x509.Certificate
	client := head.New(headURL, d, &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, // that is what first use means
		VerifyConnection: func(cs tls.ConnectionState) error {
			shown = cs.PeerCertificates
			return nil
		},
	})
	defer client.Close()
	var text string
	if _, err := client.Call(ctx, http.MethodGet, pathBundle, nil, &text); err != nil {
		return nil, err
	}
	all, err := parseAll(bytes.TrimSpace([]byte(text)))
	if err != nil {
		return nil, fmt.Errorf("the authority that %s gives: %w", headURL, err)
	}
	err = errors.New("there is none")
	for _, ca := range all {
		if !ca.IsCA {
			continue
		}
		if err = verify(shown, ca, u.Hostname()); err == nil {
			return ca, nil
		}
	}
	return nil, fmt.Errorf("the authority that %s gives did not sign its certificate: %w", headURL, err)
}
