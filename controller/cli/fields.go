package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/spf13/cobra"

	"muster/shared/kind"
)

// shape is the JSON type of a field.
type shape int

const (
	isText shape = iota
	isNumber
	isBool
	isList
	isMap
	isObjects // a list of JSON objects
)

// shapeOf reads it off the kind's struct.
func shapeOf(spec *kind.Spec, path string) shape {
	v, ok := spec.Value(spec.New(), path)
	if !ok {
		return isText
	}
	t := v.Type()
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t.Kind() {
	case reflect.Bool:
		return isBool
	case reflect.Int, reflect.Int64:
		return isNumber
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Struct {
			return isObjects
		}
		return isList
	case reflect.Map:
		return isMap
	}
	return isText
}

// fieldFlags are the flags of a kind's fields.
type fieldFlags struct {
	all []*fieldFlag
}

// fieldFlag is a pflag.Value that collects what is given for one field.
type fieldFlag struct {
	field  kind.Field
	shape  shape
	values []string
	json   json.RawMessage
}

func flagName(path string) string { return strings.ReplaceAll(path, "_", "-") }

// flags gives a command one flag for every field that may be set there.
func (k *kindVerbs) flags(c *cobra.Command, creating bool) *fieldFlags {
	out := &fieldFlags{}
	for _, f := range k.spec.Fields {
		if f.Source != kind.User && !(creating && f.OnCreate) {
			continue
		}
		ff := &fieldFlag{field: f, shape: shapeOf(k.spec, f.Path)}
		out.all = append(out.all, ff)
		flag := c.Flags().VarPF(ff, flagName(f.Path), "", flagHelp(&f, ff.shape, creating))
		if ff.shape == isBool {
			flag.NoOptDefVal = "true"
		}
		must(c.RegisterFlagCompletionFunc(flag.Name, k.completeField(&f, ff.shape)))
	}
	return out
}

// flagHelp is the declaration's summary, and how to write the value. Words in
// backquotes would be taken for the name of the value.
func flagHelp(f *kind.Field, s shape, creating bool) string {
	text := strings.ReplaceAll(f.Summary, "`", "'")
	var notes []string
	if f.Required && creating {
		notes = append(notes, "required")
	}
	switch {
	case len(f.Format.Values) > 0:
		notes = append(notes, strings.Join(f.Format.Values, "|"))
	case s == isMap:
		notes = append(notes, "key=value, once for each; key:=JSON for numbers and booleans; or a JSON object; replaces all that there is")
	case s == isList && f.Ref != "":
		notes = append(notes, "with commas or once for each; replaces all that there is")
	case s == isObjects:
		notes = append(notes, "a JSON object, once for each; replaces all that there is")
	case s == isList:
		notes = append(notes, "once for each; replaces all that there is")
	}
	if f.Default != "" && creating {
		notes = append(notes, "default "+f.Default)
	}
	if len(notes) > 0 {
		text += " (" + strings.Join(notes, "; ") + ")"
	}
	return text
}

// given is what was set, as the body of a request.
func (fs *fieldFlags) given() map[string]json.RawMessage {
	out := map[string]json.RawMessage{}
	for _, f := range fs.all {
		if f.json != nil {
			out[f.field.Path] = f.json
		}
	}
	return out
}

// names are the fields as flags write them.
func (fs *fieldFlags) names() []string {
	var out []string
	for _, f := range fs.all {
		out = append(out, flagName(f.field.Path))
	}
	return out
}

// Set implements pflag.Value; lists and maps grow with each flag.
func (f *fieldFlag) Set(text string) (err error) {
	if f.shape != isList && f.shape != isMap && f.shape != isObjects {
		f.values = nil
	}
	f.values = append(f.values, text)
	f.json, err = encode(f.shape, f.field.Ref != "", f.values)
	return err
}

// String implements pflag.Value.
func (f *fieldFlag) String() string { return strings.Join(f.values, ",") }

