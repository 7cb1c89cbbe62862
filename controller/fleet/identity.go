package fleet

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"net/netip"
	"time"

	"muster/shared/fault"
	"muster/shared/object"
	"muster/shared/wire"
)

// How long a boot may take from the firmware's DHCP exchange to the moment
// when kernel and initrds are loaded; how long a key lives from then on; and
// how long a certificate is good for, which a running node outlives by far.
const (
	bootWindow = 15 * time.Minute
	keyLife    = time.Minute
	certLife   = 5 * 365 * 24 * time.Hour
)

// identity is what speaks for a node. Serial is that of the one certificate
// that does, empty if it never enrolled. A window opens when firmware asks for
// an address, and closes when a key was used or expired: inside it the address
// alone speaks for the node, since nothing else runs on the machine yet.
type identity struct {
	Serial  string    `json:"serial,omitempty"`
	Addr    string    `json:"addr,omitempty"`
	Opened  time.Time `json:"opened,omitzero"`
	KeyHash string    `json:"key_hash,omitempty"`
	Minted  time.Time `json:"minted,omitzero"`

	// Spent is the hash of the key and the request that Serial was given for:
	// the answer may have been lost, and the same machine asks again.
	Spent string `json:"spent,omitempty"`

	key string // the key itself, only in memory, so that a repeated request gets the same
}

// fresh says whether a key that was minted then is still good.
func fresh(minted, now time.Time) bool { return now.Sub(minted) < keyLife }

func (i *identity) open(now time.Time) bool {
	return !i.Opened.IsZero() && now.Sub(i.Opened) < bootWindow &&
		(i.KeyHash == "" || fresh(i.Minted, now))
}

// OpenBoot notes that a node's firmware was given this address: until it has
// booted, one key may be minted for it. Firmware asks more than once before
// that, which only renews the window.
func (f *Fleet) OpenBoot(uid string, addr netip.Addr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.get(uid)
	if old, err := netip.ParseAddr(n.identity.Addr); err == nil && f.windows[old] == uid {
		delete(f.windows, old)
	}
	n.identity = identity{Serial: n.identity.Serial, Addr: addr.String(), Opened: f.opt.Now()}
	f.windows[addr] = uid
	f.touch(uid, n)
}

// OpenAt gives the node whose boot is open at an address.
func (f *Fleet) OpenAt(addr netip.Addr) (uid string, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	uid, n := f.bootsAt(addr)
	return uid, n != nil && n.identity.open(f.opt.Now())
}

// enrolsAt gives the node that may enrol from an address: one whose boot is
// open there, or whose key was spent less than a minute ago.
func (f *Fleet) enrolsAt(addr netip.Addr) (uid string, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	uid, n := f.bootsAt(addr)
	return uid, n != nil
}

// bootsAt finds the newest boot at an address, and forgets one that is over.
// f.mu is held.
func (f *Fleet) bootsAt(addr netip.Addr) (string, *node) {
	uid, ok := f.windows[addr]
	if !ok {
		return "", nil
	}
	n, now := f.nodes[uid], f.opt.Now()
	if n == nil || n.identity.Addr != addr.String() || !n.identity.open(now) && !fresh(n.identity.Minted, now) {
		delete(f.windows, addr)
		return "", nil
	}
	return uid, n
}

// Mint gives the one-time key of a boot under way; ok is false when none is.
// Asking again before it is used gives the same key: the answer may have been
// lost. A key is on disk before it is given out.
func (f *Fleet) Mint(uid string, addr netip.Addr) (key string, ok bool) {
	f.mu.Lock()
	n := f.get(uid)
	id := &n.identity
	if !id.open(f.opt.Now()) || id.Addr != addr.String() {
		f.mu.Unlock()
		return "", false
	}
	if id.KeyHash == "" {
		var random [24]byte
		rand.Read(random[:])
		id.key = base64.RawURLEncoding.EncodeToString(random[:])
		id.KeyHash, id.Minted = hash(id.key), f.opt.Now()
		n.record++
	}
	key = id.key
	f.mu.Unlock()
	if key == "" { // minted before the head started anew
		return "", false
	}
	if err := f.save(context.Background(), uid); err != nil {
		f.opt.Log.Error("a boot key could not be stored", "node", uid, "error", err)
		return "", false // asking again tries again
	}
	return key, true
}

