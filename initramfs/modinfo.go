package initramfs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// modinfo is what a module says of itself, as far as it matters here.
type modinfo struct {
	depends  []string // must be loaded before, as file names say it
	softdeps []string // are better loaded before
	aliases  []string
	firmware []string
	release  string // of the kernel that it was built for
}

// maxModinfo bounds the section in bytes; the largest in Debian's kernel have
// some 60 KiB, all of it aliases.
const maxModinfo = 4 << 20

var errNoModule = errors.New("not a kernel module")

// parseModinfo reads the .modinfo section of a module: strings "key=value",
// each ended by a zero byte.
func parseModinfo(module []byte) (modinfo, error) {
	section, err := findSection(module, ".modinfo")
	if err != nil {
		return modinfo{}, err
	}
	if len(section) > maxModinfo {
		return modinfo{}, fmt.Errorf("its .modinfo section has %d bytes, at most %d are read", len(section), maxModinfo)
	}
	var info modinfo
	for line := range strings.SplitSeq(string(section), "\x00") {
		key, value, _ := strings.Cut(line, "=")
		switch key {
		case "depends":
			info.depends = append(info.depends, strings.FieldsFunc(value, func(r rune) bool { return r == ',' })...)
		case "softdep":
			info.softdeps = append(info.softdeps, softdepsBefore(value)...)
		case "alias":
			info.aliases = append(info.aliases, value)
		case "firmware":
			info.firmware = append(info.firmware, value)
		case "vermagic":
			info.release, _, _ = strings.Cut(value, " ")
		}
	}
	if info.release == "" {
		return info, fmt.Errorf("%w: it does not say for which kernel it was built (no vermagic)", errNoModule)
	}
	return info, nil
}

// softdepsBefore gives the names after "pre:" of a softdep, which has the form
// "pre: a b post: c".
func softdepsBefore(value string) []string {
	var names []string
	pre := false
	for _, f := range strings.Fields(value) {
		switch f {
		case "pre:":
			pre = true
		case "post:":
			pre = false
		default:
			if pre {
				names = append(names, f)
			}
		}
	}
	return names
}

// elfLayout is where an ELF file of one class keeps what is needed here.
type elfLayout struct {
	order binary.ByteOrder
	shoff int // place of e_shoff in the file's header
	shent int // place of e_shentsize; e_shnum and e_shstrndx follow
	entry int // size of a section header
	place int // of sh_offset in that; sh_size follows
	word  int // size of an offset
}

func layout(b []byte) (elfLayout, error) {
	l := elfLayout{shoff: 40, shent: 58, entry: 64, place: 24, word: 8}
	if len(b) < 64 || string(b[:4]) != "\x7fELF" {
		return l, errNoModule
	}
	switch b[4] {
	case 2:
	case 1:
		l = elfLayout{shoff: 32, shent: 46, entry: 40, place: 16, word: 4}
	default:
		return l, fmt.Errorf("%w: ELF class %d", errNoModule, b[4])
	}
	switch b[5] {
	case 1:
		l.order = binary.LittleEndian
	case 2:
		l.order = binary.BigEndian
	default:
		return l, fmt.Errorf("%w: ELF byte order %d", errNoModule, b[5])
	}
	return l, nil
}

// number reads an offset or a size.
func (l elfLayout) number(b []byte) uint64 {
	if l.word == 8 {
		return l.order.Uint64(b)
	}
	return uint64(l.order.Uint32(b))
}

// findSection gives a section's bytes, in place. It reads just enough of ELF
// to be sure of its bounds whatever the file says: modules come from outside.
func findSection(b []byte, name string) ([]byte, error) {
	l, err := layout(b)
	if err != nil {
		return nil, err
	}
	at, size := l.number(b[l.shoff:]), int(l.order.Uint16(b[l.shent:]))
	count, names := int(l.order.Uint16(b[l.shent+2:])), int(l.order.Uint16(b[l.shent+4:]))
	if size != l.entry || names >= count {
		return nil, fmt.Errorf("%w: %d section headers of %d bytes", errNoModule, count, size)
	}
	table, err := within(b, at, uint64(count*size))
	if err != nil {
		return nil, fmt.Errorf("section headers: %w", err)
	}
	section := func(i int) ([]byte, error) {
		h := table[i*size+l.place:]
		return within(b, l.number(h), l.number(h[l.word:]))
	}
	strs, err := section(names)
	if err != nil {
		return nil, fmt.Errorf("section names: %w", err)
	}
	want := append([]byte(name), 0)
	for i := range count {
		start := uint64(l.order.Uint32(table[i*size:]))
		if start < uint64(len(strs)) && bytes.HasPrefix(strs[start:], want) {
			return section(i)
		}
	}
	return nil, fmt.Errorf("%w: it has no section %s", errNoModule, name)
}

// within gives size bytes of b from at.
func within(b []byte, at, size uint64) ([]byte, error) {
	if at > uint64(len(b)) || size > uint64(len(b))-at {
		return nil, fmt.Errorf("truncated: %d bytes at %d, the file has %d", size, at, len(b))
	}
	return b[at : at+size], nil
}
