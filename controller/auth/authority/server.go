package authority

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"muster/controller/auth/keyfile"
)

// Rename sets the further names and addresses of the head, and issues another
// server certificate if the present one differs, ends soon or is unreadable.
// Listeners use it from their next handshake on.
func (a *Authority) Rename(names []string, addrs []netip.Addr) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cfg.Names, a.cfg.Addrs = slices.Clone(names), slices.Clone(addrs)
	cert, err := readCert(a.path("server.crt"))
	if err != nil && a.cfg.Log != nil {
		a.cfg.Log.Warn("the server certificate is replaced", "file", a.path("server.crt"), "error", err)
	}
	if err != nil || cert == nil || !a.fits(cert) {
		return a.issueServer()
	}
	a.use(cert)
	return nil
}

// current is the server certificate, renewed when it nears its end: a head may
// run longer than a certificate.
func (a *Authority) current() (*tls.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.fresh(a.leaf.Leaf) {
		if err := a.issueServer(); err != nil {
			if a.cfg.Log != nil {
				a.cfg.Log.Error("the server certificate could not be renewed", "expires", a.leaf.Leaf.NotAfter, "error", err)
			}
		}
	}
	return a.leaf, nil
}

func (a *Authority) fresh(cert *x509.Certificate) bool {
	now := a.cfg.Now()
	// One that ends with the CA cannot be renewed beyond it.
	return !now.Before(cert.NotBefore) && (now.Add(renewBefore).Before(cert.NotAfter) || cert.NotAfter.Equal(a.cert.NotAfter))
}

// fits says whether the certificate is of this CA and key, for the names that
// are wanted now, and not near its end.
func (a *Authority) fits(cert *x509.Certificate) bool {
	names, ips := a.subjects()
	return cert.CheckSignatureFrom(a.cert) == nil &&
		samePublic(cert.PublicKey, a.server.Public()) &&
		slices.Equal(cert.DNSNames, names) &&
		slices.EqualFunc(cert.IPAddresses, ips, net.IP.Equal) &&
		a.fresh(cert)
}

// subjects are the names and addresses of the head, sorted, each once.
func (a *Authority) subjects() ([]string, []net.IP) {
	names := append([]string{a.cfg.Head, "localhost"}, a.cfg.Names...)
	slices.Sort(names)
	addrs := []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
	for _, ad := range a.cfg.Addrs {
		if ad.IsValid() {
			addrs = append(addrs, ad.Unmap().WithZone(""))
		}
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	var ips []net.IP
	for _, ad := range slices.Compact(addrs) {
		ips = append(ips, ad.AsSlice())
	}
	return slices.Compact(names), ips
}

func (a *Authority) issueServer() error {
	tmpl, err := a.template(serverLifetime)
	if err != nil {
		return err
	}
	if tmpl.NotAfter.After(a.cert.NotAfter) {
		tmpl.NotAfter = a.cert.NotAfter
	}
	tmpl.Subject = pkix.Name{CommonName: commonName(a.cfg.Head)}
	tmpl.DNSNames, tmpl.IPAddresses = a.subjects()
	tmpl.KeyUsage = x509.KeyUsageDigitalSignature
	tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, a.server.Public(), a.key)
	if err != nil {
		return fmt.Errorf("the server certificate for %q: %w", tmpl.DNSNames, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return fmt.Errorf("the server certificate for %q: %w", tmpl.DNSNames, err)
	}
	if err := keyfile.Replace(a.path("server.crt"), encodeCert(der)); err != nil {
		return err
	}
	a.use(cert)
	return nil
}

func (a *Authority) use(cert *x509.Certificate) {
	a.leaf = &tls.Certificate{Certificate: [][]byte{cert.Raw, a.cert.Raw}, PrivateKey: a.server, Leaf: cert}
}
