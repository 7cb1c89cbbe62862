package template_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"unicode"

	"muster/shared/template"
)

var data = map[template.Section]map[string]any{
	template.Attribute: {"rack": "r7", "name": "of-attributes", "user": "service", "n": json.Number("12"), "yes": true, "x y": "two words",
		"evil": "a; rm -rf /", "lines": "a\nrootpw x", "quoted": `it's "so"`, "hash": "$6$salt$hash", "null": nil},
	template.Status:   {"name": "of-status", "load": []any{json.Number("1"), 2.5}, "ram": 1.5e9},
	template.Hardware: {"serial": "S1", "disks": map[string]any{"a": 1}},
	template.Node:     {"ip": "10.0.0.7", "groups": []string{"g1", "g2"}, "uid": "u7"},
	template.Head:     {"name": "head1"},
}

var files = map[string]string{
	"part.ks": "part of <n[ip]>", "self.ks": "<include(self.ks)>", "a.ks": "<include(b.ks)>", "b.ks": "<include(a.ks)>",
	"wide.ks": strings.Repeat("<include(part.ks)>", 65), "bad.ks": "\n\n<a[gone]>",
}

func options() template.Options {
	return template.Options{
		Value:   func(s template.Section, key string) (any, bool) { v, ok := data[s][key]; return v, ok },
		RootURL: "http://10.0.0.1:8080", Escape: template.Script,
		Include: func(name string) (string, error) {
			if text, ok := files[name]; ok {
				return text, nil
			}
			var depth int
			if n, _ := fmt.Sscanf(name, "deep%d", &depth); n == 1 {
				return fmt.Sprintf("<include(deep%d)>", depth+1), nil
			}
			return "", fmt.Errorf("no file %s", name)
		},
	}
}

