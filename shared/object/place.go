package object

import (
	"cmp"
	"encoding/binary"
	"errors"
	"math"
	"net/netip"
	"slices"

	"muster/shared/fault"
	"muster/shared/kind"
)

// placeNode gives a node its index, name and address, when it is created and
// when it moves to another pool. Everything else keeps them.
func placeNode(tx kind.Tx, obj, old kind.Object) error {
	n := obj.(*Node)
	if uid, err := tx.Find(KindHostname, "mac", n.MAC); err != nil || uid != "" {
		return errorOr(err, fault.New(fault.Conflict, "mac: DHCP knows %s by a hostname already; delete that first.", n.MAC))
	}
	if uid, err := tx.Find(KindNode, KeyBMCMAC, n.MAC); err != nil || uid != "" {
		return errorOr(err, fault.New(fault.Conflict, "mac: %s is that of a node's BMC.", n.MAC))
	}
	if n.NamingPool == "" && (old == nil || old.(*Node).NamingPool != "") {
		c, err := tx.Oldest(KindCluster)
		if err != nil {
			return err
		}
		if c != nil {
			n.NamingPool = c.(*Cluster).Naming
		}
	}
	if old != nil {
		was := old.(*Node)
		if was.NamingPool == n.NamingPool {
			return nil
		}
		if err := releaseIndex(tx, was); err != nil {
			return err
		}
		n.Index, n.IP = nil, nil
	}
	pool, err := txPool(tx, n.NamingPool)
	if err != nil {
		return err
	}
	if err := giveIndex(tx, n, pool); err != nil {
		return err
	}
	return GiveAddress(tx, n)
}

// giveIndex takes the lowest index whose number and name are free, or checks
// the one that was asked for.
func giveIndex(tx kind.Tx, n *Node, pool *Namingpool) error {
	free := func(i int64) (bool, error) {
		holder, err := tx.Find(KindNode, "index", indexKey(n.NamingPool, i))
		if err != nil || (holder != "" && holder != n.UID) {
			return false, err
		}
		holder, err = tx.Find(KindNode, "name", NodeName(pool.Pattern, i))
		return holder == "" || holder == n.UID, err
	}
	if n.Index != nil {
		ok, err := free(*n.Index)
		if err == nil && !ok {
			err = fault.New(fault.Conflict, "Node with index=%d already exists.", *n.Index)
		}
		n.Name = NodeName(pool.Pattern, *n.Index)
		return err
	}
	hint, err := tx.Hint(indexHint(n.NamingPool))
	if err != nil {
		return err
	}
	for i := max(hint, pool.FirstIndex); i <= math.MaxInt32; i++ {
		ok, err := free(i)
		if err != nil {
			return err
		}
		if ok {
			n.Index, n.Name = &i, NodeName(pool.Pattern, i)
			return tx.SetHint(indexHint(n.NamingPool), i+1)
		}
	}
	return fault.New(fault.Conflict, "The naming pool has no free index left.")
}

func indexHint(pool string) string { return "index/" + pool }

// releaseIndex makes the next search begin no later than at the index that a
// node gives up. No number below the hint is free, so that the lowest free
// one is always found without walking the used ones.
func releaseIndex(tx kind.Tx, n *Node) error {
	if n.Index == nil {
		return nil
	}
	hint, err := tx.Hint(indexHint(n.NamingPool))
	if err != nil || hint <= *n.Index {
		return err
	}
	return tx.SetHint(indexHint(n.NamingPool), *n.Index)
}

// GiveAddress gives a node the address that its pool and network say, unless
// it has one. Without any network it keeps none.
func GiveAddress(tx kind.Tx, n *Node) error {
	if n.IP != nil || n.Index == nil {
		return nil
	}
	pool, err := txPool(tx, n.NamingPool)
	if err != nil {
		return err
	}
	net, err := txNet(tx, pool)
	if err != nil || (net == nil && pool.IPBase == "") {
		return err
	}
	var a netip.Addr
	switch offset := *n.Index - pool.FirstIndex; {
	case pool.IPBase != "":
		a, err = fixedAddress(tx, n, net, pool.IPBase, offset)
	case pool.IPOffset != nil:
		a, err = fixedAddress(tx, n, net, net.FirstIP, *pool.IPOffset+offset)
	default:
		a, err = nextAddress(tx, n, net, *n.Index-net.FirstIndex)
	}
	if err != nil {
		return err
	}
	text := a.String()
	n.IP = &text
	return nil
}

