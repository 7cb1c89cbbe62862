package pull

import (
	"context"
	"time"

	"muster/images/chunk"
	"muster/shared/wire"
)

// nearTime is how long another node may take to give what is waited for, before
// the head is asked.
const nearTime = 300 * time.Millisecond

// Fill fetches an image that is read meanwhile (Pieces) in chunks, so that most
// of it comes from other nodes. What it leaves, for whatever reason, the head
// gives: Run is to be called afterwards.
func (p *Image) Fill(ctx context.Context, image wire.Image, to *Pieces) error {
	x, err := p.SquashIndex(ctx, image)
	if err != nil {
		return err
	}
	l, err := lay(x, to.file, to.cover)
	if err != nil {
		return err
	}
	to.near(p.nearby(l))
	defer to.near(nil)
	return p.lay(ctx, x, l)
}

// nearby gives what a piece misses from one other node that has all of it.
func (p *Image) nearby(l *laying) func(ctx context.Context, piece int) {
	if p.Peers == nil {
		return nil
	}
	in := map[int][]int{} // the chunks that each piece needs
	for i, places := range l.places {
		for _, at := range places {
			for k := at / wire.PieceSize; k*wire.PieceSize < at+int64(l.want[i].Size); k++ {
				in[int(k)] = append(in[int(k)], i)
			}
		}
	}
	return func(ctx context.Context, piece int) {
		var missing []int
		var want []chunk.Ref
		l.mu.Lock()
		for _, i := range in[piece] {
			if !l.laid[i] {
				missing, want = append(missing, i), append(want, l.want[i])
			}
		}
		l.mu.Unlock()
		ctx, cancel := context.WithTimeout(ctx, nearTime)
		defer cancel()
		p.Peers.Now(ctx, want, func(k int, g Got) error {
			p.peers.Add(int64(len(g.Stored)))
			return l.put(missing[k], g.Content)
		})
	}
}

// cover notes that bytes are there which were verified otherwise.
func (p *Pieces) cover(off, n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := int(off / wire.PieceSize); n > 0; i++ {
		part := min(n, int64(i+1)*wire.PieceSize-off)
		off, n = off+part, n-part
		if p.covered[i] += int32(part); int64(p.covered[i]) == p.size(i) {
			p.arrived(i)
		}
	}
}

// near sets who is asked first for a piece that somebody waits for.
func (p *Pieces) near(ask func(ctx context.Context, piece int)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.nearby = ask
}
