package wire

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/netip"
)

// Nodes that give chunks to each other. The head introduces them: it gives
// each node keys of its own, and those whom it introduces a ticket that was
// made with one, for the asker's address alone. A node needs no more to tell
// its fellows from strangers, and no clock. What is sent needs no secrecy, and
// is judged by its digest.
const (
	PathPeers = "/agent/v1/peers" // POST Announce → Introduction
	PeerHave  = "/have"           // POST digests → places in the list, four bytes each, as they come to be there
	PeerGive  = "/chunks"         // POST digests → frames, as PathChunks
)

// HeaderTicket carries a ticket from peer to peer.
const HeaderTicket = "Muster-Ticket"

// PathSpare is asked by nodes that share, before PathChunks: POST Spare →
// places in the list, of those chunks that the head named to no other node of
// late. So each gets something else, and the head gives all of it about once.
const PathSpare = PathChunks + "/spare"

// Spare is a list of chunks that a node misses.
type Spare struct {
	Chunks []byte `json:"chunks"` // digests, 32 bytes each
	Most   int    `json:"most"`   // how many it wants to be told
}

// Announce is said every few seconds by a node that takes chunks from others
// or gives them.
type Announce struct {
	Port  int     `json:"port"` // where it gives; 0 when it does not
	Gone  bool    `json:"gone,omitempty"`
	Blame []Blame `json:"blame,omitempty"`
}

// Blame names a peer that gave what it must not.
type Blame struct {
	Peer   string `json:"peer"` // address and port
	Reason string `json:"reason"`
}

// NoUpload is the Upload of a node that shall give nothing.
const NoUpload = -1

// Introduction is the answer.
type Introduction struct {
	Keys   [][]byte `json:"keys"`             // the node's own, any of which a ticket may be made with
	Upload int64    `json:"upload,omitempty"` // bytes per second that the node may give; 0 for any
	Every  int      `json:"every"`            // seconds until it shall be said again
	Peers  []Peer   `json:"peers"`            // the near ones first
}

// Peer is somebody to ask.
type Peer struct {
	Name   string `json:"name"`
	Addr   string `json:"addr"` // address and port
	Ticket string `json:"ticket"`
}

// Ticket lets a node at an address ask the owner of the key.
func Ticket(key []byte, asker netip.Addr) string {
	m := hmac.New(sha256.New, key)
	m.Write([]byte("muster ticket " + asker.Unmap().WithZone("").String()))
	return base64.RawURLEncoding.EncodeToString(m.Sum(nil))
}
