package dns

import (
	"net/netip"
	"strings"
)

// Names are kept as they are on the wire, in lower case: labels with their
// lengths before them and an empty one at the end (RFC 1035 section 3.1).

// maxName is the longest name on the wire, in bytes.
const maxName = 255

// wireName gives a dotted name in that form; ok is false for one that DNS
// cannot hold.
func wireName(name string) (wire string, ok bool) {
	name = strings.TrimSuffix(name, ".")
	if name == "" || len(name) > maxName-2 {
		return "", false
	}
	out := make([]byte, 0, len(name)+2)
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 {
			return "", false
		}
		out = append(out, byte(len(label)))
		for i := range len(label) {
			out = append(out, lower(label[i]))
		}
	}
	return string(append(out, 0)), true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// parent gives the name without its first label, and how long that was.
func parent(wire string) (rest string, skipped int) {
	if wire[0] == 0 {
		return wire, 0
	}
	skipped = 1 + int(wire[0])
	return wire[skipped:], skipped
}

// labels counts the labels of a name, the empty one aside.
func labels(wire string) (n int) {
	for wire[0] != 0 {
		wire, _ = parent(wire)
		n++
	}
	return n
}

// The trees of reverse names, and how many bits each of their labels stands for.
const (
	tree4, step4 = "\x07in-addr\x04arpa\x00", 8
	tree6, step6 = "\x03ip6\x04arpa\x00", 4
)

// reverseName is the name that an address has a PTR record at.
func reverseName(a netip.Addr) string {
	var out []byte
	b := a.AsSlice()
	if a.Is4() {
		for i := len(b) - 1; i >= 0; i-- {
			out = appendDecimal(out, b[i])
		}
		return string(out) + tree4
	}
	const hex = "0123456789abcdef"
	for i := len(b) - 1; i >= 0; i-- {
		out = append(out, 1, hex[b[i]&15], 1, hex[b[i]>>4])
	}
	return string(out) + tree6
}

func appendDecimal(out []byte, n byte) []byte {
	digits := []byte{'0' + n/100, '0' + n/10%10, '0' + n%10}
	for len(digits) > 1 && digits[0] == '0' {
		digits = digits[1:]
	}
	return append(append(out, byte(len(digits))), digits...)
}

// reverse is what a name in a reverse tree stands for: a whole address, or
// those that begin alike.
type reverse struct {
	prefix netip.Prefix
	step   int  // bits per label
	below  bool // the name has labels before those of a whole address
}

// parseReverse reads a name in a reverse tree.
func parseReverse(wire string) (r reverse, ok bool) {
	var parts []string
	tree := wire
	for tree != tree4 && tree != tree6 {
		if tree[0] == 0 {
			return r, false
		}
		rest, n := parent(tree)
		parts = append(parts, tree[1:n])
		tree = rest
	}
	var b [16]byte
	bits := 128
	r.step = step6
	if tree == tree4 {
		r.step, bits = step4, 32
	}
	if extra := len(parts) - bits/r.step; extra > 0 {
		parts, r.below = parts[extra:], true
	}
	for i := range parts {
		v, good := labelValue(parts[len(parts)-1-i], r.step)
		if !good {
			return r, false
		}
		at := i * r.step
		b[at/8] |= v << (8 - r.step - at%8)
	}
	a := netip.AddrFrom16(b)
	if r.step == step4 {
		a = netip.AddrFrom4([4]byte(b[:4]))
	}
	r.prefix = netip.PrefixFrom(a, len(parts)*r.step)
	return r, true
}

// labelValue reads a label of a reverse name: a byte in decimal, or half a one
// in hexadecimal.
func labelValue(label string, step int) (byte, bool) {
	if step == step6 {
		i := strings.IndexByte("0123456789abcdef", label[0])
		return byte(i), len(label) == 1 && i >= 0
	}
	n := 0
	for i := range len(label) {
		if label[i] < '0' || label[i] > '9' || len(label) > 3 || i > 0 && label[0] == '0' {
			return 0, false
		}
		n = n*10 + int(label[i]-'0')
	}
	return byte(n), n < 256
}
