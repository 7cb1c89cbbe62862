package ipmi

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"time"
)

// Found is a BMC that answered without a session. GUID is its system's, as it
// came over the wire, all zero where it does not tell it (IPMI 2.0 §22.14); the
// order of its bytes is not to be relied on.
type Found struct {
	Addr netip.Addr
	GUID [16]byte
}

// Pacing of Ask: so many questions are sent before the next pause, so that
// neither a switch nor the answers drown.
const (
	askBurst = 32
	askPause = 5 * time.Millisecond
	askTwice = 2 // datagrams get lost
)

// Ask asks these addresses who they are, and gives those that answer as BMCs
// do within the time after the last question. It sends no user and no password.
func Ask(ctx context.Context, addrs []netip.Addr, port uint16, wait time.Duration) ([]Found, error) {
	conn, err := net.ListenUDP("udp", nil)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Now()) })
	defer stop()
	wanted := map[netip.Addr]bool{}
	for _, a := range addrs {
		wanted[a.Unmap()] = true
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for range askTwice {
			for i, a := range addrs {
				if i%askBurst == askBurst-1 && !pause(ctx, askPause) {
					return
				}
				conn.WriteToUDPAddrPort(guidRequest[:], netip.AddrPortFrom(a, port)) // to a dead one it may fail
			}
		}
		if ctx.Err() == nil {
			conn.SetReadDeadline(time.Now().Add(wait))
		}
	}()
	defer func() { <-sent }()
	var out []Found
	for buf := make([]byte, 1024); ; {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		at := from.Addr().Unmap()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return out, ctx.Err()
		case err != nil || !wanted[at] || from.Port() != port:
			continue // an ICMP error, or somebody who was not asked
		}
		if guid, ok := parseGUID(buf[:n]); ok {
			wanted[at] = false
			out = append(out, Found{at, guid})
		}
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// guidRequest is Get System GUID in IPMI 1.5's form without a session, as which
// all versions take it (IPMI 2.0 §13.6, §22.14).
var guidRequest = [...]byte{0x06, 0x00, 0xff, 0x07, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0x20, 0x18, 0xc8, 0x81, 0x04, 0x37, 0x44}

// parseGUID reads the answer. Ok is whether it is a BMC's, which may refuse to
// tell.
func parseGUID(p []byte) (guid [16]byte, ok bool) {
	const header = 4 + 10
	if !sound(p) || p[4]&0x0f != 0 {
		return guid, false
	}
	m := p[header : header+int(p[header-1])]
	if len(m) < 8 || m[0] != 0x81 || m[1] != 0x1c || m[4] != 0x04 || m[5] != 0x37 || sum(m[:3]) != 0 || sum(m[3:]) != 0 {
		return guid, false
	}
	if m[6] == 0 && len(m) == 8+len(guid) {
		copy(guid[:], m[7:])
	}
	return guid, true
}

func sum(p []byte) (s byte) {
	for _, c := range p {
		s += c
	}
	return s
}
