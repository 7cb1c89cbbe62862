package registry

import (
	"context"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"muster/controller/store"
	"muster/shared/fault"
	"muster/shared/kind"
)

// Input is what a user sent: JSON by key, already checked to be valid.
type Input map[string]json.RawMessage

// Create makes an object and gives its UID.
func (r *Registry) Create(ctx context.Context, by kind.Author, kindName string, in Input) (string, error) {
	spec := r.kinds[kindName]
	doc, err := parse(spec, in, creating, nil)
	if err != nil {
		return "", err
	}
	uid, brought := doc["uid"].(string)
	if !brought {
		uid = newUID()
	}
	err = r.write(ctx, by, func(t *tx) error {
		obj, err := t.build(spec, nil, doc)
		if err != nil {
			return err
		}
		if brought {
			if err := t.vacant(spec, uid); err != nil {
				return err
			}
		}
		obj.Base().UID = uid
		return t.finish(spec, obj, nil)
	})
	return uid, err
}

// vacant refuses a UID that another object has.
func (t *tx) vacant(spec *kind.Spec, uid string) error {
	old, err := t.Get(spec.Name, uid)
	if err == nil && old != nil {
		f, _ := spec.Field("uid")
		err = fault.New(fault.Conflict, "%s", f.Exists(spec.Title, uid))
	}
	return err
}

// Patch changes the fields that are sent; null unsets one.
func (r *Registry) Patch(ctx context.Context, by kind.Author, kindName, id string, in Input) error {
	return r.update(ctx, by, kindName, id, in, patching)
}

// Put replaces all that a user may set: what is not sent is unset or gets its
// default.
func (r *Registry) Put(ctx context.Context, by kind.Author, kindName, id string, in Input) error {
	return r.update(ctx, by, kindName, id, in, putting)
}

func (r *Registry) update(ctx context.Context, by kind.Author, kindName, id string, in Input, how mode) error {
	spec := r.kinds[kindName]
	shown, err := r.Find(kindName, id)
	if err != nil {
		return err
	}
	doc, err := parse(spec, in, how, spec.Redact(r.Show(kindName, shown), by))
	if err != nil {
		return err
	}
	return r.write(ctx, by, func(t *tx) error {
		old, err := t.load(spec, id)
		if err != nil {
			return err
		}
		if err := unchangedSince(ctx, spec, old); err != nil {
			return err
		}
		sent, thaw := doc, doc
		if how == putting {
			sent, thaw = whole(spec, doc), nil
		}
		if err := frozen(spec, old, thaw); err != nil {
			return err
		}
		obj, err := t.build(spec, old, sent)
		if err != nil {
			return err
		}
		return t.finish(spec, obj, old)
	})
}

// Modify changes an object by fn, for endpoints that reach a part of one. fn
// may run more than once and sees the object as stored.
func (r *Registry) Modify(ctx context.Context, by kind.Author, kindName, id string, fn func(tx kind.Tx, obj kind.Object) error) error {
	spec := r.kinds[kindName]
	return r.write(ctx, by, func(t *tx) error {
		obj, err := t.load(spec, id)
		if err != nil {
			return err
		}
		if err := frozen(spec, obj, nil); err != nil {
			return err
		}
		old, err := t.Get(kindName, obj.Base().UID)
		if err != nil {
			return err
		}
		if err := fn(t, obj); err != nil {
			return err
		}
		return t.finish(spec, obj, old)
	})
}

