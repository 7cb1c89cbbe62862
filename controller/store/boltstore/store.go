// Package boltstore keeps a store.Store in one bbolt file: the backend of a
// single head.
//
// One goroutine commits for everybody (see commit.go): the Updates that came
// while the last commit was being synced share the next one. That is where the
// speed comes from, so nothing here may hold the writer up: watchers read the
// feed by themselves, first from disk, then from a short memory of the newest
// commits. The package knows no keys other than store.Unlogged.
//
// The file has three buckets: "data" with the keys as they are, "feed" with an
// entry per revision, "meta" with the format's version and the feed's extent.
// The freelist is written with every commit (bbolt's default): leaving it out
// would save a page per commit and cost a walk over the whole file at start.
package boltstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"muster/controller/store"
	"muster/shared/filesystem"
)

const (
	lockTimeout = time.Second
	// reserve is the address space mapped at once, in bytes. bbolt has to wait
	// for every reader before it can map more, so that should be rare.
	reserve = 1 << 30
	format  = "1"
)

var (
	bucketMeta = []byte("meta")
	bucketData = []byte("data")
	bucketFeed = []byte("feed")
	keyFormat  = []byte("format")
	keyExtent  = []byte("extent")
)

// Options of Open. The zero value is what a head uses.
type Options struct {
	// FeedLength is how many of the newest commits the change feed keeps at
	// least, 100,000 when zero. Up to a tenth more may be held.
	FeedLength int
	// FeedBytes bounds what the feed's entries take on disk, 1 GiB when zero.
	// Beyond it the feed becomes shorter than FeedLength.
	FeedBytes int64
}

// Store is a store.Store in a bbolt file.
type Store struct {
	path string
	opt  Options
	db   *bolt.DB
	live *live

	requests chan *request
	closed   atomic.Bool
	closing  chan struct{} // closed by Close
	stopped  chan struct{} // closed when the writer has ended

	mu     sync.Mutex
	broken error // set once it is unknown what the disk holds
}

var _ store.Store = (*Store)(nil)

// Open opens the database at path, creating it when it does not exist; its
// directory must exist. It fails within about a second when another process
// holds the file. Close must be called.
func Open(path string, opt Options) (*Store, error) {
	if opt.FeedLength == 0 {
		opt.FeedLength = 100_000
	}
	if opt.FeedBytes == 0 {
		opt.FeedBytes = 1 << 30
	}
	if opt.FeedLength < 0 || opt.FeedBytes < 0 {
		return nil, fmt.Errorf("store: the change feed cannot keep %d commits in %d bytes", opt.FeedLength, opt.FeedBytes)
	}
	s := &Store{
		path:     path,
		opt:      opt,
		requests: make(chan *request),
		closing:  make(chan struct{}),
		stopped:  make(chan struct{}),
	}
	if err := s.open(); err != nil {
		return nil, err
	}
	if err := s.guard(s.load); err != nil {
		s.db.Close()
		return nil, err
	}
	go s.write()
	return s, nil
}

// open opens the file and makes its name durable.
func (s *Store) open() error {
	var file *os.File
	opt := &bolt.Options{
		Timeout:         lockTimeout,
		FreelistType:    bolt.FreelistMapType,
		InitialMmapSize: reserve,
		NoStatistics:    true,
		OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
			f, err := os.OpenFile(name, flag, mode)
			file = f
			return f, err
		},
	}
	err := s.guard(func() (err error) {
		s.db, err = bolt.Open(s.path, 0o600, opt)
		return err
	})
	switch {
	case err == nil:
		if err := filesystem.SyncDir(filepath.Dir(s.path)); err != nil {
			return fmt.Errorf("store: cannot sync the directory of the database: %w", err)
		}
		return nil
	case errors.Is(err, bolterrors.ErrTimeout):
		return fmt.Errorf("store: %s is in use by another process: stop that, or choose another data directory", s.path)
	case errors.Is(err, errDamaged):
		// bbolt panicked and left it open, and its memory map keeps the lock.
		syscall.Flock(int(file.Fd()), syscall.LOCK_UN)
		file.Close()
		return err
	case errors.As(err, new(syscall.Errno)):
		return fmt.Errorf("store: cannot open the database: %w", err)
	}
	return s.damaged(err)
}

