package ipmi

import (
	"context"
	"net"
	"strings"
)

// dialer connects to one address, whatever it is asked for: the library would
// put an IPv6 address into one string without brackets.
type dialer struct {
	ctx  context.Context // of the one connection that is made
	addr string
}

func (d dialer) Dial(network, _ string) (net.Conn, error) {
	var nd net.Dialer
	c, err := nd.DialContext(d.ctx, network, d.addr)
	if err != nil {
		return nil, err
	}
	return &sifted{c}, nil
}

// minPacket is an RMCP header and the shortest IPMI session behind it, in bytes.
const minPacket = 4 + 10

// sifted passes over datagrams that cannot be RMCP: they would reach a parser
// that believes in lengths.
type sifted struct{ net.Conn }

func (s *sifted) Read(b []byte) (int, error) {
	for {
		n, err := s.Conn.Read(b)
		if err != nil || sound(b[:n]) {
			return n, err
		}
	}
}

// sound says whether lengths inside a packet fit it (IPMI 2.0 §13.6).
func sound(p []byte) bool {
	if len(p) < minPacket || p[0] != 0x06 || p[2] != 0xff || p[3]&0x1f != 0x07 {
		return false
	}
	session := p[4:]
	switch session[0] & 0x0f {
	case 0x06: // RMCP+
		if len(session) < 12 {
			return false
		}
		length := int(session[10]) | int(session[11])<<8
		return session[1]&0x3f != 0x02 && length <= len(session)-12
	case 0x00: // without authentication code
		return int(session[9]) <= len(session)-10
	case 0x01, 0x02, 0x04:
		return len(session) >= 26 && int(session[25]) <= len(session)-26
	}
	return false
}

func contains(err error, words ...string) bool {
	for _, w := range words {
		if strings.Contains(err.Error(), w) {
			return true
		}
	}
	return false
}
