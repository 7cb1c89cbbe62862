// Package ipmitest is a BMC for tests and benchmarks that speaks IPMI over LAN
// (IPMI 2.0 §13: RMCP+ with cipher suite 3), with switches for what BMCs do
// wrong. It is small, so that thousands of them fit into one process; OpenIPMI's
// ipmi_sim is the one to test what needs a whole BMC.
package ipmitest

import (
	"crypto/rand"
	"encoding/binary"
	"net"
	"sync"
	"testing"
	"time"
)

// User and Password let a client in.
const (
	User     = "admin"
	Password = "p@s:s/w%rd"
)

// Options are how a BMC is, and what is wrong with it.
type Options struct {
	GUID [16]byte // as it goes over the wire
	// Silent answers nothing at all.
	Silent bool
	// HalfOpen takes the first message of a session and then says no more.
	HalfOpen bool
	// Slow is how long an answer about the machine takes; those about the
	// session come at once.
	Slow time.Duration
	// Stuck says that the machine is on, and takes every order without doing it.
	Stuck bool
}

// BMC is one on its own UDP socket.
type BMC struct {
	conn *net.UDPConn
	opt  Options
	done chan struct{}

	mu       sync.Mutex
	sessions map[uint32]*session // by the BMC's number
	on       bool
	orders   []byte
}

// maxSessions is how many a BMC holds; the oldest goes, as firmware does.
const maxSessions = 16

// Listen starts a BMC at a UDP address such as 127.0.0.1:623. Its machine is on.
func Listen(addr string, opt Options) (*BMC, error) {
	at, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		return nil, err
	}
	conn, err := net.ListenUDP("udp", at)
	if err != nil {
		return nil, err
	}
	b := &BMC{conn: conn, opt: opt, done: make(chan struct{}), sessions: map[uint32]*session{}, on: true}
	go b.serve()
	return b, nil
}

// Start runs one on loopback until the test ends.
func Start(tb testing.TB, opt Options) *BMC {
	tb.Helper()
	b, err := Listen("127.0.0.1:0", opt)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(b.Close)
	return b
}

// Host is its address and port.
func (b *BMC) Host() string { return b.conn.LocalAddr().String() }

// Close ends it.
func (b *BMC) Close() {
	b.conn.Close()
	<-b.done
}

// Orders gives the chassis controls that came (IPMI 2.0 §28.3).
func (b *BMC) Orders() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]byte(nil), b.orders...)
}

// Sessions is how many sessions stand.
func (b *BMC) Sessions() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for _, s := range b.sessions {
		if s.active {
			n++
		}
	}
	return n
}

func (b *BMC) serve() {
	defer close(b.done)
	buf := make([]byte, 1024)
	for {
		n, from, err := b.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		if b.opt.Silent {
			continue
		}
		answer, wait := b.answer(buf[:n])
		if answer == nil {
			continue
		}
		if wait == 0 {
			b.conn.WriteToUDPAddrPort(answer, from)
			continue
		}
		time.AfterFunc(wait, func() { b.conn.WriteToUDPAddrPort(answer, from) })
	}
}

// Headers: RMCP's (§13.1.3), and the two kinds of session behind it (§13.6).
var rmcp = []byte{0x06, 0x00, 0xff, 0x07}

const (
	formatNone = 0x00
	formatPlus = 0x06
	bareHeader = 10
	plusHeader = 12
)

// answer makes the answer to a packet, nil for none, and how long it takes.
func (b *BMC) answer(p []byte) ([]byte, time.Duration) {
	if len(p) < len(rmcp)+plusHeader || p[0] != rmcp[0] || p[3] != rmcp[3] {
		return nil, 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	p = p[len(rmcp):]
	switch p[0] {
	case formatNone:
		out, wait := b.command(nil, p[bareHeader:])
		if out == nil {
			return nil, 0
		}
		head := append(append([]byte{}, rmcp...), make([]byte, bareHeader)...)
		head[len(head)-1] = byte(len(out))
		return append(head, out...), wait
	case formatPlus:
		return b.plus(p)
	}
	return nil, 0
}

// plus answers a packet of RMCP+.
func (b *BMC) plus(p []byte) ([]byte, time.Duration) {
	id, length := binary.LittleEndian.Uint32(p[2:]), int(binary.LittleEndian.Uint16(p[10:]))
	if plusHeader+length > len(p) {
		return nil, 0
	}
	payload := p[plusHeader : plusHeader+length]
	setup := func(kind byte, out []byte) ([]byte, time.Duration) {
		if out == nil {
			return nil, 0
		}
		return packet(kind, 0, 0, out, nil), 0
	}
	switch kind := p[1] & 0x3f; kind {
	case 0x10:
		return setup(0x11, b.open(payload))
	case 0x12:
		if b.opt.HalfOpen {
			return nil, 0
		}
		return setup(0x13, b.rakp1(payload))
	case 0x14:
		return setup(0x15, b.rakp3(payload))
	case 0x00:
		if id == 0 {
			out, wait := b.command(nil, payload)
			if out == nil {
				return nil, 0
			}
			return packet(0, 0, 0, out, nil), wait
		}
		s := b.sessions[id]
		if s == nil || !s.active {
			return nil, 0
		}
		message := s.unseal(p)
		if message == nil {
			return nil, 0
		}
		out, wait := b.command(s, message)
		if out == nil {
			return nil, 0
		}
		return s.seal(out), wait
	}
	return nil, 0
}

// packet frames a payload; trailer is what follows it in an authenticated one.
func packet(kind byte, id, sequence uint32, payload []byte, trailer func(p []byte) []byte) []byte {
	out := append([]byte{}, rmcp...)
	out = append(out, formatPlus, kind)
	out = binary.LittleEndian.AppendUint32(out, id)
	out = binary.LittleEndian.AppendUint32(out, sequence)
	out = binary.LittleEndian.AppendUint16(out, uint16(len(payload)))
	out = append(out, payload...)
	if trailer != nil {
		out = append(out, trailer(out[len(rmcp):])...)
	}
	return out
}

// newSession makes room for a session and gives it a number.
func (b *BMC) newSession() *session {
	for len(b.sessions) >= maxSessions {
		oldest := (*session)(nil)
		for _, s := range b.sessions {
			if oldest == nil || s.began.Before(oldest.began) {
				oldest = s
			}
		}
		delete(b.sessions, oldest.id)
	}
	var raw [4]byte
	rand.Read(raw[:])
	s := &session{id: binary.LittleEndian.Uint32(raw[:]) | 1, began: time.Now()}
	b.sessions[s.id] = s
	return s
}
