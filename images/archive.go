package images

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"regexp"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// maxWindow is the memory in bytes that a .tar.zst may demand: that of zstd's
// highest level.
const maxWindow = 128 << 20

// headSize is enough for the extended header that may come before the first
// entry.
const headSize = 64 << 10

// archive is a source file, with the first bytes of what is in it.
type archive struct {
	file        *os.File
	size        int64
	compression string // "", "gzip", "zstd" or "xz"
	head        []byte // at most headSize bytes, decompressed
}

func openArchive(name string) (*archive, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	a := &archive{file: f}
	if err := a.examine(); err != nil {
		f.Close()
		return nil, err
	}
	return a, nil
}

func (a *archive) Close() error { return a.file.Close() }

func (a *archive) examine() error {
	st, err := a.file.Stat()
	if err != nil {
		return err
	}
	a.size = st.Size()
	var magic [6]byte
	n, err := a.file.ReadAt(magic[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	for name, start := range map[string]string{"gzip": "\x1f\x8b", "zstd": "\x28\xb5\x2f\xfd", "xz": "\xfd7zXZ\x00"} {
		if bytes.HasPrefix(magic[:n], []byte(start)) {
			a.compression = name
		}
	}
	r, err := a.open(context.Background(), func(int64, int64) {})
	if err != nil {
		return err
	}
	defer r.Close()
	a.head = make([]byte, headSize)
	n, err = io.ReadFull(r, a.head)
	a.head = a.head[:n]
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%s: %w", a.compression, err)
	}
	return nil
}

// open reads the archive from its beginning, decompressed. It must not be
// read through two of these at once.
func (a *archive) open(ctx context.Context, progress Progress) (io.ReadCloser, error) {
	counted := &progressReader{ctx: ctx, r: io.NewSectionReader(a.file, 0, a.size), total: a.size, report: progress}
	in := bufio.NewReaderSize(counted, 1<<20)
	switch a.compression {
	case "gzip":
		return gzip.NewReader(in)
	case "zstd":
		d, err := zstd.NewReader(in, zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	case "xz":
		r, err := xz.NewReader(in)
		return io.NopCloser(r), err
	}
	return io.NopCloser(in), nil
}

// isTar says whether a file's head is a header of a tar archive.
func isTar(head []byte) bool {
	_, err := tar.NewReader(bytes.NewReader(head)).Next()
	return err == nil || (len(head) >= 512 && bytes.Equal(head[257:262], []byte("ustar")))
}

var imageFile = regexp.MustCompile(`^(blobs|oci-layout|index\.json|manifest\.json|repositories|(sha256:)?[0-9a-f]{64}(\.json|\.tar(\.gz)?)?)$`)

// isImageArchive says whether a tar archive is a container image rather than
// a root file system, by the first name in it: what writes such archives
// begins with a digest or with blobs, and no root has those.
func isImageArchive(head []byte) bool {
	h, err := tar.NewReader(bytes.NewReader(head)).Next()
	if err != nil {
		return false
	}
	name := path.Clean("/" + h.Name)[1:]
	first := name
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		first = dir
	}
	return imageFile.MatchString(first)
}

// tar makes the image from a root file system in an archive.
func (j *job) tar(ctx context.Context, a *archive) error {
	root, err := rootEntry(a.head)
	if err != nil {
		return err
	}
	return j.stream(ctx, root, func(e *emitter) error {
		r, err := a.open(ctx, j.progress)
		if err != nil {
			return err
		}
		defer r.Close()
		in := tar.NewReader(r)
		for {
			h, err := in.Next()
			if errors.Is(err, io.EOF) {
				// What follows the end mark is read too, for the checksums
				// of the compressed stream.
				if _, err = io.Copy(io.Discard, r); err == nil {
					return nil
				}
			}
			if errors.Is(err, io.ErrUnexpectedEOF) {
				return errors.New("the archive is truncated")
			}
			if err != nil {
				return fmt.Errorf("the archive is broken: %w", err)
			}
			if err := e.put(h, in); err != nil {
				return err
			}
		}
	})
}

// rootEntry gives the root directory's owner and mode from the archive's first
// entry, where tar puts it.
func rootEntry(head []byte) (owner, error) {
	h, err := tar.NewReader(bytes.NewReader(head)).Next()
	if err != nil || h.Typeflag != tar.TypeDir {
		return plainRoot(), nil
	}
	name, err := cleanName(h.Name)
	if err != nil || name != "." {
		return plainRoot(), err
	}
	return owner{h.Mode, h.Uid, h.Gid, clampTime(h.ModTime).Unix()}, nil
}
