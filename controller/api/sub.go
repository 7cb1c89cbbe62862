package api

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http"
	"slices"

	"muster/shared/fault"
	"muster/shared/kind"
)

// sub gives the endpoints of a field that is reachable for itself.
func (c *crud) sub(object string, f *kind.Field) []Route {
	s := &sub{c, f}
	path, write := object+"/"+f.Path, f.Write
	if write == "" {
		write = c.spec.Write
	}
	route := func(method string, p kind.Permission, doc string, body Schema, change func(now, sent json.RawMessage) (json.RawMessage, error)) Route {
		if change == nil {
			return Route{Method: method, Path: path, Permission: p, Doc: doc, Handler: s.get, Answer: s.shown()}
		}
		return Route{Method: method, Path: path, Permission: p, Doc: doc, Handler: s.change(change), Body: body, Answer: Nothing{}, tagged: true}
	}
	whole, some := Schema(f.Format.Schema), Schema{"type": []string{"string", "array"}, "items": Text()}
	switch f.Sub {
	case kind.SubMap:
		return []Route{
			route("GET", c.spec.Read, "The "+f.Path+" of "+c.spec.A()+", inherited ones included.", nil, nil),
			route("PUT", write, "Replace the object's own "+f.Path+".", whole, replace),
			route("PATCH", write, "Set the keys that are sent.", whole, merge),
			route("POST", write, "Set the keys that are sent.", whole, merge),
			{Method: "DELETE", Path: path, Permission: write, Doc: "Remove one key or a list of keys.", Handler: s.deleteKeys, Body: some, Answer: Nothing{}, tagged: true},
		}
	case kind.SubList:
		return []Route{
			route("GET", c.spec.Read, "The "+f.Path+" of "+c.spec.A()+", in order.", nil, nil),
			route("PUT", write, "Replace the list.", whole, replace),
			route("POST", write, "Append one entry or a list of entries.", some, appendItems),
			route("DELETE", write, "Remove one entry or a list of entries.", some, s.removeItems),
		}
	}
	return nil
}

type sub struct {
	*crud
	field *kind.Field
}

// shown is the schema of the field as it is read.
func (s *sub) shown() Schema {
	if s.field.Sub == kind.SubList {
		return Schema{"type": "array", "items": Text()}
	}
	return Schema{"type": "object"}
}

func (s *sub) get(w http.ResponseWriter, r *http.Request) error {
	obj, err := s.objects.Find(s.spec.Name, r.PathValue("id"))
	if err != nil {
		return err
	}
	v, _ := s.spec.Value(s.spec.Redact(s.objects.Show(s.spec.Name, obj), By(r)), s.field.Path)
	if stamp, ok := s.spec.Value(obj, s.field.Stamp); ok && !stamp.IsNil() {
		return Data(w, stamped(v.Interface().(kind.Values), stamp.Interface().(*kind.Stamp)))
	}
	if v.IsNil() { // shown as empty, never as null
		if s.field.Sub == kind.SubList {
			return Data(w, []string{})
		}
		return Data(w, map[string]any{})
	}
	return Data(w, v.Interface())
}

// stamped puts a stamp among the keys, as the reference shows it.
func stamped(v kind.Values, s *kind.Stamp) map[string]any {
	out := map[string]any{}
	for key, value := range v {
		out[key] = value
	}
	out["last_modified"], out["last_modified_on"], out["last_modified_by"] = s.LastModified, s.LastModifiedOn, s.LastModifiedBy
	return out
}

// unstamped takes the stamp out of what is sent back as it was read: it must
// not become keys.
func unstamped(sent json.RawMessage) (json.RawMessage, error) {
	var m map[string]json.RawMessage
	if json.Unmarshal(sent, &m) != nil || m == nil {
		return sent, nil // for others to refuse
	}
	for _, key := range []string{"last_modified", "last_modified_on", "last_modified_by"} {
		delete(m, key)
	}
	return json.Marshal(m)
}

