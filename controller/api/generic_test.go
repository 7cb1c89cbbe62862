package api_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"muster/controller/api/apitest"
	"muster/shared/kind"
	"muster/shared/object"
)

// The tests of this file hold for every kind, whatever it declares: they are
// made from the declarations.

const (
	sshKey  = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHDGa51ZBbZi97zfZLMXUuSdLFBqxiAnsKZYHDTCKIPo jo@desk"
	someUID = "0123456789abcdef0123456789abcdef"
	private = "-----BEGIN OPENSSH PRIVATE KEY-----"
)

// each runs fn for every kind on a head that holds two objects of each kind to
// refer to.
func each(t *testing.T, fn func(t *testing.T, h *apitest.Head, spec *kind.Spec, path func(n int) string)) {
	for _, spec := range object.All() {
		t.Run(spec.Name, func(t *testing.T) {
			t.Parallel()
			h := start(t)
			h = h.For(t)
			for _, other := range object.All() {
				if _, named := other.Field("name"); other.Singleton || !named || other.Name == object.KindNode {
					continue
				}
				for i, name := range []string{"other", "second"} {
					in := body(t, other, 200+i)
					in["name"] = name
					h.Create(other.Plural, in)
				}
			}
			// path gives the n-th object of the kind, made anew.
			path := func(n int) string {
				if spec.Singleton {
					return spec.Name
				}
				return spec.Name + "/" + h.Create(spec.Plural, body(t, spec, n))
			}
			fn(t, h, spec, path)
		})
	}
}

// shown is how a value is read back: lists of references as UIDs.
func shown(h *apitest.Head, f *kind.Field, v any) any {
	names, ok := v.([]string)
	if !ok || f.Ref == "" {
		return v
	}
	uids := []any{}
	for _, name := range names {
		uids = append(uids, h.Get(f.Ref + "/" + name)["uid"])
	}
	return uids
}

func raw(h *apitest.Head, path string) string { return string(h.OK("GET", "/"+path, nil)) }

func TestEveryFieldTakesWhatItDeclares(t *testing.T) {
	each(t, func(t *testing.T, h *apitest.Head, spec *kind.Spec, path func(int) string) {
		for i, f := range alone(spec) {
			p := path(i)
			fresh := h.Get(p)
			for _, v := range samples(t, spec, &f, 100+i).good {
				before := h.Get(p)
				h.OK("PATCH", "/"+p, apitest.Map{f.Path: v}, apitest.AsAdmin, "somebody")
				after := h.Get(p)
				if v == false {
					want(t, after[f.Path] == nil || after[f.Path] == false, true)
				} else {
					want(t, after[f.Path], shown(h, &f, v))
				}
				others := append(follows(&f), f.Path)
				want(t, without(after, others...), without(before, others...))
				want(t, []any{after["last_modified_by"], after["last_modified_on"], after["uid"], after["created"]},
					[]any{"somebody", apitest.HeadName, before["uid"], before["created"]})
				if number(t, after["last_modified"]) <= number(t, before["last_modified"]) {
					t.Errorf("%s: last_modified did not grow", f.Path)
				}
			}
			if !f.Required { // null unsets it
				h.OK("PATCH", "/"+p, apitest.Map{f.Path: nil})
				want(t, without(h.Get(p), follows(&f)...), without(fresh, follows(&f)...))
			}
		}
	})
}

func TestEveryFieldRefusesTheRest(t *testing.T) {
	each(t, func(t *testing.T, h *apitest.Head, spec *kind.Spec, path func(int) string) {
		p := path(0)
		before := raw(h, p)
		for _, f := range alone(spec) {
			for _, v := range samples(t, spec, &f, 1).bad {
				// Another field that is right must not be taken either.
				for _, in := range []apitest.Map{{f.Path: v}, {f.Path: v, "description": "right"}} {
					if _, ok := spec.Field("description"); len(in) > 1 && (!ok || f.Path == "description") || in[f.Path] == "right" {
						continue
					}
					for _, method := range []string{"PATCH", "PUT"} {
						if !puts(spec) && method == "PUT" {
							continue
						}
						if method == "PUT" {
							in = merged(body(t, spec, 0), in)
						}
						if reason := h.Refused(method, "/"+p, in); !strings.Contains(reason, f.Path) {
							t.Errorf("%s %s %.100v: the reason %q does not name the field", method, f.Path, v, reason)
						}
					}
				}
				if !spec.Singleton {
					h.Refused("POST", "/"+spec.Plural, merged(body(t, spec, 1), apitest.Map{f.Path: v}))
				}
			}
			if f.Required {
				if reason := h.Refused("PATCH", "/"+p, apitest.Map{f.Path: nil}); !strings.Contains(reason, f.Path) {
					t.Errorf("%s: null: %s", f.Path, reason)
				}
				in := body(t, spec, 1)
				delete(in, f.Path)
				want(t, h.Refused("POST", "/"+spec.Plural, in), "A"+spec.A()[1:]+" needs: "+f.Path)
				if puts(spec) {
					want(t, h.Refused("PUT", "/"+p, in), "A"+spec.A()[1:]+" needs: "+f.Path)
				}
			}
		}
		in := apitest.Map{"zebra": 1, "apple": nil, "description": "x"}
		wanted := "Unhandled parameter(s): apple, zebra"
		if _, ok := spec.Field("description"); !ok {
			wanted = "Unhandled parameter(s): apple, description, zebra"
		}
		want(t, h.Refused("PATCH", "/"+p, in), wanted)
		if puts(spec) {
			want(t, h.Refused("PUT", "/"+p, merged(body(t, spec, 0), in)), wanted)
		}
		if !spec.Singleton {
			want(t, h.Refused("POST", "/"+spec.Plural, merged(body(t, spec, 1), in)), wanted)
		}
		if after := raw(h, p); after != before {
			t.Errorf("what was refused has changed the object:\n%s%s", before, after)
		}
	})
}

