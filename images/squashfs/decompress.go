package squashfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	"muster/shared/unxz"
)

// ErrNoDecompressor says that this program cannot decompress the image,
// which says nothing against the image.
var ErrNoDecompressor = errors.New("squashfs: this program cannot decompress the image")

// decompressor decompresses src into the space of dst, from its start up to
// its capacity; more output than that is an error.
type decompressor func(dst, src []byte) ([]byte, error)

func newDecompressor(c Compressor) (decompressor, error) {
	switch c {
	case Gzip:
		return inflate(), nil
	case XZ:
		return unpackXZ, nil
	case LZ4:
		return func(dst, src []byte) ([]byte, error) {
			n, err := lz4.UncompressBlock(src, dst[:cap(dst)])
			return dst[:max(n, 0)], err
		}, nil
	case Zstd:
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderMaxMemory(8<<20))
		if err != nil {
			return nil, fmt.Errorf("squashfs: %w", err)
		}
		return func(dst, src []byte) ([]byte, error) { return d.DecodeAll(src, dst[:0]) }, nil
	}
	return nil, fmt.Errorf("%w: %s", ErrNoDecompressor, c)
}

func inflate() decompressor {
	// Both are kept: new ones for each 8 KiB would cost more than the work.
	var z io.ReadCloser
	var out bytes.Buffer
	return func(dst, src []byte) (_ []byte, err error) {
		if z == nil {
			z, err = zlib.NewReader(bytes.NewReader(src))
		} else {
			err = z.(zlib.Resetter).Reset(bytes.NewReader(src), nil)
		}
		if err != nil {
			return nil, err
		}
		out.Reset()
		n, err := out.ReadFrom(io.LimitReader(z, int64(cap(dst))+1))
		if err != nil {
			return nil, err
		}
		if n > int64(cap(dst)) {
			return nil, fmt.Errorf("more than %d bytes", cap(dst))
		}
		return append(dst[:0], out.Bytes()...), nil
	}
}

func unpackXZ(dst, src []byte) ([]byte, error) {
	out, err := unxz.Decode(src, int64(cap(dst)), 1<<20)
	if errors.Is(err, unxz.ErrFilter) {
		return nil, fmt.Errorf("%w: %w", ErrNoDecompressor, err)
	}
	if err != nil {
		return nil, err
	}
	return append(dst[:0], out...), nil
}
