package fleet

import (
	"context"
	"encoding/json"
	"errors"
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

// record is what is kept of a node besides its two reported sections.
type record struct {
	Boots    []boot    `json:"boots,omitempty"`
	Identity identity  `json:"identity,omitzero"`
	State    string    `json:"state,omitempty"`
	Since    time.Time `json:"since,omitzero"`
	Reported time.Time `json:"reported,omitzero"`
}

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
			case "status":
				n.status = pair.Value
			case "hardware":
				n.hardware = pair.Value
			case "node":
				var r record
				if err := json.Unmarshal(pair.Value, &r); err != nil {
					return err
				}
				if addr, err := netip.ParseAddr(r.Identity.Addr); err == nil {
					f.windows[addr] = uid
				}
				n.boots, n.identity, n.was, n.since, n.reported = r.Boots, r.Identity, r.State, r.Since, r.Reported
			}
		}
		return nil
	})
}

// Run writes behind until ctx ends, and then what is left.
func (f *Fleet) Run(ctx context.Context) error {
	counting := f.keepTally(ctx)
	counting.Go(func() { f.lookAround(ctx) })
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
	_, err := f.opt.Store.Update(ctx, func(tx store.Tx) error {
		values, err := f.records(uids)
		if err != nil {
			return err
		}
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
	return err
}

// records gives what is to be stored of some nodes, nil for what is not to be.
func (f *Fleet) records(uids []string) (map[string][]byte, error) {
	values := make(map[string][]byte, 3*len(uids))
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, uid := range uids {
		key := prefix + uid + "/"
		n := f.nodes[uid]
		if n == nil {
			values[key+"node"], values[key+"status"], values[key+"hardware"] = nil, nil, nil
			continue
		}
		raw, err := json.Marshal(record{n.boots, n.identity, n.was, n.since, n.reported})
		if err != nil {
			return nil, err
		}
		values[key+"node"], values[key+"status"], values[key+"hardware"] = raw, n.status, n.hardware
	}
	return values, nil
}
