package dns

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// served is a server with a small zone that listens nowhere.
func served(forward bool) *Server {
	s := &Server{zone: newZone(), limit: limiter{seed: maphash.MakeSeed()}}
	if forward {
		s.forward = newForwarder(func() []netip.AddrPort { return nil })
	}
	st := &site{zones: map[string]bool{}, domain: "lan.example", server: "\x05head1\x03lan\x07example\x00"}
	for _, text := range []string{"10.1.0.0/24", "fd00:1::/64", "10.32.0.0/12"} {
		st.nets = append(st.nets, network{netip.MustParsePrefix(text), "lan.example"})
		st.friends = append(st.friends, netip.MustParsePrefix(text))
	}
	st.zone("lan.example")
	st.setSerial(7)
	var n names
	n.zones = st.zones
	n.host(forms("n0", "lan.example"), []netip.Addr{netip.MustParseAddr("10.1.0.10"), netip.MustParseAddr("10.32.0.1"), netip.MustParseAddr("fd00:1::10")})
	n.add("_ldap._tcp.lan.example", dns.TypeSRV, "\x00\x00\x00\x00\x01\x85\x02n0\x03lan\x07example\x00")
	s.zone.set("n0", rankNode, n.out)
	for i := range 100 {
		var many names
		many.host([]string{"many.lan.example"}, []netip.Addr{netip.AddrFrom4([4]byte{10, 1, 0, byte(i + 100)})})
		s.zone.set(fmt.Sprint("many", i), rankHost, many.out)
	}
	s.publish(st)
	return s
}

func packed(t testing.TB, name string, typ uint16, change func(m *dns.Msg)) []byte {
	t.Helper()
	m := new(dns.Msg).SetQuestion(name, typ)
	if change != nil {
		change(m)
	}
	raw, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// FuzzQuery: whatever comes in, what goes out is a sound answer to it that is
// not longer than the asker takes, or nothing.
func FuzzQuery(f *testing.F) {
	edns := func(m *dns.Msg) { m.SetEdns0(4096, true) }
	for _, name := range []string{"n0.", "N0.lan.example.", "many.lan.example.", "x.lan.example.", "lan.example.", ".", "10.0.1.10.in-addr.arpa.", "1.10.in-addr.arpa.", "0.0.0.0.0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa.",
		"_ldap._tcp.lan.example.", "www.example.org.", strings.Repeat("a.", 127), strings.Repeat("a", 63) + ".lan.example."} {
		for _, typ := range []uint16{dns.TypeA, dns.TypeANY, dns.TypeSOA, dns.TypeSRV, dns.TypeAXFR, dns.TypePTR} {
			f.Add(packed(f, name, typ, nil))
			f.Add(packed(f, name, typ, edns))
		}
	}
	loop := packed(f, "n0.", dns.TypeA, nil)
	f.Add(append(loop[:12:12], 0xc0, 12, 0, 1, 0, 1))
	f.Add(append(loop[:12:12], 0xc0))
	f.Add(append(loop[:12:12], 63, 'a'))
	f.Add(packed(f, "n0.", dns.TypeA, func(m *dns.Msg) { m.Response = true }))
	f.Add(packed(f, "n0.", dns.TypeA, func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }))
	f.Add(packed(f, "n0.", dns.TypeA, func(m *dns.Msg) { m.SetEdns0(100, false).SetEdns0(5000, false) }))
	servers := []*Server{served(false), served(true)}
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, s := range servers {
			for _, udp := range []bool{true, false} {
				for _, from := range []asker{{netip.MustParseAddr("10.1.0.9"), true}, {netip.MustParseAddr("203.0.113.9"), false}} {
					check(t, s, raw, from, udp)
				}
			}
		}
	})
}

func check(t *testing.T, s *Server, raw []byte, from asker, udp bool) {
	before := bytes.Clone(raw)
	var q query
	answer, later := s.serve(&q, raw, nil, from, udp)
	if !bytes.Equal(raw, before) {
		t.Fatal("the query was changed")
	}
	if later {
		if !from.friend || s.forward == nil {
			t.Fatal("a stranger's question would be asked elsewhere")
		}
		answer = overloaded(raw, udp)
	}
	if answer == nil {
		return
	}
	if len(raw) < headerSize || raw[2]&0x80 != 0 {
		t.Fatalf("what asks nothing gets the answer %x", answer)
	}
	var m dns.Msg
	if err := m.Unpack(answer); err != nil {
		t.Fatalf("%v in %x", err, answer)
	}
	if !m.Response || m.Id != binary.BigEndian.Uint16(raw) || len(m.Question) > 1 || m.Zero {
		t.Fatalf("not an answer to %x: %v", raw, m)
	}
	if len(m.Question) == 1 && !bytes.Contains(raw, answer[headerSize:q.end]) {
		t.Fatalf("%x does not have the question of %x", answer, raw)
	}
	if limit := q.limit; udp && (len(answer) > limit || limit > maxUDP) {
		t.Fatalf("%d bytes, where %d are taken", len(answer), limit)
	}
	if opt := m.IsEdns0(); opt == nil && q.edns {
		t.Fatal("EDNS was asked for and is not answered")
	}
	if m.Truncated && len(m.Answer)+len(m.Ns) > 0 {
		t.Fatal("cut off, and yet with records")
	}
}

