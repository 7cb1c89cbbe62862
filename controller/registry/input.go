package registry

import (
	"bytes"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"

	"muster/shared/fault"
	"muster/shared/kind"
)

// mode is what an input is for.
type mode int

const (
	creating mode = iota
	patching
	putting
)

// kept is the value of a field that a replacement sends back as it was shown.
// What is shown may be computed: a name for a UID, inherited attributes; it
// must not become the node's own because somebody edited the description.
type kept struct{}

// parse turns an input into checked values by path; nil unsets one. shown is
// the object as its reader saw it: fields that users cannot set may come back
// unchanged, so that what was read can be edited and sent.
func parse(spec *kind.Spec, in Input, how mode, shown kind.Object) (map[string]any, error) {
	doc := map[string]any{}
	var unhandled []string
	for _, path := range slices.Sorted(maps.Keys(in)) {
		raw := in[path]
		f, ok := spec.Field(path)
		if !ok || !(f.Source == kind.User || (f.OnCreate && how == creating)) {
			if !ok || !unchanged(spec, f, raw, how, shown) {
				unhandled = append(unhandled, path)
			}
			continue
		}
		if how == putting && unchanged(spec, f, raw, how, shown) {
			doc[path] = kept{}
			continue
		}
		// An empty string is how forms and scripts say "nothing".
		if text := string(raw); text == "null" || (text == `""` && !f.Required) {
			if f.Required {
				return nil, fault.Invalidf("%s: %s needs it, so that it cannot be null.", path, spec.A())
			}
			doc[path] = nil
			if f.Default != "" {
				doc[path], _ = f.Format.Parse([]byte(f.Default))
			}
			continue
		}
		value, err := f.Format.Parse(raw)
		if err != nil {
			return nil, fault.Invalidf("%s: %s.", path, strings.TrimSuffix(err.Error(), "."))
		}
		if name, ok := value.(string); ok && f.Unique && slices.Contains(spec.Words(), name) {
			return nil, fault.Invalidf("%s: %q is a word of the API's own paths; choose another one.", path, name)
		}
		doc[path] = value
	}
	if len(unhandled) > 0 {
		return nil, fault.Invalidf("Unhandled parameter(s): %s", strings.Join(unhandled, ", "))
	}
	return doc, nil
}

// unchanged says whether a field that users cannot set came back as it was. On
// replacing a whole object, what a node reports is passed over: it changes
// between reading and writing.
func unchanged(spec *kind.Spec, f *kind.Field, raw json.RawMessage, how mode, shown kind.Object) bool {
	if how == creating || strings.Contains(f.Path, ".") {
		return false
	}
	if how == putting && f.Source == kind.Node {
		return true
	}
	v, ok := spec.Value(shown, f.Path)
	if !ok {
		return false
	}
	now, err := json.Marshal(v.Interface())
	if err != nil {
		return false
	}
	// Users' numbers are kept as they are written; others are measures, which
	// a client may write differently.
	a, err1 := decoded(now, f.Source == kind.User)
	b, err2 := decoded(raw, f.Source == kind.User)
	return err1 == nil && err2 == nil && reflect.DeepEqual(a, b)
}

func decoded(raw []byte, exact bool) (v any, err error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	if exact {
		d.UseNumber()
	}
	return v, d.Decode(&v)
}

// whole adds to a document what replacing or creating leaves out: defaults,
// and nil for what has none.
func whole(spec *kind.Spec, doc map[string]any) map[string]any {
	full := map[string]any{}
	for _, f := range spec.Fields {
		if f.Source != kind.User {
			continue
		}
		full[f.Path] = nil
		if f.Default != "" {
			full[f.Path], _ = f.Format.Parse([]byte(f.Default)) // checked by Bind
		}
	}
	maps.Copy(full, doc)
	return full
}
