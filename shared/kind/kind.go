// Package kind is the language in which an object kind is declared.
//
// A kind is a Go struct and a Spec beside it. From the Spec alone come the
// endpoints, the checks, /meta, the OpenAPI document, the command line and
// the generic tests; nothing about a kind may be written anywhere else. This
// package knows no kind by name and does no input or output.
package kind

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
)

// Object is a pointer to a kind's struct, which embeds Meta.
type Object interface{ Base() *Meta }

// Meta is what every object carries.
type Meta struct {
	UID            string  `json:"uid"`
	LastModified   float64 `json:"last_modified"`    // seconds since 1970
	LastModifiedOn string  `json:"last_modified_on"` // host name of the head that took the change
	LastModifiedBy string  `json:"last_modified_by"` // admin, or "muster" for the head itself
	Created        float64 `json:"created,omitempty"`
}

// Stamp says when, where and by whom a part of an object was changed.
type Stamp struct {
	LastModified   float64 `json:"last_modified"`
	LastModifiedOn string  `json:"last_modified_on"`
	LastModifiedBy string  `json:"last_modified_by"`
}

// Base gives the Meta itself; embedding makes a struct an Object.
func (m *Meta) Base() *Meta { return m }

// Source says who sets a field.
type Source string

// The sources. Only User fields may be written through the API.
const (
	User Source = "user"
	Head Source = "head" // computed or kept by the head
	Node Source = "node" // reported by the node
)

// Sub makes a field reachable for itself, as /<kind>/<id>/<field>.
type Sub int

// The ways to reach a field for itself.
const (
	NoSub   Sub = iota
	SubMap      // GET, PUT replaces, PATCH and POST merge, DELETE takes one key or a list
	SubList     // GET, PUT replaces, POST appends, DELETE takes one item or a list
)

// Field describes one key of a kind's JSON.
type Field struct {
	Path     string // the key; a dotted path describes a part of a Head or Node field
	Summary  string
	Source   Source
	Format   Format
	Required bool
	Default  string // JSON; set where nothing is given
	Unique   bool   // no two objects of the kind hold the same value
	// Per names a field of a few Values, each of which has its own Unique values:
	// objects that differ in it may hold the same one. In Names such a field may
	// name several objects.
	Per      string
	OnCreate bool   // a Head field that a user may choose when creating, never later
	Label    string // how messages name it: "MAC"; Path when empty
	Ref      string // kind that the value names; stored as UID, shown as name unless a list
	Pin      string // another text field: what follows a colon in the reference goes there, and it is unset with a reference without
	Sub      Sub
	Write    Permission // what changing it takes beside the kind's Write, or through its Sub endpoints instead of it
	Guarded  bool       // Values whose reserved keys take permissions of their own, see Reserved
	// Tells says of a text whether it tells of reserved keys, so that only those
	// who may read them see it; nil where none can.
	Tells func(text string) bool
	// Stamp names a *Stamp of the head's in which changes through the Sub
	// endpoints are noted. Once there are any, GET through them shows it among the keys.
	Stamp  string
	Secret bool // its value never appears in the audit trail
}

// label is how a message names the field.
func (f *Field) label() string {
	if f.Label != "" {
		return f.Label
	}
	return f.Path
}

// Spec declares a kind.
type Spec struct {
	Name   string // singular: path word of one object, word on the command line
	Plural string // path word of the class
	// Aliases are further words for the kind: each gives all of its endpoints,
	// on the same objects, and names it on the command line.
	Aliases []Alias
	Title   string // in messages: "Node"
	Doc     string // one sentence
	New     func() Object
	Fields  []Field
	// Names lists the fields that identify an object besides its UID, in the
	// order in which they are tried. Each must be Unique or in Keys.
	Names []string
	Read  Permission
	Write Permission
	// Frozen is the reason given when a frozen object is to be changed; a kind
	// with it must have a boolean field "frozen".
	Frozen    string
	Singleton bool // exactly one exists; no list, create or delete
	NoPut     bool // objects are changed field by field only
	Reserved  []string
	// Columns are the fields that a table shows, in order.
	Columns []string

	// Check looks at an object as a whole, before it is stored.
	Check func(obj Object) error
	// Prepare fills in what the head decides (old is nil on creation); it runs
	// inside the transaction, after references are resolved.
	Prepare func(tx Tx, obj, old Object) error
	// After runs in the same transaction once the object is stored, for what
	// follows for others. obj is nil on deletion, old on creation.
	After func(tx Tx, obj, old Object) error
	// Keys gives unique keys that no single field holds, by name.
	Keys func(obj Object) map[string]string
	// Hide gives a copy as those see it who may not read reserved attributes,
	// for what no single field can say; nil where nothing is hidden.
	Hide func(obj Object) Object
	// Show gives a copy filled with what is computed on reading.
	Show func(look Look, obj Object) Object

	bound map[string][]int // JSON key → index of the struct's field
}

