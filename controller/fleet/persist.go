package fleet

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"hash/maphash"
	"maps"
	"net/netip"
	"strings"
	"time"

	"muster/controller/store"
)

// prefix is where the fleet's records lie: unlogged, one per node and section,
// so that a status that changes every few seconds does not rewrite the rest.
const prefix = store.Unlogged + "fleet/"

// gather is how long the writer lets more come in, so that one transaction
// takes all of it; pause how long it waits after one that failed: a full disk
// stays full for a while.
const (
	gather = 500 * time.Millisecond
	pause  = 5 * time.Second
)

// record is what is kept of a node besides its two reported sections. When it
// last reported is kept beside it too, as "seen": that is all that is new of a
// node whose reports say the same.
type record struct {
	Boots    []boot    `json:"boots,omitempty"`
	Identity identity  `json:"identity,omitzero"`
	State    string    `json:"state,omitempty"`
	Since    time.Time `json:"since,omitzero"`
	Reported time.Time `json:"reported,omitzero"`
	Notes    []note    `json:"notes,omitempty"`
	Changes  []Change  `json:"changes,omitempty"`
}

// bulky is from how many bytes on entries of a status are kept apart from the
// others: they change seldom, and are not written again with each report.
const bulky = 1 << 10

// written is what the disk has of a node: the number of its record, hashes of
// the sections that it sent, and in which turn that was written.
type written struct{ record, status, bulk, hardware, turn uint64 }

func (f *Fleet) load(ctx context.Context) error {
	return f.opt.Store.View(ctx, func(tx store.Tx) error {
		if err := f.loadTally(tx); err != nil {
			return err
		}
		for pair, err := range tx.Scan(prefix, "") {
			if err != nil {
				return err
			}
			uid, section, _ := strings.Cut(strings.TrimPrefix(pair.Key, prefix), "/")
			n := f.get(uid)
			switch section {
			case "status", "bulk":
				var entries map[string]json.RawMessage
				if err := json.Unmarshal(pair.Value, &entries); err != nil {
					return err
				}
				if n.status.entries == nil {
					n.status.entries = entries
				} else {
					maps.Copy(n.status.entries, entries)
				}
				n.status = newSection(n.status.entries)
				if section == "bulk" {
					n.written.bulk = f.hash(pair.Value)
				} else {
					n.written.status = f.hash(pair.Value)
				}
			case "hardware":
				n.hardware, n.written.hardware = pair.Value, f.hash(pair.Value)
			case "node":
				var r record
				if err := json.Unmarshal(pair.Value, &r); err != nil {
					return err
				}
				if addr, err := netip.ParseAddr(r.Identity.Addr); err == nil {
					f.windows[addr] = uid
				}
				n.boots, n.identity, n.was, n.since, n.reported = r.Boots, r.Identity, r.State, r.Since, r.Reported
				n.notes, n.changes = r.Notes, r.Changes
			case "seen": // after "node", in whose record it may be older
				if len(pair.Value) == 8 {
					n.reported = time.Unix(0, int64(binary.BigEndian.Uint64(pair.Value)))
				}
			}
		}
		return nil
	})
}

// Run writes behind until ctx ends, and then what is left.
func (f *Fleet) Run(ctx context.Context) error {
	counting := f.keepTally(ctx)
	counting.Go(func() { f.lookAround(ctx) })
	counting.Go(func() { f.keepPushing(ctx) })
	counting.Go(func() { f.keepWatch(ctx) })
	for {
		select {
		case <-ctx.Done():
			f.closeLinks()
			counting.Wait()
			return errors.Join(f.saveTally(context.WithoutCancel(ctx)), f.save(context.WithoutCancel(ctx), f.takeDirty()...))
		case <-f.wake:
		}
		sleep(ctx, gather)
		uids := f.takeDirty()
		if err := f.save(context.WithoutCancel(ctx), uids...); err != nil {
			f.opt.Log.Error("node states could not be stored, it will be tried again", "nodes", len(uids), "error", err)
			f.stainAll(uids)
			sleep(ctx, pause)
		}
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func (f *Fleet) takeDirty() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	uids := make([]string, 0, len(f.dirty))
	for uid := range f.dirty {
		uids = append(uids, uid)
	}
	clear(f.dirty)
	return uids
}

func (f *Fleet) stainAll(uids []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, uid := range uids {
		f.stain(uid)
	}
}

// save writes the records of some nodes; what is unknown is deleted. They are
// taken as they are when the transaction's turn has come: several saves may be
// under way, and the last to be written must not be an older one, which would
// bring back a key that was used. So f.mu must not be held while the store is
// waited for.
func (f *Fleet) save(ctx context.Context, uids ...string) error {
	if len(uids) == 0 {
		return nil
	}
	var hashes map[string]written
	_, err := f.opt.Store.Update(ctx, func(tx store.Tx) error {
		values, now, err := f.records(uids)
		if err != nil {
			return err
		}
		hashes = now
		for key, value := range values {
			if value == nil {
				err = tx.Delete(key)
			} else {
				err = tx.Put(key, value)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		for uid, is := range hashes {
			if n := f.nodes[uid]; n != nil && is.turn > n.written.turn {
				n.written = is
			}
		}
	}
	return err
}

// records gives what is to be stored of some nodes, nil for what is not to be,
// and what the disk has then. Turns are taken in the order of the transactions.
func (f *Fleet) records(uids []string) (values map[string][]byte, hashes map[string]written, err error) {
	values, hashes = make(map[string][]byte, 3*len(uids)), make(map[string]written, len(uids))
	f.mu.Lock()
	defer f.mu.Unlock()
	f.turns++
	for _, uid := range uids {
		key := prefix + uid + "/"
		n := f.nodes[uid]
		if n == nil {
			for _, section := range []string{"node", "seen", "status", "bulk", "hardware"} {
				values[key+section] = nil
			}
			continue
		}
		small, bulk := n.status.parts()
		is := written{n.record, f.hash(small), f.hash(bulk), f.hash(n.hardware), f.turns}
		if is.record != n.written.record {
			if values[key+"node"], err = json.Marshal(record{n.boots, n.identity, n.was, n.since, n.reported, n.notes, n.changes}); err != nil {
				return nil, nil, err
			}
		}
		if !n.reported.IsZero() {
			values[key+"seen"] = binary.BigEndian.AppendUint64(nil, uint64(n.reported.UnixNano()))
		}
		put := func(section string, raw []byte, is, was uint64) {
			if is != was {
				values[key+section] = raw
			}
		}
		put("status", small, is.status, n.written.status)
		put("bulk", bulk, is.bulk, n.written.bulk)
		put("hardware", n.hardware, is.hardware, n.written.hardware)
		hashes[uid] = is
	}
	return values, hashes, nil
}

// hash tells one value of a section from another; 0 is that of none.
func (f *Fleet) hash(raw []byte) uint64 {
	if raw == nil {
		return 0
	}
	return maphash.Bytes(f.seed, raw)
}
