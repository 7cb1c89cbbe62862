// Package initramfs builds the archives that the kernel unpacks at boot: one
// with the agent, and one with kernel modules, so that a new agent does not
// need to be packed again for every kernel.
//
// An archive is a cpio in the "newc" format, one zstd frame, padded with
// zeros to four bytes: the kernel unpacks any number of such archives one
// behind the other (Documentation/driver-api/early-userspace/buffer-format).
// The same input gives the same bytes. The package builds archives and must
// not know who asks for them or how they reach a machine.
package initramfs

import (
	"bytes"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/u-root/u-root/pkg/cpio"
)

// window bounds what the kernel must allocate to decompress, in bytes.
const window = 8 << 20

// archive writes records in the order in which they are added; the caller
// adds them in a fixed order.
type archive struct {
	out  *counter
	zstd *zstd.Encoder
	cpio cpio.RecordWriter
	dirs map[string]bool
	raw  int64 // bytes of files
}

func newArchive(w io.Writer) (*archive, error) {
	out := &counter{w: w}
	z, err := zstd.NewWriter(out, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithWindowSize(window))
	if err != nil {
		return nil, fmt.Errorf("initramfs: %w", err)
	}
	return &archive{out: out, zstd: z, cpio: cpio.Newc.Writer(z), dirs: map[string]bool{".": true}}, nil
}

// add writes records, each after the directories above it that were not
// written yet.
func (a *archive) add(records ...cpio.Record) error {
	for _, r := range records {
		if err := a.parents(r.Name); err != nil {
			return err
		}
		if r.Mode&cpio.S_IFMT == cpio.S_IFDIR {
			a.dirs[r.Name] = true
		}
		a.raw += int64(r.FileSize)
		if err := a.cpio.WriteRecord(cpio.MakeReproducible(r)); err != nil {
			return fmt.Errorf("initramfs: %s: %w", r.Name, err)
		}
	}
	return nil
}

func (a *archive) parents(name string) error {
	dir := path.Dir(name)
	if a.dirs[dir] {
		return nil
	}
	return a.add(cpio.Directory(dir, 0o755))
}

// file adds a regular file.
func (a *archive) file(name string, data []byte, perm uint64) error {
	r := cpio.StaticRecord(data, cpio.Info{Name: name, Mode: cpio.S_IFREG | perm})
	r.ReaderAt = bytes.NewReader(data)
	return a.add(r)
}

// close ends the archive; without it what was written is not one.
func (a *archive) close() error {
	if err := cpio.WriteTrailer(a.cpio); err != nil {
		return fmt.Errorf("initramfs: %w", err)
	}
	if err := a.zstd.Close(); err != nil {
		return fmt.Errorf("initramfs: %w", err)
	}
	_, err := io.WriteString(a.out, strings.Repeat("\x00", int(-a.out.n&3)))
	return err
}

// counter counts what passes, for the padding.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