// Look reads other objects while one is shown.
type Look interface {
	Get(kind, uid string) (Object, bool)
	Find(kind, field, value string) (Object, bool)
	// Oldest gives the object of the kind that was created first.
	Oldest(kind string) (Object, bool)
	// Live gives what a node last reported and its state, as JSON objects;
	// nil where nothing is known.
	Live(uid string) (hardware, status []byte)
}

// Alias is another pair of words for a kind.
type Alias struct{ Name, Plural string }

// Called gives all pairs of words that name the kind, its own first.
func (s *Spec) Called() []Alias {
	return append([]Alias{{s.Name, s.Plural}}, s.Aliases...)
}

// Tx reads and writes other objects inside a transaction.
type Tx interface {
	Get(kind, uid string) (Object, error) // nil when there is none
	Find(kind, key, value string) (uid string, err error)
	Oldest(kind string) (Object, error)
	// Each calls fn with every object of the kind, in the order of their UIDs.
	Each(kind string, fn func(Object) error) error
	// Save stores another object that a hook changed, with all its checks.
	Save(kind string, obj Object) error
	// Hint and SetHint keep a number between transactions: a place to start
	// looking, never the truth. 0 when nothing is known.
	Hint(name string) (int64, error)
	SetHint(name string, n int64) error
	// By is who makes the change.
	By() Author
	// HeadUID is the UID of the head that makes the change.
	HeadUID() string
	// Taken says whether an address belongs to a head or is otherwise not for nodes.
	Taken(addr string) bool
}

// UIDPattern is the published form of a UID.
var UIDPattern = regexp.MustCompile(`^[a-z0-9]{32}$`)

// Field gives the field of that path.
func (s *Spec) Field(path string) (*Field, bool) {
	i := slices.IndexFunc(s.Fields, func(f Field) bool { return f.Path == path })
	if i < 0 {
		return nil, false
	}
	return &s.Fields[i], true
}

// Writable gives the fields that a user may set, in declared order.
func (s *Spec) Writable() []Field {
	var out []Field
	for _, f := range s.Fields {
		if f.Source == User {
			out = append(out, f)
		}
	}
	return out
}

// Value gives the struct field that the JSON key names.
func (s *Spec) Value(obj Object, key string) (reflect.Value, bool) {
	i, ok := s.bound[key]
	if !ok {
		return reflect.Value{}, false
	}
	return reflect.ValueOf(obj).Elem().FieldByIndex(i), true
}

// Text gives a field's value as the text that indexes and messages use; "" for
// none. Only strings, pointers to them, and things that print themselves.
func (s *Spec) Text(obj Object, key string) string {
	v, ok := s.Value(obj, key)
	if !ok || v.IsZero() {
		return ""
	}
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	if v.Kind() == reflect.String {
		return v.String()
	}
	return fmt.Sprint(v.Interface())
}

// Refs gives the UIDs that a reference field holds.
func (s *Spec) Refs(obj Object, f *Field) []string {
	v, ok := s.Value(obj, f.Path)
	if !ok || v.IsZero() {
		return nil
	}
	switch x := v.Interface().(type) {
	case string:
		return []string{x}
	case *string:
		return []string{*x}
	case []string:
		return x
	}
	return nil
}

// SetRefs replaces them; for a single one an empty list clears it.
func (s *Spec) SetRefs(obj Object, f *Field, uids []string) {
	v, _ := s.Value(obj, f.Path)
	one := ""
	if len(uids) > 0 {
		one = uids[0]
	}
	switch v.Interface().(type) {
	case string:
		v.SetString(one)
	case *string:
		v.SetZero()
		if one != "" {
			v.Set(reflect.ValueOf(&one))
		}
	case []string:
		v.Set(reflect.ValueOf(uids))
	}
}

// Words are the path words that no object of the kind may be named, because
// an endpoint of the class has them.
func (s *Spec) Words() []string { return append([]string{"meta"}, s.Reserved...) }

