package iscsi

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"muster/shared/iscsi"
)

const name = "iqn.2026-01.muster:image1"

// memory is one disk in RAM, for whoever asks for it by name.
type memory struct{ content []byte }

func (m memory) Targets(netip.Addr) []string { return []string{name} }

func (m memory) Open(_ netip.Addr, asked string) (Disk, error) {
	if asked != name {
		return nil, errors.New("no such image")
	}
	return memoryDisk{bytes.NewReader(m.content)}, nil
}

type memoryDisk struct{ *bytes.Reader }

func (memoryDisk) Close() error   { return nil }
func (memoryDisk) Serial() string { return strings.Repeat("0123456789abcdef", 4) }

// serve starts a target and gives its address.
func serve(t *testing.T, content []byte) (*Target, string) {
	t.Helper()
	target := New(Config{Addr: netip.MustParseAddrPort("127.0.0.1:0"), Disks: memory{content}, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	part := target.Part()
	if err := part.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- part.Run(t.Context()) }()
	t.Cleanup(func() {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return target, target.listener.Addr().String()
}

func content() []byte {
	var b bytes.Buffer
	for i := range 300_001 {
		fmt.Fprintf(&b, "line %d\n", i)
	}
	return b.Bytes()
}

// TestPeers lets independent initiators log in, look and read.
func TestPeers(t *testing.T) {
	if _, err := exec.LookPath("iscsi-ls"); err != nil {
		t.Skip("no libiscsi-bin")
	}
	want := content()
	_, at := serve(t, want)
	url := "iscsi://" + at + "/" + name + "/0"
	for _, tt := range []struct {
		command string
		says    string
	}{
		{"iscsi-ls -s iscsi://" + at + "/", "Target:" + name},
		{"iscsi-inq " + url, "muster"},
		{"iscsi-inq -e 1 -c 131 " + url, "NAA"},
		{"iscsi-inq -e 1 -c 128 " + url, "0123456789abcdef"},
		{"iscsi-readcapacity16 -s " + url, fmt.Sprint((len(want) + 511) / 512 * 512)},
		{"iscsi-readcapacity16 iscsi://" + at + "/iqn.2026-01.muster:other/0", "Target not found"},
	} {
		w := strings.Fields(tt.command)
		out, _ := exec.Command(w[0], w[1:]...).CombinedOutput()
		if !strings.Contains(string(out), tt.says) {
			t.Errorf("%s says %s", tt.command, out)
		}
	}
	for _, test := range []string{"Read6.*", "Read10.Simple", "Read10.BeyondEol", "Read10.ZeroBlocks", "Read10.Residuals", "Read12.Simple", "Read16.Simple", "Read16.BeyondEol", "Read16.Residuals",
		"ReadCapacity10.*", "ReadCapacity16.Simple", "Inquiry.Standard", "Inquiry.AllocLength", "TestUnitReady.*", "ModeSense6.AllPages", "iSCSIcmdsn.*"} {
		out, err := exec.Command("iscsi-test-cu", "--test="+testName(test), url).CombinedOutput()
		if err != nil || strings.Contains(string(out), "FAILED") {
			t.Errorf("%s: %v\n%s", test, err, out)
		}
	}
}

func testName(s string) string {
	if strings.HasPrefix(s, "iSCSI") {
		return "iSCSI." + s
	}
	return "SCSI." + s
}

func TestNewContentLeavesOpenDisksAlone(t *testing.T) {
	target, at := serve(t, content())
	conn := dial(t, at)
	login(t, conn, iscsi.Pair{Key: "TargetName", Value: name})
	if open := target.InUse(); len(open) != 1 {
		t.Errorf("in use are %v", open)
	}
	conn.Close()
	for len(target.InUse()) > 0 {
		if t.Context().Err() != nil {
			t.Fatal("the disk stays open")
		}
		time.Sleep(time.Millisecond)
	}
}

func dial(t *testing.T, at string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn
}

func loginPDU(more ...iscsi.Pair) *iscsi.PDU {
	var p iscsi.PDU
	p.Header[0], p.Header[1] = iscsi.OpLogin|iscsi.Immediate, iscsi.Final|1<<2|3
	p.Put32(24, 1)
	p.Data = iscsi.Text(append([]iscsi.Pair{{Key: "InitiatorName", Value: "iqn.2026-01.test:x"}}, more...))
	return &p
}

func login(t *testing.T, conn net.Conn, more ...iscsi.Pair) *iscsi.PDU {
	t.Helper()
	if err := loginPDU(more...).Write(conn); err != nil {
		t.Fatal(err)
	}
	a, err := iscsi.Read(conn, iscsi.MaxText)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestRefused(t *testing.T) {
	_, at := serve(t, content())
	for what, pairs := range map[string][]iscsi.Pair{
		"0203": {{Key: "TargetName", Value: "iqn.2026-01.muster:../../etc/passwd"}},
		"0207": {},
		"0201": {{Key: "TargetName", Value: name}, {Key: "HeaderDigest", Value: "CRC32C"}},
		"0209": {{Key: "SessionType", Value: "Odd"}},
	} {
		a := login(t, dial(t, at), pairs...)
		if got := fmt.Sprintf("%02x%02x", a.Header[36], a.Header[37]); got != what {
			t.Errorf("%v is answered with %s, not %s", pairs, got, what)
		}
	}
	for what, sent := range map[string]func() *iscsi.PDU{
		"a write": func() *iscsi.PDU { return command(2, 0x2a, 512) }, "a command before its turn": func() *iscsi.PDU { return command(9, 0x28, 512) },
	} {
		conn := dial(t, at)
		login(t, conn, iscsi.Pair{Key: "TargetName", Value: name})
		p := sent()
		p.Put32(24, p.Uint32(24)-1)
		if err := p.Write(conn); err != nil {
			t.Fatal(err)
		}
		a, err := iscsi.Read(conn, 1<<20)
		if err == nil && (a.Opcode() != iscsi.OpResponse || a.Header[3] != 2) {
			t.Errorf("%s is answered with %x", what, a.Header)
		}
	}
}

func command(sn uint32, op byte, length uint32) *iscsi.PDU {
	var p iscsi.PDU
	p.Header[0], p.Header[1] = iscsi.OpCommand, iscsi.Final|iscsi.ReadFlag
	p.Put32(20, length)
	p.Put32(24, sn)
	p.Header[32], p.Header[40] = op, byte(length/512)
	return &p
}

// FuzzSession: whatever comes after a login or instead of one, the target
// neither fails nor sends without end.
func FuzzSession(f *testing.F) {
	var seed bytes.Buffer
	command(1, 0x28, 512).Write(&seed)
	command(2, 0x12, 96).Write(&seed)
	f.Add(true, seed.Bytes())
	seed.Reset()
	loginPDU(iscsi.Pair{Key: "SessionType", Value: "Discovery"}).Write(&seed)
	f.Add(false, seed.Bytes())
	f.Add(true, bytes.Repeat([]byte{0xff}, 200))
	disks, log := memory{content()[:1<<20]}, slog.New(slog.DiscardHandler)
	f.Fuzz(func(t *testing.T, in bool, sent []byte) {
		if len(sent) > 4096 {
			return
		}
		here, there := net.Pipe()
		defer here.Close()
		s := &session{target: New(Config{Disks: disks, Log: log}), conn: there, log: log}
		done := make(chan struct{})
		go func() { s.serve(); there.Close(); close(done) }()
		go func() {
			if in {
				loginPDU(iscsi.Pair{Key: "TargetName", Value: name}).Write(here)
			}
			here.Write(sent)
			here.Write(make([]byte, 1<<17)) // what a last length may ask for
			here.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		}()
		n, _ := io.Copy(io.Discard, io.LimitReader(here, 1<<30))
		here.Close()
		<-done
		if n >= 1<<30 {
			t.Errorf("%d bytes in answer to %d", n, len(sent))
		}
	})
}
