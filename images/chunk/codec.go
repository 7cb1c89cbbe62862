package chunk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// Encoding is how a chunk's content is kept or sent.
type Encoding byte

// The encodings. Absent stands, on the wire only, for a chunk that the sender
// does not have.
const (
	Raw Encoding = iota
	Zstd
	Absent
)

// Codec packs and unpacks chunks. It is for one goroutine at a time.
type Codec struct {
	enc *zstd.Encoder
	dec *zstd.Decoder
}

// NewCodec makes one; what it needs is allocated when it is first used.
func NewCodec() *Codec { return &Codec{} }

// Encode gives content in the shorter encoding: a part of buf's array where
// that is zstd, else content itself.
func (c *Codec) Encode(buf, content []byte) ([]byte, Encoding) {
	if c.enc == nil {
		// Options are constants: there is nothing that could be wrong with them.
		c.enc, _ = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithEncoderConcurrency(1),
			zstd.WithEncoderCRC(false), zstd.WithWindowSize(MaxSize), zstd.WithLowerEncoderMem(true), zstd.WithAllLitEntropyCompression(true))
	}
	return shorter(content, c.enc.EncodeAll(content, buf[:0]))
}

// Packer packs chunks in passing, for a wire. Unlike a Codec many may use it at once.
type Packer struct{ enc *zstd.Encoder }

// NewPacker makes one that keeps at most two cores busy.
func NewPacker() *Packer {
	enc, _ := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(2),
		zstd.WithEncoderCRC(false), zstd.WithWindowSize(MaxSize), zstd.WithLowerEncoderMem(true))
	return &Packer{enc}
}

// Pack gives content in the shorter encoding, as Codec's Encode does.
func (p *Packer) Pack(content []byte) ([]byte, Encoding) {
	return shorter(content, p.enc.EncodeAll(content, nil))
}

// shorter decides between raw and packed: what saves less than a sixteenth is
// not worth unpacking on every node.
func shorter(content, packed []byte) ([]byte, Encoding) {
	if len(packed) < len(content)-len(content)/16 {
		return packed, Zstd
	}
	return content, Raw
}

// Decode gives the content of what is stored, in buf's array where there is
// room, or stored itself; and an error that wraps ErrDamaged if it is not the
// chunk that it should be. It never makes more than the chunk's size of it.
func (c *Codec) Decode(buf, stored []byte, e Encoding, want Ref) ([]byte, error) {
	out := stored
	if e == Zstd {
		var err error
		if out, err = c.Unpack(buf, stored, int(want.Size)); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
		}
	} else if e != Raw {
		return nil, fmt.Errorf("%w: it has the unknown encoding %d", ErrDamaged, e)
	}
	return out, want.Check(out)
}

// Unpack decompresses to at most limit bytes.
func (c *Codec) Unpack(buf, stored []byte, limit int) ([]byte, error) {
	if c.dec == nil {
		c.dec, _ = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderMaxMemory(8<<20))
	}
	if cap(buf) < limit {
		buf = make([]byte, 0, limit)
	}
	return c.dec.DecodeAll(stored, buf[:0:limit])
}

// frameHead is the size of what stands before each chunk on the wire: one byte
// for the encoding, four for the length, big-endian.
const frameHead = 5

// maxStored bounds a chunk on the wire: one that zstd made larger is sent raw.
const maxStored = MaxSize

// PutFrameHead writes what stands before a chunk's n bytes into b, of at least
// FrameHead bytes.
func PutFrameHead(b []byte, e Encoding, n int) []byte {
	b = append(b, byte(e))
	return binary.BigEndian.AppendUint32(b, uint32(n))
}

// ReadFrame reads one chunk as it comes, into buf where there is room.
func ReadFrame(r io.Reader, buf []byte) (stored []byte, e Encoding, err error) {
	var head [frameHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, 0, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if e = Encoding(head[0]); e > Absent || n > maxStored || e == Absent && n > 0 {
		return nil, 0, fmt.Errorf("a chunk of %d bytes in the encoding %d: at most %d are sent", n, e, maxStored)
	}
	if cap(buf) < int(n) {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	if _, err := io.ReadFull(r, buf); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, 0, err
	}
	return buf, e, nil
}
