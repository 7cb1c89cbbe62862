package registry

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"muster/controller/store"
	"muster/shared/kind"
)

// The audit trail says who changed what. A record is written in the transaction
// of the change itself, so that there is none without the other.

const auditPrefix = store.Unlogged + "audit/" // ~audit/<Entry.ID>: JSON

// Actions of entries that record changes of objects.
const (
	ActionCreate = "create"
	ActionChange = "change"
	ActionDelete = "delete"
)

// Entry is one record of the audit trail.
type Entry struct {
	ID     string  `json:"id"` // 20 hexadecimal digits, ascending in time
	Time   float64 `json:"time"`
	Admin  string  `json:"admin"` // who did it, or "muster" for the head itself
	From   string  `json:"from,omitempty"`
	Head   string  `json:"head"`
	Action string  `json:"action"` // create, change, delete, or what a feature did
	Kind   string  `json:"kind,omitempty"`
	UID    string  `json:"uid,omitempty"`
	Name   string  `json:"name,omitempty"`
	// Changes holds what was and what is by field, "attributes.rack" for a key
	// of a map; secrets are left out.
	Changes map[string]Delta `json:"changes,omitempty"`
	// Detail is what a feature says of its action.
	Detail map[string]string `json:"detail,omitempty"`
}

// Delta is a value's change; a side is absent where there was or is none.
type Delta struct {
	From jsontext.Value `json:"from,omitzero"`
	To   jsontext.Value `json:"to,omitzero"`
}

// touched is an object that a transaction wrote, as it was before that.
type touched struct {
	kind, uid string
	was       []byte // nil: it did not exist
}

// touch notes an object that is about to be written.
func (t *tx) touch(kindName, uid string) error {
	if t.seen[uid] {
		return nil
	}
	was, err := t.Tx.Get(objectKey(kindName, uid))
	if t.seen == nil {
		t.seen = map[string]bool{}
	}
	t.seen[uid] = true
	t.touched = append(t.touched, touched{kindName, uid, was})
	return err
}

// audit records what the transaction did.
func (t *tx) audit() error {
	for _, o := range t.touched {
		is, err := t.Tx.Get(objectKey(o.kind, o.uid))
		if err != nil {
			return err
		}
		if o.was == nil && is == nil {
			continue // made and deleted again
		}
		e, err := t.r.describe(o, is)
		if err != nil {
			return err
		}
		if err := t.record(e); err != nil {
			return err
		}
	}
	return nil
}

func (t *tx) record(e Entry) error {
	now := t.r.opt.Now()
	e.ID, e.Time, e.Head = t.r.trail.stamp(now), seconds(now), t.r.opt.Head
	e.Admin, e.From = t.by.Name, t.by.From
	raw, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return t.Put(auditPrefix+e.ID, raw)
}

// Record notes what somebody did that changes no object, such as running a
// command. It returns when the record is on disk; an action that must not
// happen unseen waits for that.
func (r *Registry) Record(ctx context.Context, by kind.Author, e Entry) error {
	detail := make(map[string]string, len(e.Detail))
	for k, v := range e.Detail {
		detail[k] = clip(redactText(v))
	}
	e.Detail = detail
	_, err := r.store.Update(ctx, func(stx store.Tx) error {
		t := &tx{Tx: stx, r: r, by: by}
		return t.record(e)
	})
	if err == nil {
		r.trail.grew(1)
	}
	return err
}

// describe tells two states of an object apart.
func (r *Registry) describe(o touched, is []byte) (Entry, error) {
	spec := r.kinds[o.kind]
	e := Entry{Action: ActionChange, Kind: o.kind, UID: o.uid, Changes: map[string]Delta{}}
	switch {
	case is == nil:
		e.Action = ActionDelete
	case o.was == nil:
		e.Action = ActionCreate
	}
	was, err := parts(o.was)
	if err != nil {
		return e, err
	}
	now, err := parts(is)
	if err != nil {
		return e, err
	}
	for i := range spec.Fields {
		f := &spec.Fields[i]
		if !stamps[f.Path] && !isStamp(spec, f.Path) && !bytes.Equal(was[f.Path], now[f.Path]) {
			differ(e.Changes, f, was[f.Path], now[f.Path])
		}
	}
	if len(spec.Names) > 0 {
		name := now[spec.Names[0]]
		if is == nil {
			name = was[spec.Names[0]]
		}
		if text, err := jsontext.AppendUnquote(nil, name); err == nil {
			e.Name = string(text)
		}
	}
	return bounded(e), nil
}

