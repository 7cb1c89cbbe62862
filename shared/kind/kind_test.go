package kind

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

func formats() map[string]Format {
	return map[string]Format{
		"text": Text, "line": Line, "name": Name, "bool": Bool, "int": Int(-5, 5), "count": Count, "one of": OneOf("a", "b"), "ip": IP, "ipv4": IPv4,
		"mac": MAC, "key values": KeyValues, "settings": Settings, "reference": Reference, "references": References, "list": List("list", Text), "flag": Flag, "sequence": Sequence("flags", Flag),
	}
}

// TestFormats: what is stored for what was sent; "" where it is refused.
func TestFormats(t *testing.T) {
	for _, c := range []struct{ format, in, out string }{
		{"mac", `"52-54-00-AA-bb-01"`, `"52:54:00:aa:bb:01"`}, {"mac", `"5254.00aa.bb01"`, `"52:54:00:aa:bb:01"`}, {"mac", `"11:22:33:44:55:66"`, `"11:22:33:44:55:66"`},
		{"mac", `"00:00:00:00:00:00"`, ""}, {"mac", `"ff:ff:ff:ff:ff:ff"`, ""}, {"mac", `"52:54:00:aa:bb"`, ""}, {"mac", `"52:54:00:aa:bb:01:02:03"`, ""},
		{"ip", `"::ffff:10.0.0.1"`, `"10.0.0.1"`}, {"ip", `"FD00::0:1"`, `"fd00::1"`}, {"ip", `"010.0.0.1"`, ""}, {"ip", `"fe80::1%eth0"`, ""}, {"ipv4", `"fd00::1"`, ""},
		{"int", `5`, `5`}, {"int", ` 5 `, `5`}, {"int", `6`, ""}, {"int", `5.0`, ""}, {"int", `"5"`, ""}, {"int", `true`, ""}, {"count", `2147483647`, `2147483647`}, {"count", `2147483648`, ""},
		{"flag", `"True"`, `true`}, {"flag", `false`, `false`}, {"flag", `"yes"`, ""}, {"flag", `[true]`, ""},
		{"sequence", `[true,true,"false"]`, `[true,true,false]`}, {"sequence", `true`, `[true]`}, {"sequence", `[]`, `[]`}, {"sequence", `[1]`, ""}, {"sequence", `{}`, ""},
		{"references", `"a"`, `["a"]`}, {"references", `["a","b","a"]`, `["a","b"]`}, {"references", `[]`, `[]`}, {"references", `[""]`, ""}, {"references", `{}`, ""},
		{"name", `"é1 x+~#-"`, `"é1 x+~#-"`}, {"name", `"-x"`, ""}, {"name", `"x/y"`, ""}, {"name", `"` + strings.Repeat("a1", 16) + `"`, ""}, {"name", `"` + strings.Repeat("A1", 16) + `"`, `"` + strings.Repeat("A1", 16) + `"`},
		{"key values", `{"a":1.50,"b":1e400}`, `{"a":1.50,"b":1e400}`}, {"key values", `{"a":[]}`, ""}, {"key values", `{"a":null}`, ""},
		{"text", `"a\tb\nc"`, `"a\tb\nc"`}, {"text", `"\u007f"`, ""}, {"line", `"a\nb"`, ""}, {"one of", `"a"`, `"a"`}, {"one of", `"A"`, ""},
	} {
		v, err := formats()[c.format].Parse([]byte(c.in))
		out, _ := json.Marshal(v)
		if err != nil {
			out = nil
		}
		if string(out) != c.out {
			t.Errorf("%s of %s is %s (%v), want %s", c.format, c.in, out, err, c.out)
		}
	}
}

