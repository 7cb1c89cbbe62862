package pull

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"muster/images/chunk"
	"muster/images/pack"
)

// arrivals is what came, in order, for those who follow it.
type arrivals struct {
	mu    sync.Mutex
	open  int // pulls that may bring more
	fresh []chunk.Digest
	grown chan struct{} // closed and replaced when something comes, or nothing will any more
}

// news wakes those who follow. a.mu is held.
func (a *arrivals) news() {
	if a.grown != nil {
		close(a.grown)
		a.grown = nil
	}
}

// expect says that something is going to come, until the function is called.
func (a *arrivals) expect() (end func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.open++
	return sync.OnceFunc(func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.open--
		a.news()
	})
}

func (a *arrivals) add(d chunk.Digest) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.fresh = append(a.fresh, d)
	a.news()
}

// Follow gives what came after the first n chunks, and a channel that is
// closed when there is more; nil where nothing will come.
func (a *arrivals) Follow(n int) (fresh []chunk.Digest, grown <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	fresh = a.fresh[min(n, len(a.fresh)):]
	if a.open == 0 {
		return fresh, nil
	}
	if a.grown == nil {
		a.grown = make(chan struct{})
	}
	return fresh, a.grown
}

// keepers are those who put chunks into a cache just now: what they have can
// be given before it is committed.
type keepers struct {
	mu  sync.Mutex
	all []*keeper
}

// keeper puts what comes into the cache.
type keeper struct {
	session  *pack.Session
	arrivals *arrivals
	arrived  func()
	busy     atomic.Bool
}

// keep begins to put chunks into the cache; end must be called.
func (c *Cache) keep() *keeper {
	k := &keeper{session: c.store.Begin(), arrivals: &c.arrivals, arrived: c.expect()}
	c.keepers.mu.Lock()
	defer c.keepers.mu.Unlock()
	c.keepers.all = append(c.keepers.all, k)
	return k
}

func (c *Cache) end(k *keeper) {
	c.keepers.mu.Lock()
	c.keepers.all = slices.DeleteFunc(c.keepers.all, func(o *keeper) bool { return o == k })
	c.keepers.mu.Unlock()
	k.arrived()
	k.session.End()
}

func (k *keeper) put(d chunk.Digest, g Got) error {
	if err := k.session.Put(d, g.Stored, g.Encoding); err != nil {
		return local{fmt.Errorf("the cache: %w", err)}
	}
	k.arrivals.add(d)
	// One at a time commits; the others go on meanwhile as far as they can.
	if k.session.Written() < commitEvery || !k.busy.CompareAndSwap(false, true) {
		return nil
	}
	defer k.busy.Store(false)
	return k.session.Commit()
}

func (c *Cache) sessions() []*keeper {
	c.keepers.mu.Lock()
	defer c.keepers.mu.Unlock()
	return slices.Clone(c.keepers.all)
}

// Has says whether the cache can give a chunk, now.
func (c *Cache) Has(d chunk.Digest) bool {
	return c.store.Has(d) || slices.ContainsFunc(c.sessions(), func(k *keeper) bool { return k.session.Here(d) })
}

// Stored gives a chunk as it is stored, in buf where there is room.
func (c *Cache) Stored(d chunk.Digest, buf []byte) ([]byte, chunk.Encoding, error) {
	b, e, err := c.store.Stored(d, buf)
	if !errors.Is(err, pack.ErrAbsent) {
		return b, e, err
	}
	for _, k := range c.sessions() {
		if b, e, err = k.session.Stored(d, buf); err == nil {
			break
		}
	}
	return b, e, err
}