// TestReadOnlyFields: what users cannot set may come back as it was read, and
// in no other way.
func TestReadOnlyFields(t *testing.T) {
	each(t, func(t *testing.T, h *apitest.Head, spec *kind.Spec, path func(int) string) {
		p := path(0)
		set := apitest.Map{}
		for _, f := range alone(spec) { // all fields set, but such as exclude others
			if f.Path != "frozen" && f.Path != "ip_offset" && f.Path != "naming_pool" && f.Path != "upstream" {
				set[f.Path] = samples(t, spec, &f, 3).good[0]
			}
		}
		h.OK("PATCH", "/"+p, set)
		read := h.Get(p)
		if puts(spec) {
			h.OK("PUT", "/"+p, read)
			want(t, without(h.Get(p)), without(read))
		}
		read = h.Get(p)
		h.OK("PATCH", "/"+p, read)
		want(t, without(h.Get(p)), without(read))
		before := raw(h, p)
		for _, f := range spec.Fields {
			if f.Source == kind.User {
				continue
			}
			for _, v := range []any{"other", 4711, nil, apitest.Map{}} {
				if now, ok := read[f.Path]; f.Source == kind.Node || ok && fmt.Sprint(now) == fmt.Sprint(v) || !ok && v == nil {
					continue
				}
				want(t, h.Refused("PATCH", "/"+p, apitest.Map{f.Path: v}), "Unhandled parameter(s): "+f.Path)
				if !spec.Singleton && !f.OnCreate {
					want(t, h.Refused("POST", "/"+spec.Plural, merged(body(t, spec, 4), apitest.Map{f.Path: v})), "Unhandled parameter(s): "+f.Path)
				}
			}
		}
		want(t, raw(h, p), before)
	})
}

func TestPutResets(t *testing.T) {
	each(t, func(t *testing.T, h *apitest.Head, spec *kind.Spec, path func(int) string) {
		if spec.Singleton {
			h.Refused("PUT", "/"+spec.Name, "{}")
			h.Refused("DELETE", "/"+spec.Name, nil)
			h.Refused("POST", "/"+spec.Name, "{}")
			return
		}
		p := path(0)
		if spec.NoPut {
			a := h.Do("PUT", "/"+p, body(t, spec, 0))
			want(t, []any{a.Status, a.Header.Get("Allow")}, []any{405, "GET, PATCH, DELETE"})
			return
		}
		fresh := h.Get(p)
		for _, f := range alone(spec) {
			if f.Required || f.Path == "frozen" {
				continue
			}
			h.OK("PATCH", "/"+p, apitest.Map{f.Path: samples(t, spec, &f, 5).good[0]})
			h.OK("PUT", "/"+p, body(t, spec, 0))
			want(t, without(h.Get(p), follows(&f)...), without(fresh, follows(&f)...))
		}
	})
}

