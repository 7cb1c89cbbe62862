package peer

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"muster/agent/head"
	"muster/agent/pull"
	"muster/images/chunk"
	"muster/shared/wire"
)

// How chunks are asked for.
const (
	giveStall   = 4 * time.Second  // without a byte, a peer is given up
	giveTime    = 20 * time.Second // for one request
	overdue     = 3 * time.Second  // after that somebody else is asked as well
	standstill  = 12 * time.Second // without any chunk, the rest is asked of the head alone
	perPeer     = 2                // requests at once to one
	lanes       = 8                // requests at once to all: few that are fast cost everybody less than many that are slow
	laneTime    = time.Second      // how long a slow one keeps others back
	peerBatch   = 4                // chunks of one
	headLines   = 2                // requests to the head at once
	headBatch   = 4                // chunks of one, while there are others
	headMost    = 64               // and without
	choice      = 4                // times as many chunks are named to the head
	elsewhere   = time.Second      // until it is asked again for what it gave to another
	idle        = 40 * time.Millisecond
	firstAnswer = 2 * time.Second        // for the head to introduce somebody
	rest        = 200 * time.Millisecond // until a peer that has nothing is looked at again, unless it says something
	emptyHands  = 8                      // answers without anything that a peer said it had
)

// Swarm takes chunks from the nodes of a group, and from the head what none of
// them has: each node other ones, so that they have something to give.
type Swarm struct {
	group  *Group
	source *pull.Source
	client *http.Client // to peers
	head   atomic.Int64
	now    atomic.Pointer[fetch] // the one that is under way
}