// Type implements pflag.Value: what help writes behind the flag.
func (f *fieldFlag) Type() string {
	if f.field.Ref != "" {
		return f.field.Ref
	}
	return f.field.Format.Name
}

// encode writes what was given for a field as JSON. Whether it is good for the
// field is for the head to say. An empty text unsets.
func encode(s shape, refs bool, values []string) (json.RawMessage, error) {
	last := values[len(values)-1]
	switch {
	case s == isList:
		return encodeList(refs, values)
	case s == isMap:
		return encodeMap(values)
	case s == isObjects:
		return encodeObjects(values)
	case last == "":
		return json.RawMessage("null"), nil
	case s == isBool:
		if last != "true" && last != "false" {
			return nil, fmt.Errorf("%q is neither true nor false", last)
		}
		return json.RawMessage(last), nil
	case s == isNumber:
		if !isJSONNumber(last) {
			return nil, fmt.Errorf("%q is not a number", last)
		}
		return json.RawMessage(last), nil
	}
	return json.Marshal(last)
}

func isJSONNumber(text string) bool {
	var n json.Number
	return !strings.ContainsAny(text, "\" \t\r\n") && text != "null" && json.Unmarshal([]byte(text), &n) == nil
}

// encodeList takes entries one per value, names also with commas between them,
// and JSON lists.
func encodeList(refs bool, values []string) (json.RawMessage, error) {
	out := []string{}
	for _, v := range values {
		switch {
		case strings.HasPrefix(v, "["):
			var more []string
			if err := json.Unmarshal([]byte(v), &more); err != nil {
				return nil, fmt.Errorf("%q is no JSON list of strings", v)
			}
			out = append(out, more...)
		case refs:
			for name := range strings.SplitSeq(v, ",") {
				if name = strings.TrimSpace(name); name != "" {
					out = append(out, name)
				}
			}
		case v != "":
			out = append(out, v)
		}
	}
	if len(out) == 1 { // the head may know how to take one apart
		return json.Marshal(out[0])
	}
	return json.Marshal(out)
}

// encodeObjects takes JSON objects.
func encodeObjects(values []string) (json.RawMessage, error) {
	out := []json.RawMessage{}
	for _, v := range values {
		if v == "" {
			continue
		}
		if !strings.HasPrefix(strings.TrimSpace(v), "{") || !json.Valid([]byte(v)) {
			return nil, fmt.Errorf("%q is no JSON object", v)
		}
		out = append(out, json.RawMessage(v))
	}
	return json.Marshal(out)
}

// encodeMap takes key=value, key:=JSON and JSON objects; later ones overwrite
// earlier ones.
func encodeMap(values []string) (json.RawMessage, error) {
	out := map[string]json.RawMessage{}
	for _, v := range values {
		if strings.HasPrefix(strings.TrimSpace(v), "{") {
			if err := json.Unmarshal([]byte(v), &out); err != nil {
				return nil, fmt.Errorf("%q is no JSON object", v)
			}
			continue
		}
		if v == "" {
			continue
		}
		key, raw, err := keyValue(v)
		if err != nil {
			return nil, err
		}
		out[key] = raw
	}
	return json.Marshal(out)
}

// keyValue takes key=value, where the value is text, and key:=value, where it
// is JSON.
func keyValue(text string) (string, json.RawMessage, error) {
	key, value, ok := strings.Cut(text, "=")
	if !ok || key == "" || key == ":" {
		return "", nil, fmt.Errorf("%q is not key=value", text)
	}
	if key, ok := strings.CutSuffix(key, ":"); ok {
		if !json.Valid([]byte(value)) {
			return "", nil, fmt.Errorf("%s: %q is no JSON; for text write %s=…", key, value, key)
		}
		return key, json.RawMessage(value), nil
	}
	raw, err := json.Marshal(value)
	if err != nil {
		return "", nil, errors.New("a value cannot be written as JSON")
	}
	return key, raw, nil
}
