// Package delta tells a file by what differs from another one: for indices,
// of which two versions have nearly everything in common.
//
// It follows bsdiff (Percival, 2003): stretches are copied from the old file
// with a correction for each byte, and corrections are mostly zero or repeat,
// as when every offset after an insertion grows by the same. Both files are held
// in memory; the package is not for images. Apply may be given anything.
package delta

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/klauspost/compress/zstd"
)

// MaxSize bounds both files, in bytes.
const MaxSize = 1 << 30

const (
	seed    = 12 // bytes that must be equal for a stretch to begin
	stride  = 4  // of the places in the old file that may begin one
	horizon = 64 // bytes over which a stretch must be worth going on
)

// Make gives what Apply needs to make want of old. It is the same every time.
// An empty old makes it a compressed want.
func Make(old, want []byte) ([]byte, error) {
	if len(old) > MaxSize || len(want) > MaxSize {
		return nil, fmt.Errorf("a delta between %d and %d bytes: at most %d are taken", len(old), len(want), MaxSize)
	}
	m := maker{old: old, want: want}
	m.run()
	body := binary.AppendUvarint(nil, uint64(len(want)))
	body = binary.AppendUvarint(body, uint64(len(m.ops)))
	body = append(append(append(body, m.ops...), m.fix...), m.literal...)
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false))
	if err != nil {
		return nil, err
	}
	defer enc.Close()
	return enc.EncodeAll(body, binary.AppendUvarint(nil, uint64(len(body)))), nil
}

// maker collects the delta: ops are triples of a literal's length, a
// stretch's length and its place relative to where the last one ended.
type maker struct {
	old, want         []byte
	index             map[uint64]int32
	ops, fix, literal []byte
	done, oldEnd      int
}

func (m *maker) run() {
	if len(m.old) >= seed {
		m.index = make(map[uint64]int32, len(m.old)/stride)
		for i := 0; i+seed <= len(m.old); i += stride {
			if k := key(m.old[i:]); m.index[k] == 0 { // the first place, so that it does not depend on what follows
				m.index[k] = int32(i + 1)
			}
		}
	}
	for at := 0; at+seed <= len(m.want); {
		from, ok := m.find(at)
		if !ok {
			at++
			continue
		}
		at = m.stretch(at, from)
	}
	m.op(len(m.want), 0, 0)
}

func key(b []byte) uint64 {
	return binary.LittleEndian.Uint64(b)*0x9e3779b97f4a7c15 ^ uint64(binary.LittleEndian.Uint32(b[8:]))*0xff51afd7ed558ccd
}

// find gives a place in old with the same bytes as at. Where the last stretch
// would go on is best: it needs the fewest bytes to be told.
func (m *maker) find(at int) (int, bool) {
	if next := m.oldEnd + at - m.done; next+seed <= len(m.old) && equal(m.old[next:], m.want[at:], seed) {
		return next, true
	}
	i := int(m.index[key(m.want[at:])]) - 1
	return i, i >= 0 && equal(m.old[i:], m.want[at:], seed)
}

func equal(a, b []byte, n int) bool { return string(a[:n]) == string(b[:n]) }

// stretch copies from old, from before at as far as bytes are equal, and on as
// long as at least half of what lies ahead is. It gives where it ends.
func (m *maker) stretch(at, from int) int {
	for at > m.done && from > 0 && m.want[at-1] == m.old[from-1] {
		at, from = at-1, from-1
	}
	end, score, best := 0, 0, 0
	for i := 0; at+i < len(m.want) && from+i < len(m.old); i++ {
		if m.want[at+i] == m.old[from+i] {
			score++
		} else {
			score--
		}
		if score >= best {
			best, end = score, i+1
		}
		if score < best-horizon/2 {
			break
		}
	}
	m.op(at, end, from)
	for i := range end {
		m.fix = append(m.fix, m.want[at+i]-m.old[from+i])
	}
	m.done, m.oldEnd = at+end, from+end
	return m.done
}

func (m *maker) op(at, n, from int) {
	m.literal = append(m.literal, m.want[m.done:at]...)
	m.ops = binary.AppendUvarint(m.ops, uint64(at-m.done))
	m.ops = binary.AppendUvarint(m.ops, uint64(n))
	m.ops = binary.AppendVarint(m.ops, int64(from-m.oldEnd))
}

var errBroken = errors.New("broken delta")

// Apply makes the file of at most limit bytes that a delta from old tells. It
// may be another one than was meant: whoever has its digest must compare.
func Apply(old, patch []byte, limit int) ([]byte, error) {
	limit = min(limit, MaxSize)
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderMaxMemory(2<<30))
	if err != nil {
		return nil, err
	}
	defer dec.Close()
	body, err := unpack(dec, patch, limit)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errBroken, err)
	}
	size, n := binary.Uvarint(body)
	if n <= 0 || size > uint64(limit) {
		return nil, fmt.Errorf("%w: it makes %d bytes, at most %d are taken", errBroken, size, limit)
	}
	body = body[n:]
	length, n := binary.Uvarint(body)
	if n <= 0 || length > uint64(len(body)-n) {
		return nil, errBroken
	}
	ops, rest := body[n:n+int(length)], body[n+int(length):]
	// What is corrected and what is told together are the file.
	if uint64(len(rest)) != size {
		return nil, errBroken
	}
	return play(old, ops, rest)
}

// unpack gives what a delta says, of which it first says how long it is.
func unpack(dec *zstd.Decoder, patch []byte, limit int) ([]byte, error) {
	size, n := binary.Uvarint(patch)
	// Ops are at most as long as what they make, and a few bytes more.
	if most := 2*limit + 64; n <= 0 || size > uint64(most) {
		return nil, fmt.Errorf("it unpacks to more than %d bytes", most)
	}
	return dec.DecodeAll(patch[n:], make([]byte, 0, size))
}

// play copies, corrects and inserts. all has the corrections and, behind
// them, the literals.
func play(old, ops, all []byte) ([]byte, error) {
	fixes, err := stretches(ops, len(all))
	if err != nil {
		return nil, err
	}
	fix, literal := all[:fixes], all[fixes:]
	out := make([]byte, 0, len(all))
	for at := 0; len(ops) > 0; {
		var op [3]int
		ops = next(ops, &op)
		tell, n := op[0], op[1]
		if at += op[2]; at < 0 || at > len(old) || n > len(old)-at || tell > len(literal) || n > len(fix) {
			return nil, errBroken
		}
		out = append(out, literal[:tell]...)
		for i := range n {
			out = append(out, old[at+i]+fix[i])
		}
		literal, fix, at = literal[tell:], fix[n:], at+n
	}
	if len(literal) > 0 || len(fix) > 0 {
		return nil, errBroken
	}
	return out, nil
}

// stretches adds up what is copied, and checks all numbers.
func stretches(ops []byte, most int) (sum int, err error) {
	for len(ops) > 0 {
		var op [3]int
		if ops = next(ops, &op); ops == nil || op[1] > most-sum {
			return 0, errBroken
		}
		sum += op[1]
	}
	return sum, nil
}

// next reads an op and gives what follows, nil if it is none.
func next(ops []byte, op *[3]int) []byte {
	for i := range op {
		var n int
		if i < 2 {
			var v uint64
			v, n = binary.Uvarint(ops)
			op[i] = int(min(v, MaxSize+1))
		} else {
			var v int64
			v, n = binary.Varint(ops)
			op[i] = int(max(min(v, MaxSize+1), -MaxSize-1))
		}
		if n <= 0 {
			return nil
		}
		ops = ops[n:]
	}
	return ops[:len(ops):len(ops)]
}
