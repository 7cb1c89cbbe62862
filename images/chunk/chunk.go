// Package chunk cuts content into chunks, names each by the SHA-256 of what it
// holds, and carries them over a wire.
//
// Cuts depend on the content alone (FastCDC: gear hash with normalised sizes,
// Xia et al., USENIX ATC 2016), so that an insertion changes the chunks around
// it and no others. Where a chunk is kept and who may have it is not the
// package's concern; what it reads may come from anybody.
package chunk

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// Sizes in bytes. They are part of what is stored: other ones would cut the
// next version of an image everywhere else.
const (
	MinSize = 16 << 10 // of a chunk that Cut makes, but for the last of a file
	Whole   = 64 << 10 // what is not longer is never cut; most chunks are about that long
	MaxCut  = 256 << 10
	MaxSize = 1 << 20 // of any chunk: squashfs has no larger block
)

// Digest is a SHA-256.
type Digest [sha256.Size]byte

// Sum names content.
func Sum(b []byte) Digest { return sha256.Sum256(b) }

// String gives 64 lower-case hexadecimal digits.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// Parse reads what String gives, and nothing else.
func Parse(s string) (Digest, error) {
	var d Digest
	if len(s) != 2*len(d) || strings.ToLower(s) != s {
		return d, fmt.Errorf("%q is no SHA-256: want %d lower-case hexadecimal digits", s, 2*len(d))
	}
	if _, err := hex.Decode(d[:], []byte(s)); err != nil {
		return d, fmt.Errorf("%q is no SHA-256: %w", s, err)
	}
	return d, nil
}

// MarshalText makes a digest a string in JSON.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText is the way back.
func (d *Digest) UnmarshalText(b []byte) (err error) {
	*d, err = Parse(string(b))
	return err
}

// Ref names a chunk and says how long its content is: 1 to MaxSize bytes.
type Ref struct {
	Digest Digest
	Size   uint32
}

// ErrDamaged says that bytes are not the chunk that they should be.
var ErrDamaged = errors.New("damaged chunk")

// Check says whether b is the chunk's content.
func (r Ref) Check(b []byte) error {
	if uint64(len(b)) != uint64(r.Size) {
		return fmt.Errorf("%w: it has %d bytes instead of %d", ErrDamaged, len(b), r.Size)
	}
	if got := Sum(b); got != r.Digest {
		return fmt.Errorf("%w: it has SHA-256 %s instead of %s", ErrDamaged, got, r.Digest)
	}
	return nil
}

// The masks have the top bits, which depend on the last 64 bytes. Before the
// wanted size four times as many bits as needed must be zero by chance, after
// it a quarter: sizes lie closer together.
const (
	maskEarly = uint64((1<<18 - 1) << (64 - 18))
	maskLate  = uint64((1<<14 - 1) << (64 - 14))
)

var gear = gearTable()

// gearTable makes 256 numbers that look random and are the same everywhere.
func gearTable() (t [256]uint64) {
	for i := range t {
		sum := sha256.Sum256([]byte{'g', 'e', 'a', 'r', byte(i)})
		t[i] = binary.LittleEndian.Uint64(sum[:])
	}
	return t
}

// Cut gives the length of the first chunk of b, which must hold the rest of
// the content or at least MaxCut bytes of it. It is 0 only for an empty b.
func Cut(b []byte) int {
	if len(b) <= Whole {
		return len(b)
	}
	b = b[:min(len(b), MaxCut)]
	var h uint64
	// The hash sees only the last 64 bytes, so what lies further before the
	// first possible cut need not be read.
	i := MinSize - 64
	for ; i < Whole; i++ {
		if h = h<<1 + gear[b[i]]; h&maskEarly == 0 && i >= MinSize {
			return i
		}
	}
	for ; i < len(b); i++ {
		if h = h<<1 + gear[b[i]]; h&maskLate == 0 {
			return i
		}
	}
	return len(b)
}
