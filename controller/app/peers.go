package app

import (
	"strconv"
	"strings"
	"time"

	"muster/controller/peers"
	"muster/shared/object"
	"muster/shared/wire"
)

func (h *Head) newPeers() *peers.Peers {
	return peers.New(peers.Options{Node: h.dir.peer, Log: h.log, Now: time.Now})
}

// peer is what a node's attributes say of it as a peer.
func (d *directory) peer(uid string) (peers.Node, bool) {
	look := d.reg.Look()
	o, ok := look.Get(object.KindNode, uid)
	if !ok {
		return peers.Node{}, false
	}
	n := o.(*object.Node)
	return peers.Node{Name: n.Name, Switch: object.Attribute(look, n, object.AttrSwitch), Upload: upload(object.Attribute(look, n, object.AttrPeers))}, true
}

// upload reads what the attribute says: "off", or Mbit/s. What is neither is
// taken for off, so that a slip costs speed and not somebody's job.
func upload(text string) int64 {
	if text == "" || strings.EqualFold(text, "on") {
		return 0
	}
	rate, err := strconv.ParseFloat(text, 64)
	if err != nil || !(rate > 0 && rate < 1e9) {
		return wire.NoUpload
	}
	return max(1, int64(rate*1e6/8))
}