// Set changes one field by fn, which gets its value as stored JSON and gives
// the new one as a user would send it.
func (r *Registry) Set(ctx context.Context, by kind.Author, kindName, id, path string, fn func(now json.RawMessage) (json.RawMessage, error)) error {
	spec := r.kinds[kindName]
	return r.write(ctx, by, func(t *tx) error {
		old, err := t.load(spec, id)
		if err != nil {
			return err
		}
		if err := unchangedSince(ctx, spec, old); err != nil {
			return err
		}
		if err := frozen(spec, old, nil); err != nil {
			return err
		}
		value, _ := spec.Value(old, path)
		now, err := json.Marshal(value.Interface())
		if err != nil {
			return err
		}
		next, err := fn(now)
		if err != nil {
			return err
		}
		doc, err := parse(spec, Input{path: next}, patching, old)
		if err != nil {
			return err
		}
		obj, err := t.build(spec, old, doc)
		if err != nil {
			return err
		}
		if f, ok := spec.Field(path); ok && f.Stamp != "" {
			stamp, _ := spec.Value(obj, f.Stamp)
			stamp.Set(reflect.ValueOf(&kind.Stamp{LastModified: seconds(r.opt.Now()), LastModifiedOn: r.opt.Head, LastModifiedBy: by.Name}))
		}
		return t.finish(spec, obj, old)
	})
}

// Resolve gives the UID that an identifier names.
func (r *Registry) Resolve(kindName, id string) (string, error) {
	obj, err := r.Find(kindName, id)
	if err != nil {
		return "", err
	}
	return obj.Base().UID, nil
}

// Delete removes an object for good. Lists that name it forget it; a single
// reference to it stays and is reported as broken.
func (r *Registry) Delete(ctx context.Context, by kind.Author, kindName, id string) error {
	spec := r.kinds[kindName]
	return r.write(ctx, by, func(t *tx) error {
		old, err := t.load(spec, id)
		if err != nil {
			return err
		}
		if err := unchangedSince(ctx, spec, old); err != nil {
			return err
		}
		if err := frozen(spec, old, nil); err != nil {
			return err
		}
		if err := t.claim(spec, nil, old); err != nil {
			return err
		}
		if err := t.refer(spec, nil, old); err != nil {
			return err
		}
		if err := t.touch(kindName, old.Base().UID); err != nil {
			return err
		}
		if err := t.Delete(objectKey(kindName, old.Base().UID)); err != nil {
			return err
		}
		if err := t.forget(kindName, old.Base().UID); err != nil {
			return err
		}
		if spec.After == nil {
			return nil
		}
		return spec.After(t, nil, old)
	})
}

// forget takes a deleted object out of every list that names it.
func (t *tx) forget(kindName, uid string) error {
	from, err := t.referrers(kindName, uid)
	if err != nil {
		return err
	}
	for _, ref := range from {
		spec := t.r.kinds[ref[0]]
		obj, err := t.Get(ref[0], ref[1])
		if err != nil {
			return err
		}
		if obj == nil {
			continue
		}
		changed := false
		for i := range spec.Fields {
			f := &spec.Fields[i]
			if f.Ref != kindName || f.Format.Name != kind.References.Name {
				continue
			}
			uids := spec.Refs(obj, f)
			if i := slices.Index(uids, uid); i >= 0 {
				spec.SetRefs(obj, f, slices.Delete(slices.Clone(uids), i, i+1))
				changed = true
			}
		}
		if changed {
			if err := t.Save(ref[0], obj); err != nil {
				return err
			}
		}
	}
	return nil
}

// write runs fn in a transaction and returns when reads see its result.
func (r *Registry) write(ctx context.Context, by kind.Author, fn func(*tx) error) error {
	var records int
	revision, err := r.store.Update(ctx, func(stx store.Tx) error {
		t := &tx{Tx: stx, r: r, by: by}
		if err := fn(t); err != nil {
			return err
		}
		records = len(t.touched)
		return t.audit()
	})
	if err != nil {
		return err
	}
	r.trail.grew(records)
	return r.view.wait(ctx, revision)
}