// load reads where the feed stands, and lays out a new file.
func (s *Store) load() error {
	empty := false
	err := s.db.View(func(tx *bolt.Tx) error {
		info, err := os.Stat(s.path)
		if err != nil {
			return fmt.Errorf("store: %w", err)
		}
		if info.Size() < tx.Size() {
			return s.damaged(fmt.Errorf("it has %d bytes instead of %d", info.Size(), tx.Size()))
		}
		if name, _ := tx.Cursor().First(); name == nil {
			empty = true
			return nil
		} else if tx.Bucket(bucketMeta) == nil {
			return fmt.Errorf("store: %s is a database of another program (it has a bucket %q): choose another data directory", s.path, name)
		}
		return s.loadMeta(tx)
	})
	if empty {
		return s.db.Update(s.create)
	}
	return err
}

func (s *Store) loadMeta(tx *bolt.Tx) error {
	meta := tx.Bucket(bucketMeta)
	if f := meta.Get(keyFormat); string(f) != format {
		return fmt.Errorf("store: %s has format %q and this program knows %q: use the version of muster that wrote it", s.path, f, format)
	}
	e, err := decodeExtent(meta.Get(keyExtent))
	if err != nil {
		return s.damaged(err)
	}
	if tx.Bucket(bucketData) == nil || tx.Bucket(bucketFeed) == nil {
		return s.damaged(errors.New("a bucket is missing"))
	}
	s.live = newLive(e)
	return nil
}

func (s *Store) create(tx *bolt.Tx) error {
	for _, name := range [][]byte{bucketMeta, bucketData, bucketFeed} {
		if _, err := tx.CreateBucket(name); err != nil {
			return fmt.Errorf("store: %s: %w", s.path, err)
		}
	}
	e := extent{oldest: 1}
	meta := tx.Bucket(bucketMeta)
	if err := errors.Join(meta.Put(keyFormat, []byte(format)), meta.Put(keyExtent, e.encode())); err != nil {
		return fmt.Errorf("store: %s: %w", s.path, err)
	}
	s.live = newLive(e)
	return nil
}

// View implements store.Store.
func (s *Store) View(ctx context.Context, fn func(store.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	btx, err := s.begin(false)
	if err != nil {
		return err
	}
	defer btx.Rollback()
	t := &tx{s: s, data: btx.Bucket(bucketData)}
	defer t.end()
	return fn(t)
}

// begin starts a transaction of bbolt's, unless the store is closed or broken.
func (s *Store) begin(writable bool) (*bolt.Tx, error) {
	if s.closed.Load() && !writable {
		return nil, store.ErrClosed
	}
	s.mu.Lock()
	err := s.broken
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	btx, err := s.db.Begin(writable)
	if errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		return nil, store.ErrClosed
	}
	if err != nil {
		return nil, fmt.Errorf("store: %s: %w", s.path, err)
	}
	return btx, nil
}

// Revision implements store.Store.
func (s *Store) Revision() uint64 { return s.live.newest() }

// Close implements store.Store.
func (s *Store) Close() error {
	if s.closed.Swap(true) {
		return store.ErrClosed
	}
	close(s.closing)
	<-s.stopped
	if err := s.db.Close(); err != nil {
		return fmt.Errorf("store: closing %s: %w", s.path, err)
	}
	return nil
}

// halt ends all use of the store, because what it would give out may not be
// what a restart will find.
func (s *Store) halt(cause error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = fmt.Errorf("store: %s is out of use since a write failed half way (%w): see to its disk, then restart", s.path, cause)
	return s.broken
}

var errDamaged = errors.New("damaged or unreadable")

func (s *Store) damaged(cause error) error {
	return fmt.Errorf("store: %s is %w (%w): restore it from a backup", s.path, errDamaged, cause)
}

// guard runs fn and makes an error of the panics and memory faults by which
// bbolt reports a damaged file or a disk that fails under its memory map.
func (s *Store) guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = s.damaged(fmt.Errorf("%v", p))
		}
	}()
	return fn()
}
