package registry

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"muster/controller/store"
	"muster/shared/fault"
	"muster/shared/kind"
)

// Where things lie in the store.
const (
	objectPrefix = "o/"                     // o/<kind>/<uid>: the object, JSON
	uniquePrefix = "u/"                     // u/<kind>/<key>/<value>: UID of the object that holds it
	refPrefix    = "r/"                     // r/<kind>/<uid>/<from kind>/<from uid>: who refers to it
	hintPrefix   = store.Unlogged + "hint/" // where an allocation starts to look
)

func objectKey(kindName, uid string) string { return objectPrefix + kindName + "/" + uid }

func uniqueKey(kindName, key, value string) string {
	return uniquePrefix + kindName + "/" + key + "/" + value
}

func refKey(toKind, to, fromKind, from string) string {
	return refPrefix + toKind + "/" + to + "/" + fromKind + "/" + from
}

// uniqueKeys gives what an object claims for itself, by key name.
func uniqueKeys(spec *kind.Spec, obj kind.Object) map[string]string {
	keys := map[string]string{}
	if spec.Keys != nil {
		maps.Copy(keys, spec.Keys(obj))
	}
	for i := range spec.Fields {
		if f := &spec.Fields[i]; f.Unique {
			if value := spec.Text(obj, f.Path); value != "" {
				keys[spec.UniqueKey(obj, f)] = value
			}
		}
	}
	return keys
}

// canonical gives an identifier in the form in which a field holds it; ok is
// false where it cannot be one.
func canonical(spec *kind.Spec, key, id string) (string, bool) {
	f, _ := spec.Field(key)
	if f.Format.Text == nil {
		return "", false
	}
	text, err := f.Format.Text(id)
	return text, err == nil
}

// tx implements kind.Tx on a store transaction.
type tx struct {
	store.Tx
	r       *Registry
	by      kind.Author
	touched []touched       // what was written, for the audit trail
	seen    map[string]bool // UIDs of touched
}

func (t *tx) By() kind.Author { return t.by }

func (t *tx) HeadUID() string { return t.r.opt.UID }

func (t *tx) Taken(addr string) bool { return t.r.opt.Taken != nil && t.r.opt.Taken(addr) }

func (t *tx) Get(kindName, uid string) (kind.Object, error) {
	raw, err := t.Tx.Get(objectKey(kindName, uid))
	if raw == nil || err != nil {
		return nil, err
	}
	return t.decode(kindName, raw)
}

func (t *tx) decode(kindName string, raw []byte) (kind.Object, error) {
	obj := t.r.kinds[kindName].New()
	if err := json.Unmarshal(raw, obj); err != nil {
		return nil, fmt.Errorf("stored %s cannot be read: %w", kindName, err)
	}
	return obj, nil
}

func (t *tx) Find(kindName, key, value string) (string, error) {
	uid, err := t.Tx.Get(uniqueKey(kindName, key, value))
	return string(uid), err
}

func (t *tx) Oldest(kindName string) (kind.Object, error) {
	var oldest kind.Object
	err := t.Each(kindName, func(o kind.Object) error {
		if oldest == nil || older(o, oldest) < 0 {
			oldest = o
		}
		return nil
	})
	return oldest, err
}

func (t *tx) Each(kindName string, fn func(kind.Object) error) error {
	for pair, err := range t.Scan(objectPrefix+kindName+"/", "") {
		if err != nil {
			return err
		}
		obj, err := t.decode(kindName, pair.Value)
		if err != nil {
			return err
		}
		if err := fn(obj); err != nil {
			return err
		}
	}
	return nil
}

func (t *tx) Hint(name string) (int64, error) {
	raw, err := t.Tx.Get(hintPrefix + name)
	if raw == nil || err != nil {
		return 0, err
	}
	return strconv.ParseInt(string(raw), 10, 64)
}

func (t *tx) SetHint(name string, n int64) error {
	return t.Put(hintPrefix+name, strconv.AppendInt(nil, n, 10))
}

// resolve gives the UID that an identifier names, "" for none.
func (t *tx) resolve(spec *kind.Spec, id string) (string, error) {
	if kind.UIDPattern.MatchString(id) {
		if raw, err := t.Tx.Get(objectKey(spec.Name, id)); raw != nil || err != nil {
			return id, err
		}
	}
	for _, name := range spec.Names {
		value, ok := canonical(spec, name, id)
		if !ok {
			continue
		}
		if uid, err := t.named(spec, name, value); uid != "" || err != nil {
			return uid, err
		}
	}
	if spec.Singleton {
		obj, err := t.Oldest(spec.Name)
		if obj != nil && err == nil {
			return obj.Base().UID, nil
		}
		return "", err
	}
	return "", nil
}