// build makes the object that old becomes by the document, with references
// resolved. The result shares nothing with old.
func (t *tx) build(spec *kind.Spec, old kind.Object, doc map[string]any) (kind.Object, error) {
	full := map[string]any{}
	if old != nil {
		raw, err := json.Marshal(old)
		if err != nil {
			return nil, err
		}
		parts := map[string]json.RawMessage{}
		if err := json.Unmarshal(raw, &parts); err != nil {
			return nil, err
		}
		for k, v := range parts {
			full[k] = v
		}
	} else {
		doc = whole(spec, doc)
	}
	for path, value := range pin(spec, doc) {
		if value == (kept{}) {
			continue
		}
		f, _ := spec.Field(path)
		if f.Ref != "" && value != nil {
			var err error
			if value, err = t.refs(f, value); err != nil {
				return nil, err
			}
		}
		full[path] = value
	}
	raw, err := json.Marshal(full)
	if err != nil {
		return nil, err
	}
	obj := spec.New()
	if err := json.Unmarshal(raw, obj); err != nil {
		return nil, err
	}
	return obj, required(spec, obj)
}

// pin takes what follows the colon of a reference into a field of its own.
func pin(spec *kind.Spec, doc map[string]any) map[string]any {
	for i := range spec.Fields {
		f := &spec.Fields[i]
		value, text := doc[f.Path].(string)
		if f.Pin == "" || !text {
			continue
		}
		doc = maps.Clone(doc)
		id, version, _ := strings.Cut(value, ":")
		doc[f.Path] = id
		if given := doc[f.Pin]; given == nil || given == (kept{}) {
			if doc[f.Pin] = nil; version != "" {
				doc[f.Pin] = version
			}
		}
	}
	return doc
}

// refs turns identifiers into UIDs.
func (t *tx) refs(f *kind.Field, value any) (any, error) {
	one := func(id string) (string, error) {
		uid, err := t.resolve(t.r.kinds[f.Ref], id)
		if err == nil && uid == "" {
			err = fault.Invalidf("%s: No %s found for ID=%s", f.Path, f.Ref, id)
		}
		return uid, err
	}
	switch v := value.(type) {
	case string:
		return one(v)
	case []string:
		uids := []string{}
		for _, id := range v {
			uid, err := one(id)
			if err != nil {
				return nil, err
			}
			if !slices.Contains(uids, uid) { // a UID and a name may be the same object
				uids = append(uids, uid)
			}
		}
		return uids, nil
	}
	return value, nil
}

func required(spec *kind.Spec, obj kind.Object) error {
	var missing []string
	for _, f := range spec.Fields {
		if !f.Required {
			continue
		}
		if v, ok := spec.Value(obj, f.Path); ok && v.IsZero() {
			missing = append(missing, f.Path)
		}
	}
	if len(missing) > 0 {
		return fault.Invalidf("A%s needs: %s", spec.A()[1:], strings.Join(missing, ", "))
	}
	return nil
}

// finish runs the kind's hooks around saving what the author may change.
func (t *tx) finish(spec *kind.Spec, obj, old kind.Object) error {
	if err := spec.Guard(obj, old, t.by); err != nil {
		return err
	}
	if spec.Prepare != nil {
		if err := spec.Prepare(t, obj, old); err != nil {
			return err
		}
	}
	if err := t.Save(spec.Name, obj); err != nil {
		return err
	}
	if spec.After == nil {
		return nil
	}
	return spec.After(t, obj, old)
}

// frozen refuses a change of a frozen object, except the one that thaws it and
// nothing else.
func frozen(spec *kind.Spec, obj kind.Object, doc map[string]any) error {
	if spec.Frozen == "" {
		return nil
	}
	if v, ok := spec.Value(obj, "frozen"); !ok || !reflect.Indirect(v).Bool() {
		return nil
	}
	if thaw, ok := doc["frozen"].(bool); ok && len(doc) == 1 && !thaw {
		return nil
	}
	return fault.New(fault.Conflict, "%s", spec.Frozen)
}

func seconds(t time.Time) float64 { return float64(t.UnixMicro()) / 1e6 }
