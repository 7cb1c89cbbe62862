package ipmitest_test

import (
	"net"
	"os/exec"
	"strings"
	"testing"

	"muster/controller/power/ipmi/ipmitest"
)

// TestAgainstIpmitool: a client that shares no code with it can use it.
func TestAgainstIpmitool(t *testing.T) {
	if _, err := exec.LookPath("ipmitool"); err != nil {
		t.Fatal("ipmitool is not installed")
	}
	b := ipmitest.Start(t, ipmitest.Options{GUID: [16]byte{1, 2, 3}})
	host, port, err := net.SplitHostPort(b.Host())
	if err != nil {
		t.Fatal(err)
	}
	tool := func(password string, words ...string) string {
		out, err := exec.CommandContext(t.Context(), "ipmitool", append([]string{"-I", "lanplus", "-H", host, "-p", port, "-U", ipmitest.User, "-P", password}, words...)...).CombinedOutput()
		if err != nil {
			return "failed: " + string(out)
		}
		return string(out)
	}
	for _, c := range [][2]string{
		{"chassis power status", "is on"}, {"chassis power off", "Down/Off"}, {"chassis power status", "is off"}, {"chassis power cycle", "Cycle"},
		{"chassis power status", "is on"}, {"mc info", "Firmware Revision         : 2.15"}, {"chassis identify 5", "5 seconds"},
	} {
		if got := tool(ipmitest.Password, strings.Fields(c[0])...); !strings.Contains(got, c[1]) {
			t.Errorf("%s: %s", c[0], got)
		}
	}
	if got := tool("wrong", "chassis", "power", "status"); !strings.Contains(got, "failed: ") {
		t.Errorf("a wrong password: %s", got)
	}
	if got := tool(ipmitest.Password, "-C", "17", "chassis", "power", "status"); !strings.Contains(got, "failed: ") {
		t.Errorf("a cipher suite that it has not: %s", got)
	}
	if n := b.Sessions(); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
}

// FuzzAnswer: no packet may end it.
func FuzzAnswer(f *testing.F) {
	b, err := ipmitest.Listen("127.0.0.1:0", ipmitest.Options{})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(b.Close)
	conn, err := net.Dial("udp", b.Host())
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { conn.Close() })
	f.Add([]byte("\x06\x00\xff\x07\x06\x10\x00\x00\x00\x00\x00\x00\x00\x00\x20\x00" + strings.Repeat("\x01", 32)))
	f.Add([]byte("\x06\x00\xff\x07\x06\x12\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff"))
	f.Add([]byte("\x06\x00\xff\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x09\x20\x18\xc8\x81\x00\x38\x0e\x04\x31"))
	f.Fuzz(func(t *testing.T, p []byte) {
		if len(p) > 1000 {
			return
		}
		conn.Write(p)
		conn.Write([]byte("\x06\x00\xff\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x09\x20\x18\xc8\x81\x00\x38\x0e\x04\x31"))
		if _, err := conn.Read(make([]byte, 1024)); err != nil {
			t.Fatal(err)
		}
	})
}
