package fleet

import (
	"context"
	"encoding/json"
	"net/netip"
	"strings"
	"time"

	"muster/controller/store"
)

// prefix is where the fleet's records lie: unlogged, one per node and section,
// so that a status that changes every few seconds does not rewrite the rest.
const prefix = store.Unlogged + "fleet/"

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
	for {
		select {
		case <-ctx.Done():
			f.closeLinks()
			return f.save(context.WithoutCancel(ctx), f.takeDirty()...)
		case <-f.wake:
		}
		// Let more come in: one transaction then takes all of it.
		select {
		case <-ctx.Done():
		case <-time.After(500 * time.Millisecond):
		}
		if err := f.save(context.WithoutCancel(ctx), f.takeDirty()...); err != nil {
			f.opt.Log.Error("node states could not be stored", "error", err)
		}
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

// save writes the records of some nodes; what is unknown is deleted.
func (f *Fleet) save(ctx context.Context, uids ...string) error {
	if len(uids) == 0 {
		return nil
	}
	values := make(map[string][]byte, 3*len(uids))
	f.mu.Lock()
	for _, uid := range uids {
		key := prefix + uid + "/"
		n := f.nodes[uid]
		if n == nil {
			values[key+"node"], values[key+"status"], values[key+"hardware"] = nil, nil, nil
			continue
		}
		raw, err := json.Marshal(record{n.boots, n.identity, n.was, n.since, n.reported})
		if err != nil {
			f.mu.Unlock()
			return err
		}
		values[key+"node"], values[key+"status"], values[key+"hardware"] = raw, n.status, n.hardware
	}
	f.mu.Unlock()
	_, err := f.opt.Store.Update(ctx, func(tx store.Tx) error {
		for key, value := range values {
			var err error
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