func TestDuplicates(t *testing.T) {
	each(t, func(t *testing.T, h *apitest.Head, spec *kind.Spec, path func(int) string) {
		for i, f := range alone(spec) {
			if !f.Unique {
				continue
			}
			first, second := path(2*i), path(2*i+1)
			value := samples(t, spec, &f, 2*i).good[0]
			h.OK("PATCH", "/"+first, apitest.Map{f.Path: value})
			before := raw(h, second) + raw(h, first)
			reason := f.Exists(spec.Title, fmt.Sprint(value))
			want(t, h.Refused("PATCH", "/"+second, apitest.Map{f.Path: value}), reason)
			if puts(spec) {
				want(t, h.Refused("PUT", "/"+second, merged(body(t, spec, 2*i+1), apitest.Map{f.Path: value})), reason)
			}
			a := h.Do("POST", "/"+spec.Plural, merged(body(t, spec, 7), apitest.Map{f.Path: value}))
			want(t, []any{a.Status, a.Reason}, []any{409, reason})
			want(t, raw(h, second)+raw(h, first), before)
			// Given up, it can be taken by another.
			other := samples(t, spec, &f, 90+i).good[1]
			h.OK("PATCH", "/"+first, apitest.Map{f.Path: other})
			h.OK("PATCH", "/"+second, apitest.Map{f.Path: value})
			h.OK("DELETE", "/"+second, nil)
			h.OK("PATCH", "/"+first, apitest.Map{f.Path: value})
		}
	})
}

func TestNamesAndPaths(t *testing.T) {
	each(t, func(t *testing.T, h *apitest.Head, spec *kind.Spec, path func(int) string) {
		if spec.Singleton {
			return
		}
		p := path(0)
		obj := h.Get(p)
		uid := obj["uid"].(string)
		ids := []string{uid}
		for _, key := range spec.Names {
			if id, ok := obj[key].(string); ok {
				ids = append(ids, id)
			}
		}
		if len(ids) < 2 && len(spec.Names) > 0 && spec.Name != "net" && spec.Name != "head" {
			t.Errorf("nothing but the UID names %v", obj)
		}
		for _, id := range ids {
			want(t, h.Get(spec.Name+"/"+id), obj)
			for _, words := range spec.Called() {
				want(t, h.Get(words.Plural+"/"+id), obj)
				want(t, h.Get(words.Name+"/"+id), obj)
			}
			h.OK("PATCH", "/"+spec.Plural+"/"+id, "{}")
			obj = h.Get(p)
		}
		list := h.List(spec.Plural)
		want(t, list[uid], obj)
		for _, words := range spec.Aliases {
			want(t, h.List(words.Plural), list)
			want(t, raw(h, words.Plural+"/meta"), raw(h, spec.Plural+"/meta"))
			h.OK("DELETE", "/"+words.Name+"/"+h.Create(words.Plural, body(t, spec, 99)), nil)
		}
		h.OK("DELETE", "/"+spec.Plural+"/"+ids[len(ids)-1], nil)
		for _, id := range append(ids, "nobody", "x/../y", "%C3%A9 %2F", "%FF", strings.Repeat("x", 3000)) {
			shown := strings.NewReplacer("%C3%A9", "é", "%2F", "/", "%FF", "\xff").Replace(id)
			for _, method := range []string{"GET", "PATCH", "PUT", "DELETE"} {
				if strings.Contains(id, "..") || method == "PUT" && !puts(spec) {
					continue
				}
				a := h.Do(method, "/"+spec.Name+"/"+strings.ReplaceAll(id, " ", "%20"), body(t, spec, 0))
				if reason := "No " + spec.Name + " found for ID=" + strings.ToValidUTF8(shown, "\ufffd"); a.Status != 404 || a.Reason != reason {
					t.Errorf("%s of %.60q: status %d, %.200q, want %.200q", method, id, a.Status, a.Reason, reason)
				}
			}
		}
		delete(list, uid)
		want(t, h.List(spec.Plural), list)
	})
}

func TestReferences(t *testing.T) {
	each(t, func(t *testing.T, h *apitest.Head, spec *kind.Spec, path func(int) string) {
		for i, f := range alone(spec) {
			if f.Ref == "" {
				continue
			}
			p := path(i)
			uid := h.Get(f.Ref + "/other")["uid"]
			list := f.Format.Name == kind.References.Name
			for _, id := range []any{uid, "other"} {
				h.OK("PATCH", "/"+p, apitest.Map{f.Path: id})
				if list {
					want(t, h.Get(p)[f.Path], []any{uid})
				} else {
					want(t, h.Get(p)[f.Path], "other")
				}
			}
			if list { // the same one twice is there once
				h.OK("PATCH", "/"+p, apitest.Map{f.Path: []any{"other", uid, "second", "other"}})
				want(t, h.Get(p)[f.Path], []any{uid, h.Get(f.Ref + "/second")["uid"]})
			}
			want(t, h.Refused("PATCH", "/"+p, apitest.Map{f.Path: "nobody"}), f.Path+": No "+f.Ref+" found for ID=nobody")
			h.OK("PATCH", "/"+f.Ref+"/other", apitest.Map{"name": "renamed"})
			if !list {
				want(t, h.Get(p)[f.Path], "renamed")
			}
			h.OK("DELETE", "/"+f.Ref+"/renamed", nil)
			left := h.Get(p)
			if list {
				want(t, left[f.Path], []any{h.Get(f.Ref + "/second")["uid"]})
			} else {
				want(t, left[f.Path], uid)
			}
			if puts(spec) { // a broken reference does not stand in the way
				h.OK("PUT", "/"+p, left)
				want(t, without(h.Get(p)), without(left))
			}
			if _, ok := spec.Field("description"); ok {
				h.OK("PATCH", "/"+p, apitest.Map{"description": "still"})
			}
			h.Create(pluralOf(f.Ref), merged(body(t, specOf(f.Ref), 250), apitest.Map{"name": "other"}))
		}
	})
}

