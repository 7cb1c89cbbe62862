// Package store keeps muster's state: ordered keys, bytes, and one change
// feed with a revision number per commit.
//
// It knows no kinds and no JSON. Only the registry (and the fleet, for
// telemetry) uses it, and only app picks a backend. Every backend passes
// storetest. What Update acknowledged is on disk.
package store

import (
	"context"
	"errors"
	"iter"
)

// Errors that callers tell apart.
var (
	// ErrCompacted is given by Watch when the feed cannot continue from the
	// revision asked for: what followed it is no longer held, or it is newer
	// than the newest (the database was put back from a backup). Take
	// Revision, read everything anew and watch from there.
	ErrCompacted = errors.New("store: that revision is no longer in the change feed")
	// ErrClosed is given by every method after Close.
	ErrClosed = errors.New("store: closed")
	// ErrReadOnly is given by writes in a View.
	ErrReadOnly = errors.New("store: write in a read-only transaction")
)

// MaxKey and MaxValue bound what a backend has to take, in bytes.
const (
	MaxKey   = 1 << 10
	MaxValue = 16 << 20
)

// Unlogged begins the keys that are kept like all others but never appear on
// the change feed nor advance the revision: telemetry, which changes too often
// to be remembered change by change.
const Unlogged = "~"

// Store is one database. All methods are safe for concurrent use.
type Store interface {
	// View runs fn on one consistent state.
	View(ctx context.Context, fn func(Tx) error) error

	// Update runs fn in a serializable transaction and returns the revision
	// of its commit once that is on disk. fn may run more than once and must
	// have no side effects. An error from fn changes nothing and is returned
	// as it is; a panic of fn becomes an error. A transaction that changed
	// nothing but Unlogged keys keeps the current revision. When ctx ends
	// before fn's turn has come, fn is not run. fn must not call the store's
	// own methods, nor may a View's.
	Update(ctx context.Context, fn func(Tx) error) (revision uint64, err error)

	// Watch gives every commit with a revision greater than after that
	// touched a key with the prefix, and of it the changes to such keys: once
	// each, in order, without gaps, first those already made, then new ones
	// as they are acknowledged. A slow watcher holds nobody up. It ends
	// when ctx ends or the store closes, with a last element that carries
	// the error. The feed survives a restart.
	Watch(ctx context.Context, prefix string, after uint64) iter.Seq2[Commit, error]

	// Revision is that of the newest commit, 0 for an empty store.
	Revision() uint64

	// Close waits for transactions under way, ends the watchers and releases
	// the database.
	Close() error
}

// Tx is a transaction, for use by one goroutine and only until its function
// returns. Values given out are valid after it; the caller must not change
// them, nor one that it has put. Keys are 1 to MaxKey bytes.
type Tx interface {
	// Get gives the value, or nil where there is none. A value of no bytes
	// is not nil.
	Get(key string) ([]byte, error)
	// Put of nil stores a value of no bytes.
	Put(key string, value []byte) error
	// Delete of a key that does not exist is no error, and no change.
	Delete(key string) error
	// Scan walks the keys with the prefix in byte order, from the first that
	// is not less than from ("" for the beginning). It sees this
	// transaction's own writes as they were when the loop began; the loop's
	// body may write. An error is the last element.
	Scan(prefix, from string) iter.Seq2[Pair, error]
}

// Pair is a key and its value.
type Pair struct {
	Key   string
	Value []byte
}

// Commit is one transaction's changes, in the order of their keys, each key
// once. It is shared between watchers: it must not be changed.
type Commit struct {
	Revision uint64
	Changes  []Change
}

// Change is one key's new value; nil Value means that it was deleted.
type Change struct {
	Key   string
	Value []byte
}
