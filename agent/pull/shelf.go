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

// shelf is what a cache can give to others: what was verified, from the moment
// on when it was.
type shelf struct {
	mu      sync.Mutex
	keepers []*keeper
	fresh   []chunk.Digest // what came since the cache was opened
	grown   chan struct{}  // closed and replaced when something comes
}

// keeper puts what comes into the cache.
type keeper struct {
	session *pack.Session
	shelf   *shelf
	busy    atomic.Bool
}

// keep begins to put chunks into the cache; end must be called.
func (c *Cache) keep() *keeper {
	k := &keeper{session: c.store.Begin(), shelf: &c.shelf}
	c.shelf.mu.Lock()
	defer c.shelf.mu.Unlock()
	c.shelf.keepers = append(c.shelf.keepers, k)
	return k
}

func (c *Cache) end(k *keeper) {
	c.shelf.mu.Lock()
	c.shelf.keepers = slices.DeleteFunc(c.shelf.keepers, func(o *keeper) bool { return o == k })
	c.shelf.news()
	c.shelf.mu.Unlock()
	k.session.End()
}

// news wakes those who follow. s.mu is held.
func (s *shelf) news() {
	if s.grown != nil {
		close(s.grown)
		s.grown = nil
	}
}

func (k *keeper) put(d chunk.Digest, g Got) error {
	if err := k.session.Put(d, g.Stored, g.Encoding); err != nil {
		return local{fmt.Errorf("the cache: %w", err)}
	}
	k.shelf.mu.Lock()
	k.shelf.fresh = append(k.shelf.fresh, d)
	k.shelf.news()
	k.shelf.mu.Unlock()
	// One at a time commits; the others go on meanwhile as far as they can.
	if k.session.Written() < commitEvery || !k.busy.CompareAndSwap(false, true) {
		return nil
	}
	defer k.busy.Store(false)
	return k.session.Commit()
}

// Has says whether the cache can give a chunk, now.
func (c *Cache) Has(d chunk.Digest) bool {
	if c.store.Has(d) {
		return true
	}
	c.shelf.mu.Lock()
	defer c.shelf.mu.Unlock()
	return slices.ContainsFunc(c.shelf.keepers, func(k *keeper) bool { return k.session.Here(d) })
}

// Stored gives a chunk as it is stored, in buf where there is room.
func (c *Cache) Stored(d chunk.Digest, buf []byte) ([]byte, chunk.Encoding, error) {
	b, e, err := c.store.Stored(d, buf)
	if !errors.Is(err, pack.ErrAbsent) {
		return b, e, err
	}
	c.shelf.mu.Lock()
	keepers := slices.Clone(c.shelf.keepers)
	c.shelf.mu.Unlock()
	for _, k := range keepers {
		if b, e, err = k.session.Stored(d, buf); err == nil {
			break
		}
	}
	return b, e, err
}

// Follow gives what came after the first n chunks, and a channel that is
// closed when there is more; nil where nothing is being pulled.
func (c *Cache) Follow(n int) (fresh []chunk.Digest, grown <-chan struct{}) {
	s := &c.shelf
	s.mu.Lock()
	defer s.mu.Unlock()
	fresh = s.fresh[min(n, len(s.fresh)):]
	if len(s.keepers) == 0 {
		return fresh, nil
	}
	if s.grown == nil {
		s.grown = make(chan struct{})
	}
	return fresh, s.grown
}