// stamps are the fields that every change changes.
var stamps = map[string]bool{"uid": true, "created": true, "last_modified": true, "last_modified_on": true, "last_modified_by": true}

// isStamp says whether a field only holds when another one was edited.
func isStamp(spec *kind.Spec, path string) bool {
	return slices.ContainsFunc(spec.Fields, func(f kind.Field) bool { return f.Stamp == path })
}

func parts(raw []byte) (map[string]jsontext.Value, error) {
	m := map[string]jsontext.Value{}
	if raw == nil {
		return m, nil
	}
	return m, json.Unmarshal(raw, &m)
}

func union(a, b map[string]jsontext.Value) map[string]jsontext.Value {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return all
}

// differ adds the difference of a field, of a map key by key.
func differ(to map[string]Delta, f *kind.Field, was, is jsontext.Value) {
	if f.Secret {
		add(to, f.Path, f.Path, hide(was), hide(is))
		return
	}
	old, oldIsMap := mapOf(was)
	now, nowIsMap := mapOf(is)
	if !oldIsMap || !nowIsMap {
		add(to, f.Path, f.Path, was, is)
		return
	}
	for key := range union(old, now) {
		if !bytes.Equal(old[key], now[key]) {
			add(to, f.Path+"."+key, key, old[key], now[key])
		}
	}
}

// mapOf gives a JSON object's parts; what is absent counts as an empty one.
func mapOf(raw jsontext.Value) (map[string]jsontext.Value, bool) {
	if raw == nil || string(raw) == "null" {
		return map[string]jsontext.Value{}, true
	}
	if raw[0] != '{' {
		return nil, false
	}
	m := map[string]jsontext.Value{}
	return m, json.Unmarshal(raw, &m) == nil
}

func add(to map[string]Delta, path, key string, was, is jsontext.Value) {
	d := Delta{From: redact(key, empty(was)), To: redact(key, empty(is))}
	if d.From != nil || d.To != nil {
		to[path] = d
	}
}

// empty drops values that say nothing.
func empty(raw jsontext.Value) jsontext.Value {
	switch string(raw) {
	case "null", `""`, "{}", "[]":
		return nil
	}
	return raw
}

// maxChanges and maxClip bound an entry, which must not become larger than what
// it tells of.
const (
	maxChanges = 256
	maxClip    = 4 << 10 // bytes of a value
)

func bounded(e Entry) Entry {
	paths := slices.Sorted(maps.Keys(e.Changes))
	if extra := len(paths) - maxChanges; extra > 0 {
		e.Detail = map[string]string{"omitted": fmt.Sprintf("%d further changes", extra)}
		for _, path := range paths[maxChanges:] {
			delete(e.Changes, path)
		}
	}
	for path, d := range e.Changes {
		e.Changes[path] = Delta{clipJSON(d.From), clipJSON(d.To)}
	}
	return e
}

func clipJSON(raw jsontext.Value) jsontext.Value {
	if len(raw) <= maxClip {
		return raw
	}
	out, _ := json.Marshal(clip(string(raw))) // of a string, which cannot fail
	return out
}

func clip(s string) string {
	if len(s) <= maxClip {
		return s
	}
	return strings.ToValidUTF8(s[:maxClip], "") + fmt.Sprintf("… (%d bytes)", len(s))
}

// stamp makes the ID of an entry: its time in nanoseconds, increasing whatever
// the clock does, and something that two heads do not share.
func (a *trail) stamp(now time.Time) string {
	a.mu.Lock()
	a.last = max(a.last+1, now.UnixNano())
	at := a.last
	a.mu.Unlock()
	var b [2]byte
	rand.Read(b[:])
	return fmt.Sprintf("%016x%s", at, hex.EncodeToString(b[:]))
}
