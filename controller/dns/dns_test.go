package dns_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"muster/controller/api"
	"muster/controller/api/apitest"
	"muster/controller/boot/boottest"
	"muster/controller/dns"
	"muster/controller/naming"
)

// lab is a head with a DNS server in a namespace, in which every address that
// the tests ask from or at is there.
type lab struct {
	*apitest.Head
	port uint16

	mu     sync.Mutex
	name   string // of the head
	at     uint64 // revision that is answered
	change chan struct{}
}

// The addresses of the namespace.
const (
	headLAN  = "10.1.0.1"
	headIB   = "10.2.0.1"
	onLAN    = "10.1.0.250"
	onIB     = "10.2.0.250"
	stranger = "203.0.113.9"
)

// addresses sets up the namespace's only interface.
func addresses(t *testing.T) {
	t.Helper()
	loopback, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(loopback); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{headLAN, headIB, onLAN, onIB, stranger, "fd00:1::1"} {
		ip := net.ParseIP(text)
		bits := 8 * len(ip)
		if ip.To4() != nil {
			bits = 32
		}
		if err := netlink.AddrReplace(loopback, &netlink.Addr{IPNet: &net.IPNet{IP: ip, Mask: net.CIDRMask(bits, bits)}}); err != nil {
			t.Fatal(text, err)
		}
	}
}

// start runs the server on all addresses, with the resolvers to ask.
func start(t *testing.T, upstreams func() []netip.AddrPort) *lab {
	t.Helper()
	addresses(t)
	l := &lab{name: "head1", change: make(chan struct{})}
	l.Head = apitest.Start(t, apitest.Options{Routes: func(h *apitest.Head) [][]api.Route {
		return [][]api.Route{(&naming.Naming{Objects: h.Registry}).Routes()}
	}})
	l.Create("nets", `{"name":"lan","first_ip":"10.1.0.10","ip_count":100,"mask_bits":24,"domain":"lan.example"}`)
	l.Create("nets", `{"name":"ib","first_ip":"10.2.0.10","ip_count":100,"mask_bits":16,"domain":"ib.example"}`)
	l.Create("nets", `{"name":"six","first_ip":"fd00:1::10","ip_count":100,"mask_bits":64,"domain":"lan.example"}`)
	s := dns.New(dns.Config{
		Addr: ":0", Objects: l.Registry, Upstreams: upstreams, Log: l.Logger, Published: l.published,
		Self: func() dns.Host {
			l.mu.Lock()
			defer l.mu.Unlock()
			return dns.Host{Name: l.name, Addrs: []netip.Addr{netip.MustParseAddr(headLAN), netip.MustParseAddr(headIB)}}
		},
	})
	part := s.Part()
	ctx, cancel := context.WithCancel(context.Background())
	if err := part.Listen(ctx); err != nil {
		t.Fatal(err)
	}
	l.port = s.Address().Port()
	ran := make(chan error, 1)
	go func() { ran <- part.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := apitest.Receive(t, ran); err != nil {
			t.Errorf("the server ended with %v", err)
		}
	})
	return l
}

func (l *lab) published(revision uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.at = revision
	close(l.change)
	l.change = make(chan struct{})
}

// followed waits until answers are as the registry is now.
func (l *lab) followed() {
	l.Helper()
	want := l.Registry.Revision()
	timeout := time.After(30 * time.Second)
	for {
		l.mu.Lock()
		at, change := l.at, l.change
		l.mu.Unlock()
		if at >= want {
			return
		}
		select {
		case <-change:
		case <-timeout:
			l.Fatalf("answers are at revision %d, the registry at %d", at, want)
		}
	}
}

// dig runs dig with these words; the server and the port are given to it.
func (l *lab) dig(server, words string) string {
	l.Helper()
	args := append([]string{"@" + server, "-p", fmt.Sprint(l.port), "+time=4", "+tries=2", "+noidnin"}, strings.Fields(words)...)
	out, err := exec.Command("dig", args...).CombinedOutput()
	if err != nil {
		l.Errorf("dig %s: %v\n%s", words, err, out)
	}
	return string(out)
}

// short gives the records of an answer, in order.
func (l *lab) short(server, words string) string {
	l.Helper()
	return strings.Join(strings.Fields(l.dig(server, "+short "+words)), " ")
}