func (s *sub) change(fn func(now, sent json.RawMessage) (json.RawMessage, error)) Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		sent, err := Body(w, r)
		if err == nil && s.field.Stamp != "" {
			sent, err = unstamped(sent)
		}
		if err != nil {
			return err
		}
		return done(w, s.objects.Set(conditional(r), By(r), s.spec.Name, r.PathValue("id"), s.field.Path,
			func(now json.RawMessage) (json.RawMessage, error) { return fn(now, sent) }))
	}
}

func replace(_, sent json.RawMessage) (json.RawMessage, error) {
	if text := string(bytes.TrimSpace(sent)); text == "" || text == "null" || text == `""` {
		return nil, fault.Invalidf("This request needs the new value as its body.")
	}
	return sent, nil
}

func merge(now, sent json.RawMessage) (json.RawMessage, error) {
	var old, add map[string]json.RawMessage
	if err := json.Unmarshal(now, &old); err != nil {
		return nil, err
	}
	if sent == nil || json.Unmarshal(sent, &add) != nil || add == nil {
		return nil, fault.Invalidf("The body must be a JSON object.")
	}
	if old == nil {
		old = add
	}
	maps.Copy(old, add)
	return json.Marshal(old)
}

// deleteKeys refuses reserved keys here: behind, a key that is missing is one
// that the caller did not know of.
func (s *sub) deleteKeys(w http.ResponseWriter, r *http.Request) error {
	by := By(r)
	return s.change(func(now, sent json.RawMessage) (json.RawMessage, error) {
		if keys, err := oneOrMore(sent); s.field.Guarded && !by.May(kind.ReservedAttribWrite) && err == nil {
			if i := slices.IndexFunc(keys, kind.Reserved); i >= 0 {
				return nil, kind.RefuseReserved(s.field.Path, keys[i], by)
			}
		}
		return s.removeKeys(now, sent)
	})(w, r)
}

func (s *sub) removeKeys(now, sent json.RawMessage) (json.RawMessage, error) {
	if sent == nil && s.field.Format.Name == kind.Settings.Name {
		return json.RawMessage("{}"), nil
	}
	keys, err := oneOrMore(sent)
	if err != nil {
		return nil, err
	}
	var old map[string]json.RawMessage
	if err := json.Unmarshal(now, &old); err != nil {
		return nil, err
	}
	for _, k := range keys {
		delete(old, k)
	}
	if old == nil {
		return json.RawMessage("{}"), nil
	}
	return json.Marshal(old)
}

func appendItems(now, sent json.RawMessage) (json.RawMessage, error) {
	add, err := oneOrMore(sent)
	if err != nil {
		return nil, err
	}
	var old []string
	if err := json.Unmarshal(now, &old); err != nil {
		return nil, err
	}
	return json.Marshal(append(old, add...))
}

func (s *sub) removeItems(now, sent json.RawMessage) (json.RawMessage, error) {
	drop, err := oneOrMore(sent)
	if err != nil {
		return nil, err
	}
	old := []string{}
	if err := json.Unmarshal(now, &old); err != nil {
		return nil, err
	}
	for _, id := range drop {
		uid := id
		if s.field.Ref != "" {
			if found, err := s.objects.Resolve(s.field.Ref, id); err == nil {
				uid = found
			}
		}
		old = slices.DeleteFunc(old, func(have string) bool { return have == uid || have == id })
	}
	return json.Marshal(old)
}

// oneOrMore reads a body that is one JSON string or a list of them.
func oneOrMore(sent json.RawMessage) ([]string, error) {
	var one string
	var many []string
	switch {
	case sent == nil || string(bytes.TrimSpace(sent)) == "null":
	case json.Unmarshal(sent, &one) == nil:
		return []string{one}, nil
	case json.Unmarshal(sent, &many) == nil && many != nil:
		return many, nil
	}
	return nil, fault.Invalidf("The body must be a JSON string or a list of strings.")
}
