package lab

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"time"

	"muster/scripts/lab/redfish"
)

// BMCUser and BMCPassword let an admin into every BMC of a lab.
const (
	BMCUser     = "admin"
	BMCPassword = "lab:p@ss/1"
)

// firstBMC is the address of the first BMC in a lab; serialPort is where a BMC
// finds its machine's serial line.
const (
	firstBMC   = "10.77.0.201"
	serialPort = 2000
)

// BMC is a machine's management controller, at an address of its own: IPMI with
// the serial line over LAN, and Redfish.
type BMC struct {
	Addr netip.Addr

	ipmi   *ipmi
	web    *http.Server
	serial net.Listener
}

// newBMC makes a machine's BMC, which works while the machine is off. Its files
// go to dir.
func (n *Network) newBMC(ctx context.Context, m *Machine, dir string) (b *BMC, err error) {
	b = &BMC{Addr: netip.MustParseAddr(firstBMC)}
	for range n.bmcs.Add(1) - 1 {
		b.Addr = b.Addr.Next()
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("the BMC of %s: %w", m.Spec.Name, err), b.close())
		}
	}()
	if err := run(ctx, "ip", "-n", n.Name, "address", "add", b.Addr.String()+"/32", "dev", "lo"); err != nil {
		return b, err
	}
	if err := b.serveRedfish(n, m); err != nil {
		return b, err
	}
	if b.serial, err = n.listen(b.Addr, serialPort); err != nil {
		return b, err
	}
	go m.Console.share(b.serial)
	b.ipmi, err = simulate(ctx, n, m, b.Addr, filepath.Join(dir, m.Spec.Name+".bmc"))
	return b, err
}

// serveRedfish serves over HTTPS, with a certificate that nobody knows, as BMCs have it.
func (b *BMC) serveRedfish(n *Network, m *Machine) error {
	cert, err := selfSigned(b.Addr)
	if err != nil {
		return err
	}
	l, err := n.listen(b.Addr, 443)
	if err != nil {
		return err
	}
	b.web = &http.Server{
		Handler:           redfish.New(m, redfish.Identity{User: BMCUser, Password: BMCPassword, UUID: m.Spec.UUID(), Serial: m.Spec.Serial()}),
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{cert}},
		ReadHeaderTimeout: 10 * time.Second,
	}
	go b.web.ServeTLS(l, "", "")
	return nil
}

func selfSigned(addr netip.Addr) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	t := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0), IPAddresses: []net.IP{addr.AsSlice()}}
	raw, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key}, err
}

// IPMI is its power_uri with these credentials, USER:PASSWORD. The simulator
// has one cipher suite, and does not answer who asks which.
func (b *BMC) IPMI(credentials string) string {
	return "ipmi://" + credentials + "@" + b.Addr.String() + "/?cipher=3"
}

// Redfish is the same for Redfish.
func (b *BMC) Redfish(credentials string) string {
	return "redfish://" + credentials + "@" + b.Addr.String() + "/"
}

func (b *BMC) close() error {
	var err error
	if b.ipmi != nil {
		err = b.ipmi.close()
	}
	if b.web != nil {
		err = errors.Join(err, b.web.Close())
	}
	if b.serial != nil {
		err = errors.Join(err, b.serial.Close())
	}
	return err
}
