// Package peers introduces nodes to each other, so that they give each other
// the chunks of images.
//
// It knows who is there, who lies near whom, and makes the tickets by which
// nodes tell each other from strangers (shared/wire). Everything is in memory
// and comes again within seconds: a head that starts anew forgets nothing that
// is needed. The package must not know what the nodes give each other.
package peers

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"log/slog"
	mathrand "math/rand/v2"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"muster/controller/api"
	"muster/shared/fault"
	"muster/shared/kind"
	"muster/shared/wire"
)

// Node is what must be known of one.
type Node struct {
	Name   string
	Switch string // nodes at the same one are near each other; "" when it is not known
	Upload int64  // as in wire.Introduction
}

// Options are what the package has to be told.
type Options struct {
	Node func(uid string) (Node, bool)
	Log  *slog.Logger
	Now  func() time.Time
}

const (
	every      = 4 * time.Second // between a node's announcements
	forget     = 3 * every
	epoch      = 10 * time.Minute // how long tickets are made with one key
	introduced = 24               // peers in an answer
	nearest    = 16               // of them, at most so many because they are near
	maxBlame   = 8                // complaints that are heard at once
	maxKnown   = 100_000
)

// Peers is who is there.
type Peers struct {
	opt    Options
	secret [32]byte

	mu    sync.Mutex
	known map[netip.AddrPort]*entry
	swept time.Time
}

type entry struct {
	uid  string
	node Node
	seen time.Time
}

// New makes one that knows nobody yet.
func New(opt Options) *Peers {
	p := &Peers{opt: opt, known: map[netip.AddrPort]*entry{}}
	rand.Read(p.secret[:])
	return p
}

// Routes are the endpoints.
func (p *Peers) Routes() []api.Route {
	return []api.Route{{Method: "POST", Path: wire.PathPeers, Permission: kind.NodeOnly, Doc: "Who gives chunks of images to the asking node, which says that it gives some too.",
		Handler: p.serve, Body: wire.Announce{}, Answer: wire.Introduction{}}}
}

func (p *Peers) serve(w http.ResponseWriter, r *http.Request) error {
	var in wire.Announce
	if err := api.Decode(w, r, &in); err != nil {
		return err
	}
	if in.Port < 0 || in.Port > 65535 {
		return fault.Invalidf("port: %d is no TCP port.", in.Port)
	}
	caller := api.CallerOf(r.Context())
	node, ok := p.opt.Node(caller.Node)
	if !ok {
		return fault.New(fault.NotFound, "No node found for ID=%s", caller.Node)
	}
	for _, b := range in.Blame[:min(len(in.Blame), maxBlame)] {
		p.opt.Log.Warn("a node blames another", "node", node.Name, "peer", p.name(b.Peer), "reason", clip(b.Reason))
	}
	return api.Data(w, p.introduce(caller.Node, caller.Addr.Unmap(), node, in))
}

func clip(s string) string { return s[:min(len(s), 300)] }

// name says which node a peer's address is.
func (p *Peers) name(addr string) string {
	at, err := netip.ParseAddrPort(addr)
	if err != nil {
		return "unknown"
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.known[at]; e != nil {
		return e.node.Name + " (" + addr + ")"
	}
	return addr
}

func (p *Peers) introduce(uid string, addr netip.Addr, node Node, in wire.Announce) wire.Introduction {
	now := p.opt.Now()
	self := netip.AddrPortFrom(addr, uint16(in.Port))
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sweep(now)
	out := wire.Introduction{Upload: node.Upload, Every: int(every / time.Second), Peers: []wire.Peer{}}
	if in.Port != 0 {
		if in.Gone || node.Upload == wire.NoUpload {
			delete(p.known, self)
		} else if p.known[self] != nil || len(p.known) < maxKnown {
			p.known[self] = &entry{uid, node, now}
		}
		n := period(now)
		out.Keys = [][]byte{p.key(self, n), p.key(self, n-1), p.key(self, n+1)}
	}
	if in.Gone {
		return out
	}
	for _, at := range p.choose(self, node) {
		out.Peers = append(out.Peers, wire.Peer{Name: p.known[at].node.Name, Addr: at.String(), Ticket: wire.Ticket(p.key(at, period(now)), addr)})
	}
	return out
}

func period(now time.Time) int64 { return now.UnixNano() / int64(epoch) }

// choose gives those to be introduced: the nearest, and of the others some at
// random, so that what one switch has gets to the next. p.mu is held.
func (p *Peers) choose(self netip.AddrPort, node Node) []netip.AddrPort {
	var near, subnet, far []netip.AddrPort
	for at, e := range p.known {
		switch {
		case at == self:
		case node.Switch != "" && e.node.Switch == node.Switch:
			near = append(near, at)
		case (node.Switch == "" || e.node.Switch == "") && sameSubnet(at.Addr(), self.Addr()):
			subnet = append(subnet, at)
		default:
			far = append(far, at)
		}
	}
	for _, list := range [][]netip.AddrPort{near, subnet, far} {
		mathrand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	}
	close := append(near, subnet...)
	n := min(len(close), max(nearest, introduced-len(far)))
	out := slices.Concat(close[:n], far)
	return out[:min(len(out), introduced)]
}

// sameSubnet takes subnets to be as large as they mostly are.
func sameSubnet(a, b netip.Addr) bool {
	bits := 24
	if a.Is6() {
		bits = 64
	}
	net, err := a.Prefix(bits)
	return err == nil && net.Contains(b)
}

// sweep forgets who has not been heard of. p.mu is held.
func (p *Peers) sweep(now time.Time) {
	if now.Sub(p.swept) < time.Second {
		return
	}
	p.swept = now
	for at, e := range p.known {
		if now.Sub(e.seen) > forget {
			delete(p.known, at)
		}
	}
}

// key is that of one peer for one period.
func (p *Peers) key(at netip.AddrPort, period int64) []byte {
	m := hmac.New(sha256.New, p.secret[:])
	m.Write(binary.BigEndian.AppendUint64([]byte(strings.ToLower(at.String())+" "), uint64(period)))
	return m.Sum(nil)
}
