package fleet

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"muster/shared/kind"
	"muster/shared/object"
	"muster/shared/wire"
)

// Nodes get their attributes and their own files over the link, when it is made
// and when they change. A group of all nodes may change: what comes within pushGather is
// pushed together, to pushFanout nodes at once.
const (
	pushGather = 100 * time.Millisecond
	pushFanout = 64
	pushTime   = 15 * time.Second
)

// push is which nodes may have other attributes than they know.
type push struct {
	mu   sync.Mutex
	all  bool
	uids map[string]bool
	kick chan struct{}
}

func newPush() push { return push{uids: map[string]bool{}, kick: make(chan struct{}, 1)} }

// want notes a node, all of them where uid is empty.
func (p *push) want(uid string) {
	p.mu.Lock()
	if uid == "" {
		p.all = true
	} else {
		p.uids[uid] = true
	}
	p.mu.Unlock()
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

func (p *push) take() (uids map[string]bool, all bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	uids, all = p.uids, p.all
	p.uids, p.all = map[string]bool{}, false
	return uids, all
}

// AttributesChanged is told of objects that changed: nodes may have other
// attributes or files then.
func (f *Fleet) AttributesChanged(kindName, uid string) {
	switch kindName {
	case object.KindNode:
		f.push.want(uid)
	case object.KindAttrib, object.KindCluster, object.KindNamingpool, object.KindOverlay, object.KindDyngroup:
		f.push.want("")
	}
}

// keepPushing brings nodes their attributes until ctx ends.
func (f *Fleet) keepPushing(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, pushFanout)
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.push.kick:
		}
		sleep(ctx, pushGather)
		for uid, l := range f.linked(f.push.take()) {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return
			}
			wg.Go(func() {
				defer func() { <-slots }()
				f.pushTo(ctx, uid, l)
			})
		}
	}
}

// linked gives the links of nodes, of all where all is said.
func (f *Fleet) linked(uids map[string]bool, all bool) map[string]*link {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := map[string]*link{}
	add := func(uid string) {
		if n := f.nodes[uid]; n != nil && n.link != nil && n.link.takes {
			out[uid] = n.link
		}
	}
	if all {
		for uid := range f.nodes {
			add(uid)
		}
		return out
	}
	for uid := range uids {
		add(uid)
	}
	return out
}

// pushTo brings a node what holds for it now, unless that is what it has. What
// fails is tried again later.
func (f *Fleet) pushTo(ctx context.Context, uid string, l *link) {
	a, ok := f.attributesOf(uid, l.proven)
	raw, err := json.Marshal(a)
	if !ok || err != nil {
		return // it is deleted; of values that were JSON before there is always JSON
	}
	again := func() { time.AfterFunc(pushTime, func() { f.push.want(uid) }) }
	if !l.pushing.CompareAndSwap(false, true) {
		again()
		return
	}
	defer l.pushing.Store(false)
	if sum := sha256.Sum256(raw); sum != l.sent {
		if err = l.bring(ctx, wire.Header{Type: wire.StreamAttributes, Attributes: &a}); err == nil {
			l.sent = sum
		}
	}
	if err == nil {
		err = f.pushFiles(ctx, uid, l)
	}
	if err != nil && ctx.Err() == nil && !l.ended() {
		f.opt.Log.Warn("a node did not take its attributes or files, it will be tried again", "node", uid, "error", err)
		again()
	}
}

// unknownFiles is the digest of files of which is not known what they are.
const unknownFiles = "?"

// pushFiles brings a node its own files, if it has others.
func (f *Fleet) pushFiles(ctx context.Context, uid string, l *link) error {
	if f.opt.Files == nil || !l.files {
		return nil
	}
	all, ok := f.opt.Files(uid, l.proven)
	if !ok || all.Digest == l.has {
		return nil
	}
	err := l.bring(ctx, wire.Header{Type: wire.StreamOverlay, Overlay: &wire.Overlay{Digest: all.Digest}},
		wire.Header{Type: wire.StreamOverlay, Overlay: &all})
	if err == nil {
		l.has = all.Digest
	}
	return err
}

// ended says whether the link has broken.
func (l *link) ended() bool {
	select {
	case <-l.session.Done():
		return true
	default:
		return false
	}
}

// bring sends a header over a link, and the next one for as long as the agent
// asks for more with a byte, and waits until the agent is done.
func (l *link) bring(ctx context.Context, headers ...wire.Header) error {
	stream, err := l.session.Open()
	if err != nil {
		return err
	}
	defer stream.Close()
	stop := context.AfterFunc(ctx, func() { stream.Close() })
	defer stop()
	if err := stream.SetDeadline(time.Now().Add(pushTime)); err != nil { // of a socket: by the machine's clock
		return err
	}
	for _, h := range headers {
		if err := wire.WriteHeader(stream, h); err != nil {
			return err
		}
		var more [1]byte
		if _, err := stream.Read(more[:]); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
	return errors.New("the agent did not close the stream")
}

// attributesOf gives what holds for a node. Reserved ones may be secret: where
// no certificate speaks for the node, any user on it could ask in its name, and
// gets only those that say what to report.
func (f *Fleet) attributesOf(uid string, proven bool) (wire.Attributes, bool) {
	look := f.opt.Nodes.Look()
	obj, ok := look.Get(object.KindNode, uid)
	if !ok {
		return wire.Attributes{}, false
	}
	n := obj.(*object.Node)
	a := wire.Attributes{UID: uid, Name: n.Name, Values: map[string]json.RawMessage{}}
	values := object.Effective(look, n)
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if kind.Reserved(key) && !proven && !aboutReports(key) {
			continue
		}
		raw, err := json.Marshal(values[key])
		if err != nil {
			f.opt.Log.Error("an attribute cannot be sent", "node", uid, "attribute", key, "error", err)
			continue
		}
		a.Values[key] = raw
	}
	return a, true
}

// aboutReports says whether a reserved attribute is meant for agents and keeps
// no secret.
func aboutReports(key string) bool {
	for _, prefix := range []string{"_status_", "_hardware_", "_health_", "_init_"} {
		if strings.HasPrefix(key, prefix) {
			return true
		}
	}
	return false
}
