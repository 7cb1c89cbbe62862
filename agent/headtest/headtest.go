// Package headtest is a head for the agent's tests: it speaks shared/wire over
// real sockets and TLS, and remembers what it was told. It decides nothing.
package headtest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/hashicorp/yamux"

	"muster/shared/wire"
)

// Authority is a certificate authority.
type Authority struct {
	Cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewAuthority makes one that is valid from then on.
func NewAuthority(t testing.TB, from time.Time) *Authority {
	t.Helper()
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: from, NotAfter: from.AddDate(10, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der := must(x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key))
	return &Authority{must(x509.ParseCertificate(der)), key}
}

// Hash is the lower-case hexadecimal SHA-256 of the authority's certificate.
func (a *Authority) Hash() string {
	sum := sha256.Sum256(a.Cert.Raw)
	return hex.EncodeToString(sum[:])
}

// PEM is the authority's certificate as the cabundle endpoint gives it.
func (a *Authority) PEM() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Cert.Raw}))
}

// Sign makes a certificate for a public key.
func (a *Authority) Sign(public any, hosts ...string) []byte {
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "test"},
		NotBefore: a.Cert.NotBefore, NotAfter: a.Cert.NotAfter,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, h)
		}
	}
	return must(x509.CreateCertificate(rand.Reader, tmpl, a.Cert, public, a.key))
}

// Server is a certificate with the whole chain, for these hosts.
func (a *Authority) Server(hosts ...string) tls.Certificate {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	return tls.Certificate{Certificate: [][]byte{a.Sign(key.Public(), hosts...), a.Cert.Raw}, PrivateKey: key}
}

// Head is the head. Its fields may be set before it is asked.
type Head struct {
	*Authority
	HTTP, HTTPS string // URLs
	Plain, TLS  *httptest.Server
	Boot        func() wire.Boot
	Every       int // seconds, told in Hello
	// Refuse, when set, answers instead if it returns a reason.
	Refuse func(r *http.Request) string

	Sessions chan *yamux.Session // of each link, in order
	Hellos   chan wire.Hello

	mu       sync.Mutex
	changed  *sync.Cond
	keys     map[string]bool
	steps    []wire.Step
	statuses []wire.Status
	files    map[string][]byte
	peers    []*x509.Certificate
}

// New starts a head on loopback.
func New(t testing.TB) *Head {
	t.Helper()
	h := &Head{
		Authority: NewAuthority(t, time.Now().Add(-time.Hour)), Every: 10,
		Sessions: make(chan *yamux.Session, 16), Hellos: make(chan wire.Hello, 16),
		keys: map[string]bool{}, files: map[string][]byte{},
	}
	h.changed = sync.NewCond(&h.mu)
	h.Plain = httptest.NewServer(h)
	h.TLS = httptest.NewUnstartedServer(h)
	h.TLS.TLS = h.TLSConfig("127.0.0.1")
	h.TLS.StartTLS()
	h.HTTP, h.HTTPS = h.Plain.URL, h.TLS.URL
	t.Cleanup(func() {
		for len(h.Sessions) > 0 {
			(<-h.Sessions).Close()
		}
		h.Plain.CloseClientConnections()
		h.TLS.CloseClientConnections()
		h.Plain.Close()
		h.TLS.Close()
	})
	return h
}

// TLSConfig is the configuration of a server of this head at these hosts.
func (h *Head) TLSConfig(hosts ...string) *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(h.Cert)
	return &tls.Config{
		Certificates: []tls.Certificate{h.Server(hosts...)},
		ClientAuth:   tls.VerifyClientCertIfGiven, ClientCAs: pool,
	}
}

// Mint makes a one-time key good for one enrolment.
func (h *Head) Mint(key string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.keys[key] = true
}

// AddFile offers a file by its content.
func (h *Head) AddFile(content []byte) *wire.Image {
	sum := sha256.Sum256(content)
	image := &wire.Image{Name: "test", SHA256: hex.EncodeToString(sum[:]), Size: int64(len(content))}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.files[image.SHA256] = content
	return image
}

// WaitStep waits until a stamp was made for which ok says true.
func (h *Head) WaitStep(ok func(wire.Step) bool) wire.Step {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		for _, s := range h.steps {
			if ok(s) {
				return s
			}
		}
		h.changed.Wait()
	}
}

// Steps gives the stamps so far.
func (h *Head) Steps() []wire.Step {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]wire.Step(nil), h.steps...)
}

