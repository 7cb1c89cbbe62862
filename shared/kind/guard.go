package kind

import (
	"maps"
	"reflect"
	"slices"
	"strings"

	"muster/shared/fault"
)

// Some parts of an object take more than the permission that lets somebody
// read or write it as a whole: fields with a Write permission of their own,
// and in fields that are Guarded the reserved keys.

// Reserved says whether a key of a guarded field is reserved, which those are
// that begin with an underscore: muster acts on them, so that writing one can
// decide what a node boots, and they may hold passwords.
func Reserved(key string) bool { return strings.HasPrefix(key, "_") }

// Redact gives the object as the author may see it, which is the same one
// where nothing has to be hidden.
func (s *Spec) Redact(obj Object, by Author) Object {
	if by.May(ReservedAttribRead) {
		return obj
	}
	out := obj
	if s.Hide != nil {
		obj = s.Hide(obj)
		out = obj
	}
	for i := range s.Fields {
		f := &s.Fields[i]
		if !s.tells(obj, f) {
			continue
		}
		if out == obj {
			v := reflect.New(reflect.TypeOf(obj).Elem())
			v.Elem().Set(reflect.ValueOf(obj).Elem())
			out = v.Interface().(Object)
		}
		if f.Tells != nil {
			v, _ := s.Value(out, f.Path)
			v.SetZero()
			continue
		}
		seen := maps.Clone(s.values(obj, f))
		maps.DeleteFunc(seen, func(key string, _ any) bool { return Reserved(key) })
		s.setValues(out, f, seen)
	}
	return out
}

// tells says whether a field holds or tells of reserved keys.
func (s *Spec) tells(obj Object, f *Field) bool {
	switch {
	case f.Guarded:
		return hasReserved(s.values(obj, f))
	case f.Tells != nil:
		v, ok := s.Value(obj, f.Path)
		return ok && f.Tells(v.String())
	}
	return false
}

// SeesAll says whether Redact hides nothing of the kind from the author.
func (s *Spec) SeesAll(by Author) bool {
	return by.May(ReservedAttribRead) || s.Hide == nil && !slices.ContainsFunc(s.Fields, func(f Field) bool { return f.Guarded || f.Tells != nil })
}

// Guard refuses the change from old (nil on creation) to obj where the author
// may not make it. Reserved keys that are missing in obj are put back when he
// may not write them: he replaced what he could see.
func (s *Spec) Guard(obj, old Object, by Author) error {
	if by.Can == nil {
		return nil
	}
	for i := range s.Fields {
		f := &s.Fields[i]
		if f.Write != "" && !by.May(f.Write) && s.changed(obj, old, f) {
			return fault.New(fault.Forbidden, "%s: %s lacks the permission %s, which changing it takes.", f.Path, by.Name, f.Write)
		}
		if f.Guarded && !by.May(ReservedAttribWrite) {
			if err := s.guard(obj, old, f, by); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Spec) changed(obj, old Object, f *Field) bool {
	now, ok := s.Value(obj, f.Path)
	if !ok {
		return false
	}
	if old == nil {
		return !now.IsZero() && !(now.Kind() == reflect.Slice && now.Len() == 0)
	}
	was, _ := s.Value(old, f.Path)
	if now.Kind() == reflect.Slice && now.Len() == 0 && was.Len() == 0 {
		return false
	}
	return !reflect.DeepEqual(now.Interface(), was.Interface())
}

func (s *Spec) guard(obj, old Object, f *Field, by Author) error {
	now, was := s.values(obj, f), Values(nil)
	if old != nil {
		was = s.values(old, f)
	}
	for _, key := range slices.Sorted(maps.Keys(now)) {
		before, had := was[key]
		if Reserved(key) && !(had && reflect.DeepEqual(now[key], before)) {
			return RefuseReserved(f.Path, key, by)
		}
	}
	if !hasReserved(was) {
		return nil
	}
	kept := maps.Clone(now)
	if kept == nil {
		kept = Values{}
	}
	for key, value := range was {
		if Reserved(key) {
			kept[key] = value
		}
	}
	s.setValues(obj, f, kept)
	return nil
}

// RefuseReserved is the answer to who may not write a reserved key.
func RefuseReserved(path, key string, by Author) error {
	return fault.New(fault.Forbidden, "%s: %s is reserved, as every name that begins with an underscore; %s lacks the permission %s.", path, key, by.Name, ReservedAttribWrite)
}

func hasReserved(values Values) bool {
	for key := range values {
		if Reserved(key) {
			return true
		}
	}
	return false
}

func (s *Spec) values(obj Object, f *Field) Values {
	v, ok := s.Value(obj, f.Path)
	if !ok {
		return nil
	}
	values, _ := v.Interface().(Values)
	return values
}

func (s *Spec) setValues(obj Object, f *Field, values Values) {
	v, _ := s.Value(obj, f.Path)
	v.Set(reflect.ValueOf(values))
}
