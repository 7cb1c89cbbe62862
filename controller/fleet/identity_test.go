package fleet_test

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"muster/controller/api/apitest"
	"muster/controller/fleet/fleettest"
	"muster/shared/wire"
)

func TestKeys(t *testing.T) {
	dir := t.TempDir()
	h := fleettest.Start(t, dir)
	uid, other := h.Node(1), h.Node(2)
	mint := func(want bool) string {
		t.Helper()
		key, ok := h.Fleet.Mint(uid, addr)
		if ok != want || (key != "") != want {
			t.Errorf("minting gave %q, %v", key, ok)
		}
		return key
	}
	csr := "1"
	enrol := func(uid, key string, from netip.Addr, reason string) {
		t.Helper()
		got, err := h.Fleet.Enrol(t.Context(), uid, from, wire.Enrol{Key: key, CSR: []byte(csr)})
		if reason == "" && (err != nil || got.Node != uid || len(got.Chain) == 0) || reason != "" && (err == nil || !strings.Contains(err.Error(), reason)) {
			t.Errorf("enrolling gave %v, %v, want %q", got, err, reason)
		}
	}
	mint(false) // no boot is under way
	enrol(uid, "", addr, "used already")
	h.Fleet.OpenBoot(uid, addr)
	if _, ok := h.Fleet.Mint(uid, netip.MustParseAddr("10.0.0.9")); ok {
		t.Error("a key was made for another address")
	}
	if _, ok := h.Fleet.Mint(other, addr); ok {
		t.Error("a key was made for another node")
	}
	key := mint(true)
	expect(t, mint(true), key)
	enrol(uid, key+"x", addr, "not of this node")
	enrol(other, key, addr, "not of this node")
	enrol(uid, key, netip.MustParseAddr("10.0.0.9"), "another address")
	enrol(uid, key, addr, "")
	expect(t, h.Fleet.Enrolled(uid), true)
	expect(t, h.Fleet.CertValid(uid, "serial-1"), true)
	csr = "another" // another's private key: what was spent stays spent
	enrol(uid, key, addr, "used already")
	csr = "1" // the same machine, whose answer was lost
	enrol(uid, key, netip.MustParseAddr("10.0.0.9"), "another address")
	enrol(uid, key, addr, "")
	expect(t, h.Fleet.Enrolled(uid), true)
	h.Clock.Add(time.Minute)
	enrol(uid, key, addr, "expired")
	mint(false) // it has booted
	// The next boot: a new key, and the certificate stays until the new one is there.
	h.Fleet.OpenBoot(uid, addr)
	expect(t, h.Fleet.Enrolled(uid), false)
	next := mint(true)
	if next == key {
		t.Error("two boots have the same key")
	}
	enrol(uid, key, addr, "used already")
	expect(t, h.Fleet.CertValid(uid, "serial-1"), true)
	h.Stop()

	h = fleettest.Start(t, dir) // the head starts anew in the middle of a boot
	mint(false)                 // it knows only the key's hash
	expect(t, h.Fleet.CertValid(uid, "serial-1"), true)
	if got, ok := h.Fleet.OpenAt(addr); !ok || got != uid {
		t.Errorf("at %v there is %q", addr, got)
	}
	h.Clock.Add(59 * time.Second)
	if _, err := h.Fleet.Enrol(t.Context(), uid, addr, wire.Enrol{Key: next}); err == nil {
		t.Error("a request that cannot be signed was signed")
	}
	got, err := h.Fleet.Enrol(t.Context(), uid, addr, wire.Enrol{Key: next, CSR: []byte("2")})
	if err != nil || got.Node != uid {
		t.Fatal(err)
	}
	expect(t, h.Fleet.CertValid(uid, "serial-1"), false)
	expect(t, h.Fleet.CertValid(uid, "serial-1"), false)
	if got := steps(h, "n0"); strings.Count(got, "identity!somebody came with a certificate that the node has no longer") != 1 {
		t.Errorf("of the former certificate the timeline says: %s", got)
	}
	h.Stop()

	h = fleettest.Start(t, dir)
	expect(t, h.Fleet.CertValid(uid, "serial-2"), true)
	expect(t, h.Fleet.Enrolled(uid), true)
	expect(t, h.Fleet.CertValid(uid, ""), false)
	expect(t, h.Fleet.CertValid("nobody", ""), false)
	h.Fleet.OpenBoot(uid, addr)
	key = mint(true)
	h.Clock.Add(61 * time.Second)
	enrol(uid, key, addr, "expired")
	mint(false)
	expect(t, h.Fleet.Enrolled(uid), true) // the address alone speaks no more
	h.Fleet.OpenBoot(uid, addr)
	h.Clock.Add(16 * time.Minute) // it never came
	mint(false)
	if _, ok := h.Fleet.OpenAt(addr); ok {
		t.Error("the boot is still open")
	}
	// A second machine boots at the address: it is then that one's.
	h.Fleet.OpenBoot(uid, addr)
	h.Fleet.OpenBoot(other, addr)
	if got, _ := h.Fleet.OpenAt(addr); got != other {
		t.Errorf("at %v there is %q", addr, got)
	}
	a := h.Link(uid, wire.Hello{InImage: true}, nil)
	h.WaitState("n0", "up")
	h.OK("DELETE", "/node/n0/identity", nil)
	apitest.Receive(t, a.Session.CloseChan())
	expect(t, h.Fleet.CertValid(uid, "serial-2"), false)
	expect(t, h.Fleet.Enrolled(uid), false)
}

func TestKeyIsGoodOnce(t *testing.T) {
	h := fleettest.Start(t, "")
	uid := h.Node(1)
	h.Fleet.OpenBoot(uid, addr)
	key, _ := h.Fleet.Mint(uid, addr)
	results := make(chan error, 20)
	for i := range cap(results) {
		go func() {
			_, err := h.Fleet.Enrol(t.Context(), uid, addr, wire.Enrol{Key: key, CSR: fmt.Append(nil, i)})
			results <- err
		}()
	}
	good := 0
	for range cap(results) {
		if apitest.Receive(t, results) == nil {
			good++
		}
	}
	expect(t, good, 1)
}

func TestEnrolNeedsTLS(t *testing.T) {
	h := fleettest.Start(t, "")
	uid := h.Node(1)
	loopback := netip.MustParseAddr("127.0.0.1")
	h.Fleet.OpenBoot(uid, loopback)
	key, _ := h.Fleet.Mint(uid, loopback)
	body, _ := json.Marshal(wire.Enrol{Key: key, CSR: []byte("1")})
	if reason := h.Refused("POST", wire.PathEnrol, body); !strings.Contains(reason, "TLS") {
		t.Error(reason)
	}
	srv := httptest.NewTLSServer(h.Server.Config.Handler)
	defer srv.Close()
	for _, status := range []int{200, 200, 404} { // again for a lost answer, until the key's minute is over
		if status == 404 {
			h.Clock.Add(time.Minute)
		}
		resp, err := srv.Client().Post(srv.URL+wire.PathEnrol, "application/json", strings.NewReader(string(body)))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		expect(t, resp.StatusCode, status)
	}
	expect(t, steps(h, "n0"), "1 enrol")
}
