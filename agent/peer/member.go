package peer

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"muster/agent/head"
	"muster/agent/pull"
	"muster/images/chunk"
	"muster/shared/wire"
)

// meet begins to ask each peer that the head introduces, until ctx ends.
func (f *fetch) meet(ctx context.Context, all *sync.WaitGroup) {
	for {
		peers, change, failed := f.group.Peers()
		f.mu.Lock()
		if failed && f.active == 0 {
			f.end(errAlone)
		}
		for _, p := range peers {
			m := f.members[p.Addr]
			if m == nil {
				m = &member{wake: make(chan struct{}, 1)}
				f.members[p.Addr] = m
			}
			if m.running || m.never || time.Now().Before(m.until) || ctx.Err() != nil {
				continue
			}
			m.Peer, m.running, m.whole, m.empty = p, true, false, 0
			m.has, m.said = nil, make([]bool, len(f.want))
			f.active++
			all.Go(func() { f.askPeer(ctx, m) })
		}
		f.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-change:
		}
	}
}

// askPeer takes from one peer, as long as it has something and behaves.
func (f *fetch) askPeer(ctx context.Context, m *member) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var lines sync.WaitGroup
	for range perPeer {
		lines.Go(func() {
			if err := f.drain(ctx, m); err != nil {
				cancel(err)
			}
		})
	}
	err := f.watch(ctx, m)
	f.mu.Lock()
	m.whole = true
	f.mu.Unlock()
	if err != nil {
		cancel(err)
	}
	lines.Wait()
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	f.part(m, err)
}

// part ends with a peer, for good or for a while.
func (f *fetch) part(m *member, err error) {
	f.mu.Lock()
	for i, said := range m.said {
		if said {
			f.holders[i]--
		}
	}
	m.has, m.said, m.running = nil, nil, false
	m.until = time.Now().Add(time.Second)
	f.active--
	var refused *head.Refused
	lied := errors.As(err, new(lie)) || errors.Is(err, chunk.ErrDamaged)
	broke := err != nil && !lied && !errors.As(err, &refused) && !errors.Is(err, context.Canceled) &&
		!errors.Is(err, errDone) && !errors.Is(err, errStandstill) && !errors.Is(err, errAlone) && !pull.IsLocal(err)
	if m.never = lied; broke {
		m.until = time.Now().Add(10 * time.Second)
	}
	f.mu.Unlock()
	switch {
	case lied:
		f.group.Blame(m.Peer, err)
	case broke:
		f.group.log.Info("a node is not asked for a while", "node", m.Name, "address", m.Addr, "error", err)
	case pull.IsLocal(err):
		f.end(err)
	}
}

// lie marks what no node says that follows the protocol.
type lie struct{ error }

func (f *fetch) header(m *member) http.Header { return http.Header{wire.HeaderTicket: {m.Ticket}} }

// watch follows what a peer has, until it says that there will not be more.
func (f *fetch) watch(ctx context.Context, m *member) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	first := time.AfterFunc(2*giveStall, func() { cancel(fmt.Errorf("it did not say what it has within %v", 2*giveStall)) })
	defer first.Stop()
	var list bytes.Buffer
	for _, r := range f.want {
		list.Write(r.Digest[:])
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+m.Addr+wire.PeerHave, &list)
	if err != nil {
		return lie{err}
	}
	req.Header = f.header(m)
	resp, err := f.client.Do(req)
	if err != nil {
		return cause(ctx, err)
	}
	defer resp.Body.Close()
	first.Stop()
	if resp.StatusCode != http.StatusOK {
		return head.Refusal(resp.StatusCode, nil)
	}
	buf := make([]byte, 4<<10)
	for n, again := 0, 0; ; {
		k, err := resp.Body.Read(buf[n:])
		n += k
		whole := n - n%4
		again += f.told(m, buf[:whole])
		n = copy(buf, buf[whole:n])
		switch {
		case again > 0:
			return lie{errors.New("it says that it has what was not asked for, or the same again and again")}
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return cause(ctx, err)
		}
	}
}

