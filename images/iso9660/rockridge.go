package iso9660

import "encoding/binary"

// Bounds on the fields that belong to one record. The longest name of a file
// system has 255 bytes, the longest link 4095.
const (
	maxAreas  = 16 // continuation areas
	maxName   = 1024
	maxTarget = 4096
)

// extra is what Rock Ridge says of a file beyond its record.
type extra struct {
	name      string
	target    string // of a symbolic link
	link      bool
	child     uint32 // block of the directory that this stands for
	hasChild  bool
	relocated bool // shown elsewhere, by its child link
	posix     bool
	odd       string
}

// rockRidge says whether the root directory announces it, and learns how far
// its fields are shifted.
func (i *Image) rockRidge() bool {
	buf := make([]byte, 255)
	n, _ := i.r.ReadAt(buf, i.root.extents[0].start)
	if n < 1 || int(buf[0]) > n {
		return false
	}
	rec, err := parseRecord(buf[:buf[0]])
	if err != nil || len(rec.use) < 7 || string(rec.use[:2]) != "SP" || rec.use[4] != 0xbe || rec.use[5] != 0xef {
		return false
	}
	x, err := i.extra(rec.use)
	if err != nil {
		return false
	}
	i.skip = int(rec.use[6])
	return x.posix
}

// extra reads the entries of a system use field and of the areas that go on
// with it (IEEE P1281 and P1282).
func (i *Image) extra(use []byte) (x extra, err error) {
	var link linkReader
	for area := 0; ; area++ {
		next, err := i.entries(use, &x, &link)
		if err != nil || next == nil {
			x.target = string(link.text)
			return x, err
		}
		if area == maxAreas {
			return x, damaged("the fields of a file go on in more than %d places", maxAreas)
		}
		if use, err = i.area(next); err != nil {
			return x, err
		}
	}
}

// area reads the continuation area that a CE entry names. It lies in one block.
func (i *Image) area(ce []byte) ([]byte, error) {
	start := int64(binary.LittleEndian.Uint32(ce[4:]))*i.block + int64(binary.LittleEndian.Uint32(ce[12:]))
	size := int64(binary.LittleEndian.Uint32(ce[20:]))
	if size > 2*sector {
		return nil, damaged("a continuation area has %d bytes", size)
	}
	if err := i.within([]extent{{start, size}}); err != nil {
		return nil, err
	}
	buf := make([]byte, size)
	_, err := i.r.ReadAt(buf, start)
	return buf, err
}

// entries reads one area, and gives the CE entry that names the next.
func (i *Image) entries(use []byte, x *extra, link *linkReader) (next []byte, err error) {
	for len(use) >= 4 {
		size := int(use[2])
		if size < 4 || size > len(use) {
			return next, nil // padding
		}
		e := use[:size]
		use = use[size:]
		switch tag := string(e[:2]); {
		case tag == "ST":
			return next, nil
		case tag == "CE" && size >= 28:
			next = e
		case tag == "PX":
			x.posix = true
		case tag == "NM" && size >= 5:
			if e[4]&6 == 0 { // not "." or ".."
				x.name += string(e[5:])
			}
			if len(x.name) > maxName {
				return nil, damaged("a name has more than %d bytes", maxName)
			}
		case tag == "SL" && size >= 5:
			x.link = true
			if err := link.add(e[5:]); err != nil {
				return nil, err
			}
		case tag == "CL" && size >= 8:
			x.child, x.hasChild = binary.LittleEndian.Uint32(e[4:]), true
		case tag == "RE":
			x.relocated = true
		case tag == "ZF":
			x.odd = "compressed (zisofs)"
		}
	}
	return next, nil
}

// linkReader puts a link's target together from its components.
type linkReader struct {
	text []byte
	open bool // the last component goes on
}

// The flags of a component.
const (
	componentMore = 1 << iota
	componentHere
	componentUp
	componentRoot
)

func (l *linkReader) add(b []byte) error {
	for len(b) >= 2 {
		flags, size := b[0], int(b[1])
		if 2+size > len(b) {
			return damaged("a part of a link is cut off")
		}
		if n := len(l.text); n > 0 && !l.open && l.text[n-1] != '/' {
			l.text = append(l.text, '/')
		}
		switch {
		case flags&componentHere != 0:
			l.text = append(l.text, '.')
		case flags&componentUp != 0:
			l.text = append(l.text, ".."...)
		case flags&componentRoot != 0:
			l.text = append(l.text[:0], '/')
		default:
			l.text = append(l.text, b[2:2+size]...)
		}
		l.open = flags&componentMore != 0
		if len(l.text) > maxTarget {
			return damaged("a link has more than %d bytes", maxTarget)
		}
		b = b[2+size:]
	}
	return nil
}