func TestExpand(t *testing.T) {
	for text, want := range map[string]string{
		"":                           "",
		"plain\n":                    "plain\n",
		"<name> <ip>":                "of-attributes 10.0.0.7",
		"<serial>":                   "S1",
		"<a[name]> <s[name]>":        "of-attributes of-status",
		"<attributes[rack]>":         "r7",
		`<attribute["x y"]>`:         "two words",
		"<a[x y]><a['rack']>":        "two wordsr7",
		"<status[load]>":             "1,2.5",
		"<s[ram]>":                   "1500000000",
		"<hardware[serial]>":         "S1",
		"<node[groups]>":             "g1,g2",
		"<n> <yes>":                  "12 true",
		"<head[name]>/<root_url()>":  "head1/http://10.0.0.1:8080",
		"x <include(part.ks)> y":     "x part of 10.0.0.7 y",
		"<hash>":                     "$6$salt$hash",
		"<quote(a[evil])>":           "'a; rm -rf /'",
		"<quote(quoted)>":            `'it'"'"'s "so"'`,
		"<json(a[lines])>":           `"a\nrootpw x"`,
		"cat <<EOF >file\nEOF\n":     "cat <<EOF >file\nEOF\n",
		"#include <stdio.h>":         "#include <stdio.h>",
		"root <root@localhost>":      "root <root@localhost>",
		`\<name> \<a[x]> \<f(x)>`:    `<name> <a[x]> <f(x)>`,
		`grep '\<word\>' \`:          `grep '\<word\>' \`,
		"(?P<name>.) (?<name>.)":     "(?P<name>.) (?<name>.)",
		"(?P<gone>.) <name>":         "(?P<gone>.) of-attributes",
		"<?xml?><gone><a[rack]>":     "<?xml?><gone>r7",
		"a < b > c <> <3> <a[]> <é>": "a < b > c <> <3> <a[]> <é>",
		"<<name>>":                   "<of-attributes>",
	} {
		if got, err := template.Expand("f", text, options()); err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", text, got, err, want)
		}
	}
}

func TestRefused(t *testing.T) {
	for text, words := range map[string][]string{
		"x\n\n<gone>":         {"f, line 3", "<gone>", "attribute, status or hardware", `\<gone>`},
		"\n(?P<x>)\n<a[no]>":  {"f, line 3", "<a[no]>"},
		"<h[no.0]>":           {"hardware value"},
		"<head[no]>":          {"head"},
		"<a[evil]>":           {"has ;", "<quote(a[evil])>"},
		"<a[lines]>":          {`'\n'`},
		"<quote(a[lines])>":   {`'\n'`},
		"<quoted>":            {"has '", "quote(quoted)"},
		"<disks>":             {"is an object", "disks"},
		"<a[null]>":           {"null"},
		"<rooturl()>":         {"no function rooturl", "root_url"},
		"<root_url(x)>":       {"takes nothing"},
		"<include()>":         {"name of a file"},
		"<quote()>":           {"a[x]"},
		"<include(no.ks)>":    {"line 1", "no file no.ks"},
		"<include(self.ks)>":  {"self.ks includes itself: self.ks → self.ks"},
		"<include(a.ks)>":     {"a.ks includes itself: a.ks → b.ks → a.ks"},
		"<include(f)>":        {"f → f"},
		"<include(deep0)>":    {"more than 8 files include each other", "f → deep0 → deep1"},
		"<include(wide.ks)>":  {"more than 64 files"},
		"\n<include(bad.ks)>": {"bad.ks, line 3: <a[gone]>"},
	} {
		got, err := template.Expand("f", text, options())
		if err == nil {
			t.Errorf("%q became %q", text, got)
			continue
		}
		for _, w := range words {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%q: %q does not say %q", text, err, w)
			}
		}
	}
	var missing *template.Missing
	if _, err := template.Expand("f", "<gone>", options()); !errors.As(err, &missing) || missing.Ref.Key != "gone" {
		t.Errorf("a missing value is %v", err)
	}
	opt := options()
	opt.Escape = template.Word
	for _, text := range []string{"<a[evil]>", "<a[lines]>", "<a['x y']>", "<a[quoted]>"} {
		if got, err := template.Expand("f", text, opt); err == nil {
			t.Errorf("%s on a command line: %q", text, got)
		}
	}
	big := strings.Repeat("x", template.MaxText)
	if _, err := template.Expand("f", big+"x", options()); err == nil {
		t.Error("a text above the bound is taken")
	}
	opt.Include = func(string) (string, error) { return big, nil }
	if _, err := template.Expand("f", "<include(a)><include(b)><include(c)><include(d)><include(e)>", opt); err == nil || !strings.Contains(err.Error(), "result") {
		t.Errorf("a result above the bound: %v", err)
	}
}

// TestShell lets a real shell read what came of a value.
func TestShell(t *testing.T) {
	for _, value := range []string{"plain", "two words", `it's "so" $HOME $(id) \`, "`id`", "-n", "", "a;b|c&d>e"} {
		opt := options()
		opt.Value = func(template.Section, string) (any, bool) { return value, true }
		script, err := template.Expand("f", "printf %s <quote(x)>", opt)
		if err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("sh", "-c", script).Output()
		if err != nil || string(out) != value {
			t.Errorf("%q: the shell read %q, %v", value, out, err)
		}
	}
}

// FuzzExpand puts any value into any text: no value may add a line or a
// command, and literal text must come back as it was.
func FuzzExpand(f *testing.F) {
	for text := range files {
		f.Add(files[text], "value")
	}
	f.Add("rootpw <a[x]>\n%post\necho <quote(a[x])> \\<a[x]> (?P<x>)", "a\n; reboot")
	f.Add("<include(<a[x]>)>", "part.ks")
	f.Fuzz(func(t *testing.T, text, value string) {
		opt := options()
		opt.Value = func(template.Section, string) (any, bool) { return value, true }
		got, err := template.Expand("f", text, opt)
		if err != nil {
			return
		}
		opt.Value = func(template.Section, string) (any, bool) { return "", true }
		empty, err := template.Expand("f", text, opt)
		if err != nil {
			t.Fatalf("%q fails with an empty value only: %v", text, err)
		}
		if strings.Contains(text, "json(") || strings.Contains(text, "quote(") {
			return // these give any value, in quotes
		}
		for _, bad := range []string{"\n", ";", "`", "\"", "&"} {
			if strings.Count(got, bad) != strings.Count(empty, bad) {
				t.Fatalf("%q: the value %q adds %q", text, value, bad)
			}
		}
		if parts, _ := template.Parse(text); len(parts) == 1 && got != text {
			t.Fatalf("%q became %q", text, got)
		}
		if strings.ContainsFunc(value, unicode.IsControl) && strings.Contains(got, value) && !strings.Contains(empty, value) && value != "" && !strings.Contains(text, value) {
			t.Fatalf("%q: a value with control characters came through: %q", text, got)
		}
	})
}
