// Package iso9660 reads files out of an ISO image in place, without mounting
// it: ISO 9660 (ECMA-119) with the names of Rock Ridge (IEEE P1282) or Joliet
// where an image has them.
//
// Images come from strangers. Whatever one says is checked against the size of
// the file, every walk has a bound, and a damaged image is an error, never a
// panic or an endless loop. The package writes nothing and knows nothing of
// what the files are for.
package iso9660

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Sizes that the standard fixes, in bytes.
const (
	sector      = 2048
	systemArea  = 16 * sector
	descriptors = 64 // at most looked at; real images have two to four
)

// The naming schemes.
type naming int

const (
	plain naming = iota
	joliet
	rockRidge
)

// Image is an open image. Its methods may be called at the same time.
type Image struct {
	r      io.ReaderAt
	size   int64
	block  int64 // bytes
	naming naming
	skip   int // bytes before the entries of each system use field
	root   Entry
}

// ErrFormat is what is wrong with an image is based on.
var ErrFormat = errors.New("not a sound ISO 9660 image")

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrFormat}, args...)...)
}

// Open reads the descriptors of an image of so many bytes. An image that is
// shorter than it says itself is refused.
func Open(r io.ReaderAt, size int64) (*Image, error) {
	img := &Image{r: r, size: size}
	primary, supplementary, err := img.descriptors()
	if err != nil {
		return nil, err
	}
	if err := img.use(primary, plain); err != nil {
		return nil, err
	}
	if img.rockRidge() {
		img.naming = rockRidge
	} else if supplementary != nil {
		if err := img.use(supplementary, joliet); err != nil {
			return nil, err
		}
	}
	return img, nil
}

// descriptors gives the primary and, where there is one, the Joliet descriptor.
func (i *Image) descriptors() (primary, supplementary []byte, err error) {
	for n := range int64(descriptors) {
		d := make([]byte, sector)
		if _, err := i.r.ReadAt(d, systemArea+n*sector); err != nil {
			if primary == nil {
				return nil, nil, damaged("its descriptors cannot be read: %v", err)
			}
			return primary, supplementary, nil
		}
		if string(d[1:6]) != "CD001" {
			if primary == nil {
				return nil, nil, damaged("it has no volume descriptor")
			}
			return primary, supplementary, nil
		}
		switch kind := d[0]; {
		case kind == 255:
			if primary == nil {
				return nil, nil, damaged("it has no primary volume descriptor")
			}
			return primary, supplementary, nil
		case kind == 1 && primary == nil:
			primary = d
		case kind == 2 && supplementary == nil && slices.Contains([]string{"%/@", "%/C", "%/E"}, string(d[88:91])):
			supplementary = d
		}
	}
	if primary == nil {
		return nil, nil, damaged("it has no primary volume descriptor")
	}
	return primary, supplementary, nil
}

// use takes block size, length and root directory from a descriptor.
func (i *Image) use(d []byte, names naming) error {
	block := int64(binary.LittleEndian.Uint16(d[128:]))
	blocks := int64(binary.LittleEndian.Uint32(d[80:]))
	switch block {
	case 512, 1024, 2048:
	default:
		return damaged("its blocks have %d bytes", block)
	}
	if want := blocks * block; want > i.size {
		return damaged("it is cut off: its header says %d bytes, the file has %d", want, i.size)
	}
	i.block, i.naming = block, names
	rec, err := parseRecord(d[156:190])
	if err != nil {
		return err
	}
	if !rec.dir() {
		return damaged("its root is no directory")
	}
	i.root = Entry{Dir: true, Time: rec.time, Size: rec.size, extents: []extent{i.extent(rec)}}
	return i.within(i.root.extents)
}

// extent is a run of bytes in the image.
type extent struct{ start, size int64 }

func (i *Image) extent(rec record) extent {
	return extent{(int64(rec.location) + int64(rec.attributes)) * i.block, rec.size}
}

// within says whether the extents lie in the file.
func (i *Image) within(all []extent) error {
	for _, e := range all {
		if e.start < 0 || e.size < 0 || e.start > i.size || e.size > i.size-e.start {
			return damaged("%d bytes at %d lie beyond its end at %d", e.size, e.start, i.size)
		}
	}
	return nil
}

// Content gives a file's bytes. It reads from the image as they are asked for.
func (i *Image) Content(e Entry) (*io.SectionReader, error) {
	switch {
	case e.Dir:
		return nil, fmt.Errorf("%s is a directory", e.Name)
	case e.odd != "":
		return nil, fmt.Errorf("%s is %s, which this program does not read", e.Name, e.odd)
	}
	if err := i.within(e.extents); err != nil {
		return nil, err
	}
	return i.reader(e), nil
}

func (i *Image) reader(e Entry) *io.SectionReader {
	if len(e.extents) == 1 {
		return io.NewSectionReader(i.r, e.extents[0].start, e.extents[0].size)
	}
	return io.NewSectionReader(&pieces{i.r, e.extents}, 0, e.Size)
}

// pieces reads extents one behind the other: files of 4 GiB and more.
type pieces struct {
	r   io.ReaderAt
	all []extent
}

// ReadAt implements io.ReaderAt.
func (p *pieces) ReadAt(buf []byte, off int64) (n int, err error) {
	for _, e := range p.all {
		if off >= e.size {
			off -= e.size
			continue
		}
		part := buf[n:min(int64(len(buf)), int64(n)+e.size-off)]
		got, err := p.r.ReadAt(part, e.start+off)
		n += got
		if got < len(part) {
			return n, err
		}
		if n == len(buf) {
			return n, nil
		}
		off = 0
	}
	return n, io.EOF
}
