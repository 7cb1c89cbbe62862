package cli

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"gopkg.in/yaml.v3"

	"muster/shared/kind"
	"muster/shared/object"
)

func testTree() *cobra.Command {
	m := &muster{Env: Env{Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: io.Discard, Getenv: func(string) string { return "" }}, specs: object.All()}
	return m.root(nil)
}

// TestEveryField: each kind has its verbs, each field that a user may set has a
// flag that says what the declaration says, and no other field has one.
func TestEveryField(t *testing.T) {
	root := testTree()
	for _, spec := range object.All() {
		verbs := map[string]bool{"create": true, "update": false} // creating
		if spec.Singleton {
			delete(verbs, "create")
		}
		for verb, creating := range verbs {
			c, rest, err := root.Find([]string{spec.Name, verb})
			if err != nil || len(rest) > 0 {
				t.Fatalf("there is no muster %s %s", spec.Name, verb)
			}
			for _, f := range spec.Fields {
				name := strings.ReplaceAll(f.Path, "_", "-")
				flag := c.Flags().Lookup(name)
				wanted := f.Source == kind.User || (creating && f.OnCreate)
				field := flag != nil
				if field {
					_, field = flag.Value.(*fieldFlag)
				}
				switch {
				case wanted && !field:
					t.Errorf("muster %s %s has no --%s", spec.Name, verb, name)
				case !wanted && field:
					t.Errorf("muster %s %s has --%s, which cannot be set there", spec.Name, verb, name)
				case wanted && !strings.Contains(flag.Usage, strings.ReplaceAll(f.Summary, "`", "'")):
					t.Errorf("the help of --%s does not say %q", name, f.Summary)
				case wanted && f.Required && creating && !strings.Contains(flag.Usage, "required"):
					t.Errorf("the help of muster %s create --%s does not say that it is required", spec.Name, name)
				}
			}
		}
		for _, f := range spec.Fields {
			if f.Sub == kind.NoSub {
				continue
			}
			if _, rest, err := root.Find([]string{spec.Name, strings.ReplaceAll(f.Path, "_", "-")}); err != nil || len(rest) > 0 {
				t.Errorf("there is no muster %s %s", spec.Name, f.Path)
			}
		}
	}
}

// TestDefaults: what the declaration gives as a default can be written with the
// flag, and comes out as the same JSON.
func TestDefaults(t *testing.T) {
	for _, spec := range object.All() {
		for _, f := range spec.Writable() {
			if f.Default == "" {
				continue
			}
			text := f.Default
			if s := ""; json.Unmarshal([]byte(text), &s) == nil {
				text = s
			}
			got, err := encode(shapeOf(spec, f.Path), f.Ref != "", []string{text})
			if err != nil || string(got) != f.Default {
				t.Errorf("%s --%s %s becomes %s (%v)", spec.Name, f.Path, text, got, err)
			}
		}
	}
}

func TestEncode(t *testing.T) {
	for _, c := range []struct {
		shape  shape
		refs   bool
		values []string
		want   string // "" for an error
	}{
		{isText, false, []string{"a b"}, `"a b"`},
		{isText, false, []string{""}, `null`},
		{isText, false, []string{"true"}, `"true"`},
		{isNumber, false, []string{"12"}, `12`},
		{isNumber, false, []string{"-1.5e3"}, `-1.5e3`},
		{isNumber, false, []string{`"12"`}, ``},
		{isNumber, false, []string{"null"}, ``},
		{isNumber, false, []string{"1 2"}, ``},
		{isNumber, false, []string{"0x10"}, ``},
		{isNumber, false, []string{""}, `null`},
		{isBool, false, []string{"true"}, `true`},
		{isBool, false, []string{"yes"}, ``},
		{isList, true, []string{"a, b,,c", "d"}, `["a","b","c","d"]`},
		{isList, false, []string{"a, b"}, `"a, b"`},
		{isList, false, []string{"a", "b"}, `["a","b"]`},
		{isList, false, []string{`["a","b"]`, "c"}, `["a","b","c"]`},
		{isList, false, []string{`["a",1]`}, ``},
		{isList, false, []string{""}, `[]`},
		{isMap, false, []string{"a=1", "b:=1", "c=x=y", "d="}, `{"a":"1","b":1,"c":"x=y","d":""}`},
		{isMap, false, []string{`{"a":1,"b":2}`, "a=3"}, `{"a":"3","b":2}`},
		{isMap, false, []string{"{"}, ``},
		{isMap, false, []string{"a"}, ``},
		{isMap, false, []string{"=a"}, ``},
		{isMap, false, []string{":=1"}, ``},
		{isMap, false, []string{"a:=x"}, ``},
		{isMap, false, []string{""}, `{}`},
	} {
		got, err := encode(c.shape, c.refs, c.values)
		if c.want == "" && err == nil {
			t.Errorf("%q is taken as %s", c.values, got)
		} else if c.want != "" && (err != nil || string(got) != c.want) {
			t.Errorf("%q becomes %s (%v), want %s", c.values, got, err, c.want)
		}
	}
}

