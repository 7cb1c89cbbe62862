// Package unxz decodes one small .xz file from memory with bounds on what it
// may produce and allocate: a kernel module, a block of a squashfs.
//
// The decoder underneath allocates whatever dictionary a block header asks
// for, up to 4 GiB, so that header is examined first. The package must not be
// used for streams of unknown length; those come from the admin's own disk
// and have no need of it.
package unxz

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"
)

// ErrFilter says that the data needs a filter (such as x86 BCJ) which the
// decoder does not have; the data itself may be sound.
var ErrFilter = errors.New("xz: a filter other than LZMA2 is needed, which is not supported")

// ErrTooLarge says that the output is larger than the caller allowed.
var ErrTooLarge = errors.New("xz: decompressed data is larger than allowed")

const (
	streamHeaderSize = 12
	filterLZMA2      = 0x21
)

// Decode gives what src decompresses to. It fails with ErrTooLarge beyond
// maxOut bytes, and refuses dictionaries of more than maxDict bytes.
func Decode(src []byte, maxOut, maxDict int64) ([]byte, error) {
	if err := examine(src, maxDict); err != nil {
		return nil, err
	}
	r, err := xz.ReaderConfig{DictCap: lzma.MinDictCap}.NewReader(bytes.NewReader(src))
	if err != nil {
		return nil, err
	}
	out, err := io.ReadAll(io.LimitReader(r, maxOut+1))
	if err != nil {
		return nil, err
	}
	if int64(len(out)) > maxOut {
		return nil, ErrTooLarge
	}
	return out, nil
}

// examine looks at every place where a block header can be: headers are
// aligned to four bytes and carry a CRC-32 of themselves, so that what is
// taken for one is one.
func examine(src []byte, maxDict int64) error {
	for i := streamHeaderSize; i < len(src); i += 4 {
		size := (int(src[i]) + 1) * 4
		if src[i] == 0 || i+size > len(src) {
			continue
		}
		header := src[i : i+size]
		if header[1]&0x3c != 0 { // reserved bits; cheaper to see than a checksum
			continue
		}
		sum := binary.LittleEndian.Uint32(header[size-4:])
		if crc32.ChecksumIEEE(header[:size-4]) != sum {
			continue
		}
		if err := examineHeader(header[:size-4], maxDict); err != nil {
			return err
		}
	}
	return nil
}

// examineHeader walks the filters of one block header (xz file format 3.1).
func examineHeader(h []byte, maxDict int64) error {
	flags, rest := h[1], h[2:]
	for _, bit := range []byte{0x40, 0x80} { // the two optional sizes
		if flags&bit != 0 {
			_, n := binary.Uvarint(rest)
			if n <= 0 {
				return fmt.Errorf("xz: block header is broken")
			}
			rest = rest[n:]
		}
	}
	for range int(flags&3) + 1 {
		id, n := binary.Uvarint(rest)
		if n <= 0 || n >= len(rest) {
			return fmt.Errorf("xz: block header is broken")
		}
		props := int(rest[n])
		rest = rest[n+1:]
		if props > len(rest) {
			return fmt.Errorf("xz: block header is broken")
		}
		if id != filterLZMA2 {
			return ErrFilter
		}
		if props != 1 {
			return fmt.Errorf("xz: LZMA2 filter has %d bytes of properties, not 1", props)
		}
		dict, err := lzma.DecodeDictCap(rest[0])
		if err != nil {
			return fmt.Errorf("xz: %w", err)
		}
		if dict > maxDict {
			return fmt.Errorf("xz: dictionary of %d bytes, at most %d are allowed", dict, maxDict)
		}
		rest = rest[props:]
	}
	return nil
}
