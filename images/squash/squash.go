// Package squash is an image as one file, in chunks: cut where squashfs itself
// cuts, so that what two versions have in common is common chunks.
//
// Data blocks are chunks as they lie in the file, compressed. What squashfs says
// about files is small, is needed first, and changes all over when an offset
// does: the index holds it, and indices are sent as what differs between them. A
// file that is no squashfs is cut by its content. The index may come from a
// stranger until it is compared with a digest.
package squash

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	"muster/images/chunk"
)

// Bounds of an index.
const (
	MaxEncoded = 1 << 30 // bytes
	maxInline  = 64 << 20
	maxFile    = 1 << 48
)

// Segment is a stretch of the file: a chunk, or bytes that the index holds.
type Segment struct {
	Chunk  chunk.Ref // its Size is 0 for bytes in the index
	Inline []byte
}

// Len is the segment's length in bytes.
func (s Segment) Len() int { return int(s.Chunk.Size) + len(s.Inline) }

// Index is the file.
type Index struct {
	Digest chunk.Digest // of the encoded index
	Size   int64        // of the file, in bytes
	SHA256 chunk.Digest // of the file
	Count  int          // segments

	sizes   []byte
	digests []byte
	inline  []byte
}

// The format, numbers as varints:
//
//	magic, size and SHA-256 of the file
//	number of segments, length of their list
//	the list: length × 2 of a chunk, + 1 where the index has the bytes
//	number of chunks, their digests, and all bytes of the other segments
const magic = "mssqsh1\n"

// encode makes an index of segments.
func encode(size int64, sum chunk.Digest, segments []Segment) ([]byte, error) {
	var list, digests, inline []byte
	for _, s := range segments {
		v := uint64(s.Len()) << 1
		if s.Chunk.Size == 0 {
			v |= 1
			inline = append(inline, s.Inline...)
		} else {
			digests = append(digests, s.Chunk.Digest[:]...)
		}
		list = binary.AppendUvarint(list, v)
	}
	out := binary.AppendUvarint([]byte(magic), uint64(size))
	out = append(out, sum[:]...)
	out = binary.AppendUvarint(out, uint64(len(segments)))
	out = binary.AppendUvarint(out, uint64(len(list)))
	out = append(out, list...)
	out = binary.AppendUvarint(out, uint64(len(digests)/len(sum)))
	out = append(append(out, digests...), inline...)
	if len(out) > MaxEncoded {
		return nil, fmt.Errorf("the index of the image has %d bytes, at most %d are kept", len(out), MaxEncoded)
	}
	return out, nil
}

// Is says whether raw looks like one that Decode reads.
func Is(raw []byte) bool { return len(raw) >= len(magic) && string(raw[:len(magic)]) == magic }

// Decode reads an index and checks all of it. The result refers to raw.
func Decode(raw []byte) (*Index, error) {
	x, err := decode(raw)
	if err != nil {
		return nil, fmt.Errorf("broken index of an image: %w", err)
	}
	return x, nil
}

func decode(raw []byte) (*Index, error) {
	if len(raw) > MaxEncoded || len(raw) < len(magic) || string(raw[:len(magic)]) != magic {
		return nil, errors.New("it does not begin with one")
	}
	x, b := &Index{Digest: chunk.Sum(raw)}, raw[len(magic):]
	size, b, err := number(b, maxFile)
	if err != nil || len(b) < len(x.SHA256) {
		return nil, errShort
	}
	x.Size = int64(size)
	b = b[copy(x.SHA256[:], b):]
	if x.Count, b, err = number(b, len(b)); err != nil {
		return nil, err
	}
	if x.sizes, b, err = counted(b, 1); err != nil {
		return nil, err
	}
	if x.digests, x.inline, err = counted(b, len(x.SHA256)); err != nil {
		return nil, err
	}
	return x, x.check()
}

var errShort = errors.New("it ends too early")

func number(b []byte, most int) (int, []byte, error) {
	v, n := binary.Uvarint(b)
	if n <= 0 || n > 1 && b[n-1] == 0 || v > uint64(most) {
		return 0, nil, errShort
	}
	return int(v), b[n:], nil
}

func counted(b []byte, size int) (part, rest []byte, err error) {
	n, b, err := number(b, len(b)/size)
	if err != nil || n*size > len(b) {
		return nil, nil, errShort
	}
	return b[:n*size], b[n*size:], nil
}

// check walks all segments once.
func (x *Index) check() error {
	sizes, total, chunks, inline := x.sizes, int64(0), 0, 0
	for range x.Count {
		v, rest, err := number(sizes, maxInline<<1|1)
		if err != nil {
			return err
		}
		n := v >> 1
		switch {
		case n == 0 || v&1 == 0 && n > chunk.MaxSize:
			return fmt.Errorf("a segment of %d bytes", n)
		case v&1 == 1:
			inline += n
		default:
			chunks++
		}
		sizes, total = rest, total+int64(n)
	}
	if len(sizes) > 0 || total != x.Size || inline != len(x.inline) || chunks*len(x.SHA256) != len(x.digests) {
		return fmt.Errorf("its segments have %d of %d bytes, in %d chunks", total, x.Size, chunks)
	}
	return nil
}

// Segments gives all segments with their places in the file, in order.
func (x *Index) Segments() iter.Seq2[int64, Segment] {
	return func(yield func(int64, Segment) bool) {
		sizes, digests, inline, at := x.sizes, x.digests, x.inline, int64(0)
		for range x.Count {
			v, n := binary.Uvarint(sizes)
			sizes = sizes[n:]
			var s Segment
			if size := int(v >> 1); v&1 == 1 {
				s.Inline, inline = inline[:size:size], inline[size:]
			} else {
				s.Chunk.Size = uint32(size)
				digests = digests[copy(s.Chunk.Digest[:], digests):]
			}
			if !yield(at, s) {
				return
			}
			at += int64(s.Len())
		}
	}
}
