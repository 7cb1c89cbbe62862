package squashfs

import (
	"errors"
	"fmt"
	"io"
)

// Xattr is an extended attribute. Capabilities are in security.capability.
type Xattr struct {
	Name  string
	Value []byte
}

// Bounds of one file's attributes, as Linux has them for names and values.
const (
	maxXattrs     = 4096
	maxXattrName  = 255
	maxXattrValue = 64 << 10
	maxXattrBytes = 1 << 20
	outOfLine     = 0x100
)

var xattrSpaces = [...]string{"user.", "trusted.", "security."}

// xattrTable reads where the sets of attributes lie.
func (x *expander) xattrTable() error {
	pos := x.im.sb.XattrTable
	x.sets = map[uint32][]Xattr{}
	if pos == absent {
		return nil
	}
	var h [16]byte
	if err := x.im.readAt(h[:], pos); err != nil {
		return err
	}
	count := u32(h[8:])
	if count == 0 {
		return nil
	}
	if count > maxXattrSets {
		return fmt.Errorf("squashfs: %d sets of attributes are too many, at most %d are read", count, maxXattrSets)
	}
	first, err := x.im.pointer("attribute table", pos+16, pos)
	if err != nil {
		return err
	}
	if x.values, x.valuesEnd = u64(h[:]), first; x.values > first {
		return errors.New("squashfs: attributes lie outside their table")
	}
	return x.im.pointed("attribute table", pos+16, pos, uint64(count), 16, func(b []byte) error {
		x.xattrs = append(x.xattrs, b...)
		return nil
	})
}

// set gives the attributes that an inode refers to. They are shared by all
// inodes with the same.
func (x *expander) set(i uint32) ([]Xattr, error) {
	if out, ok := x.sets[i]; ok {
		return out, nil
	}
	if uint64(i) >= uint64(len(x.xattrs)/16) {
		return nil, fmt.Errorf("squashfs: attribute set %d outside the table", i)
	}
	e := x.xattrs[i*16:]
	ref, count := u64(e), u32(e[8:])
	if count > maxXattrs {
		return nil, fmt.Errorf("squashfs: %d attributes of one file, at most %d are taken", count, maxXattrs)
	}
	c := x.im.table(x.values, x.valuesEnd)
	if err := c.seek(ref>>16, int(ref&0xffff)); err != nil {
		return nil, err
	}
	out, total := make([]Xattr, 0, min(count, 16)), 0
	for range count {
		a, err := x.xattr(c)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = errors.New("squashfs: attributes reach beyond their table")
		}
		if err != nil {
			return nil, err
		}
		if total += len(a.Name) + len(a.Value); total > maxXattrBytes {
			return nil, fmt.Errorf("squashfs: the attributes of a file have more than %d bytes", maxXattrBytes)
		}
		out = append(out, a)
	}
	if len(x.sets) >= 4096 { // bounds the memory for them, and few images have as many
		clear(x.sets)
	}
	x.sets[i] = out
	return out, nil
}

// xattr reads one, whose value may lie elsewhere.
func (x *expander) xattr(c *cursor) (Xattr, error) {
	var h [4]byte
	if err := c.read(h[:]); err != nil {
		return Xattr{}, err
	}
	space, size := u16(h[:]), u16(h[2:])
	if int(space&0xff) >= len(xattrSpaces) || size == 0 || size > maxXattrName {
		return Xattr{}, fmt.Errorf("squashfs: attribute of name space %d with a name of %d bytes", space, size)
	}
	name := make([]byte, size)
	if err := c.read(name); err != nil {
		return Xattr{}, err
	}
	value, err := c.value()
	if err == nil && space&outOfLine != 0 {
		if len(value) != 8 {
			return Xattr{}, errors.New("squashfs: broken reference to an attribute's value")
		}
		far := x.im.table(x.values, x.valuesEnd)
		if err := far.seek(u64(value)>>16, int(u64(value)&0xffff)); err != nil {
			return Xattr{}, err
		}
		value, err = far.value()
	}
	return Xattr{xattrSpaces[space&0xff] + string(name), value}, err
}

func (c *cursor) value() ([]byte, error) {
	var h [4]byte
	if err := c.read(h[:]); err != nil {
		return nil, err
	}
	size := u32(h[:])
	if size > maxXattrValue {
		return nil, fmt.Errorf("squashfs: attribute of %s bytes, at most %d are taken", grouped(uint64(size)), maxXattrValue)
	}
	value := make([]byte, size)
	return value, c.read(value)
}
