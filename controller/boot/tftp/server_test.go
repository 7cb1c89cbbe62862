package tftp

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	pin "github.com/pin/tftp/v3"

	"muster/controller/boot"
	"muster/shared/service"
)

// start serves a directory with the file snponly.efi on loopback.
func start(t testing.TB, content []byte) (*Server, string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "snponly.efi"), content, 0o644); err != nil {
		t.Fatal(err)
	}
	os.WriteFile(filepath.Join(dir, "secret"), []byte("secret"), 0o644)
	s := New(Config{Addr: netip.MustParseAddrPort("127.0.0.1:0"), Programs: boot.Dir(dir), Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- service.Run(ctx, slog.New(slog.DiscardHandler), []service.Part{s.Part()}, func() { close(ready) })
	}()
	select {
	case <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s, s.conn.LocalAddr().String()
}

func random(n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func TestFetch(t *testing.T) {
	// 512 * 65536 rolls the block number over; that one is fetched with a
	// client of our own below, because pin's is slow.
	for _, size := range []int{0, 1, 511, 512, 513, 1024, 173792} {
		for _, block := range []int{0, 512, 1432, 65464} {
			t.Run(fmt.Sprintf("%d bytes, blksize %d", size, block), func(t *testing.T) {
				content := random(size)
				_, addr := start(t, content)
				c, err := pin.NewClient(addr)
				if err != nil {
					t.Fatal(err)
				}
				if block > 0 {
					c.SetBlockSize(block)
				}
				c.RequestTSize(true)
				r, err := c.Receive("snponly.efi", "octet")
				if err != nil {
					t.Fatal(err)
				}
				if n, ok := r.(pin.IncomingTransfer).Size(); !ok || n != int64(size) {
					t.Errorf("tsize %d, %v", n, ok)
				}
				var got bytes.Buffer
				if _, err := r.WriteTo(&got); err != nil || !bytes.Equal(got.Bytes(), content) {
					t.Errorf("%d bytes, %v", got.Len(), err)
				}
			})
		}
	}
}

// peer is a client that does what a test says.
type peer struct {
	*testing.T
	conn *net.UDPConn
	from netip.AddrPort // the server's port for this transfer
}

func dial(t *testing.T) *peer {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IP{127, 0, 0, 1}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &peer{T: t, conn: c}
}

func rrq(words ...string) []byte {
	return append([]byte{0, opRead}, strings.Join(words, "\x00")+"\x00"...)
}

func (p *peer) ask(server string, packet []byte) {
	p.Helper()
	if _, err := p.conn.WriteToUDPAddrPort(packet, netip.MustParseAddrPort(server)); err != nil {
		p.Fatal(err)
	}
}

func (p *peer) ack(block int) {
	p.conn.WriteToUDPAddrPort([]byte{0, opAck, byte(block >> 8), byte(block)}, p.from)
}

// read gives the next packet's operation, block number or code, and rest.
func (p *peer) read() (op, n int, rest []byte) {
	p.Helper()
	b := make([]byte, 2000)
	p.conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	l, from, err := p.conn.ReadFromUDPAddrPort(b)
	if err != nil {
		p.Fatal(err)
	}
	p.from = from
	b = b[:l]
	if op = int(binary.BigEndian.Uint16(b)); op == opOACK {
		return op, 0, b[2:]
	}
	return op, int(binary.BigEndian.Uint16(b[2:])), b[4:]
}

func (p *peer) want(op, n int) []byte {
	p.Helper()
	gotOp, gotN, rest := p.read()
	if gotOp != op || n >= 0 && gotN != n {
		p.Fatalf("operation %d, number %d, %.60q; want %d, %d", gotOp, gotN, rest, op, n)
	}
	return rest
}

func TestWindow(t *testing.T) {
	content := random(10*512 + 100)
	_, addr := start(t, content)
	p := dial(t)
	p.ask(addr, rrq("snponly.efi", "OCTET", "windowsize", "4", "blksize", "512", "unknown", "1", "tsize", "0"))
	if o := p.want(opOACK, 0); string(o) != "windowsize\x004\x00blksize\x00512\x00tsize\x005220\x00" {
		t.Fatalf("OACK %q", o)
	}
	p.ack(0)
	var got []byte
	block := func(n int) []byte { return p.want(opData, n) }
	for n := 1; n <= 4; n++ {
		got = append(got, block(n)...)
	}
	p.ack(4)
	got = append(got, block(5)...)
	block(6) // "lost"
	block(7)
	block(8)
	p.ack(5) // so it goes on from 6
	for n := 6; n <= 9; n++ {
		got = append(got, block(n)...)
	}
	p.ack(9)
	got = append(got, block(10)...)
	got = append(got, block(11)...)
	p.ack(11)
	if !bytes.Equal(got, content) {
		t.Errorf("%d bytes, not the file", len(got))
	}
}

func TestRollover(t *testing.T) {
	content := random(66000*8 + 3) // at 8 bytes a block
	_, addr := start(t, content)
	p := dial(t)
	p.ask(addr, rrq("snponly.efi", "octet", "blksize", "8", "windowsize", "64"))
	p.want(opOACK, 0)
	p.ack(0)
	var got []byte
	for n := 1; ; n++ {
		b := p.want(opData, n&0xffff)
		got = append(got, b...)
		if n%64 == 0 || len(b) < 8 {
			p.ack(n)
		}
		if len(b) < 8 {
			break
		}
	}
	if !bytes.Equal(got, content) {
		t.Errorf("%d bytes, not the file", len(got))
	}
}

func TestLoss(t *testing.T) {
	_, addr := start(t, random(1000))
	p := dial(t)
	p.ask(addr, rrq("snponly.efi", "octet", "timeout", "1"))
	p.want(opOACK, 0)
	p.want(opOACK, 0) // again after a second
	p.ack(0)
	p.want(opData, 1)
	p.ack(0) // a late duplicate is no reason to send block 1 twice…
	p.ack(1)
	p.want(opData, 2)
	p.ack(2)
	p.conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, _ := p.conn.Read(make([]byte, 2000)); n != 0 {
		t.Error("…but it was sent")
	}
}

func TestRefusals(t *testing.T) {
	_, addr := start(t, random(10))
	for _, tt := range []struct {
		name   string
		packet []byte
		code   int
		text   string
	}{
		{"missing", rrq("undionly.kpxe", "octet"), codeNotFound, "package ipxe"},
		{"not a program", rrq("secret", "octet"), codeNotFound, "only *.kpxe"},
		{"traversal", rrq("../../etc/passwd", "octet"), codeNotFound, "only *.kpxe"},
		{"traversal to a program", rrq("../x.efi", "octet"), codeNotFound, "only *.kpxe"},
		{"absolute", rrq("//etc/passwd", "octet"), codeNotFound, "only *.kpxe"},
		{"netascii", rrq("snponly.efi", "netascii"), codeIllegal, "octet"},
		{"write", append([]byte{0, opWrite}, "x.efi\x00octet\x00"...), codeAccess, "read-only"},
		{"no mode", rrq("snponly.efi"), codeIllegal, "malformed"},
		{"no end", []byte("\x00\x01snponly.efi\x00octet"), codeIllegal, "malformed"},
		{"option without value", rrq("snponly.efi", "octet", "blksize"), codeIllegal, "malformed"},
		{"option twice", rrq("snponly.efi", "octet", "tsize", "0", "TSIZE", "0"), codeOption, "twice"},
		{"too long", rrq(strings.Repeat("x", 600), "octet"), codeIllegal, "malformed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := dial(t)
			p.ask(addr, tt.packet)
			if text := p.want(opError, tt.code); !bytes.Contains(text, []byte(tt.text)) {
				t.Errorf("%q does not say %q", text, tt.text)
			}
		})
	}
}

func TestNoAnswerToAnswers(t *testing.T) {
	_, addr := start(t, random(10))
	p := dial(t)
	for _, b := range [][]byte{nil, {0}, {0, opError, 0, 0, 0}, {0, opAck, 0, 1}, {0, opData, 0, 1}, {0xff, 0xff, 1}} {
		p.ask(addr, b)
	}
	p.ask(addr, rrq("snponly.efi", "octet")) // the next packet is for this
	p.want(opData, 1)
	p.ack(1)
}

// Clients that take their places and say nothing more keep nobody out but
// themselves.
func TestBounds(t *testing.T) {
	s, addr := start(t, random(10))
	for range 3 * maxPerAddr {
		dial(t).ask(addr, rrq("snponly.efi", "octet"))
	}
	other, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IP{127, 0, 0, 2}})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	p := &peer{T: t, conn: other}
	p.ask(addr, rrq("snponly.efi", "octet"))
	p.want(opData, 1)
	p.ack(1)
	s.mu.Lock()
	n := len(s.active)
	s.mu.Unlock()
	if n > maxPerAddr+1 {
		t.Errorf("%d transfers at once", n)
	}
}