// NewSwarm makes one.
func NewSwarm(g *Group, s *pull.Source, d head.Dialer) *Swarm {
	t := d.Transport(nil)
	dial := d.Net()
	dial.Timeout = 5 * time.Second // a packet or two may be lost
	t.DialContext = dial.DialContext
	t.ResponseHeaderTimeout = 0 // giveStall holds
	t.MaxIdleConnsPerHost = perPeer + 1
	t.MaxConnsPerHost = perPeer + 2 // one follows what it has, one is for who cannot wait
	t.MaxResponseHeaderBytes = 4 << 10
	t.ReadBufferSize = 32 << 10
	return &Swarm{group: g, source: s, client: &http.Client{Transport: t,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// FromHead implements pull.Swarm.
func (s *Swarm) FromHead() int64 { return s.head.Load() }

// fetch is one Fetch.
type fetch struct {
	*Swarm
	want []chunk.Ref
	take func(int, pull.Got) error

	mu      sync.Mutex
	state   []progress
	asked   []time.Time // when, of those that are coming
	later   []time.Time // until when the head has given it to another
	holders []uint16
	left    int
	moved   time.Time // when the last chunk came
	members map[string]*member
	active  int                  // members that are being asked
	places  map[chunk.Digest]int // made when it is first needed
	lanes   chan struct{}
	end     context.CancelCauseFunc
}

type progress uint8

const (
	missing progress = iota
	coming
	taken
)

// Why a fetch ends.
var (
	errDone       = errors.New("all is there")
	errStandstill = errors.New("nothing came from other nodes for a while")
	errAlone      = errors.New("the head introduces nobody")
)

// member is a peer of one fetch.
type member struct {
	wire.Peer
	wake    chan struct{}
	has     []uint32 // places that it has, less those that were found taken
	said    []bool   // what it said it has
	whole   bool     // it will not have more
	empty   int      // answers in a row without anything
	running bool
	until   time.Time // not asked before
	never   bool      // not asked any more
}

// Fetch implements pull.Chunks. What it leaves is what the head gives to
// everybody who asks.
func (s *Swarm) Fetch(ctx context.Context, want []chunk.Ref, take func(int, pull.Got) error) ([]int, error) {
	select {
	case <-s.group.asked:
	case <-time.After(firstAnswer):
	case <-ctx.Done():
	}
	if _, _, failed := s.group.Peers(); failed {
		return all(len(want)), nil
	}
	outer := ctx
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	f := &fetch{Swarm: s, want: want, take: take, state: make([]progress, len(want)), asked: make([]time.Time, len(want)), later: make([]time.Time, len(want)),
		holders: make([]uint16, len(want)), left: len(want), moved: time.Now(), members: map[string]*member{}, lanes: make(chan struct{}, lanes), end: cancel}
	defer s.client.CloseIdleConnections()
	s.now.Store(f)
	defer s.now.Store(nil)
	var lines sync.WaitGroup
	for range headLines {
		lines.Go(func() { f.askHead(ctx) })
	}
	lines.Go(func() { f.meet(ctx, &lines) })
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-tick.C:
			f.mu.Lock()
			if time.Since(f.moved) > standstill {
				cancel(errStandstill)
			}
			f.mu.Unlock()
		}
	}
	lines.Wait()
	if outer.Err() != nil {
		return nil, context.Cause(outer)
	}
	if err := context.Cause(ctx); pull.IsLocal(err) {
		return nil, err
	}
	var left []int
	for i, p := range f.state {
		if p != taken {
			left = append(left, i)
		}
	}
	return left, nil
}

// all gives the places of n chunks.
func all(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

// got is the take of every line.
func (f *fetch) got(fromHead bool) func(int, pull.Got) error {
	return func(i int, g pull.Got) error {
		f.mu.Lock()
		if f.state[i] == taken {
			f.mu.Unlock()
			return nil
		}
		f.state[i] = taken
		f.mu.Unlock()
		g.Head = fromHead
		if err := f.take(i, g); err != nil {
			return err
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.moved = time.Now()
		if f.left--; f.left == 0 {
			f.end(errDone)
		}
		return nil
	}
}

// release gives back what did not come.
func (f *fetch) release(left []int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, i := range left {
		if f.state[i] == coming {
			f.state[i] = missing
		}
	}
}

// put sets back until when chunks are not named to the head.
func (f *fetch) put(left []int, later time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, i := range left {
		f.later[i] = later
	}
}

// askHead asks for what no peer has, until ctx ends: first which of it, by the
// node's identity, then for that, which is public.
func (f *fetch) askHead(ctx context.Context) {
	n := headBatch
	l := &pull.Line{Client: f.source.Client, URL: f.source.Head + wire.PathChunks, Header: f.source.Header, Stall: giveStall * 2, Bytes: &f.head}
	for ctx.Err() == nil {
		batch := f.rare(&n)
		if len(batch) == 0 {
			pause(ctx, idle)
			continue
		}
		mine, others, err := f.spare(ctx, batch, n)
		f.put(others, time.Now().Add(elsewhere))
		if err == nil && len(mine) > 0 {
			mine, err = l.Ask(ctx, f.want, mine, f.got(true))
		} else if err == nil {
			pause(ctx, idle)
		}
		f.put(mine, time.Time{})
		switch {
		case pull.IsLocal(err):
			f.end(err)
		case err != nil:
			pause(ctx, time.Second)
		}
	}
}

// spare divides a batch into what the head has for this node and what it gave
// to others.
func (f *fetch) spare(ctx context.Context, batch []int, n int) (mine, others []int, err error) {
	in := wire.Spare{Most: n}
	for _, i := range batch {
		in.Chunks = append(in.Chunks, f.want[i].Digest[:]...)
	}
	var places []uint32
	if _, err := f.group.head.Call(ctx, http.MethodPost, wire.PathSpare, in, &places); err != nil {
		return batch, nil, err
	}
	told := make([]bool, len(batch))
	for _, k := range places {
		if int64(k) >= int64(len(batch)) || told[k] || len(mine) == n {
			return batch, nil, errors.New("the head names chunks that it was not asked for")
		}
		told[k] = true
		mine = append(mine, batch[k])
	}
	for k, i := range batch {
		if !told[k] {
			others = append(others, i)
		}
	}
	return mine, others, nil
}

// rare chooses what to name to the head: what nobody else has, or what does
// not come from who has it. n is how much of it may come.
func (f *fetch) rare(n *int) []int {
	now, most := time.Now(), 0
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.active > 0 {
		*n, most = headBatch, headBatch*choice
	} else {
		*n = min(2**n, headMost)
		most = *n
	}
	var batch []int
	for k, start := 0, rand.IntN(len(f.want)); k < len(f.want) && len(batch) < most; k++ {
		i := (start + k) % len(f.want)
		if f.state[i] == taken || now.Before(f.later[i]) {
			continue
		}
		alone := f.state[i] == missing && f.holders[i] == 0
		late := now.Sub(f.moved) > overdue || f.state[i] == coming && now.Sub(f.asked[i]) > 2*overdue
		if alone || late {
			batch = append(batch, i)
			f.later[i] = now.Add(2 * overdue)
		}
	}
	return batch
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
