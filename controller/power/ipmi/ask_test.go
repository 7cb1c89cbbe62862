package ipmi

import (
	"net"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"muster/controller/power/ipmi/ipmitest"
)

// TestAsk: a real BMC and a small one tell who they are to somebody without a password.
func TestAsk(t *testing.T) {
	_, port := simulator(t)
	want := [16]byte{0xa1, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0xa1, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef}
	ask := func(addr string, port uint16) []Found {
		got, err := Ask(t.Context(), []netip.Addr{netip.MustParseAddr(addr), netip.MustParseAddr("127.99.0.1")}, port, 200*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	got := ask("127.0.0.1", uint16(port))
	for end := time.Now().Add(time.Minute); len(got) == 0 && time.Now().Before(end); { // nothing tells when it listens
		got = ask("127.0.0.1", uint16(port))
	}
	if len(got) != 1 {
		t.Fatalf("ipmi_sim: %v", got)
	}
	if got[0].GUID != want && got[0].GUID != [16]byte{} {
		t.Errorf("ipmi_sim: %x", got[0].GUID)
	}
	b := ipmitest.Start(t, ipmitest.Options{GUID: want})
	_, text, _ := net.SplitHostPort(b.Host())
	small, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	if got := ask("127.0.0.1", uint16(small)); len(got) != 1 || got[0] != (Found{netip.MustParseAddr("127.0.0.1"), want}) {
		t.Errorf("%v", got)
	}
}

// FuzzGUID: what anybody sends is taken or not, and nothing else.
func FuzzGUID(f *testing.F) {
	f.Add([]byte("\x06\x00\xff\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x08\x81\x1c\x63\x20\x04\x37\xc1\xe4"))
	f.Add([]byte("\x06\x00\xff\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\x81"))
	f.Add([]byte("\x06\x00\xff\x07\x06\x00\x00\x00\x00\x00\x00\x00\x00\xff\x81\x00"))
	f.Fuzz(func(t *testing.T, p []byte) {
		if guid, ok := parseGUID(p); !ok && guid != [16]byte{} {
			t.Error("a GUID of what is no answer")
		}
	})
}
