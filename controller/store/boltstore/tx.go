package boltstore

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sort"
	"strings"

	bolt "go.etcd.io/bbolt"

	"muster/controller/store"
)

// maxTransaction bounds what one Update may write, in bytes: all of it is in
// memory, and becomes one entry of the feed.
const maxTransaction = 256 << 20

var errEnded = errors.New("store: the transaction has ended")

// tx is a transaction. In an Update the writes stay in own until the function
// has succeeded, so bbolt's bucket does not change under a Scan.
type tx struct {
	s     *Store
	data  *bolt.Bucket
	own   *overlay // nil in a View
	ended bool
}

func (t *tx) end() { t.ended = true }

func (t *tx) check(key string) error {
	switch {
	case t.ended:
		return errEnded
	case key == "":
		return errors.New("store: a key must not be empty")
	case len(key) > store.MaxKey:
		return fmt.Errorf("store: the key %.40q… has %d bytes, %d are allowed", key, len(key), store.MaxKey)
	}
	return nil
}

// Get implements store.Tx.
func (t *tx) Get(key string) (value []byte, err error) {
	if err := t.check(key); err != nil {
		return nil, err
	}
	if t.own != nil {
		if v, ok := t.own.values[key]; ok {
			return v, nil
		}
	}
	err = t.s.guard(func() error {
		value = bytes.Clone(t.data.Get([]byte(key)))
		return nil
	})
	return value, err
}

// Put implements store.Tx.
func (t *tx) Put(key string, value []byte) error {
	if err := t.check(key); err != nil {
		return err
	}
	if len(value) > store.MaxValue {
		return fmt.Errorf("store: the value of %q has %d bytes, %d are allowed", key, len(value), store.MaxValue)
	}
	if value == nil {
		value = []byte{}
	}
	return t.set(key, value)
}

// Delete implements store.Tx.
func (t *tx) Delete(key string) error {
	if err := t.check(key); err != nil {
		return err
	}
	return t.set(key, nil)
}

func (t *tx) set(key string, value []byte) error {
	if t.own == nil {
		return store.ErrReadOnly
	}
	if t.own.bytes+len(key)+len(value) > maxTransaction {
		return fmt.Errorf("store: a transaction may write %d bytes and %q would exceed that: split it", maxTransaction, key)
	}
	t.own.set(key, value)
	return nil
}

// Scan implements store.Tx.
func (t *tx) Scan(prefix, from string) iter.Seq2[store.Pair, error] {
	return func(yield func(store.Pair, error) bool) {
		start := max(prefix, from)
		var own []store.Pair
		if t.own != nil {
			own = t.own.pairs(prefix, start)
		}
		disk := t.seek(prefix, start)
		for disk.err == nil && (disk.key != nil || len(own) > 0) {
			var p store.Pair
			if len(own) > 0 && (disk.key == nil || own[0].Key <= string(disk.key)) {
				p, own = own[0], own[1:]
				if p.Key == string(disk.key) {
					disk.next()
				}
				if p.Value == nil {
					continue
				}
			} else {
				p = store.Pair{Key: string(disk.key), Value: bytes.Clone(disk.value)}
				disk.next()
			}
			if !yield(p, nil) {
				return
			}
		}
		if disk.err != nil {
			yield(store.Pair{}, disk.err)
		}
	}
}

// diskScan walks the bucket's keys with a prefix. key is nil at the end.
type diskScan struct {
	t          *tx
	cursor     *bolt.Cursor
	prefix     []byte
	key, value []byte
	err        error
}

func (t *tx) seek(prefix, start string) *diskScan {
	d := &diskScan{t: t, prefix: []byte(prefix)}
	d.move(func() ([]byte, []byte) {
		d.cursor = t.data.Cursor()
		return d.cursor.Seek([]byte(start))
	})
	return d
}

func (d *diskScan) next() { d.move(d.cursor.Next) }

func (d *diskScan) move(step func() (key, value []byte)) {
	if d.t.ended {
		d.key, d.err = nil, errEnded
		return
	}
	d.err = d.t.s.guard(func() error {
		d.key, d.value = step()
		return nil
	})
	if d.err != nil || !bytes.HasPrefix(d.key, d.prefix) {
		d.key = nil
	}
}

// overlay is what a transaction has written so far.
type overlay struct {
	values map[string][]byte // nil for a key deleted
	keys   []string          // those of values
	sorted bool              // whether keys is
	bytes  int
}

func newOverlay() *overlay { return &overlay{values: map[string][]byte{}} }

func (o *overlay) set(key string, value []byte) {
	old, ok := o.values[key]
	if !ok {
		o.keys = append(o.keys, key)
		o.sorted = false
		o.bytes += len(key)
	}
	o.bytes += len(value) - len(old)
	o.values[key] = value
}

func (o *overlay) ordered() []string {
	if !o.sorted {
		slices.Sort(o.keys)
		o.sorted = true
	}
	return o.keys
}

// pairs copies the writes to keys with the prefix that are not less than
// start, deletions as nil values.
func (o *overlay) pairs(prefix, start string) []store.Pair {
	keys := o.ordered()
	var pairs []store.Pair
	for _, k := range keys[sort.SearchStrings(keys, start):] {
		if !strings.HasPrefix(k, prefix) {
			break
		}
		pairs = append(pairs, store.Pair{Key: k, Value: o.values[k]})
	}
	return pairs
}
