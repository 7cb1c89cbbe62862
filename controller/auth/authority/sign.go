package authority

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"time"

	"muster/shared/fault"
	"muster/shared/kind"
)

const (
	maxCSR = 8 << 10 // bytes of DER; an RSA 4096 request has about 1600
	minRSA = 2048    // bits
	maxRSA = 4096    // more only costs the head time
)

// NodeCert is a certificate for a node.
type NodeCert struct {
	Chain    [][]byte // DER: the node's, then the CA's
	Serial   string   // lower-case hex, as big.Int.Text(16)
	NotAfter time.Time
}

// SignNode makes a certificate for the key of a PKCS #10 request (RFC 2986,
// DER). Of the request nothing but the key is taken: the name is the node's
// UID, both as common name and as DNS name, and it serves as a client and
// towards peers as a server. It ends with the CA at the latest. A request that
// is not right is an Invalid fault.
func (a *Authority) SignNode(csr []byte, uid string, ttl time.Duration) (*NodeCert, error) {
	if !kind.UIDPattern.MatchString(uid) {
		return nil, fmt.Errorf("%q is not the UID of a node", uid)
	}
	if ttl <= 0 {
		return nil, fmt.Errorf("a certificate cannot live for %v", ttl)
	}
	public, err := checkCSR(csr)
	if err != nil {
		return nil, err
	}
	tmpl, err := a.template(ttl)
	if err != nil {
		return nil, err
	}
	if tmpl.NotAfter.After(a.cert.NotAfter) {
		tmpl.NotAfter = a.cert.NotAfter
	}
	tmpl.Subject = pkix.Name{CommonName: uid}
	tmpl.DNSNames = []string{uid}
	tmpl.BasicConstraintsValid = true // and not a CA
	tmpl.KeyUsage = x509.KeyUsageDigitalSignature
	tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, public, a.key)
	if err != nil {
		return nil, fmt.Errorf("signing the certificate of node %s: %w", uid, err)
	}
	return &NodeCert{Chain: [][]byte{der, a.cert.Raw}, Serial: tmpl.SerialNumber.Text(16), NotAfter: tmpl.NotAfter}, nil
}

// checkCSR gives the request's public key, if it is one we sign and the
// request was made by its owner.
func checkCSR(der []byte) (any, error) {
	if len(der) > maxCSR {
		return nil, fault.Invalidf("The certificate request has %d bytes; %d are allowed.", len(der), maxCSR)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fault.Invalidf("This is no certificate request in DER: %v.", err)
	}
	switch key := csr.PublicKey.(type) {
	case *ecdsa.PublicKey:
		if key.Curve != elliptic.P256() && key.Curve != elliptic.P384() {
			return nil, fault.Invalidf("The key of the request is on the curve %s; P-256 and P-384 are allowed.", key.Curve.Params().Name)
		}
	case ed25519.PublicKey:
	case *rsa.PublicKey:
		if n := key.N.BitLen(); n < minRSA || n > maxRSA {
			return nil, fault.Invalidf("The RSA key of the request has %d bits; %d to %d are allowed.", n, minRSA, maxRSA)
		}
	default:
		return nil, fault.Invalidf("The key of the request is a %T; ECDSA (P-256, P-384), Ed25519 and RSA are allowed.", key)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fault.Invalidf("The certificate request is not signed by its own key: %v.", err)
	}
	return csr.PublicKey, nil
}
