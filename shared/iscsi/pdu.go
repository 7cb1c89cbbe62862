// Package iscsi is the part of iSCSI (RFC 7143) that target and initiator have
// in common: the frames on a connection, without digests, and the texts in
// them. What SCSI commands mean is for those who send and answer them.
package iscsi

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Port is the usual one.
const Port = 3260

// The opcodes, of initiators and then of targets (RFC 7143, 11.2.1.2).
const (
	OpNopOut    = 0x00
	OpCommand   = 0x01
	OpTask      = 0x02
	OpLogin     = 0x03
	OpText      = 0x04
	OpLogout    = 0x06
	OpNopIn     = 0x20
	OpResponse  = 0x21
	OpTaskDone  = 0x22
	OpLoginDone = 0x23
	OpTextDone  = 0x24
	OpDataIn    = 0x25
	OpLogoutEnd = 0x26
	OpReject    = 0x3f
)

// Bits of the second byte, and of the first.
const (
	Final     = 0x80
	Continue  = 0x40 // of login and text: more follows
	Immediate = 0x40 // of the first byte: does not take a command number
	Status    = 0x01 // of data: it ends the command
	Underflow = 0x02
	Overflow  = 0x04
	ReadFlag  = 0x40 // of a command: data comes
)

// NoTag stands for no task.
const NoTag = 0xffffffff

// HeaderSize is that of every PDU's fixed part.
const HeaderSize = 48

// MaxText bounds the text of a login or of an answer to SendTargets, in bytes.
const MaxText = 16 << 10

// PDU is one frame.
type PDU struct {
	Header [HeaderSize]byte
	Data   []byte
}

// Opcode is what it is, without the bit that says it is urgent.
func (p *PDU) Opcode() byte { return p.Header[0] & 0x3f }

// Uint32 and Put32 read and set a field of the header.
func (p *PDU) Uint32(at int) uint32   { return binary.BigEndian.Uint32(p.Header[at:]) }
func (p *PDU) Put32(at int, v uint32) { binary.BigEndian.PutUint32(p.Header[at:], v) }

// Tag is the initiator task tag.
func (p *PDU) Tag() uint32 { return p.Uint32(16) }

// ErrTooLarge is that of a PDU with more data than was allowed.
var ErrTooLarge = errors.New("an iSCSI PDU has more data than was agreed on")

// Read reads a PDU with at most limit bytes of data.
func Read(r io.Reader, limit int) (*PDU, error) {
	var p PDU
	if _, err := io.ReadFull(r, p.Header[:]); err != nil {
		return nil, err
	}
	n := int(p.Header[5])<<16 | int(p.Header[6])<<8 | int(p.Header[7])
	if n > limit {
		return nil, fmt.Errorf("%w: %d bytes", ErrTooLarge, n)
	}
	// Additional header segments are of commands that are not used here.
	if _, err := io.CopyN(io.Discard, r, int64(p.Header[4])*4); err != nil {
		return nil, unexpected(err)
	}
	p.Data = make([]byte, (n+3)&^3)
	if _, err := io.ReadFull(r, p.Data); err != nil {
		return nil, unexpected(err)
	}
	p.Data = p.Data[:n]
	return &p, nil
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Write writes a PDU, in one piece.
func (p *PDU) Write(w io.Writer) error {
	n := len(p.Data)
	p.Header[4], p.Header[5], p.Header[6], p.Header[7] = 0, byte(n>>16), byte(n>>8), byte(n)
	out := make([]byte, HeaderSize, HeaderSize+n+3)
	copy(out, p.Header[:])
	out = append(out, p.Data...)
	for len(out)%4 != 0 {
		out = append(out, 0)
	}
	_, err := w.Write(out)
	return err
}

// Pair is one key of a text and its value.
type Pair struct{ Key, Value string }

// ParseText reads the keys of a login or text.
func ParseText(b []byte) ([]Pair, error) {
	var out []Pair
	for item := range bytes.SplitSeq(b, []byte{0}) {
		if len(item) == 0 {
			continue
		}
		key, value, ok := strings.Cut(string(item), "=")
		if !ok || key == "" || len(key) > 63 {
			return nil, fmt.Errorf("%.80q is no KEY=VALUE of an iSCSI text", item)
		}
		out = append(out, Pair{key, value})
	}
	return out, nil
}

// Text writes keys.
func Text(pairs []Pair) []byte {
	var out []byte
	for _, p := range pairs {
		out = append(append(out, p.Key+"="+p.Value...), 0)
	}
	return out
}

// Value gives a key's value.
func Value(pairs []Pair, key string) string {
	for _, p := range pairs {
		if p.Key == key {
			return p.Value
		}
	}
	return ""
}