func TestFrozen(t *testing.T) {
	each(t, func(t *testing.T, h *apitest.Head, spec *kind.Spec, path func(int) string) {
		if spec.Frozen == "" {
			return
		}
		p := path(0)
		h.OK("PATCH", "/"+p, apitest.Map{"frozen": true, "description": "ice"})
		read := h.Get(p)
		before := raw(h, p)
		refused := []struct {
			method string
			body   any
		}{
			{"PATCH", apitest.Map{"description": "x"}}, {"PATCH", apitest.Map{}}, {"PATCH", apitest.Map{"frozen": true}}, {"PATCH", apitest.Map{"frozen": nil}},
			{"PATCH", apitest.Map{"frozen": false, "description": "x"}}, {"PATCH", apitest.Map{"frozen": false, "description": "ice"}},
			{"PUT", body(t, spec, 0)}, {"PUT", read}, {"PUT", merged(read, apitest.Map{"frozen": false})}, {"PUT", apitest.Map{"frozen": false}},
			{"DELETE", nil},
		}
		for _, r := range refused {
			want(t, h.Refused(r.method, "/"+p, r.body), spec.Frozen)
		}
		want(t, raw(h, p), before)
		h.OK("PATCH", "/"+p, apitest.Map{"frozen": false})
		want(t, without(h.Get(p), "frozen"), without(read, "frozen"))
		h.OK("DELETE", "/"+p, nil)
	})
}

// TestParts reaches fields for themselves.
func TestParts(t *testing.T) {
	each(t, func(t *testing.T, h *apitest.Head, spec *kind.Spec, path func(int) string) {
		for i, f := range alone(spec) {
			if f.Sub == kind.NoSub {
				continue
			}
			p := "/" + path(i) + "/" + f.Path
			s := samples(t, spec, &f, 1)
			read := func() any {
				v := apitest.Decode[any](t, h.OK("GET", p, nil))
				if m, ok := v.(apitest.Map); ok && f.Stamp != "" {
					return without(m)
				}
				return v
			}
			empty := read()
			for _, v := range s.good {
				h.OK("PUT", p, v)
				want(t, read(), shown(h, &f, v))
			}
			h.OK("PUT", p, s.good[0])
			if f.Sub == kind.SubList {
				entry := func(v any, i int) json.RawMessage { b, _ := json.Marshal(v.([]string)[i]); return b }
				h.OK("PUT", p, s.good[1])
				h.OK("POST", p, s.good[0]) // those that are there stay where they are
				both := read().([]any)
				h.OK("POST", p, entry(s.good[0], 0))
				want(t, read(), both)
				h.OK("DELETE", p, entry(s.good[1], 0))
				want(t, read(), both[1:])
				h.OK("DELETE", p, append(s.good[0].([]string), "no such entry"))
				want(t, read(), empty)
			} else {
				first, second := s.good[0].(apitest.Map), s.good[1].(apitest.Map)
				h.OK("PATCH", p, second)
				want(t, read(), merged(first, second))
				h.OK("DELETE", p, slices.Collect(maps.Keys(first)))
				want(t, read(), second)
				h.OK("POST", p, first)
				h.OK("DELETE", p, append(slices.Collect(maps.Keys(second)), "no such key"))
				want(t, read(), first)
			}
			before := raw(h, p[1:])
			for _, v := range append(s.bad, nil, "") {
				if str, ok := v.(string); ok && f.Sub == kind.SubList && str != "" && f.Format.Name != "ssh-keys" {
					continue // one entry may be given alone, and unknown names are tested elsewhere
				}
				encoded, _ := json.Marshal(v)
				h.Refused("PUT", p, string(encoded))
				h.Refused("POST", p, string(encoded))
			}
			for _, b := range []any{nil, "null", "5", "{}", "[5]", `{"a":1}`, "[[]]", "["} {
				if b == nil && f.Format.Name == kind.Settings.Name {
					continue // clears all of it
				}
				h.Refused("DELETE", p, b)
			}
			want(t, raw(h, p[1:]), before)
			h.Refused("GET", "/"+spec.Name+"/nobody/"+f.Path, nil)
			h.Refused("PUT", "/"+spec.Name+"/nobody/"+f.Path, s.good[0])
		}
	})
}
