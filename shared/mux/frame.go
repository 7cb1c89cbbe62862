package mux

import (
	"encoding/binary"
	"fmt"
)

// The frames of yamux: a header of twelve bytes, big-endian, and after one of
// data as many bytes as its length says.
type header struct {
	kind   byte
	flags  uint16
	stream uint32
	length uint32 // of the data; what a window grows by; a ping's number
}

const (
	headerSize = 12
	version    = 0
)

const (
	kindData   byte = 0
	kindWindow byte = 1
	kindPing   byte = 2
	kindAway   byte = 3
)

const (
	flagSYN uint16 = 1 << iota // opens the stream; of a ping: asks
	flagACK                    // the stream is taken; of a ping: answers
	flagFIN                    // no more data comes this way
	flagRST                    // the stream is no more
)

func (h header) append(to []byte) []byte {
	to = append(to, version, h.kind)
	to = binary.BigEndian.AppendUint16(to, h.flags)
	to = binary.BigEndian.AppendUint32(to, h.stream)
	return binary.BigEndian.AppendUint32(to, h.length)
}

// parse reads a header, whose size p has.
func parse(p []byte) (header, error) {
	if p[0] != version || p[1] > kindAway {
		return header{}, fmt.Errorf("%w: a frame of version %d and kind %d", errProtocol, p[0], p[1])
	}
	return header{p[1], binary.BigEndian.Uint16(p[2:]), binary.BigEndian.Uint32(p[4:]), binary.BigEndian.Uint32(p[8:])}, nil
}
