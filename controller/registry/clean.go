package registry

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"muster/controller/store"
	"muster/shared/fault"
	"muster/shared/kind"
)

// Cleaning is what is not in order in the database, and what is done about it.
type Cleaning struct {
	// References are those to objects that are no more; they are dropped.
	References []Dangling `json:"references"`
	// Kept are such references that only an admin can decide about.
	Kept []Dangling `json:"kept"`
	// Keys are entries of the indexes that are put right: a name that nobody
	// holds any more, one that is missing, one that leads to another object.
	Keys []WrongKey `json:"keys"`
	// Clashes are values that two objects hold though only one may.
	Clashes []string `json:"clashes"`
	// Hints are notes for an allocation in something that is no more.
	Hints []string `json:"hints"`
}

// Dangling is a reference to an object that is no more.
type Dangling struct {
	Kind   string `json:"kind"`
	UID    string `json:"uid"`
	Name   string `json:"name,omitempty"`
	Field  string `json:"field"`
	To     string `json:"to"`
	Reason string `json:"reason,omitempty"` // why it is kept
}

// WrongKey is an entry of an index that does not fit the objects.
type WrongKey struct {
	Key     string `json:"key"`
	Problem string `json:"problem"` // stale, missing or wrong
}

// Clean looks for what is not in order and, unless it is only to look, puts it
// right in one transaction.
func (r *Registry) Clean(ctx context.Context, by kind.Author, onlyLook bool) (Cleaning, error) {
	var found Cleaning
	look := func(t *tx, mend bool) error {
		c := &cleaner{tx: t, objects: map[string]map[string]kind.Object{}, want: map[string]string{}}
		c.found = Cleaning{[]Dangling{}, []Dangling{}, []WrongKey{}, []string{}, []string{}}
		err := c.look()
		if err == nil && mend {
			err = c.mend()
		}
		found = c.found
		return err
	}
	if onlyLook {
		err := r.store.View(ctx, func(stx store.Tx) error { return look(&tx{Tx: stx, r: r, by: by}, false) })
		return found, err
	}
	err := r.write(ctx, by, func(t *tx) error { return look(t, true) })
	return found, err
}

type cleaner struct {
	*tx
	found   Cleaning
	objects map[string]map[string]kind.Object // by kind and UID
	want    map[string]string                 // index keys as they must be, with their values
	drop    []kind.Object                     // objects without their dangling references
	kinds   []string                          // of drop
}

func (c *cleaner) look() error {
	for _, spec := range c.r.specs {
		all := map[string]kind.Object{}
		err := c.Each(spec.Name, func(o kind.Object) error { all[o.Base().UID] = o; return nil })
		if err != nil {
			return err
		}
		c.objects[spec.Name] = all
	}
	for _, spec := range c.r.specs {
		for _, uid := range slices.Sorted(maps.Keys(c.objects[spec.Name])) {
			c.indexed(spec, c.objects[spec.Name][uid])
			if err := c.referring(spec, c.objects[spec.Name][uid]); err != nil {
				return err
			}
		}
	}
	for _, prefix := range []string{uniquePrefix, refPrefix} {
		if err := c.index(prefix); err != nil {
			return err
		}
	}
	return c.hints()
}

// indexed notes the index entries that an object must have.
func (c *cleaner) indexed(spec *kind.Spec, o kind.Object) {
	uid := o.Base().UID
	for name, value := range uniqueKeys(spec, o) {
		key := uniqueKey(spec.Name, name, value)
		if holder, taken := c.want[key]; taken {
			c.found.Clashes = append(c.found.Clashes, fmt.Sprintf("%s %s and %s both have %s=%s", spec.Name, holder, uid, name, strings.TrimSpace(value)))
			if older(c.objects[spec.Name][holder], o) < 0 {
				continue
			}
		}
		c.want[key] = uid
	}
	for i := range spec.Fields {
		if f := &spec.Fields[i]; f.Ref != "" {
			for _, to := range spec.Refs(o, f) {
				c.want[refKey(f.Ref, to, spec.Name, uid)] = ""
			}
		}
	}
}

