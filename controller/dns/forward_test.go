package dns_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"muster/controller/boot/boottest"
)

// dnsmasq starts one as the resolver of names that are not the cluster's, and
// gives its address and the log of what it was asked.
func dnsmasq(t *testing.T, port int, args ...string) (netip.AddrPort, string) {
	t.Helper()
	addresses(t)
	log := filepath.Join(t.TempDir(), "log")
	cmd := exec.Command("dnsmasq", append([]string{"--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--bind-interfaces",
		"--listen-address=127.0.0.1", fmt.Sprintf("--port=%d", port), "--user=root", "--pid-file=", "--log-queries", "--log-facility=" + log, "--local-ttl=100"}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v: the package dnsmasq-base has it", err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(port))
	for deadline := time.Now().Add(20 * time.Second); ; {
		c, err := net.Dial("tcp", at.String())
		if err == nil {
			c.Close()
			return at, log
		}
		if time.Now().After(deadline) {
			t.Fatalf("dnsmasq does not start: %v", err)
		}
		time.Sleep(10 * time.Millisecond) // it says by nothing else that it is ready
	}
}

func asked(t *testing.T, log, name string) int {
	t.Helper()
	raw, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(raw), "] "+name+" from ")
}

func TestForwarding(t *testing.T) {
	if !boottest.Inside(t) {
		return
	}
	big := strings.Repeat("x", 250)
	up, log := dnsmasq(t, 5301, "--host-record=www.example.org,198.51.100.7,2001:db8::7", "--address=/gone.test/", "--txt-record=big.example.org,"+strings.Join([]string{big, big, big, big, big, big, big}, ","),
		"--host-record=n0.lan.example,192.0.2.66", "--ptr-record=9.9.9.9.in-addr.arpa,nine.example", "--cname=alias.example.org,www.example.org")
	dead := netip.MustParseAddrPort("127.0.0.1:9")
	l := start(t, func() []netip.AddrPort { return []netip.AddrPort{dead, up} })
	l.Create("nodes", `{"mac":"52:54:00:00:00:01"}`)
	l.followed()
	l.expect("127.0.0.1", map[string]string{
		"www.example.org A": "198.51.100.7", "WWW.Example.ORG A": "198.51.100.7", "+noedns www.example.org A": "198.51.100.7", "+tcp www.example.org A": "198.51.100.7",
		"www.example.org AAAA": "2001:db8::7", "alias.example.org A": "www.example.org. 198.51.100.7",
		"-x 9.9.9.9":       "nine.example.",
		"n0.lan.example A": "10.1.0.10", // ours comes first
		"n9.lan.example A": "",
	})
	if got := l.short("127.0.0.1", "big.example.org TXT"); strings.Count(got, "x") != 7*250 {
		t.Errorf("an answer that takes TCP is %d bytes long", len(got))
	}
	l.expectStatus("127.0.0.1", map[string]string{
		"www.example.org A":               "NOERROR qr rd ra 1 0",
		"x.gone.test A":                   "NXDOMAIN qr rd ra 0 0",
		"+norecurse www.example.org AAAA": "REFUSED qr ra 0 0",
		"www.example.org ANY":             "REFUSED qr rd ra 0 0",
		"n0 A":                            "NOERROR qr aa rd ra 1 0",
		"+ignore +bufsize=512 big.example.org TXT": "NOERROR qr tc rd ra 0 0",
	})
	if n := asked(t, log, "www.example.org"); n > 4 { // A and AAAA, and each by at most one more way
		t.Errorf("the resolver was asked %d times for what does not change for 100 s", n)
	}
	if n := asked(t, log, "n0.lan.example") + asked(t, log, "n9.lan.example"); n > 0 {
		t.Error("a name of the cluster was asked for elsewhere")
	}
	ttl := strings.Fields(l.dig("127.0.0.1", "+noall +answer www.example.org A"))[1]
	if ttl == "0" || len(ttl) > 3 {
		t.Errorf("a remembered answer has the lifetime %s", ttl)
	}
	// Strangers get the cluster's names and nothing else.
	l.expectStatus(headLAN, map[string]string{
		"-b " + stranger + " www.example.org A":      "REFUSED qr rd 0 0",
		"-b " + stranger + " +tcp www.example.org A": "REFUSED qr rd 0 0",
		"-b " + stranger + " n0 A":                   "NOERROR qr aa rd 1 0",
		"-b " + onIB + " www.example.org A":          "NOERROR qr rd ra 1 0",
	})
}

// TestNobodyToAsk: resolvers that do not answer, and this server as its own.
func TestNobodyToAsk(t *testing.T) {
	if !boottest.Inside(t) {
		return
	}
	var ups atomic.Pointer[[]netip.AddrPort]
	l := start(t, func() []netip.AddrPort { return *ups.Load() })
	var self []netip.AddrPort
	for _, a := range []string{"127.0.0.1", headLAN, "127.0.0.53", "::1"} {
		self = append(self, netip.AddrPortFrom(netip.MustParseAddr(a), l.port))
	}
	ups.Store(&self)
	l.expectStatus("127.0.0.1", map[string]string{"www.example.org A": "SERVFAIL qr rd ra 0 0", "head1 A": "NOERROR qr aa rd ra 2 0"})
	ups.Store(&[]netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:9")})
	l.expectStatus("127.0.0.1", map[string]string{"www.example.org A": "SERVFAIL qr rd ra 0 0", "+tcp www.example.org A": "SERVFAIL qr rd ra 0 0"})
}

// TestLoop: two servers that ask each other answer instead of going round.
func TestLoop(t *testing.T) {
	if !boottest.Inside(t) {
		return
	}
	other := netip.MustParseAddrPort("127.0.0.1:5302")
	l := start(t, func() []netip.AddrPort { return []netip.AddrPort{other} })
	_, log := dnsmasq(t, 5302, fmt.Sprintf("--server=127.0.0.1#%d", l.port))
	status := l.status("127.0.0.1", "+time=20 +tries=1 loop.example.org A")
	if !strings.HasPrefix(status, "SERVFAIL") && !strings.HasPrefix(status, "REFUSED") {
		t.Errorf("the answer is %s", status)
	}
	if n := asked(t, log, "loop.example.org"); n > 10 {
		t.Errorf("the question went round %d times", n)
	}
}

// TestSpoofing: answers to other questions, or from elsewhere, are none.
func TestSpoofing(t *testing.T) {
	if !boottest.Inside(t) {
		return
	}
	addresses(t)
	forger, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer forger.Close()
	l := start(t, func() []netip.AddrPort {
		return []netip.AddrPort{forger.LocalAddr().(*net.UDPAddr).AddrPort()}
	})
	go func() {
		buf := make([]byte, 2000)
		for {
			n, from, err := forger.ReadFrom(buf)
			if err != nil {
				return
			}
			answer := func(change func(m []byte)) {
				m := append([]byte(nil), buf[:n]...)
				m[2], m[3] = 0x81, 0x80
				m[7] = 1
				end := 12 + len("\x03www\x07example\x03org\x00") + 4
				record := append([]byte{0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4}, 192, 0, 2, 1)
				m = append(append(append([]byte(nil), m[:end]...), record...), m[end:]...)
				change(m)
				forger.WriteTo(m, from)
			}
			forger.WriteTo([]byte("garbage that is long enough to have a header"), from)
			answer(func(m []byte) { m[0]++; m[end4(m)] = 2 })
			answer(func(m []byte) { m[13] = 'v'; m[end4(m)] = 3 })
			answer(func(m []byte) { m[2] = 1; m[end4(m)] = 4 })
			answer(func(m []byte) { m[end4(m)] = 77 })
		}
	}()
	l.expect("127.0.0.1", map[string]string{"www.example.org A": "192.0.2.77"})
}

// end4 is where the last byte of the forged record's address is.
func end4(m []byte) int { return 12 + len("\x03www\x07example\x03org\x00") + 4 + 16 - 1 }
