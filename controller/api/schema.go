package api

import (
	"encoding/json"
	"reflect"
	"strings"
	"time"

	"muster/shared/kind"
)

// Schema is a JSON Schema (2020-12), the form in which OpenAPI 3.1 describes
// values.
type Schema map[string]any

// Param is a query parameter.
type Param struct {
	Name, Doc string
	Type      string // of JSON: "integer", "number", "boolean"; a string when empty
}

// ManyTexts is the Type of a parameter that may be given more than once.
const ManyTexts = "array"

// Any is the schema of a value that is not described further, Text that of a
// string, UID that of a UID.
func Any() Schema  { return Schema{} }
func Text() Schema { return Schema{"type": "string"} }
func UID() Schema  { return Schema{"type": "string", "pattern": kind.UIDPattern.String()} }

// List is the schema of a list.
func List(of Schema) Schema { return Schema{"type": "array", "items": of} }

// ByUID is the schema of objects by UID.
func ByUID(of Schema) Schema {
	return Schema{"type": "object", "propertyNames": Schema{"pattern": kind.UIDPattern.String()}, "additionalProperties": of}
}

// SchemaOf describes the JSON that encoding/json makes of a Go value's type.
func SchemaOf(v any) Schema {
	if s, ok := v.(Schema); ok {
		return s
	}
	return schemaOf(reflect.TypeOf(v), map[reflect.Type]bool{})
}

// schemaOf follows a type; one that holds itself ends as Any.
func schemaOf(t reflect.Type, inside map[reflect.Type]bool) Schema {
	switch {
	case t == nil || inside[t]:
		return Any()
	case t == reflect.TypeFor[time.Time]():
		return Schema{"type": "string", "format": "date-time"}
	case t == reflect.TypeFor[json.Number]():
		return Schema{"type": "number"}
	case t == reflect.TypeFor[kind.Values]():
		return Schema{"type": "object"}
	case t.Kind() != reflect.Pointer && (t.Implements(reflect.TypeFor[json.Marshaler]()) || reflect.PointerTo(t).Implements(reflect.TypeFor[json.Marshaler]())):
		return Any()
	}
	switch t.Kind() {
	case reflect.Pointer:
		return schemaOf(t.Elem(), inside)
	case reflect.Bool:
		return Schema{"type": "boolean"}
	case reflect.String:
		return Text()
	case reflect.Float32, reflect.Float64:
		return Schema{"type": "number"}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64, reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return Schema{"type": "integer"}
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			return Schema{"type": "string", "contentEncoding": "base64"}
		}
		return Schema{"type": "array", "items": schemaOf(t.Elem(), inside)}
	case reflect.Map:
		return Schema{"type": "object", "additionalProperties": schemaOf(t.Elem(), inside)}
	case reflect.Struct:
		inside[t] = true
		defer delete(inside, t)
		return structSchema(t, inside)
	}
	return Any()
}

func structSchema(t reflect.Type, inside map[reflect.Type]bool) Schema {
	properties, required := Schema{}, []string{}
	for _, f := range reflect.VisibleFields(t) {
		key, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && key == "" || !f.IsExported() || key == "-" {
			continue
		}
		if key == "" {
			key = f.Name
		}
		s := schemaOf(f.Type, inside)
		if strings.Contains(options, "omit") {
			properties[key] = s
			continue
		}
		required = append(required, key)
		switch f.Type.Kind() {
		case reflect.Pointer, reflect.Map, reflect.Slice, reflect.Interface:
			s = orNull(s)
		}
		properties[key] = s
	}
	return Schema{"type": "object", "properties": properties, "required": required, "additionalProperties": false}
}

func orNull(s Schema) Schema {
	if len(s) == 0 {
		return s
	}
	return Schema{"anyOf": []any{s, Schema{"type": "null"}}}
}

// AnyOf is the schema of a value that is of one of several types.
func AnyOf(of ...any) Schema {
	var list []any
	for _, v := range of {
		list = append(list, SchemaOf(v))
	}
	return Schema{"anyOf": list}
}

// Shown is the schema of an object of a kind as GET gives it.
func Shown(spec *kind.Spec) Schema { return named(spec.Name, shown(spec)) }

// shown describes an object as GET gives it. No key is required: ?fields=
// picks some.
func shown(spec *kind.Spec) Schema {
	s := SchemaOf(spec.New())
	delete(s, "required")
	s["description"] = spec.Doc
	for key, value := range s["properties"].(Schema) {
		f, _ := spec.Field(key)
		property := value.(Schema)
		if f.Format.Values != nil && property["type"] == "string" {
			property["enum"] = append([]string{""}, f.Format.Values...)
		}
		property["description"] = f.Summary
		if f.Source != kind.User {
			property["readOnly"] = true
		}
	}
	return s
}

// bodyFor is what an object's description is for.
type bodyFor int

const (
	forCreate bodyFor = iota
	forChange         // PATCH: any of the fields
	forReplace
)

// taken describes an object as it is sent. What users cannot set may come back
// unchanged where an object is changed: that is checked by its value.
func taken(spec *kind.Spec, what bodyFor) Schema {
	properties, required := Schema{}, []string{}
	for i := range spec.Fields {
		f := &spec.Fields[i]
		if strings.Contains(f.Path, ".") {
			continue
		}
		writable := f.Source == kind.User || f.OnCreate && what == forCreate
		if !writable && what == forCreate {
			continue
		}
		properties[f.Path] = takenField(f, writable)
		if f.Required && what != forChange {
			required = append(required, f.Path)
		}
	}
	return Schema{"type": "object", "properties": properties, "required": required, "additionalProperties": false}
}

func takenField(f *kind.Field, writable bool) Schema {
	s := Schema{"description": f.Summary}
	if !writable {
		return s
	}
	if f.Default != "" {
		s["default"] = json.RawMessage(f.Default)
	}
	if f.Format.Schema == nil {
		return s
	}
	if f.Required {
		s["allOf"] = []any{f.Format.Schema}
	} else { // null and the empty string unset it
		s["anyOf"] = []any{f.Format.Schema, Schema{"type": "null"}, Schema{"const": ""}}
	}
	return s
}