// FuzzFormats: a format takes or refuses any JSON, with a reason that can be
// printed, and takes what it stored as it is.
func FuzzFormats(f *testing.F) {
	for _, s := range []string{`null`, `"x"`, `5`, `1e400`, `[]`, `["a",null]`, `{}`, `{"a":{"b":[1]}}`, `"52:54:00:00:00:01"`, `"10.0.0.1"`, `true`, `""`, `"\ud800"`, `"é"`, `["` + strings.Repeat("é", 40) + `x",5]`, `[["x` + strings.Repeat("é", 40) + `"]]`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if !json.Valid(raw) || !utf8.Valid(raw) || string(raw) == "null" {
			return // such never reach a format
		}
		for name, format := range formats() {
			v, err := format.Parse(raw)
			if err != nil {
				if err.Error() == "" || !utf8.ValidString(err.Error()) {
					t.Errorf("%s of %q: %q", name, raw, err)
				}
				continue
			}
			stored, err := json.Marshal(v)
			if err != nil {
				t.Fatalf("%s of %q cannot be stored: %v", name, raw, err)
			}
			again, err := format.Parse(stored)
			if err != nil || !reflect.DeepEqual(again, v) {
				t.Errorf("%s of %q is stored as %s, which is then %v, %v", name, raw, stored, again, err)
			}
		}
	})
}

type thing struct {
	Meta
	Name  string   `json:"name"`
	Other *string  `json:"other"`
	List  []string `json:"list"`
}

func spec(change func(*Spec)) *Spec {
	s := &Spec{Name: "thing", Plural: "things", Title: "Thing", Doc: "A thing.", Read: "r", Write: "w", New: func() Object { return &thing{} }, Names: []string{"name"},
		Fields: []Field{
			{Path: "name", Summary: "x", Source: User, Format: Name, Unique: true}, {Path: "other", Summary: "x", Source: User, Format: Reference, Ref: "thing"},
			{Path: "list", Summary: "x", Source: User, Format: References, Ref: "thing"},
		}}
	for _, p := range []string{"uid", "last_modified", "last_modified_on", "last_modified_by", "created"} {
		s.Fields = append(s.Fields, Field{Path: p, Summary: "x", Source: Head, Format: Shown("text")})
	}
	change(s)
	return s
}

func known(k string) bool { return k == "thing" }

func TestBindFindsMistakes(t *testing.T) {
	if err := spec(func(*Spec) {}).Bind(known); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Spec){
		"needs Name":            func(s *Spec) { s.Doc = "" },
		"needs a Plural":        func(s *Spec) { s.Plural = "" },
		`"list" is not desc`:    func(s *Spec) { s.Fields = append(s.Fields[:2], s.Fields[3:]...) },
		"described twice":       func(s *Spec) { s.Fields = append(s.Fields, s.Fields[0]) },
		"not in the struct":     func(s *Spec) { s.Fields[0].Path = "title" },
		"needs Summary":         func(s *Spec) { s.Fields[0].Summary = "" },
		"cannot be parsed":      func(s *Spec) { s.Fields[0].Format = Shown("text") },
		"does not exist":        func(s *Spec) { s.Fields[1].Ref = "nothing" },
		"of a few values":       func(s *Spec) { s.Fields[0].Per = "other" },
		"its default":           func(s *Spec) { s.Fields[0].Default = `5` },
		"but no field":          func(s *Spec) { s.Names = []string{"title"} },
		"boolean field frozen":  func(s *Spec) { s.Frozen = "no" },
		`"colour" is among Nam`: func(s *Spec) { s.Columns = []string{"colour"} },
	} {
		s := spec(change)
		if want == "not in the struct" {
			s.Fields = append(s.Fields, Field{Path: "name", Summary: "x", Source: User, Format: Name})
		}
		if err := s.Bind(known); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestRefs(t *testing.T) {
	s := spec(func(*Spec) {})
	if err := s.Bind(known); err != nil {
		t.Fatal(err)
	}
	o := &thing{Name: "x"}
	for i, uids := range [][]string{nil, {"a"}, {"b"}, nil} {
		other, list := &s.Fields[1], &s.Fields[2]
		s.SetRefs(o, other, uids)
		s.SetRefs(o, list, uids)
		if got := s.Refs(o, other); len(got) != len(uids) || len(uids) > 0 && got[0] != uids[0] {
			t.Errorf("%d: %v", i, got)
		}
		if got := s.Refs(o, list); !reflect.DeepEqual(got, uids) && len(uids) > 0 {
			t.Errorf("%d: %v", i, got)
		}
	}
	if s.Text(o, "name") != "x" || s.Text(o, "other") != "" || s.Text(o, "none") != "" {
		t.Error("texts")
	}
}