// fixedAddress is base+offset, which the pool prescribes: another one would be
// wrong, so that one in use is an error.
func fixedAddress(tx kind.Tx, n *Node, net *Net, base string, offset int64) (netip.Addr, error) {
	a, ok := plus(base, offset)
	if !ok {
		return a, fault.New(fault.Conflict, "The naming pool's addresses end: there is none %d behind %s.", offset, base)
	}
	if net != nil && !net.Prefix().Contains(a) {
		return a, fault.New(fault.Conflict, "The naming pool gives the address %s, which is not in the network %s.", a, net.Prefix())
	}
	free, err := addressFree(tx, n, net, a)
	if err == nil && !free {
		err = fault.New(fault.Conflict, "The naming pool gives the address %s, which is in use already or not for nodes.", a)
	}
	return a, err
}

// nextAddress is the one at the wished position where that is free, else the
// next free one behind it, so that other nodes still find theirs.
func nextAddress(tx kind.Tx, n *Node, net *Net, wish int64) (netip.Addr, error) {
	unused := func(a netip.Addr) (bool, error) {
		free, err := addressFree(tx, n, net, a)
		if err != nil || !free {
			return false, err
		}
		named, err := hostHas(tx, a.String())
		return !named, err
	}
	if a, ok := net.At(wish); ok {
		if free, err := unused(a); err != nil || free {
			return a, err
		}
	}
	hint := "ip/" + net.UID
	start, err := tx.Hint(hint)
	if err != nil {
		return netip.Addr{}, err
	}
	start = max(start, wish+1)
	for i := range net.IPCount {
		at := (start + i) % net.IPCount
		a, _ := net.At(at)
		free, err := unused(a)
		if err != nil {
			return a, err
		}
		if free {
			return a, tx.SetHint(hint, at+1)
		}
	}
	last, _ := net.At(net.IPCount - 1)
	return last, fault.New(fault.Conflict, "The network %s has no free address: all %d from %s to %s are in use. Raise its ip_count, or delete nodes.",
		net.Label(), net.IPCount, net.FirstIP, last)
}

// Label names a net for people.
func (n *Net) Label() string {
	if n.Name != "" {
		return n.Name
	}
	return n.Prefix().String()
}

// addressFree says whether a node can have an address: it is in nobody else's
// use, and none of the two that a subnet keeps for itself. A host name for it
// is no use, but DHCP's giving it to another machine is.
func addressFree(tx kind.Tx, n *Node, net *Net, a netip.Addr) (bool, error) {
	text := a.String()
	if tx.Taken(text) || (net != nil && (text == net.RouterIP || text == net.GatewayIP || net.edge(a))) {
		return false, nil
	}
	if lease, err := tx.Find(KindHostname, "lease", text); err != nil || lease != "" {
		return false, err
	}
	if bmc, err := tx.Find(KindNode, KeyBMCAddr, text); err != nil || bmc != "" {
		return false, err
	}
	holder, err := tx.Find(KindNode, "ip", text)
	return holder == "" || holder == n.UID, err
}

