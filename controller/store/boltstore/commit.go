package boltstore

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"

	bolt "go.etcd.io/bbolt"

	"muster/controller/store"
)

// One commit's bounds: they limit how long the first caller waits for the
// others, and what has to be in memory.
const (
	maxBatch      = 1024
	maxBatchBytes = 8 << 20
)

// request is one Update's way through a batch. Its function runs in the
// caller's own goroutine when the writer gives it the turn, so a panic or a
// runtime.Goexit there is the caller's alone. All channels are buffered: the
// writer never waits for a caller that has gone.
type request struct {
	ctx  context.Context
	turn chan *tx   // its turn has come; closed when it shall not run
	ran  chan error // the function's result
	done chan result
}

type result struct {
	revision uint64
	err      error
}

var errGone = errors.New("store: the transaction's function ended its goroutine")

// Update implements store.Store.
func (s *Store) Update(ctx context.Context, fn func(store.Tx) error) (uint64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	r := &request{ctx: ctx, turn: make(chan *tx, 1), ran: make(chan error, 1), done: make(chan result, 1)}
	select {
	case s.requests <- r:
	case <-s.closing:
		return 0, store.ErrClosed
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	if t := <-r.turn; t != nil {
		r.run(t, fn)
	}
	res := <-r.done
	return res.revision, res.err
}

func (r *request) run(t *tx, fn func(store.Tx) error) {
	err := errGone
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("store: the transaction's function panicked: %v\n%s", p, debug.Stack())
		}
		t.end()
		r.ran <- err
	}()
	err = fn(t)
}

// write is the writer: the only goroutine that commits.
func (s *Store) write() {
	defer close(s.stopped)
	for {
		select {
		case r := <-s.requests:
			s.writeBatch(r)
		case <-s.closing:
			return
		}
	}
}

// writeBatch commits first and all that is waiting behind it. Everybody gets
// an answer only after the commit, even one that wrote nothing or failed: it
// may have seen what others in the batch had written.
func (s *Store) writeBatch(first *request) {
	b := &batch{s: s, extent: s.live.extent()}
	if b.bolt, b.err = s.begin(true); b.err == nil {
		b.data, b.feed = b.bolt.Bucket(bucketData), b.bolt.Bucket(bucketFeed)
	}
	for r := first; r != nil; r = b.next() {
		b.run(r)
	}
	b.commit()
	if b.err == nil {
		s.live.publish(b.commits, b.extent)
	}
	for i, r := range b.requests {
		if b.err != nil {
			b.results[i] = result{err: b.err}
		}
		r.done <- b.results[i]
	}
}

// batch is the transactions that share one commit.
type batch struct {
	s          *Store
	bolt       *bolt.Tx
	data, feed *bolt.Bucket
	extent     extent // of the feed as the batch will leave it
	requests   []*request
	results    []result
	commits    []store.Commit
	bytes      int
	changed    bool
	err        error // fails the whole batch
}

// next gives a request that is waiting already, nil when there is none or the
// batch is full.
func (b *batch) next() *request {
	if b.err != nil || len(b.requests) == maxBatch || b.bytes >= maxBatchBytes {
		return nil
	}
	select {
	case r := <-b.s.requests:
		return r
	default:
		return nil
	}
}

// run gives r its turn and, if its function succeeded, applies what it wrote.
func (b *batch) run(r *request) {
	b.requests = append(b.requests, r)
	err := r.ctx.Err()
	if err != nil || b.err != nil {
		close(r.turn)
		b.results = append(b.results, result{err: err})
		return
	}
	own := newOverlay()
	r.turn <- &tx{s: b.s, data: b.data, own: own}
	if err = <-r.ran; err == nil && len(own.keys) > 0 {
		b.err = b.s.guard(func() error { return b.apply(own) })
	}
	b.results = append(b.results, result{revision: b.extent.newest, err: err})
	if err != nil {
		b.results[len(b.results)-1].revision = 0
	}
}

// apply writes a transaction into bbolt's, with its entry of the feed.
func (b *batch) apply(own *overlay) error {
	var changes []store.Change
	for _, key := range own.ordered() {
		k, value := []byte(key), own.values[key]
		if value == nil {
			if b.data.Get(k) == nil {
				continue
			}
			if err := b.data.Delete(k); err != nil {
				return fmt.Errorf("store: deleting %q: %w", key, err)
			}
		} else if err := b.data.Put(k, value); err != nil {
			return fmt.Errorf("store: writing %q: %w", key, err)
		}
		b.changed = true
		if !strings.HasPrefix(key, store.Unlogged) {
			changes = append(changes, store.Change{Key: key, Value: value})
		}
	}
	b.bytes += own.bytes
	if len(changes) == 0 {
		return nil
	}
	c := store.Commit{Revision: b.extent.newest + 1, Changes: changes}
	if err := b.extent.add(b.feed, c); err != nil {
		return err
	}
	b.commits = append(b.commits, c)
	return nil
}

// commit puts the batch on disk.
func (b *batch) commit() {
	if b.bolt == nil {
		return
	}
	if b.err != nil || !b.changed {
		b.bolt.Rollback()
		return
	}
	id := b.bolt.ID()
	b.err = b.s.guard(func() error {
		if len(b.commits) > 0 {
			if err := b.extent.trim(b.feed, b.s.opt); err != nil {
				return err
			}
			if err := b.bolt.Bucket(bucketMeta).Put(keyExtent, b.extent.encode()); err != nil {
				return err
			}
		}
		return b.bolt.Commit()
	})
	if b.err == nil {
		return
	}
	b.bolt.Rollback() // nothing if Commit has done that
	if errors.Is(b.err, errDamaged) || b.s.committed(id) {
		b.err = b.s.halt(b.err)
		return
	}
	b.err = fmt.Errorf("store: cannot write %s: %w", b.s.path, b.err)
}

// committed tells whether readers see the transaction although its commit
// failed: then its last page was written and not synced, and whether it will
// be there after a restart cannot be known.
func (s *Store) committed(id int) bool {
	r, err := s.db.Begin(false)
	if err != nil {
		return true
	}
	defer r.Rollback()
	return r.ID() >= id
}