// WaitStatus waits for the n-th report and gives it.
func (h *Head) WaitStatus(n int) wire.Status {
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(h.statuses) < n {
		h.changed.Wait()
	}
	return h.statuses[n-1]
}

func (h *Head) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h.Refuse != nil {
		if reason := h.Refuse(r); reason != "" {
			w.WriteHeader(http.StatusForbidden)
			json.NewEncoder(w).Encode(map[string]any{"success": false, "reason": reason})
			return
		}
	}
	switch {
	case r.URL.Path == wire.PathLink:
		h.link(w, r)
	case r.URL.Path == wire.PathEnrol:
		h.enrol(w, r)
	case r.URL.Path == wire.PathBoot:
		answer(w, h.Boot())
	case r.URL.Path == wire.PathStep:
		var s wire.Step
		h.take(w, r, &s, func() { h.steps = append(h.steps, s) })
	case r.URL.Path == wire.PathStatus:
		var s wire.Status
		h.take(w, r, &s, func() { h.statuses = append(h.statuses, s) })
	case r.URL.Path == "/api/v1/cluster/cabundle":
		answer(w, h.PEM())
	case strings.HasPrefix(r.URL.Path, wire.PathFile):
		sum, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, wire.PathFile), "/")
		h.mu.Lock()
		content, ok := h.files[sum]
		h.mu.Unlock()
		if !ok {
			http.NotFound(w, r)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	default:
		http.NotFound(w, r)
	}
}

func answer(w http.ResponseWriter, data any) {
	json.NewEncoder(w).Encode(map[string]any{"success": true, "data": data})
}

func (h *Head) take(w http.ResponseWriter, r *http.Request, v any, keep func()) {
	if err := json.NewDecoder(r.Body).Decode(v); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	h.mu.Lock()
	keep()
	h.changed.Broadcast()
	h.mu.Unlock()
	w.Write([]byte(`{"success": true}`))
}

func (h *Head) enrol(w http.ResponseWriter, r *http.Request) {
	var e wire.Enrol
	json.NewDecoder(r.Body).Decode(&e)
	h.mu.Lock()
	good := h.keys[e.Key] && r.TLS != nil
	delete(h.keys, e.Key)
	h.mu.Unlock()
	csr, err := x509.ParseCertificateRequest(e.CSR)
	if !good || err != nil || csr.CheckSignature() != nil {
		w.WriteHeader(http.StatusForbidden)
		json.NewEncoder(w).Encode(map[string]any{"success": false, "reason": "This one-time key was used already."})
		return
	}
	answer(w, wire.Enrolled{Node: "uid-1", Chain: [][]byte{h.Sign(csr.PublicKey), h.Cert.Raw}})
}

func (h *Head) link(w http.ResponseWriter, r *http.Request) {
	up := websocket.Upgrader{}
	ws, err := up.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	var hello wire.Hello
	if ws.ReadJSON(&hello) != nil || ws.WriteJSON(wire.Hello{Version: wire.Version, Node: "uid-1", Name: "n0", Every: h.Every}) != nil {
		ws.Close()
		return
	}
	cfg := yamux.DefaultConfig()
	cfg.StreamCloseTimeout = 2 * time.Second
	cfg.LogOutput = new(bytes.Buffer)
	session, err := yamux.Client(wire.Conn(ws), cfg)
	if err != nil {
		ws.Close()
		return
	}
	if r.TLS != nil {
		h.mu.Lock()
		h.peers = append(h.peers, r.TLS.PeerCertificates...)
		h.mu.Unlock()
	}
	go h.reports(session)
	h.Hellos <- hello
	h.Sessions <- session
}

// reports takes what an agent reports over its link.
func (h *Head) reports(session *yamux.Session) {
	for {
		stream, err := session.Accept()
		if err != nil {
			return
		}
		header, err := wire.ReadHeader(stream)
		if err == nil && header.Type == wire.StreamReport {
			var s wire.Status
			raw, err := wire.ReadMessage(stream, wire.MaxReport)
			if err == nil && json.Unmarshal(raw, &s) == nil {
				h.mu.Lock()
				h.statuses = append(h.statuses, s)
				h.changed.Broadcast()
				h.mu.Unlock()
				stream.Write(wire.TakenMessage(wire.Taken{Status: http.StatusOK, Time: float64(time.Now().Unix())}))
			}
		}
		stream.Close()
	}
}

// Peers gives the client certificates that links were made with.
func (h *Head) Peers() []*x509.Certificate {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]*x509.Certificate(nil), h.peers...)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