var header = regexp.MustCompile(`status: (\w+).*\n;; flags: ([a-z ]*); QUERY: \d, ANSWER: (\d+), AUTHORITY: (\d+), ADDITIONAL: \d+`)

// status gives what the header says: "NXDOMAIN qr aa rd ra 0 1".
func (l *lab) status(server, words string) string {
	l.Helper()
	out := l.dig(server, words)
	m := header.FindStringSubmatch(out)
	if m == nil {
		l.Errorf("dig %s: no header in\n%s", words, out)
		return ""
	}
	return strings.Join(m[1:], " ")
}

func (l *lab) expect(server string, want map[string]string) {
	l.Helper()
	for words, answer := range want {
		if got := l.short(server, words); got != answer {
			l.Errorf("dig @%s %s gives %q, want %q", server, words, got, answer)
		}
	}
}

func (l *lab) expectStatus(server string, want map[string]string) {
	l.Helper()
	for words, status := range want {
		if got := l.status(server, words); got != status {
			l.Errorf("dig @%s %s says %q, want %q", server, words, got, status)
		}
	}
}

func TestRecords(t *testing.T) {
	if !boottest.Inside(t) {
		return
	}
	l := start(t, nil)
	l.Create("namingpools", `{"name":"ib","pattern":"ib{}","network":"ib"}`)
	l.Create("namingpools", `{"name":"six","pattern":"six{}","network":"six"}`)
	l.Create("nodes", `{"mac":"52:54:00:00:00:01","attributes":{"_ips":"ib0=10.2.0.99/16, fd00:1::99 nonsense 10.2.0.999"}}`)
	l.Create("nodes", `{"mac":"52:54:00:00:00:02","naming_pool":"ib"}`)
	l.Create("nodes", `{"mac":"52:54:00:00:00:03","naming_pool":"six"}`)
	l.Create("hostnames", `{"name":"nfs","ip":"10.1.0.200"}`)
	l.Create("hostnames", `{"name":"files","ip":"10.1.0.200"}`)
	l.Create("hostnames", `{"name":"n0-alias","ip":"10.1.0.10"}`)
	l.Create("hostnames", `{"name":"mirror.elsewhere.test","ip":"10.1.0.201"}`)
	l.Create("hostnames", `{"name":"nfs6","ip":"fd00:1::200"}`)
	for _, record := range []string{`{"name":"both","ip":"10.1.0.210"}`, `{"name":"both","ip":"fd00:1::210"}`, `{"name":"both","target":"both","port":80}`} {
		l.Create("hostnames", record)
	}
	l.Create("hostnames", `{"name":"n0","ip":"fd00:1::77","domain":"lan.example"}`)
	l.Create("hostnames", `{"name":"ldap1","service":"ldap","target":"nfs","port":389,"priority":20,"weight":7}`)
	l.Create("hostnames", `{"name":"ldap","target":"other.example.org","port":636,"priority":10}`)
	l.Create("hostnames", `{"name":"ntp","proto":"udp","target":"head1","port":123,"domain":"ib.example"}`)
	l.Create("heads", apitest.Map{"uid": strings.Repeat("b", 32), "name": "head2", "addresses": []string{"10.1.0.2"},
		"ssh_public": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHDGa51ZBbZi97zfZLMXUuSdLFBqxiAnsKZYHDTCKIPo h"})
	l.followed()
	for _, server := range []string{"127.0.0.1", headLAN, "::1", "fd00:1::1"} {
		l.expect(server, map[string]string{
			"ib0 A": "10.2.0.10", "ib0.ib.example A": "10.2.0.10", "+tcp IB0.Ib.Example A": "10.2.0.10",
			"six0.lan.example AAAA": "fd00:1::10", "-x fd00:1::10": "six0.lan.example.",
		})
	}
	l.expect("127.0.0.1", map[string]string{
		"n0.ib.example A": "", "ib0.lan.example A": "",
		"-x 10.1.0.10": "n0.lan.example.", "-x 10.2.0.99": "n0.lan.example.", "-x 10.2.0.10": "ib0.ib.example.",
		"n0 AAAA": "fd00:1::99 fd00:1::77",
		"nfs A":   "10.1.0.200", "nfs.lan.example A": "10.1.0.200", "files A": "10.1.0.200", "n0-alias A": "10.1.0.10",
		"both.lan.example A": "10.1.0.210", "both AAAA": "fd00:1::210", "_both._tcp.lan.example SRV": "0 0 80 both.lan.example.",
		"-x 10.1.0.210": "both.lan.example.", "-x fd00:1::210": "both.lan.example.",
		"nfs6.lan.example AAAA": "fd00:1::200", "mirror.elsewhere.test A": "10.1.0.201", "mirror.elsewhere.test.lan.example A": "",
		"_ntp._udp.ib.example SRV":    "0 0 123 head1.lan.example.",
		"head1.lan.example A":         "10.1.0.1 10.2.0.1",
		"head1.ib.example A":          "10.2.0.1",
		"head1 A":                     "10.1.0.1 10.2.0.1",
		"head2.lan.example A":         "10.1.0.2",
		"-x 10.1.0.1":                 "head1.lan.example.",
		"lan.example NS":              "head1.lan.example.",
		"localhost A":                 "127.0.0.1",
		"-x ::1":                      "localhost.",
		"n0 ANY":                      `"RFC8482" ""`,
		"version.bind CH TXT":         "",
		"n0.lan.example HTTPS":        "",
		"nothing.lan.example A":       "",
		"+subnet=10.9.0.0/24 nfs A":   "10.1.0.200",
		"+bufsize=4096 +dnssec nfs A": "10.1.0.200",
	})
	srv := strings.Split(strings.TrimSpace(l.dig("127.0.0.1", "+short _ldap._tcp.lan.example SRV")), "\n")
	slices.Sort(srv)
	if got := strings.Join(srv, "; "); got != "10 0 636 other.example.org.; 20 7 389 nfs.lan.example." {
		t.Errorf("SRV gives %s", got)
	}
	if whole := l.dig("127.0.0.1", "_ldap._tcp.lan.example SRV"); !regexp.MustCompile(`ADDITIONAL SECTION:\s*nfs\.lan\.example\.\s+\d+\s+IN\s+A\s+10\.1\.0\.200`).MatchString(whole) {
		t.Errorf("SRV does not bring the target's address along:\n%s", whole)
	}
}

// TestNearestFirst: of several addresses, first the one in the asker's network.
func TestNearestFirst(t *testing.T) {
	if !boottest.Inside(t) {
		return
	}
	l := start(t, nil)
	l.Create("nodes", `{"mac":"52:54:00:00:00:01","attributes":{"_ips":"10.2.0.99,10.2.0.98"}}`)
	l.followed()
	for _, tt := range []struct{ from, name, want string }{
		{onLAN, "n0", "10.1.0.10 10.2.0.99 10.2.0.98"},
		{onIB, "n0", "10.2.0.99 10.2.0.98 10.1.0.10"},
		{onIB, "n0.lan.example", "10.2.0.99 10.2.0.98 10.1.0.10"},
		{onLAN, "head1", "10.1.0.1 10.2.0.1"},
		{onIB, "head1.lan.example", "10.2.0.1 10.1.0.1"},
		{stranger, "n0", "10.1.0.10 10.2.0.99 10.2.0.98"},
	} {
		for _, how := range []string{"", " +tcp"} {
			if got := l.short(headLAN, "-b "+tt.from+how+" "+tt.name+" A"); got != tt.want {
				t.Errorf("%s asks for %s%s and gets %s, want %s", tt.from, tt.name, how, got, tt.want)
			}
		}
	}
}

// TestNo: what is not there, and what is refused.
func TestNo(t *testing.T) {
	if !boottest.Inside(t) {
		return
	}
	l := start(t, nil)
	l.Create("nodes", `{"mac":"52:54:00:00:00:01"}`)
	l.Create("hostnames", `{"name":"a.b","ip":"10.1.0.200","domain":"lan.example"}`)
	l.Create("hostnames", `{"name":"x.elsewhere.test","ip":"10.1.0.201"}`)
	l.followed()
	l.expectStatus("127.0.0.1", map[string]string{
		"n0 A":                         "NOERROR qr aa rd 1 0",
		"+norecurse n0 A":              "NOERROR qr aa 1 0",
		"n0 AAAA":                      "NOERROR qr aa rd 0 1",
		"n0.lan.example AAAA":          "NOERROR qr aa rd 0 1",
		"n1 A":                         "NXDOMAIN qr aa rd 0 1",
		"n1.lan.example A":             "NXDOMAIN qr aa rd 0 1",
		"x.n0.lan.example A":           "NXDOMAIN qr aa rd 0 1",
		"b.lan.example A":              "NOERROR qr aa rd 0 1", // a.b is below it
		"lan.example A":                "NOERROR qr aa rd 0 1",
		"lan.example SOA":              "NOERROR qr aa rd 1 0",
		"n0.lan.example SOA":           "NOERROR qr aa rd 0 1",
		"x.elsewhere.test AAAA":        "NOERROR qr aa rd 0 1",
		"elsewhere.test A":             "REFUSED qr rd 0 0",
		"www.example.org A":            "REFUSED qr rd 0 0",
		". NS":                         "REFUSED qr rd 0 0",
		"-x 10.1.0.11":                 "NXDOMAIN qr aa rd 0 1",
		"0.1.10.in-addr.arpa SOA":      "NOERROR qr aa rd 1 0",
		"2.10.in-addr.arpa SOA":        "NOERROR qr aa rd 1 0",
		"0.2.10.in-addr.arpa PTR":      "NOERROR qr aa rd 0 1",
		"x.11.0.1.10.in-addr.arpa PTR": "NXDOMAIN qr aa rd 0 1",
		"10.in-addr.arpa PTR":          "REFUSED qr rd 0 0",
		"-x fd00:1::9":                 "NXDOMAIN qr aa rd 0 1",
		"-x 192.0.2.1":                 "REFUSED qr rd 0 0",
		"lan.example ANY":              "NOERROR qr aa rd 1 0",
		"elsewhere.test ANY":           "REFUSED qr rd 0 0",
		"n0 CH A":                      "REFUSED qr rd 0 0",
		"+opcode=notify n0 A":          "NOTIMP qr rd 0 0",
		"+opcode=update n0 A":          "NOTIMP qr rd 0 0",
		"+edns=1 +noednsneg n0 A":      "BADVERS qr rd 0 0",
	})
	for _, transfer := range []string{"AXFR", "IXFR=1"} {
		if out := l.dig("127.0.0.1", "lan.example "+transfer); !strings.Contains(out, "Transfer failed") {
			t.Errorf("a zone transfer gives\n%s", out)
		}
	}
	for words, zone := range map[string]string{
		"n1.lan.example A": "lan.example.", "-x 10.2.0.77": "2.10.in-addr.arpa.", "-x 10.1.0.77": "0.1.10.in-addr.arpa.",
		"n1 A": ".", "x.elsewhere.test AAAA": "x.elsewhere.test.", "-x fd00:1::9": "0.0.0.0.0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa.",
	} {
		out := l.dig("127.0.0.1", words)
		if !regexp.MustCompile(`AUTHORITY SECTION:\n` + regexp.QuoteMeta(zone) + `\s+5\s+IN\s+SOA\s+head1\.lan\.example\. hostmaster\.lan\.example\. \d+ 3600 600 86400 5\n`).MatchString(out) {
			t.Errorf("dig %s: not the SOA of %s in\n%s", words, zone, out)
		}
	}
}

// TestFollowsChanges: names come, move and go with the objects, and a pool's
// nodes are found by the names that pushing it gives them.
func TestFollowsChanges(t *testing.T) {
	if !boottest.Inside(t) {
		return
	}
	l := start(t, nil)
	serial := func() string { return strings.Fields(l.short("127.0.0.1", "lan.example SOA"))[2] }
	l.Create("namingpools", `{"name":"p","pattern":"gpu{}"}`)
	for i := range 3 {
		l.Create("nodes", fmt.Sprintf(`{"mac":"52:54:00:00:00:%02x","naming_pool":"p"}`, i))
	}
	l.followed()
	before := serial()
	l.expect("127.0.0.1", map[string]string{"gpu1 A": "10.1.0.11", "-x 10.1.0.11": "gpu1.lan.example."})

	l.OK("PATCH", "/namingpool/p", `{"pattern":"gpu{:03d}"}`)
	l.followed()
	l.expect("127.0.0.1", map[string]string{"gpu1 A": "10.1.0.11", "gpu001 A": ""})
	l.OK("PUT", "/namingpool/p/push", nil)
	l.followed()
	l.expect("127.0.0.1", map[string]string{"gpu1 A": "", "gpu001 A": "10.1.0.11", "gpu001.lan.example A": "10.1.0.11", "-x 10.1.0.11": "gpu001.lan.example."})
	if serial() == before {
		t.Error("the zone changed, and its serial number did not")
	}

	l.OK("PATCH", "/net/lan", `{"domain":"new.example"}`)
	l.followed()
	l.expect("127.0.0.1", map[string]string{"gpu001.lan.example A": "", "gpu001.new.example A": "10.1.0.11", "-x 10.1.0.11": "gpu001.new.example.", "head1.new.example A": "10.1.0.1 10.2.0.1"})
	l.OK("PATCH", "/net/lan", `{"first_ip":"10.1.0.50"}`)
	l.OK("PATCH", "/node/gpu002", `{"attributes":{"_ips":"10.2.0.5"}}`)
	l.followed()
	l.expect("127.0.0.1", map[string]string{"gpu001 A": "10.1.0.51", "-x 10.1.0.11": "", "-x 10.2.0.5": "gpu002.new.example."})
	l.OK("DELETE", "/node/gpu001", nil)
	l.Create("hostnames", `{"name":"gpu001","ip":"10.1.0.99"}`)
	l.followed()
	l.expect("127.0.0.1", map[string]string{"gpu001 A": "10.1.0.99", "-x 10.1.0.51": "", "gpu000 A": "10.1.0.50"})
	l.OK("PATCH", "/host/gpu001", `{"name":"moved"}`)
	l.followed()
	l.expect("127.0.0.1", map[string]string{"gpu001 A": "", "moved.new.example A": "10.1.0.99"})
	l.OK("DELETE", "/host/moved", nil)
	l.Create("hostnames", `{"name":"ldap","target":"gpu000","port":389}`)
	l.mu.Lock()
	l.name = "head1.site.example"
	l.mu.Unlock()
	l.OK("DELETE", "/net/ib", nil)
	l.followed()
	l.expect("127.0.0.1", map[string]string{"moved A": "",
		"_ldap._tcp.new.example SRV": "0 0 389 gpu000.new.example.", "_ldap._tcp.site.example SRV": "0 0 389 gpu000.new.example."})
	l.expectStatus("127.0.0.1", map[string]string{"head1.ib.example A": "REFUSED qr rd 0 0", "ib.example SOA": "REFUSED qr rd 0 0"})
}

// TestTruncation: what does not fit by UDP comes by TCP.
func TestTruncation(t *testing.T) {
	if !boottest.Inside(t) {
		return
	}
	l := start(t, nil)
	var many []string
	for i := range 60 {
		many = append(many, fmt.Sprintf("fd00:1::1:%x", i+1))
	}
	l.Create("nodes", apitest.Map{"mac": "52:54:00:00:00:01", "attributes": apitest.Map{"_ips": strings.Join(many, ",")}})
	l.followed()
	for _, size := range []string{"+noedns", "+bufsize=512", "+bufsize=1232", "+bufsize=65535"} {
		out := l.dig("127.0.0.1", "+ignore "+size+" n0 AAAA")
		if m := header.FindStringSubmatch(out); m == nil || m[2] != "qr aa tc rd" || m[3] != "0" {
			t.Errorf("%s: not cut off:\n%s", size, out)
		}
	}
	if got := strings.Fields(l.short("127.0.0.1", "n0 AAAA")); !slices.Equal(got, many) {
		t.Errorf("by TCP %d addresses come, want %d: %v", len(got), len(many), got)
	}
}

// TestTCP: queries one after the other on one connection; garbage ends it.
func TestTCP(t *testing.T) {
	if !boottest.Inside(t) {
		return
	}
	l := start(t, nil)
	l.expect("127.0.0.1", map[string]string{"+tcp +keepopen head1 A head1 A": "10.1.0.1 10.2.0.1 10.1.0.1 10.2.0.1"})
	for _, garbage := range []string{"\x00\x00", "\x00\x05hello", "\xff\xff", "GET / HTTP/1.0\r\n\r\n" + strings.Repeat("x", 20000)} {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", l.port))
		if err != nil {
			t.Fatal(err)
		}
		c.Write([]byte(garbage))
		if n, err := c.Read(make([]byte, 1)); err == nil {
			t.Errorf("%.10q gets an answer of %d bytes", garbage, n)
		}
		c.Close()
	}
	l.expect("127.0.0.1", map[string]string{"+tcp head1 A": "10.1.0.1 10.2.0.1"})
}