// renumber follows a change of a network's range: nodes that the range no
// longer covers get a new address, and those without one get one where there
// is any left.
func renumber(tx kind.Tx, obj, old kind.Object) error {
	var moved, without []*Node
	err := tx.Each(KindNode, func(o kind.Object) error {
		n := o.(*Node)
		if n.IP == nil {
			without = append(without, n)
		} else if old != nil && leaves(*n.IP, old.(*Net), obj) {
			n.IP = nil
			moved = append(moved, n)
			return tx.Save(KindNode, n) // first free all of them, then give anew
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, list := range [][]*Node{moved, without} { // so that nodes keep their order
		slices.SortFunc(list, func(a, b *Node) int {
			return cmp.Or(cmp.Compare(a.NamingPool, b.NamingPool), cmp.Compare(*cmp.Or(a.Index, new(int64)), *cmp.Or(b.Index, new(int64))))
		})
	}
	if obj == nil { // deleted: its nodes get what another network has left
		moved, without = nil, append(moved, without...)
	}
	for i, n := range append(moved, without...) {
		if err := GiveAddress(tx, n); fault.Is(err, fault.Conflict) && i >= len(moved) {
			continue
		} else if err != nil {
			return err
		}
		if err := tx.Save(KindNode, n); err != nil {
			return err
		}
	}
	return nil
}

// leaves says whether a node's address, which was in the old subnet, is not at
// its place in the new one, nil when the network is deleted.
func leaves(ip string, old *Net, obj kind.Object) bool {
	a, err := netip.ParseAddr(ip)
	if err != nil || !old.Prefix().Contains(a) {
		return false
	}
	if obj == nil {
		return true
	}
	now := obj.(*Net)
	was, in := old.Position(a)
	is, still := now.Position(a)
	switch {
	case ip == now.RouterIP || ip == now.GatewayIP || now.edge(a) || !now.Prefix().Contains(a):
		return true
	case in:
		return !still || was-old.FirstIndex != is-now.FirstIndex
	}
	return old.FirstIP != now.FirstIP // beyond the range, by a pool's offset
}

func txPool(tx kind.Tx, uid string) (*Namingpool, error) {
	var failed error
	get := func(id string) *Namingpool {
		o, err := tx.Get(KindNamingpool, id)
		failed = errors.Join(failed, err)
		if o == nil {
			return nil
		}
		return o.(*Namingpool)
	}
	if uid == "" {
		return &Namingpool{Pattern: DefaultPattern}, nil
	}
	p := get(uid)
	if p == nil {
		return &Namingpool{Pattern: DefaultPattern}, failed
	}
	return p.inherit(get), failed
}

func txNet(tx kind.Tx, pool *Namingpool) (*Net, error) {
	var o kind.Object
	var err error
	if pool.Network != "" {
		o, err = tx.Get(KindNet, pool.Network)
	}
	if o == nil && err == nil {
		o, err = tx.Oldest(KindNet)
	}
	if o == nil || err != nil {
		return nil, err
	}
	return o.(*Net), nil
}

// plus is the address n behind first; ok is false where there is none.
func plus(first string, n int64) (netip.Addr, bool) {
	a, err := netip.ParseAddr(first)
	if err != nil || n < 0 {
		return a, false
	}
	b := a.As16()
	low := binary.BigEndian.Uint64(b[8:])
	sum := low + uint64(n)
	if sum < low || (a.Is4() && sum>>32 != low>>32) {
		return a, false
	}
	binary.BigEndian.PutUint64(b[8:], sum)
	out := netip.AddrFrom16(b)
	if a.Is4() {
		out = out.Unmap()
	}
	return out, true
}

// distance is how far b is behind a, -1 where that is more than an int64 or
// they are not in one /64.
func distance(a, b netip.Addr) int64 {
	x, y := a.As16(), b.As16()
	if [8]byte(x[:8]) != [8]byte(y[:8]) {
		return -1
	}
	d := binary.BigEndian.Uint64(y[8:]) - binary.BigEndian.Uint64(x[8:])
	if d > math.MaxInt64 {
		return -1
	}
	return int64(d)
}

// Rename gives the nodes of a pool the names that its pattern says. All old
// names are given up before the first new one is taken, so that n{} can become
// n{:03d} and nodes can swap names.
func Rename(tx kind.Tx, pool *Namingpool) error {
	var nodes []*Node
	err := tx.Each(KindNode, func(o kind.Object) error {
		n := o.(*Node)
		if n.NamingPool != pool.UID || n.Index == nil || n.Name == NodeName(pool.Pattern, *n.Index) {
			return nil
		}
		nodes = append(nodes, n)
		n.Name = ""
		return tx.Save(KindNode, n)
	})
	if err != nil {
		return err
	}
	for _, n := range nodes {
		n.Name = NodeName(pool.Pattern, *n.Index)
		if err := tx.Save(KindNode, n); err != nil {
			return err
		}
	}
	return nil
}