func TestManyAtOnce(t *testing.T) {
	content := random(100_000)
	_, addr := start(t, content)
	var wg sync.WaitGroup
	for range maxPerAddr {
		wg.Go(func() {
			c, err := pin.NewClient(addr)
			if err != nil {
				t.Error(err)
				return
			}
			c.SetBlockSize(1432)
			r, err := c.Receive("snponly.efi", "octet")
			if err != nil {
				t.Error(err)
				return
			}
			var got bytes.Buffer
			if _, err := r.WriteTo(&got); err != nil || !bytes.Equal(got.Bytes(), content) {
				t.Errorf("%d bytes, %v", got.Len(), err)
			}
		})
	}
	wg.Wait()
}

// FuzzParse takes any packet through the parser; what it accepts must be
// within the bounds, and a refusal must be a packet.
func FuzzParse(f *testing.F) {
	f.Add(rrq("snponly.efi", "octet"))
	f.Add(rrq("/snponly.efi", "OCTET", "blksize", "1468", "tsize", "0", "windowsize", "4", "timeout", "3"))
	f.Add(rrq("x", "octet", "blksize", "99999999999999999999", "windowsize", "-1"))
	f.Add([]byte{0, opWrite, 'x', 0})
	f.Add([]byte{0, opError, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parse(b)
		if err != nil {
			if p := refusal(err); p != nil && (len(p) < 5 || p[1] != opError || p[len(p)-1] != 0) {
				t.Fatalf("refusal % x", p)
			}
			return
		}
		if r.block < minBlock || r.block > maxBlock || r.window < 1 || r.window > maxWindow || r.timeout < time.Second || r.timeout > 10*time.Second {
			t.Fatalf("out of bounds: %+v", r)
		}
		if o := r.oack(1 << 40); len(o) > 2*maxRequest {
			t.Fatalf("OACK of %d bytes", len(o))
		}
		ackOf(b)
	})
}