// FuzzUpstream: an answer of an upstream is taken whole and given on with its
// records, or not at all.
func FuzzUpstream(f *testing.F) {
	question := dns.Question{Name: "www.example.org.", Qtype: dns.TypeA, Qclass: dns.ClassINET}
	for _, records := range []string{"www.example.org. 60 IN A 192.0.2.1", "WWW.example.org. 4294967295 IN CNAME a.example.org.", "example.org. 5 IN SOA a. b. 1 2 3 4 5", "www.example.org. 0 IN TYPE65280 \\# 3 010203"} {
		r, err := dns.NewRR(records)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(packed(f, question.Name, dns.TypeA, func(m *dns.Msg) {
			m.Response, m.Answer, m.Compress = true, []dns.RR{r, r}, true
			m.SetEdns0(1232, true)
		}))
		f.Add(packed(f, question.Name, dns.TypeA, func(m *dns.Msg) { m.Response, m.Ns, m.Rcode = true, []dns.RR{r}, dns.RcodeNameError }))
	}
	f.Add(packed(f, "other.example.org.", dns.TypeA, func(m *dns.Msg) { m.Response = true }))
	query0 := packed(f, question.Name, dns.TypeA, nil)
	f.Fuzz(func(t *testing.T, raw []byte) {
		var m dns.Msg
		if m.Unpack(raw) != nil {
			return
		}
		now := time.Unix(1000, 0)
		got, ok := read(&m, question, now)
		if !ok {
			return
		}
		if life := got.expires.Sub(now); life < 0 || life > maxTTL*time.Second {
			t.Fatalf("remembered for %s", life)
		}
		var q query
		if q.parse(query0, false) != dns.RcodeSuccess {
			t.Fatal("the question is bad")
		}
		var r reply
		r.begin(nil, &q)
		got.write(&r, &q, now.Add(time.Hour))
		var out dns.Msg
		if err := out.Unpack(r.finish(&q)); err != nil {
			t.Fatalf("%v, made of %v", err, &m)
		}
		if len(out.Answer) != len(m.Answer) || len(out.Ns) != len(m.Ns) || out.Authoritative {
			t.Fatalf("%v was made of %v", &out, &m)
		}
	})
}

// TestBounds: strangers are held to a number of answers, and what is
// remembered to a size.
func TestBounds(t *testing.T) {
	s := served(true)
	count := func(a netip.Addr, at time.Time) (n int) {
		for range 10 * perStranger {
			if s.limit.allow(a, at) {
				n++
			}
		}
		return n
	}
	at := time.Unix(1000, 0)
	if n := count(netip.MustParseAddr("203.0.113.9"), at); n != perStranger {
		t.Errorf("a stranger gets %d answers in a second", n)
	}
	if s.limit.allow(netip.MustParseAddr("203.0.113.77"), at) {
		t.Error("its neighbour gets as many again")
	}
	if n := count(netip.MustParseAddr("2001:db8::1"), at.Add(time.Second)) + count(netip.MustParseAddr("203.0.113.9"), at.Add(time.Second)); n != 2*perStranger {
		t.Errorf("in the next second two get %d", n)
	}

	c := newCache()
	for i := range maxCached + 100 {
		c.put(key{name: fmt.Sprint(i)}, &found{at: at, expires: at.Add(time.Minute)})
	}
	if len(c.byKey) != maxCached || c.order.Len() != maxCached || c.get(key{name: "0"}, at) != nil || c.get(key{name: "100"}, at) == nil {
		t.Errorf("%d answers are remembered", len(c.byKey))
	}
	for i := range 2000 {
		c.put(key{name: fmt.Sprint("big", i)}, &found{packed: make([]byte, 60_000), at: at, expires: at.Add(time.Minute)})
	}
	if c.bytes > maxCachedBytes || c.get(key{name: "big1999"}, at) == nil {
		t.Errorf("%d bytes are remembered", c.bytes)
	}
	if c.get(key{name: "big1999"}, at.Add(time.Minute)) != nil {
		t.Error("an answer outlives what its records say")
	}
	size := 0
	for e := c.order.Front(); e != nil; e = e.Next() {
		size += e.Value.(*cached).size()
	}
	if size != c.bytes {
		t.Errorf("%d bytes counted, %d held", c.bytes, size)
	}

	f := s.forward
	a := netip.MustParseAddr("10.1.0.9")
	for range maxForwardsPerPeer {
		if !f.enter(a) {
			t.Fatal("refused too early")
		}
	}
	if f.enter(a) || !f.enter(netip.MustParseAddr("10.1.0.8")) {
		t.Error("one asker can use what is there for all")
	}
}

// TestReverseNames: the names of addresses, there and back.
func TestReverseNames(t *testing.T) {
	for _, text := range []string{"10.1.0.255", "0.0.0.0", "255.255.255.255", "fd00:1::abcd", "::"} {
		a := netip.MustParseAddr(text)
		want, _ := dns.ReverseAddr(text)
		wire, _ := wireName(want)
		if got := reverseName(a); got != wire {
			t.Errorf("%s has the name %q, want %q", text, got, wire)
		}
		if r, ok := parseReverse(reverseName(a)); !ok || r.prefix != netip.PrefixFrom(a, a.BitLen()) || r.below {
			t.Errorf("%s becomes %v", text, r)
		}
	}
	for _, bad := range []string{"256.0.1.10.in-addr.arpa", "01.0.1.10.in-addr.arpa", "x.1.10.in-addr.arpa", "g.f.ip6.arpa", "10.f.ip6.arpa", "example.org", "arpa"} {
		wire, _ := wireName(bad)
		if r, ok := parseReverse(wire); ok {
			t.Errorf("%s is read as %v", bad, r)
		}
	}
}