// Bind checks the declaration and prepares the Spec for use; a mistake in it
// is an error that names the field. It must be called once for every Spec.
func (s *Spec) Bind(known func(kind string) bool) error {
	fail := func(format string, args ...any) error {
		return fmt.Errorf("kind %q: "+format, append([]any{s.Name}, args...)...)
	}
	if s.Name == "" || s.Title == "" || s.Doc == "" || s.New == nil || s.Read == "" || s.Write == "" {
		return fail("needs Name, Title, Doc, New, Read and Write")
	}
	if s.Plural == "" && !s.Singleton {
		return fail("needs a Plural")
	}
	for _, a := range s.Aliases {
		if a.Name == "" || a.Plural == "" || s.Singleton || known(a.Name) {
			return fail("the alias %q needs words of its own", a.Name)
		}
	}
	s.bound = map[string][]int{}
	for _, sf := range reflect.VisibleFields(reflect.TypeOf(s.New()).Elem()) {
		key, _, _ := strings.Cut(sf.Tag.Get("json"), ",")
		if sf.Anonymous || key == "-" {
			continue
		}
		if key == "" {
			return fail("the struct's field %s has no JSON key", sf.Name)
		}
		if _, ok := s.Field(key); !ok {
			return fail("JSON key %q is not described", key)
		}
		s.bound[key] = sf.Index
	}
	seen := map[string]bool{}
	for i := range s.Fields {
		f := &s.Fields[i]
		_, inStruct := s.bound[f.Path]
		switch {
		case seen[f.Path]:
			return fail("field %q is described twice", f.Path)
		case !inStruct && !strings.Contains(f.Path, "."):
			return fail("field %q is not in the struct", f.Path)
		case f.Summary == "" || f.Source == "" || f.Format.Name == "":
			return fail("field %q needs Summary, Source and Format", f.Path)
		case (f.Source == User || f.OnCreate) && f.Format.Parse == nil:
			return fail("field %q is written by users, but its format cannot be parsed", f.Path)
		case f.Guarded && reflect.TypeOf(s.New()).Elem().FieldByIndex(s.bound[f.Path]).Type != reflect.TypeFor[Values]():
			return fail("field %q is guarded, which only Values can be", f.Path)
		case f.Tells != nil && reflect.TypeOf(s.New()).Elem().FieldByIndex(s.bound[f.Path]).Type.Kind() != reflect.String:
			return fail("field %q may tell of reserved keys, which only a text can", f.Path)
		case f.Stamp != "" && (f.Sub != SubMap || s.bound[f.Stamp] == nil || reflect.TypeOf(s.New()).Elem().FieldByIndex(s.bound[f.Stamp]).Type != reflect.TypeFor[*Stamp]()):
			return fail("field %q is stamped in %q, which is no *Stamp, or has no keys", f.Path, f.Stamp)
		case f.Per != "" && !s.few(f):
			return fail("field %q is unique per %q, which is no other field of a few values", f.Path, f.Per)
		case f.Pin != "" && (f.Format.Name != Reference.Name || s.bound[f.Pin] == nil):
			return fail("field %q has its pin in %q, which is no field, or is no reference", f.Path, f.Pin)
		case f.Ref != "" && !known(f.Ref):
			return fail("field %q refers to kind %q, which does not exist", f.Path, f.Ref)
		case f.Default != "" && f.Source == User:
			if _, err := f.Format.Parse([]byte(f.Default)); err != nil {
				return fail("field %q: its default %s: %v", f.Path, f.Default, err)
			}
		}
		seen[f.Path] = true
	}
	for _, n := range append(slices.Clone(s.Names), s.Columns...) {
		if !seen[n] {
			return fail("%q is among Names or Columns, but no field", n)
		}
	}
	if f, ok := s.Field("frozen"); s.Frozen != "" && (!ok || f.Format.Name != Bool.Name) {
		return fail("Frozen needs a boolean field frozen")
	}
	return nil
}

// few says whether a field is unique per one that has only a few values.
func (s *Spec) few(f *Field) bool {
	per, ok := s.Field(f.Per)
	return ok && f.Unique && per.Path != f.Path && len(per.Format.Values) > 0
}

// UniqueKey is the name of the index that keeps a Unique field's values apart
// in an object.
func (s *Spec) UniqueKey(obj Object, f *Field) string {
	if f.Per == "" {
		return f.Path
	}
	return f.Path + "." + s.Text(obj, f.Per)
}

// UniqueKeys are all indexes of a Unique field.
func (s *Spec) UniqueKeys(f *Field) []string {
	if f.Per == "" {
		return []string{f.Path}
	}
	per, _ := s.Field(f.Per)
	var out []string
	for _, value := range per.Format.Values {
		out = append(out, f.Path+"."+value)
	}
	return out
}

// A is the kind's name with its article, as sentences have it.
func (s *Spec) A() string {
	if strings.ContainsRune("aeio", rune(s.Name[0])) { // not "u", as in "a user"
		return "an " + s.Name
	}
	return "a " + s.Name
}

// Exists is the reason given for a duplicate.
func (f *Field) Exists(title, value string) string {
	return fmt.Sprintf("%s with %s=%s already exists.", title, f.label(), value)
}