// named gives the object of which a field has the value, "" for none. Where
// there are several, nobody can tell which one is to be changed.
func (t *tx) named(spec *kind.Spec, name, value string) (string, error) {
	f, _ := spec.Field(name)
	var uids, which []string
	for _, key := range spec.UniqueKeys(f) {
		uid, err := t.Find(spec.Name, key, value)
		if err != nil {
			return "", err
		}
		if uid != "" {
			uids, which = append(uids, uid), append(which, strings.TrimPrefix(key, name+".")+" "+uid)
		}
	}
	if len(uids) > 1 {
		return "", fault.New(fault.Conflict, "There are %d %s with %s=%s: say which one by its UID (%s).", len(uids), spec.Plural, name, value, strings.Join(which, ", "))
	}
	return strings.Join(uids, ""), nil
}

// load gives the object that an identifier names.
func (t *tx) load(spec *kind.Spec, id string) (kind.Object, error) {
	uid, err := t.resolve(spec, id)
	if err != nil {
		return nil, err
	}
	if uid == "" {
		return nil, NotFound(spec, id)
	}
	return t.Get(spec.Name, uid)
}

// Save implements kind.Tx: everything that keeps the store consistent, without
// the kind's Prepare and After.
func (t *tx) Save(kindName string, obj kind.Object) error {
	spec, m := t.r.kinds[kindName], obj.Base()
	old, err := t.Get(kindName, m.UID)
	if err != nil {
		return err
	}
	if spec.Check != nil {
		if err := spec.Check(obj); err != nil {
			return err
		}
	}
	if err := t.claim(spec, obj, old); err != nil {
		return err
	}
	if err := t.refer(spec, obj, old); err != nil {
		return err
	}
	m.LastModified = seconds(t.r.opt.Now())
	if old != nil {
		// Clocks step back; what changed later must say so.
		m.LastModified = max(m.LastModified, old.Base().LastModified+1e-6)
		m.Created = old.Base().Created
	} else {
		m.Created = m.LastModified
	}
	m.LastModifiedOn, m.LastModifiedBy = t.r.opt.Head, t.by.Name
	raw, err := json.Marshal(obj)
	if err != nil {
		return err
	}
	if err := t.touch(kindName, m.UID); err != nil {
		return err
	}
	return t.Put(objectKey(kindName, m.UID), raw)
}

// claim moves an object's unique keys from what it was to what it is.
func (t *tx) claim(spec *kind.Spec, obj, old kind.Object) error {
	was, is := map[string]string{}, map[string]string{}
	if old != nil {
		was = uniqueKeys(spec, old)
	}
	if obj != nil {
		is = uniqueKeys(spec, obj)
	}
	for key, value := range was {
		if is[key] != value {
			if err := t.Delete(uniqueKey(spec.Name, key, value)); err != nil {
				return err
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(is)) {
		if was[key] == is[key] {
			continue
		}
		holder, err := t.Find(spec.Name, key, is[key])
		if err != nil {
			return err
		}
		if holder != "" && holder != obj.Base().UID {
			path, _, _ := strings.Cut(key, ".")
			f, ok := spec.Field(path)
			if !ok || !f.Unique {
				f = &kind.Field{Path: key}
			}
			return fault.New(fault.Conflict, "%s", f.Exists(spec.Title, strings.TrimSpace(is[key])))
		}
		if err := t.Put(uniqueKey(spec.Name, key, is[key]), []byte(obj.Base().UID)); err != nil {
			return err
		}
	}
	return nil
}

// refer keeps the keys by which an object finds those that refer to it.
func (t *tx) refer(spec *kind.Spec, obj, old kind.Object) error {
	for i := range spec.Fields {
		f := &spec.Fields[i]
		if f.Ref == "" {
			continue
		}
		var was, is []string
		if old != nil {
			was = spec.Refs(old, f)
		}
		if obj != nil {
			is = spec.Refs(obj, f)
		}
		for _, uid := range was {
			if !slices.Contains(is, uid) {
				if err := t.Delete(refKey(f.Ref, uid, spec.Name, old.Base().UID)); err != nil {
					return err
				}
			}
		}
		for _, uid := range is {
			if !slices.Contains(was, uid) {
				if err := t.Put(refKey(f.Ref, uid, spec.Name, obj.Base().UID), []byte{}); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// referrers gives the objects that refer to one, as kind and UID.
func (t *tx) referrers(kindName, uid string) ([][2]string, error) {
	prefix := refPrefix + kindName + "/" + uid + "/"
	var out [][2]string
	for pair, err := range t.Scan(prefix, "") {
		if err != nil {
			return nil, err
		}
		from, id, _ := strings.Cut(strings.TrimPrefix(pair.Key, prefix), "/")
		out = append(out, [2]string{from, id})
	}
	return out, nil
}