func cause(ctx context.Context, err error) error {
	if c := context.Cause(ctx); c != nil {
		return c
	}
	return err
}

// told notes what a peer has, and gives how much of it cannot be.
func (f *fetch) told(m *member, places []byte) (wrong int) {
	f.mu.Lock()
	for ; len(places) > 0; places = places[4:] {
		i := binary.BigEndian.Uint32(places)
		if uint64(i) >= uint64(len(m.said)) || m.said[i] {
			wrong++
			continue
		}
		m.said[i] = true
		f.holders[i]++
		if f.state[i] != taken {
			// Nodes shall not all take the same from a peer, in the same order.
			m.has = append(m.has, i)
			k := rand.IntN(len(m.has))
			m.has[k], m.has[len(m.has)-1] = i, m.has[k]
		}
	}
	f.mu.Unlock()
	select {
	case m.wake <- struct{}{}:
	default:
	}
	return wrong
}

// drain asks a peer for what it has, one request after the other.
func (f *fetch) drain(ctx context.Context, m *member) error {
	l := &pull.Line{Client: f.client, URL: "http://" + m.Addr + wire.PeerGive, Header: f.header(m), Stall: giveStall, Bytes: new(atomic.Int64)}
	for {
		leave := f.lane(ctx)
		if leave == nil {
			return nil
		}
		batch, more := f.pick(m)
		if len(batch) == 0 {
			leave()
			if !more {
				return nil
			}
			select {
			case <-m.wake:
			case <-time.After(rest):
			case <-ctx.Done():
			}
			continue
		}
		within, cancel := context.WithTimeoutCause(ctx, giveTime, fmt.Errorf("%d chunks took more than %v", len(batch), giveTime))
		left, err := l.Ask(within, f.want, batch, f.got(false))
		cancel()
		leave()
		f.release(left)
		if err != nil {
			return err
		}
		if f.lacks(m, left, len(batch)) {
			return lie{errors.New("it does not give what it says that it has")}
		}
	}
}

// lane waits until one of the few requests at once may be made. Who takes long
// does not keep the others back for ever. It is nil when ctx ended.
func (f *fetch) lane(ctx context.Context) (leave func()) {
	select {
	case f.lanes <- struct{}{}:
	case <-ctx.Done():
		return nil
	}
	once := sync.OnceFunc(func() { <-f.lanes })
	slow := time.AfterFunc(laneTime, once)
	return func() {
		slow.Stop()
		once()
	}
}

// lacks notes what a peer did not give, and says whether that was too often.
func (f *fetch) lacks(m *member, left []int, asked int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, i := range left {
		if m.said[i] {
			m.said[i] = false
			f.holders[i]--
			m.has = slices.DeleteFunc(m.has, func(o uint32) bool { return int(o) == i })
		}
	}
	if m.empty++; len(left) < asked {
		m.empty = 0
	}
	return m.empty > emptyHands
}

// pick claims some of what a peer has, the rarest first. more says whether
// there may be something later.
func (f *fetch) pick(m *member) (batch []int, more bool) {
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	var some []int
	for k := 0; k < len(m.has) && len(some) < 32; {
		i := int(m.has[k])
		if f.state[i] == taken { // its place is for the last one, in no order anyway
			m.has[k] = m.has[len(m.has)-1]
			m.has = m.has[:len(m.has)-1]
			continue
		}
		if f.state[i] == missing || now.Sub(f.asked[i]) > overdue {
			some = append(some, i)
		}
		k++
	}
	slices.SortStableFunc(some, func(a, b int) int { return int(f.holders[a]) - int(f.holders[b]) })
	n := min(max(f.left/(8*perPeer*max(f.active, 1)), 1), peerBatch)
	batch = some[:min(len(some), n)]
	for _, i := range batch {
		f.state[i], f.asked[i] = coming, now
	}
	return batch, !m.whole || len(m.has) > 0
}
