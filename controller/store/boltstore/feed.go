package boltstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	bolt "go.etcd.io/bbolt"

	"muster/controller/store"
)

// extent is what the feed on disk holds: every revision from oldest to newest,
// in that many bytes. It is empty when oldest is newest+1.
type extent struct {
	newest, oldest, bytes uint64
}

func (e extent) encode() []byte {
	b := binary.BigEndian.AppendUint64(nil, e.newest)
	b = binary.BigEndian.AppendUint64(b, e.oldest)
	return binary.BigEndian.AppendUint64(b, e.bytes)
}

func decodeExtent(b []byte) (extent, error) {
	if len(b) != 24 {
		return extent{}, fmt.Errorf("the feed's extent has %d bytes instead of 24", len(b))
	}
	e := extent{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint64(b[16:])}
	if e.oldest == 0 || e.oldest > e.newest+1 {
		return extent{}, fmt.Errorf("the feed is said to hold revisions %d to %d", e.oldest, e.newest)
	}
	return e, nil
}

func feedKey(revision uint64) []byte { return binary.BigEndian.AppendUint64(nil, revision) }

// add appends a commit to the feed.
func (e *extent) add(feed *bolt.Bucket, c store.Commit) error {
	entry := encodeChanges(c.Changes)
	feed.FillPercent = 1 // entries only come at the end
	if err := feed.Put(feedKey(c.Revision), entry); err != nil {
		return fmt.Errorf("store: writing revision %d to the change feed: %w", c.Revision, err)
	}
	e.newest = c.Revision
	e.bytes += uint64(len(entry))
	return nil
}

// trim cuts the feed back once it exceeds a bound by a margin, so that most
// commits need not touch its old end.
func (e *extent) trim(feed *bolt.Bucket, opt Options) error {
	length, size := uint64(opt.FeedLength), uint64(opt.FeedBytes)
	if e.newest-e.oldest+1 <= length+min(length/10, 1024) && e.bytes <= size {
		return nil
	}
	cursor := feed.Cursor()
	for k, v := cursor.First(); e.newest-e.oldest+1 > length || e.bytes > size-size/10; k, v = cursor.First() {
		if k == nil || binary.BigEndian.Uint64(k) != e.oldest {
			return fmt.Errorf("store: the change feed has no revision %d", e.oldest)
		}
		e.oldest++
		e.bytes -= uint64(len(v))
		if err := cursor.Delete(); err != nil {
			return fmt.Errorf("store: trimming the change feed: %w", err)
		}
	}
	return nil
}

// encodeChanges is an entry of the feed: for each change the length of the
// key, the key, the length of the value plus one (0 for a deletion), the value;
// lengths as uvarints.
func encodeChanges(changes []store.Change) []byte {
	size := 0
	for _, c := range changes {
		size += 2*binary.MaxVarintLen32 + len(c.Key) + len(c.Value)
	}
	b := make([]byte, 0, size)
	for _, c := range changes {
		b = binary.AppendUvarint(b, uint64(len(c.Key)))
		b = append(b, c.Key...)
		if c.Value == nil {
			b = append(b, 0)
			continue
		}
		b = binary.AppendUvarint(b, uint64(len(c.Value))+1)
		b = append(b, c.Value...)
	}
	return b
}

var errEntry = errors.New("a malformed entry in the change feed")

// decodeChanges reads an entry; the values are parts of it.
func decodeChanges(entry []byte) ([]store.Change, error) {
	var changes []store.Change
	for len(entry) > 0 {
		key, rest, err := cut(entry, 0)
		if err != nil || len(key) == 0 {
			return nil, errEntry
		}
		c := store.Change{Key: string(key)}
		if len(rest) > 0 && rest[0] == 0 {
			rest = rest[1:]
		} else if c.Value, rest, err = cut(rest, 1); err != nil {
			return nil, err
		}
		changes = append(changes, c)
		entry = rest
	}
	if len(changes) == 0 {
		return nil, errEntry
	}
	return changes, nil
}

// cut takes a field off b whose length is given with bias added.
func cut(b []byte, bias uint64) (field, rest []byte, err error) {
	n, used := binary.Uvarint(b)
	if used <= 0 || n < bias || n-bias > uint64(len(b)-used) {
		return nil, nil, errEntry
	}
	b = b[used:]
	n -= bias
	return b[:n:n], b[n:], nil
}

// One reading of the feed from disk is bounded, so that a slow watcher neither
// holds much memory nor keeps a read transaction open, which would keep bbolt
// from reusing pages.
const (
	maxRead      = 256
	maxReadBytes = 1 << 20
)

// readFeed reads commits after a revision, up to newest: what is beyond that
// may not be synced yet.
func (s *Store) readFeed(after, newest uint64) ([]store.Commit, error) {
	btx, err := s.begin(false)
	if err != nil {
		return nil, err
	}
	defer btx.Rollback()
	var commits []store.Commit
	err = s.guard(func() error {
		cursor := btx.Bucket(bucketFeed).Cursor()
		size, next := 0, after+1
		for k, v := cursor.Seek(feedKey(next)); next <= newest; k, v = cursor.Next() {
			if len(commits) == maxRead || size >= maxReadBytes {
				return nil
			}
			if !bytes.Equal(k, feedKey(next)) {
				if len(commits) == 0 {
					return store.ErrCompacted
				}
				return s.damaged(fmt.Errorf("the change feed has no revision %d", next))
			}
			changes, err := decodeChanges(bytes.Clone(v))
			if err != nil {
				return s.damaged(fmt.Errorf("revision %d: %w", next, err))
			}
			commits = append(commits, store.Commit{Revision: next, Changes: changes})
			size += len(v)
			next++
		}
		return nil
	})
	return commits, err
}