// Enrol trades a key for a certificate, which is on disk as the node's only
// one, and the key with it as spent, before it is given out. Where the disk
// does not take it, the key stays good and the former certificate too. For the
// rest of the key's minute the same request gets a certificate again: its
// answer may have been lost, and is of no use without the private key.
func (f *Fleet) Enrol(ctx context.Context, uid string, addr netip.Addr, e wire.Enrol) (wire.Enrolled, error) {
	f.mu.Lock()
	n := f.get(uid)
	was, spent := n.identity, hash(e.Key+" "+string(e.CSR))
	if err := was.takes(e.Key, spent, addr, f.opt.Now()); err != nil {
		f.mu.Unlock()
		return wire.Enrolled{}, err
	}
	chain, serial, err := f.opt.Sign(e.CSR, uid, certLife)
	if err != nil {
		f.mu.Unlock()
		return wire.Enrolled{}, err
	}
	is := identity{Serial: serial, Addr: was.Addr, Minted: was.Minted, Spent: spent}
	n.identity = is
	f.touch(uid, n)
	f.mu.Unlock()
	// A client that goes away must not leave it open whether the key was used.
	if err := f.save(context.WithoutCancel(ctx), uid); err != nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		if n.identity == is {
			n.identity = was
		}
		return wire.Enrolled{}, err
	}
	f.opt.Log.Info("node enrolled", "node", uid, "address", addr)
	return wire.Enrolled{Node: uid, Chain: chain}, nil
}

// takes says why an identity does not take a key, nil if it does.
func (i *identity) takes(key, spent string, addr netip.Addr, now time.Time) error {
	again := i.Spent != "" && equal(spent, i.Spent)
	switch {
	case !again && (i.KeyHash == "" || !equal(hash(key), i.KeyHash)):
		return fault.New(fault.Forbidden, "This one-time key was used already or is not of this node; boot again to get a new one.")
	case i.Addr != addr.String():
		return fault.New(fault.Forbidden, "This one-time key was made for another address than %s.", addr)
	case !fresh(i.Minted, now) || !again && !i.open(now):
		return fault.New(fault.Forbidden, "This one-time key has expired, it is good for %s; boot again to get a new one.", keyLife)
	}
	return nil
}

func equal(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// Enrolled says whether only its certificate speaks for a node now. While its
// firmware boots it the address does, for the steps before it can enrol.
func (f *Fleet) Enrolled(uid string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.nodes[uid]
	return n != nil && n.identity.Serial != "" && !n.identity.open(f.opt.Now())
}

// CertValid says whether this certificate speaks for a node: the newest that
// it was given, serial in hexadecimal. Another one of the node's, which may have
// been stolen, is noted on its timeline.
func (f *Fleet) CertValid(uid, serial string) bool {
	newest := f.serial(uid)
	if newest != "" && serial != "" && newest != serial {
		f.Doubt(uid, "somebody came with a certificate that the node has no longer: a copy of it, or a second machine")
	}
	return serial != "" && newest == serial
}

// StepIdentity is on a timeline where somebody could not prove to be the node.
const StepIdentity = "identity"

// Doubt notes that somebody could not prove to be a node, and why, on its
// timeline and in the log.
func (f *Fleet) Doubt(uid, why string) {
	if _, exists := f.opt.Nodes.Look().Get(object.KindNode, uid); exists {
		f.mu.Lock()
		f.get(uid)
		f.mu.Unlock()
	}
	if f.annotate(uid, note{Step: StepIdentity, Error: why}) {
		f.opt.Log.Warn("a node's identity was refused", "node", uid, "reason", why)
	}
}

// Disown makes a node's certificate invalid; its address speaks for it again.
func (f *Fleet) Disown(ctx context.Context, uid string) error {
	f.mu.Lock()
	n := f.get(uid)
	n.identity = identity{}
	l := n.link
	f.touch(uid, n)
	f.mu.Unlock()
	if l != nil {
		l.session.Close()
	}
	return f.save(ctx, uid)
}

func hash(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}
