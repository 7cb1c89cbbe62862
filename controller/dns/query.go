package dns

import (
	"encoding/binary"

	"github.com/miekg/dns"
)

const (
	headerSize = 12
	maxUDP     = 1232 // bytes of an answer by UDP: what every path carries whole (DNS flag day 2020)
	minUDP     = 512  // bytes that every client takes (RFC 1035)
	maxQuery   = 4096 // bytes of a query
	maxExtra   = 4    // records after the question
	optSize    = 11   // bytes of an OPT record without options
)

// query is what was asked. It points into the packet that it was read from.
type query struct {
	raw   []byte
	end   int // of the question in raw
	buf   [maxName]byte
	size  int    // of the name in buf
	typ   uint16 // 0: the question could not be read
	class uint16
	edns  bool
	do    bool // DNSSEC records are wanted
	limit int  // bytes that the answer may have
}

// name is the name asked for, in lower case. It is valid as long as q is.
func (q *query) name() []byte { return q.buf[:q.size] }

func (q *query) recursion() bool { return q.raw[2]&1 != 0 }
func (q *query) authentic() bool { return q.raw[3]&0x20 != 0 } // AD: the asker understands it
func (q *query) unchecked() bool { return q.raw[3]&0x10 != 0 } // CD

// silent is the verdict about what gets no answer at all.
const silent = -1

// parse reads a packet. rcode is silent, or the error to answer, or success.
func (q *query) parse(raw []byte, udp bool) (rcode int) {
	q.raw, q.end, q.typ, q.edns, q.do = raw, headerSize, 0, false, false
	q.limit = minUDP
	if !udp {
		q.limit = dns.MaxMsgSize
	}
	if len(raw) < headerSize || raw[2]&0x80 != 0 { // too short to answer, or an answer itself
		return silent
	}
	if raw[2]&0x78 != 0 { // opcode
		return dns.RcodeNotImplemented
	}
	count := func(at int) int { return int(binary.BigEndian.Uint16(raw[at:])) }
	if len(raw) > maxQuery || raw[2]&2 != 0 || count(4) != 1 || count(6) != 0 || count(8)+count(10) > maxExtra {
		return dns.RcodeFormatError
	}
	if !q.question() {
		return dns.RcodeFormatError
	}
	return q.extra(q.end, count(8)+count(10), udp)
}

// question reads the name, type and class. A name in a question is never
// compressed: there is nothing before it to point to.
func (q *query) question() bool {
	at, n := headerSize, 0
	for {
		if at >= len(q.raw) {
			return false
		}
		l := int(q.raw[at])
		if l > 63 || n+l+1 > maxName || at+1+l > len(q.raw) {
			return false
		}
		q.buf[n] = byte(l)
		for i := 1; i <= l; i++ {
			q.buf[n+i] = lower(q.raw[at+i])
		}
		n, at = n+l+1, at+l+1
		if l == 0 {
			break
		}
	}
	if at+4 > len(q.raw) {
		return false
	}
	q.size, q.end = n, at+4
	q.typ, q.class = binary.BigEndian.Uint16(q.raw[at:]), binary.BigEndian.Uint16(q.raw[at+2:])
	return q.typ != 0
}

// extra reads the records after the question, of which only OPT (RFC 6891) matters.
func (q *query) extra(at, count int, udp bool) (rcode int) {
	for range count {
		next := skipName(q.raw, at)
		if next < 0 || next+10 > len(q.raw) {
			return dns.RcodeFormatError
		}
		typ, size, ttl := binary.BigEndian.Uint16(q.raw[next:]), int(binary.BigEndian.Uint16(q.raw[next+2:])), q.raw[next+4:next+8]
		end := next + 10 + int(binary.BigEndian.Uint16(q.raw[next+8:]))
		if end > len(q.raw) {
			return dns.RcodeFormatError
		}
		if typ == dns.TypeOPT {
			if q.edns || next != at+1 {
				return dns.RcodeFormatError
			}
			q.edns, q.do = true, ttl[2]&0x80 != 0
			if udp {
				q.limit = min(max(size, minUDP), maxUDP)
			}
			if ttl[1] != 0 {
				rcode = dns.RcodeBadVers
			}
		}
		at = end
	}
	if at != len(q.raw) {
		return dns.RcodeFormatError
	}
	return rcode
}

// skipName gives where a name ends, -1 where it does not.
func skipName(raw []byte, at int) int {
	for at < len(raw) {
		switch l := int(raw[at]); {
		case l == 0:
			return at + 1
		case l >= 0xc0:
			if at+2 > len(raw) {
				return -1
			}
			return at + 2
		case l > 63:
			return -1
		default:
			at += 1 + l
		}
	}
	return -1
}

// reply is an answer being written.
type reply struct {
	out            []byte
	rcode          int
	authoritative  bool
	available      bool // recursion is, to this asker
	verified       bool // by DNSSEC, as an upstream says
	answer, author int  // records
	additional     int
}

// begin starts the answer: its header, to be filled in, and the question as it
// was asked, letter case included.
func (r *reply) begin(out []byte, q *query) {
	*r = reply{out: append(append(out[:0], q.raw[:headerSize]...), q.raw[headerSize:q.end]...)}
}

// finish fills in the header and adds OPT. What does not fit is left out whole,
// and the asker told so.
func (r *reply) finish(q *query) []byte {
	room := q.limit
	if q.edns {
		room -= optSize
	}
	if r.rcode == dns.RcodeBadVers {
		q.edns = true
	}
	flags2 := byte(r.rcode&15) | q.raw[3]&0x10 // CD as it was
	flags1 := 0x80 | q.raw[2]&0x79             // opcode and RD as they were
	if len(r.out) > room {
		r.out, r.answer, r.author, r.additional = r.out[:q.end], 0, 0, 0
		flags1 |= 2
	}
	if r.authoritative {
		flags1 |= 4
	}
	if r.available {
		flags2 |= 0x80
	}
	if r.verified {
		flags2 |= 0x20
	}
	questions := 0
	if q.end > headerSize {
		questions = 1
	}
	if q.edns {
		flags := byte(0)
		if q.do {
			flags = 0x80
		}
		r.out = append(r.out, 0, 0, byte(dns.TypeOPT), maxUDP>>8, maxUDP&0xff, byte(r.rcode>>4), 0, flags, 0, 0, 0)
		r.additional++
	}
	h := r.out
	h[2], h[3] = flags1, flags2
	for i, n := range []int{questions, r.answer, r.author, r.additional} {
		binary.BigEndian.PutUint16(h[4+2*i:], uint16(n))
	}
	return r.out
}
