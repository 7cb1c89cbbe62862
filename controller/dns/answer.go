package dns

import (
	"net/netip"

	"github.com/miekg/dns"
)

// asker is who sent a query.
type asker struct {
	addr   netip.Addr
	friend bool // of the cluster's networks, or on this host
}

// decide answers a query from the zone. forward is true where it has to be
// asked elsewhere, which this asker may; the reply is then begun and no more.
func (s *Server) decide(r *reply, q *query, from asker, st *site) (forward bool) {
	r.available = from.friend && s.forward != nil
	switch {
	case q.class != dns.ClassINET, q.typ == dns.TypeAXFR, q.typ == dns.TypeIXFR, q.typ == dns.TypeMAILA, q.typ == dns.TypeMAILB, q.typ == dns.TypeOPT:
		r.rcode = dns.RcodeRefused
		return false
	}
	if e := s.zone.lookup(q.name()); e != nil {
		s.known(r, q, e, from, st)
		return false
	}
	name := string(q.name())
	p := st.place(name)
	switch {
	case p.local:
		if p.apex && q.typ == dns.TypeSOA {
			r.answer = 1
			r.appendSOA(st, 0)
		} else {
			r.negative(st, p, p.exists)
		}
		r.authoritative = true
	case q.typ == dns.TypeANY:
		r.rcode = dns.RcodeRefused
	case labels(name) == 1 && !delegation(q.typ):
		// A short name that no node has. Nobody else can know it either.
		r.negative(st, place{skip: len(name) - 1}, false)
		r.authoritative = true
	case r.available && q.recursion():
		return true
	default:
		r.rcode = dns.RcodeRefused
	}
	return false
}

// delegation says whether a type is asked of top-level domains.
func delegation(typ uint16) bool {
	return typ == dns.TypeNS || typ == dns.TypeDS || typ == dns.TypeDNSKEY || typ == dns.TypeSOA
}

// known answers about a name that has records, or names below it.
func (s *Server) known(r *reply, q *query, e *entry, from asker, st *site) {
	r.authoritative = true
	if q.typ == dns.TypeANY { // RFC 8482: one record that says nothing
		r.answer = 1
		r.out = appendRecord(r.out, 0xc000|headerSize, dns.TypeHINFO, ttl, "\x07RFC8482\x00")
		return
	}
	set := e.find(q.typ)
	if set == nil {
		p := st.place(string(q.name()))
		if p.apex && q.typ == dns.TypeSOA {
			r.answer = 1
			r.appendSOA(st, 0)
			return
		}
		if !p.local && q.size > 1 && labels(string(q.name())) == 1 {
			p.skip = q.size - 1 // a short name is in the root
		}
		r.negative(st, p, true)
		return
	}
	var near netip.Prefix
	if set.addrs != nil {
		near = st.near(from.addr)
	}
	r.answer = set.count
	r.out = set.appendTo(r.out, near)
	for _, target := range set.targets {
		s.addresses(r, target, q)
	}
}

// addresses adds those of a service's target while there is room: it saves
// the asker a question (RFC 2782).
func (s *Server) addresses(r *reply, target string, q *query) {
	e := s.zone.lookup([]byte(target))
	if e == nil {
		return
	}
	for _, typ := range []uint16{dns.TypeA, dns.TypeAAAA} {
		set := e.find(typ)
		if set == nil {
			continue
		}
		size := len(set.packed) / set.count
		for i := range set.count {
			if len(r.out)+len(target)+size > q.limit-optSize {
				return
			}
			r.out = append(r.out, target...)
			r.out = append(r.out, set.packed[i*size+2:(i+1)*size]...)
			r.additional++
		}
	}
}

// negative says that there is no such name, or no such record, and by the SOA
// of which zone.
func (r *reply) negative(st *site, p place, exists bool) {
	if !exists {
		r.rcode = dns.RcodeNameError
	}
	r.author = 1
	r.appendSOA(st, p.skip)
}

// appendSOA adds the record for the zone whose name begins that many bytes
// into the question's.
func (r *reply) appendSOA(st *site, skip int) {
	r.out = append(r.out, 0xc0|byte((headerSize+skip)>>8), byte(headerSize+skip))
	r.out = append(r.out, st.soa...)
}
