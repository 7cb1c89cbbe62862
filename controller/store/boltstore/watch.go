package boltstore

import (
	"context"
	"iter"
	"slices"
	"sort"
	"strings"
	"sync"

	"muster/controller/store"
)

// The newest commits are remembered for the watchers within these bounds.
const (
	maxRecent      = 1024
	maxRecentBytes = 4 << 20
)

// live is the published end of the feed. Watchers come and take; nothing is
// kept for any of them.
type live struct {
	mu      sync.Mutex
	ext     extent
	recent  []store.Commit // consecutive, the last is ext.newest
	bytes   int
	changed chan struct{} // closed and replaced when ext.newest advances
}

func newLive(e extent) *live { return &live{ext: e, changed: make(chan struct{})} }

func (l *live) extent() extent {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ext
}

func (l *live) newest() uint64 { return l.extent().newest }

func (l *live) publish(commits []store.Commit, e extent) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ext = e
	if len(commits) == 0 {
		return
	}
	for _, c := range commits {
		l.recent = append(l.recent, c)
		l.bytes += weight(c)
	}
	drop := 0
	for len(l.recent)-drop > maxRecent || l.bytes > maxRecentBytes {
		l.bytes -= weight(l.recent[drop])
		l.recent[drop] = store.Commit{} // free what it held
		drop++
	}
	l.recent = l.recent[drop:]
	close(l.changed)
	l.changed = make(chan struct{})
}

func weight(c store.Commit) int {
	n := 0
	for _, ch := range c.Changes {
		n += len(ch.Key) + len(ch.Value)
	}
	return n
}

// after gives the newest revision, those commits after rev that are remembered
// (none if rev+1 is not), and the channel that tells of newer ones.
func (l *live) after(rev uint64) (newest uint64, commits []store.Commit, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.recent) > 0 && rev < l.ext.newest && rev+1 >= l.recent[0].Revision {
		from := int(rev + 1 - l.recent[0].Revision)
		commits = slices.Clone(l.recent[from:min(len(l.recent), from+maxRead)])
	}
	return l.ext.newest, commits, l.changed
}

// Watch implements store.Store.
func (s *Store) Watch(ctx context.Context, prefix string, after uint64) iter.Seq2[store.Commit, error] {
	return func(yield func(store.Commit, error) bool) {
		at := after
		for {
			commits, err := s.wait(ctx, at)
			for _, c := range commits {
				if err = s.ended(ctx); err != nil {
					break
				}
				at = c.Revision
				if c.Changes = touching(c.Changes, prefix); len(c.Changes) > 0 && !yield(c, nil) {
					return
				}
			}
			if err != nil {
				yield(store.Commit{}, err)
				return
			}
		}
	}
}

// wait gives the next commits after a revision as soon as there are any.
func (s *Store) wait(ctx context.Context, after uint64) ([]store.Commit, error) {
	for {
		if err := s.ended(ctx); err != nil {
			return nil, err
		}
		newest, commits, changed := s.live.after(after)
		switch {
		case after > newest:
			return nil, store.ErrCompacted
		case len(commits) > 0:
			return commits, nil
		case after < newest:
			return s.readFeed(after, newest)
		}
		select {
		case <-changed:
		case <-s.closing:
		case <-ctx.Done():
		}
	}
}

func (s *Store) ended(ctx context.Context) error {
	if s.closed.Load() {
		return store.ErrClosed
	}
	return ctx.Err()
}

// touching gives those changes, sorted by key, whose key has the prefix.
func touching(changes []store.Change, prefix string) []store.Change {
	from := sort.Search(len(changes), func(i int) bool { return changes[i].Key >= prefix })
	n := 0
	for from+n < len(changes) && strings.HasPrefix(changes[from+n].Key, prefix) {
		n++
	}
	return changes[from : from+n : from+n]
}