// referring looks for references of an object to others that are no more, and
// for whether the object can do without.
func (c *cleaner) referring(spec *kind.Spec, o kind.Object) error {
	var bad []Dangling
	reason := ""
	changed := clone(o)
	for i := range spec.Fields {
		f := &spec.Fields[i]
		if f.Ref == "" {
			continue
		}
		left := []string{}
		for _, to := range spec.Refs(o, f) {
			if c.objects[f.Ref][to] != nil {
				left = append(left, to)
				continue
			}
			d := Dangling{Kind: spec.Name, UID: o.Base().UID, Field: f.Path, To: to}
			if len(spec.Names) > 0 {
				d.Name = spec.Text(o, spec.Names[0])
			}
			bad = append(bad, d)
			if f.Required {
				reason = spec.A() + " needs one"
			}
		}
		if len(left) < len(spec.Refs(o, f)) {
			spec.SetRefs(changed, f, left)
		}
	}
	if len(bad) == 0 {
		return nil
	}
	switch {
	case reason != "":
	case frozen(spec, o, nil) != nil:
		reason = "the " + spec.Name + " is frozen"
	case !maps.Equal(uniqueKeys(spec, o), uniqueKeys(spec, changed)):
		reason = "the object's place depends on it"
	case spec.Check != nil && spec.Check(changed) != nil:
		reason = strings.TrimSuffix(fault.Of(spec.Check(changed)).Reason, ".")
	}
	if reason != "" {
		for i := range bad {
			bad[i].Reason = reason
		}
		c.found.Kept = append(c.found.Kept, bad...)
		return nil
	}
	c.found.References = append(c.found.References, bad...)
	c.drop, c.kinds = append(c.drop, changed), append(c.kinds, spec.Name)
	return nil
}

// index compares one of the indexes with what it must hold. Entries of kinds
// that a newer version has made stay.
func (c *cleaner) index(prefix string) error {
	seen := map[string]bool{}
	for pair, err := range c.Scan(prefix, "") {
		if err != nil {
			return err
		}
		parts := strings.Split(strings.TrimPrefix(pair.Key, prefix), "/")
		if c.r.kinds[parts[0]] == nil || prefix == refPrefix && (len(parts) < 4 || c.r.kinds[parts[2]] == nil) {
			continue
		}
		seen[pair.Key] = true
		switch value, wanted := c.want[pair.Key]; {
		case !wanted:
			c.found.Keys = append(c.found.Keys, WrongKey{pair.Key, "stale"})
		case prefix == uniquePrefix && value != string(pair.Value):
			c.found.Keys = append(c.found.Keys, WrongKey{pair.Key, "wrong"})
		}
	}
	for _, key := range slices.Sorted(maps.Keys(c.want)) {
		if strings.HasPrefix(key, prefix) && !seen[key] {
			c.found.Keys = append(c.found.Keys, WrongKey{key, "missing"})
		}
	}
	return nil
}

// hints looks for those that name an object which is no more.
func (c *cleaner) hints() error {
	for pair, err := range c.Scan(hintPrefix, "") {
		if err != nil {
			return err
		}
		uid := pair.Key[strings.LastIndexByte(pair.Key, '/')+1:]
		known := slices.ContainsFunc(c.r.specs, func(s *kind.Spec) bool { return c.objects[s.Name][uid] != nil })
		if kind.UIDPattern.MatchString(uid) && !known {
			c.found.Hints = append(c.found.Hints, strings.TrimPrefix(pair.Key, hintPrefix))
		}
	}
	return nil
}

// mend does what was found. The indexes come first: saving relies on them.
func (c *cleaner) mend() error {
	for _, k := range c.found.Keys {
		err := error(nil)
		if k.Problem == "stale" {
			err = c.Delete(k.Key)
		} else {
			err = c.Put(k.Key, []byte(c.want[k.Key]))
		}
		if err != nil {
			return err
		}
	}
	for _, name := range c.found.Hints {
		if err := c.Delete(hintPrefix + name); err != nil {
			return err
		}
	}
	for i, o := range c.drop {
		if err := c.Save(c.kinds[i], o); err != nil {
			return err
		}
	}
	return nil
}