// FuzzEncode: whatever is typed becomes one valid JSON value of the field's
// shape, or an error.
func FuzzEncode(f *testing.F) {
	for _, s := range []string{"", "a", "a=b", "a:=[1]", "1", "true", `["x"]`, `{"a":{}}`, "1e9999", "\xff", "a:=\"\\ud800\""} {
		for shape := range 5 {
			f.Add(uint8(shape), s, "k=v")
		}
	}
	f.Fuzz(func(t *testing.T, n uint8, a, b string) {
		s := shape(n % 5)
		raw, err := encode(s, n >= 5, []string{a, b})
		if err != nil {
			return
		}
		var v any
		if err := json.Unmarshal(raw, &v); err != nil {
			t.Fatalf("%q, %q become %s: %v", a, b, raw, err)
		}
		ok := v == nil
		switch v.(type) {
		case string:
			ok = s == isText || s == isList
		case float64:
			ok = s == isNumber
		case bool:
			ok = s == isBool
		case []any:
			ok = s == isList
		case map[string]any:
			ok = s == isMap
		}
		if !ok {
			t.Fatalf("%q, %q become %s, which is of another type", a, b, raw)
		}
	})
}

// FuzzYAML: YAML says the same as the JSON that it was made from.
func FuzzYAML(f *testing.F) {
	for _, s := range []string{`{"a":[1,2.5,-0,1e3,null,true,{}],"b":[],"c":"yes"}`, `["~","null","1","- x","a: b","\n x\n","é\u0007","\ud83d\ude00","<<","=",".nan","0x1f","1_000","2020-01-01"]`, `"x"`, `[[[]]]`, `[10000000000000000000,100000000000000000000,1E5,1e-7]`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var want, once any
		d := json.NewDecoder(bytes.NewReader(raw))
		d.UseNumber()
		if json.Unmarshal(raw, &want) != nil || d.Decode(&once) != nil {
			return
		}
		raw, err := json.Marshal(once) // a head sends each key once
		if err != nil {
			t.Fatal(err)
		}
		out, err := toYAML(raw)
		if err != nil {
			t.Fatalf("%s: %v", raw, err)
		}
		var got any
		if err := yaml.Unmarshal(out, &got); err != nil {
			t.Fatalf("%s becomes %q: %v", raw, out, err)
		}
		a, err := json.Marshal(numbers(got))
		b, _ := json.Marshal(numbers(want))
		if err != nil || !bytes.Equal(a, b) {
			t.Fatalf("%s becomes %q, that is %s (%v)", raw, out, a, err)
		}
	})
}

// TestYAMLOlder: readers of YAML 1.1 must not take text for something else.
func TestYAMLOlder(t *testing.T) {
	for _, s := range []string{"yes", "No", "ON", "y", "52:54:00:00:00:01", "1:30", "-1:30.5", "="} {
		raw, _ := json.Marshal(s)
		if out, err := toYAML(raw); err != nil || string(out) != string(raw)+"\n" {
			t.Errorf("%s becomes %q (%v)", s, out, err)
		}
	}
	for _, s := range []string{"n0", "10.9.0.1", "::1", "yesterday", "aa:bb:cc:dd:ee:ff"} {
		raw, _ := json.Marshal(s)
		if out, err := toYAML(raw); err != nil || string(out) != s+"\n" {
			t.Errorf("%s becomes %q (%v)", s, out, err)
		}
	}
}

// numbers makes all numbers floats, as JSON knows only those.
func numbers(v any) any {
	switch x := v.(type) {
	case float64:
		return x + 0 // YAML has no -0
	case int:
		return float64(x)
	case int64:
		return float64(x)
	case uint64:
		return float64(x)
	case []any:
		for i := range x {
			x[i] = numbers(x[i])
		}
	case map[string]any:
		for k := range x {
			x[k] = numbers(x[k])
		}
	}
	return v
}
