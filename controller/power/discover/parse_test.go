package discover

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode"
)

func TestSearchAnswer(t *testing.T) {
	from := netip.MustParseAddr("10.0.0.5")
	for text, want := range map[string]service{
		"HTTP/1.1 200 OK\r\nST:urn:dmtf-org:service:redfish-rest:1\r\nUSN:uuid:4C4C4544-0001-0002-0003-000400050006::urn:x\r\nAL:https://10.0.0.5/redfish/v1\r\n\r\n": {Addr: from, UUID: "4c4c4544-0001-0002-0003-000400050006"},
		"HTTP/1.1 200 OK\nst: urn:dmtf-org:service:redfish-rest:1.0\nal: <http://evil.example:8080/x>\n":                                                              {Addr: from, HTTP: true, Port: "8080"},
		"HTTP/1.1 200 OK\r\nST: urn:dmtf-org:service:redfish-rest:11\r\n\r\n":                                                                                         {},
		"HTTP/1.1 404 Not Found\r\nST: urn:dmtf-org:service:redfish-rest:1\r\n\r\n":                                                                                   {},
		"NOTIFY * HTTP/1.1\r\n\r\n": {},
		"":                          {},
	} {
		if got, ok := parseAnswer(from, []byte(text)); got != want || ok != want.Addr.IsValid() {
			t.Errorf("%q: %+v, %v", text, got, ok)
		}
	}
}

func TestFillers(t *testing.T) {
	for _, s := range []string{"", "To be filled by O.E.M.", "Default string", "0123456789", "00000000", "Not Specified", "1234", "123456789"} {
		if got := tidySerial(s); got != "" {
			t.Errorf("the serial number %q is taken as %q", s, got)
		}
	}
	for _, s := range []string{"", "x", "00000000-0000-0000-0000-000000000000", "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF", "03000200-0400-0500-0006-000700080009"} {
		if got := tidyUUID(s); got != "" {
			t.Errorf("the UUID %q is taken as %q", s, got)
		}
	}
}

func TestSightingsAreBounded(t *testing.T) {
	var s sightings
	now := time.Now()
	for i := range maxSightings + 10 {
		s.add(Sighting{MAC: fmt.Sprint(i)}, now.Add(time.Duration(i)))
	}
	if got := s.list(now); len(got) != maxSightings {
		t.Errorf("%d are remembered", len(got))
	}
	if got := s.list(now.Add(2 * sightTime)); len(got) != 0 {
		t.Errorf("%d are remembered for days", len(got))
	}
}

// FuzzAnswer: nothing that anybody sends leads elsewhere, or to a terminal.
func FuzzAnswer(f *testing.F) {
	f.Add("HTTP/1.1 200 OK\r\nST: urn:dmtf-org:service:redfish-rest:1:9\r\nUSN: uuid:x::y\r\nAL: <https://[::1]:99999/\x1b>\r\n\r\n")
	f.Add("HTTP/1.1 200 OK\r\n ST: urn:dmtf-org:service:redfish-rest:1\r\n\tx\r\nAL: https://%zz\r\n")
	from := netip.MustParseAddr("10.0.0.5")
	f.Fuzz(func(t *testing.T, text string) {
		s, ok := parseAnswer(from, []byte(text))
		if ok && (s.Addr != from || strings.Trim(s.Port, "0123456789") != "" || strings.Trim(s.UUID, "0123456789abcdef-") != "") {
			t.Errorf("%+v", s)
		}
	})
}

// FuzzSighting: what DHCP clients say of themselves is one line of text.
func FuzzSighting(f *testing.F) {
	f.Add("idrac-\x1bABC1234", []byte{0, 4, 0, 1, 0, 7}, []byte("\xff\n"))
	f.Add("ILO", []byte{1, 255}, []byte{})
	f.Fuzz(func(t *testing.T, hostname string, a, b []byte) {
		for _, s := range []string{serialIn(hostname), Sighting{Switch: a, Port: b}.at(), tidyPort(string(a))} {
			if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("%q", s)
			}
		}
	})
}
