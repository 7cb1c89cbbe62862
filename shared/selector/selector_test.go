package selector_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"muster/shared/fault"
	"muster/shared/selector"
)

// node is a node out of maps.
type node struct {
	attributes, status, hardware, fields map[string]any
	groups, dyngroups                    []string
}

func (n *node) Attribute(key string) (any, bool) { v, ok := n.attributes[key]; return v, ok }
func (n *node) Status(key string) (any, bool)    { v, ok := n.status[key]; return v, ok }
func (n *node) Hardware(key string) (any, bool)  { v, ok := n.hardware[key]; return v, ok }
func (n *node) Field(name string) (any, bool)    { v, ok := n.fields[name]; return v, ok }
func (n *node) InGroup(name string) bool         { return slices.Contains(n.groups, name) }
func (n *node) InDyngroup(name string) bool      { return slices.Contains(n.dyngroups, name) }

// decode reads JSON in the way that the head does.
func decode(t testing.TB, text string) map[string]any {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var v map[string]any
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

func example(t testing.TB) *node {
	name, index, none := "n7", int64(7), (*string)(nil)
	return &node{
		attributes: decode(t, `{"_boot_config": "DefaultBoot", "rack": "b7", "slot": "12", "slots": 12, "padded": "012", "on": true,
			"yes": "true", "big": 9007199254740993, "pi": 3.25, "a.b": "flat", "empty": "", "inf": "inf", "hex": "0x10"}`),
		status: decode(t, `{"state": "up", "load_avg": [0.5, 1.25, 9], "ram_free": 97657, "uptime": 7200, "gone": null,
			"modules": ["nvidia", "ext4"], "filesystems": {"/": {"free_kib": 1048576}, "/var.lib": {"free_kib": 1}},
			"a.b": {"c": 1}, "a": {"b": {"d": 2}}, "packages": {"libc.bin": "2.36", "7": "x"}}`),
		// 100 GB is 97656250 KiB.
		hardware:  decode(t, `{"ram_total": 97656251, "cpu_count": 64, "disks": [{"name": "sda", "size_kib": 1953514584}], "uefi": false, "odd_kib": "2"}`),
		fields:    map[string]any{"name": &name, "index": &index, "ip": "10.0.0.7", "power_uri": none, "groups": []string{"gpu", "big"}, "n": uint64(1 << 63)},
		groups:    []string{"gpu", "my nodes", "gpu-a.1"},
		dyngroups: []string{"big"},
	}
}

func TestMatch(t *testing.T) {
	n := example(t)
	for s, want := range map[string]bool{
		// sizes
		`h[ram_total] > 100GB`:                       true,
		`h[ram_total] > 93.14GiB`:                    false,
		`h[ram_total] == 97656251KiB`:                true,
		`h[ram_total] == 97656251kib`:                true,
		`h[ram_total] == 100000001024`:               true,
		`h[ram_total] > 100000000000`:                true,
		`h[ram_total] > 97656251`:                    true,
		`h[ram_total] > 100000`:                      true,
		`h[ram_total] > "100000001023"`:              true,
		`h[ram_total] in [100000001024]`:             true,
		`s[ram_free] < 100MB`:                        false,
		`s[ram_free] < 0.1001GB`:                     true,
		`h[disks.0.size_kib] > 2TB`:                  true,
		`h[disks.0.size_kib] > 2TiB`:                 false,
		`h[odd_kib] == 2KiB`:                         true,
		`s[filesystems./.free_kib] == 1GiB`:          true,
		`s["filesystems./var.lib.free_kib"] == 1kib`: true,
		`h[cpu_count] > 63`:                          true,
		`h[cpu_count] > 64B`:                         false,
		// durations
		`s[uptime] == 2h`:    true,
		`s[uptime] == 120m`:  true,
		`s[uptime] < 1d`:     true,
		`s[uptime] >= 7200s`: true,
		`s[uptime] > 1w`:     false,
		// strings, numbers and booleans
		`a[_boot_config]=="DefaultBoot"`:   true,
		`a[_boot_config] == 'defaultboot'`: false,
		`a[rack] != "b8"`:                  true,
		`a[rack] < "b70"`:                  true,
		`a[rack] == 7`:                     false,
		`a[rack] != 7`:                     true,
		`a[rack] > 7`:                      false,
		`a[rack] <= 7`:                     false,
		`a[slot] == 12`:                    true,
		`a[slot] == 12.0`:                  true,
		`a[slot] == "12.0"`:                false,
		`a[slots] == "12.0"`:               true,
		`a[slots] == "twelve"`:             false,
		`a[slot] > 9`:                      true,
		`a[slot] > "9"`:                    false,
		`a[padded] == 12`:                  true,
		`a[padded] == "12"`:                false,
		`a[slots] <= 1.2e1`:                true,
		`a[slots] > -3`:                    true,
		`a[on] == true`:                    true,
		`a[on] != false`:                   true,
		`a[on] == "true"`:                  false,
		`a[yes] == true`:                   false,
		`a[yes] == "true"`:                 true,
		`a[on] == 1`:                       false,
		`a[big] == 9007199254740993`:       true,
		`a[big] == 9007199254740992`:       false,
		`a[big] > 9007199254740992`:        true,
		`a[pi] > 3 and a[pi] < 3.5`:        true,
		`n[n] == 9223372036854775808`:      true,
		`n[n] > 9223372036854775807`:       true,
		`n[n] == 9223372036854775807`:      false,
		`a[empty] == ""`:                   true,
		`a[inf] > 5`:                       false,
		`a[hex] == 16`:                     false,
		`h[uefi] == false`:                 true,
		// null and what is missing
		`s[gone] == null`:    true,
		`s[gone] != null`:    false,
		`s[gone] == 0`:       false,
		`s[gone] != 0`:       true,
		`power_uri == null`:  true,
		`name != null`:       true,
		`a[x] == 1`:          false,
		`a[x] != 1`:          false,
		`a[x] < 1`:           false,
		`a[x] == null`:       false,
		`a[x] != null`:       false,
		`a[x] =~ ""`:         false,
		`a[x] !~ "."`:        false,
		`a[x] in ["a"]`:      false,
		`a[x] not in ["a"]`:  false,
		`a[x] not in n[1-2]`: false,
		`"a" in a[x]`:        false,
		`"a" not in a[x]`:    false,
		`not (a[x] == 1)`:    true,
		`not (a[x] != 1)`:    true,
		// logic
		`up`:                                   true,
		`down or booting or failed || unknown`: false,
		`UP and h[cpu_count]==64`:              true,
		`!up`:                                  false,
		`not not up`:                           true,
		`!(down)&&!failed`:                     true,
		`down and down or up`:                  true,
		`up or down and down`:                  true,
		`(up or down) and down`:                false,
		`not down and up`:                      true,
		`NOT (up) Or status.state == "up"`:     true,
		// fields
		`index > 6 and index < 8`: true,
		`index == "7"`:            true,
		`name == "n7"`:            true,
		`n[name] == 'n7' and node["ip"] == "10.0.0.7"`: true,
		`ip =~ "^10\.0\."`:   true,
		`ip =~ '^10\\.0\\.'`: true,
		`nosuch == 1`:        false,
		// regular expressions
		`a[rack] =~ "7"`:      true,
		`a[rack] =~ "^\w\d$"`: true,
		`a[rack] !~ "^c"`:     true,
		`a[slots] =~ "^12$"`:  true,
		`index =~ "^7$"`:      true,
		`a[on] =~ "^true$"`:   true,
		`s[modules] =~ ""`:    false,
		`s[modules] !~ ""`:    true,
		// lists
		`a[rack] in ["b6", 'b7']`:     true,
		`a[rack] in []`:               false,
		`a[rack] not in []`:           true,
		`a[slot] in [11, 12]`:         true,
		`a[slot] in ["12.0"]`:         false,
		`a[slots] in ["12.0"]`:        true,
		`a[on] in ["x", true]`:        true,
		`a[on] in [false]`:            false,
		`s[gone] in [null]`:           true,
		`s[gone] in [1, "a"]`:         false,
		`name in n[0-9]`:              true,
		`name in n[0-3],n[6-7]`:       true,
		`(name in n7)`:                true,
		`name in n[0-3]||up`:          true,
		`name in n[0-3]&&up`:          false,
		`name in "n[0-3], n7"`:        true,
		`name not in n[0-3]`:          true,
		`not name in n[0-3]`:          true,
		`index in "[0-9]"`:            true,
		`a[slots] in "[10-15]"`:       true,
		`"nvidia" in s[modules]`:      true,
		`"nouveau" in s[modules]`:     false,
		`"nouveau" not in s[modules]`: true,
		`"gpu" in groups`:             true,
		`9 in s[load_avg]`:            true,
		`"libc.bin" in s[packages]`:   true,
		`7 in s[packages]`:            false,
		`"up" in s[state]`:            false,
		// keys with dots
		`s[load_avg.2] > 8.5`:             true,
		`s[load_avg.3] > 0`:               false,
		`s[load_avg.-1] > 0`:              false,
		`s[load_avg] > 0`:                 false,
		`s[load_avg] != 0`:                true,
		`a[a.b] == "flat"`:                true,
		`s[a.b.c] == 1 and s[a.b.d] == 2`: true,
		`s[packages.libc.bin] == "2.36"`:  true,
		`h[disks.0.name] == "sda"`:        true,
		`h[disks.1.name] == "sda"`:        false,
		`hardware.disks.0.name == "sda"`:  true,
		`n[groups.1] == "big"`:            true,
		// groups
		`%gpu`:            true,
		`%gpu-a.1 and up`: true,
		`%"my nodes"`:     true,
		`%other`:          false,
		`%gpu||%other`:    true,
		`@big`:            true,
		`not @small`:      true,
	} {
		e, err := selector.Parse(s)
		if err != nil {
			t.Errorf("%s: %v", s, err)
			continue
		}
		if got := e.Match(n); got != want {
			t.Errorf("%s: %v, want %v", s, got, want)
		}
	}
}

func TestNormalForm(t *testing.T) {
	for s, want := range map[string]string{
		`h[ram_total] > 100GB`:            `(hardware["ram_total"] > 100GB)`,
		`a[_boot_config]=="DefaultBoot"`:  `(attributes["_boot_config"] == "DefaultBoot")`,
		`attribute[ "x" ] == 'it''`:       ``,
		`attribute[ "x" ] == 'it\'s'`:     `(attributes["x"] == "it's")`,
		`status['x']==1.50e3 `:            `(status["x"] == 1.50e3)`,
		`n[name]!="n0"`:                   `(node["name"] != "n0")`,
		`index>10`:                        `(node["index"] > 10)`,
		`h[ram_total]>=128gib`:            `(hardware["ram_total"] >= 128gib)`,
		`up`:                              `(status["state"] == "up")`,
		`a[x]==1 and a[y]==2&&!%g`:        `((attributes["x"] == 1) and (attributes["y"] == 2) and (not %g))`,
		`%a or (%b or %c) and @d`:         `(%a or ((%b or %c) and @d))`,
		`(((%a)))`:                        `%a`,
		`%"a b" or @'c"d'`:                `(%"a b" or @"c\"d")`,
		`ip =~ "^10\.0\.\\d"`:             `(node["ip"] =~ "^10\.0\.\d")`,
		`a[x] == "\\"`:                    `(attributes["x"] == "\\")`,
		`a[x] == "\"\\\n"`:                `(attributes["x"] == "\"\\\n")`,
		`name in n[0-3],gpu1`:             `(node["name"] in "n[0-3],gpu1")`,
		`a[x] NOT IN ["a",1 , TRUE,null]`: `(attributes["x"] not in ["a", 1, true, null])`,
		`"x" in s[modules]`:               `("x" in status["modules"])`,
		`s[uptime] < 2h`:                  `(status["uptime"] < 2h)`,
	} {
		e, err := selector.Parse(s)
		if want == "" {
			if err == nil {
				t.Errorf("%s: parsed as %s", s, e)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", s, err)
			continue
		}
		if e.String() != want {
			t.Errorf("%s: %s, want %s", s, e, want)
		}
		if again, err := selector.Parse(e.String()); err != nil || again.String() != want {
			t.Errorf("%s: the normal form %s becomes %v, %v", s, want, again, err)
		}
	}
}

func TestSyntaxErrors(t *testing.T) {
	for s, want := range map[string]string{
		``:                        `1: expected a value of a node, such as a[key], s[key], h[key] or name, and found the end`,
		`up down`:                 `4: expected "and", "or" or the end and found "down"`,
		`up and`:                  `7: expected a value of a node`,
		`(up`:                     `4: expected "and", "or" or ")" and found the end`,
		`up)`:                     `3: expected "and", "or" or the end and found ")"`,
		`h[ram_total] >`:          `15: expected a value (a string in quotes, a number, true, false or null) and found the end`,
		`h[ram_total] > 100XB`:    `19: expected a unit, which is one of`,
		`h[ram_total] > 5m`:       `16: expected a size such as 5MB, because ram_total is one, and found "5m"`,
		`h[ram_total] in [1, 5m]`: `21: expected a size`,
		`s[uptime] > 5M`:          `14: expected a unit`,
		`h[ram_total] = 5`:        `14: expected a comparison (== != < <= > >= =~ !~ in "not in") and found "="`,
		`h[ram_total]`:            `13: expected a comparison`,
		`h ram_total > 5`:         `3: expected "[" and a key and found "ram_total"`,
		`h[ram_total > 5`:         `13: expected "]" after the key and found ">"`,
		`H[x] == 1`:               `2: expected a comparison (== != < <= > >= =~ !~ in "not in") and found "["`,
		`h[] > 5`:                 `3: expected a key and found "]"`,
		`a[x] == foo`:             `9: expected a value (a string in quotes, a number, true, false or null) and found "foo"`,
		`a[x] == "foo`:            `9: expected the " that ends the string beginning here and found the end`,
		`a[ä] == 'ö' x`:           `13: expected "and", "or" or the end and found "x"`,
		`a[x] < true`:             `8: expected a string in quotes or a number after < and found "true"`,
		`a[x] =~ 5`:               `9: expected a regular expression in quotes and found "5"`,
		`a[x] =~ "a("`:            `9: expected a regular expression in the syntax of RE2: error parsing regexp: missing closing )`,
		`a[x] not [1]`:            `10: expected "in" and found "["`,
		`a[x] in [1 2]`:           `12: expected "," or "]" and found "2"`,
		`a[x] in [1,]`:            `12: expected a value`,
		`a[x] in [n1]`:            `10: expected a value`,
		`a[x] in`:                 `8: expected a list such as ["a", "b"] or n[0-9] and found the end`,
		`name in %gpu`:            `9: expected a list such as ["a", "b"] or n[0-9] and found "%"`,
		`name in n[0-`:            `9: expected a list of names, but "n[0-" is no list of names: at position 5`,
		`name in n[0-99999]`:      `9: expected a list of names, but "n[0-99999]" is no list of names: at position 1: expected at most 10000 names`,
		`5 < a[x]`:                `3: expected "in" or "not in", as other comparisons have the value on the right, and found "<"`,
		`a[x] > -x`:               `9: expected a number after - and found "x"`,
		`a[x] > 1e999`:            `8: expected a number of at most 1.79769`,
		`a[x] == 52:54:00`:        `11: expected "and", "or" or the end and found ":"`,
		`% x`:                     `2: expected the name of an attribute group and found " "`,
		`@""`:                     `2: expected the name of a dynamic group and found "\""`,
		`and up`:                  `1: expected a value of a node`,
		`status. == 1`:            `1: expected a value of a node`,
		"up \xff":                 `4: expected UTF-8 and found "\xff"`,
	} {
		_, err := selector.Parse(s)
		if err == nil {
			t.Errorf("%s: parsed", s)
			continue
		}
		var syntax *selector.SyntaxError
		if !fault.Is(err, fault.Invalid) || !errors.As(err, &syntax) || !strings.HasPrefix(err.Error(), "The selector is wrong at position "+want) {
			t.Errorf("%s: %v, want … %s", s, err, want)
		}
	}
}

// Whatever its size, a text is answered at once and its normal form parses.
func TestBounds(t *testing.T) {
	list := func(n int) string { return "a[x] in [" + strings.TrimSuffix(strings.Repeat("1,", n), ",") + "]" }
	for name, c := range map[string]struct {
		text string
		ok   bool
	}{
		"as deep as allowed":    {strings.Repeat("!", selector.MaxDepth-1) + "up", true},
		"not too deep":          {strings.Repeat("not ", selector.MaxDepth) + "up", false},
		"parentheses":           {strings.Repeat("(", 30_000) + "up" + strings.Repeat(")", 30_000), false},
		"open parentheses":      {strings.Repeat("(", selector.MaxLength), false},
		"and in or in and":      {strings.Repeat("(%a and (%a or ", selector.MaxDepth/2+1) + "%a" + strings.Repeat("))", selector.MaxDepth/2+1), false},
		"wide":                  {strings.TrimSuffix(strings.Repeat("%a or ", 10_000), " or "), true},
		"too long":              {"up" + strings.Repeat(" ", selector.MaxLength), false},
		"too long in words":     {strings.TrimSuffix(strings.Repeat("up||", 5_000), "||"), false},
		"list":                  {list(selector.MaxItems), true},
		"list too long":         {list(selector.MaxItems + 1), false},
		"hostlist":              {"name in n[0-9999]", true},
		"hostlists":             {strings.TrimSuffix(strings.Repeat("name in n[0-9999]||", 11), "||"), false},
		"hostlist of long":      {"name in " + strings.Repeat("n", 5000) + "[0-9999]", false},
		"key":                   {"a[" + strings.Repeat("k", selector.MaxKey) + "] == 1", true},
		"key too long":          {"a[" + strings.Repeat("k", selector.MaxKey+1) + "] == 1", false},
		"pattern too long":      {`a[x] =~ "` + strings.Repeat("k", selector.MaxPattern+1) + `"`, false},
		"pattern that grows":    {`a[x] =~ "` + strings.Repeat("a{900}", 100) + `"`, false},
		"patterns that grow":    {strings.TrimSuffix(strings.Repeat(`a[x] =~ "a{900}" or `, 20), " or "), false},
		"string":                {`a[x] == "` + strings.Repeat("k", 60_000) + `"`, true},
		"string of backslashes": {`a[x] == '` + strings.Repeat(`"`, 60_000) + `'`, false},
	} {
		e, err := selector.Parse(c.text)
		if (err == nil) != c.ok || err != nil && !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil {
			if len(err.Error()) > 500 {
				t.Errorf("%s: the error has %d bytes", name, len(err.Error()))
			}
			continue
		}
		if again, err := selector.Parse(e.String()); err != nil || again.String() != e.String() {
			t.Errorf("%s: the normal form does not parse: %v", name, err)
		}
	}
}

func TestUses(t *testing.T) {
	e := parse(t, `up and (a[x] == 1 or not a[x] == 2) and h[disks.0.size_kib] > 5GB and index in n[0-3] and %g and (@d or @c) and "x" in s[modules] and name =~ "x" and @c`)
	got := fmt.Sprint(e.Uses())
	want := `{[{attributes x} {hardware disks.0.size_kib} {node index} {node name} {status modules} {status state}] [g] [c d]}`
	if got != want {
		t.Errorf("%s, want %s", got, want)
	}
	l := selector.Lookup{Section: selector.Hardware, Key: "disks.0.size_kib"}
	for name, want := range map[string]bool{"disks": true, "disks.0": true, "disks.0.size_kib": true, "disk": false, "disks.": false, "ram": false, "disks.0.size_kib.x": false} {
		if l.Reads(name) != want {
			t.Errorf("%s is read: %v, want %v", name, !want, want)
		}
	}
}

func TestAcyclic(t *testing.T) {
	groups := map[string]*selector.Expr{
		"a": parse(t, "@b or up"), "b": parse(t, "@c and not @uid-d"), "c": parse(t, "%g and @gone"), "d": parse(t, "@c"),
		"x": parse(t, "@y"), "y": parse(t, "not @z"), "z": parse(t, "@c or @uid-x"),
	}
	id := func(name string) string { return strings.TrimPrefix(name, "uid-") }
	get := func(name string) *selector.Expr { return groups[id(name)] }
	if err := selector.Acyclic("a", groups["a"], id, get); err != nil {
		t.Errorf("no circle: %v", err)
	}
	for name, want := range map[string]string{"x": "@x → @y → @z → @uid-x.", "z": "@z → @uid-x → @y → @z."} {
		if err := selector.Acyclic(name, groups[name], id, get); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want … %s", name, err, want)
		}
	}
	// A new selector for c counts, not the stored one.
	err := selector.Acyclic("c", parse(t, "@a"), id, get)
	if err == nil || !strings.Contains(err.Error(), "@c → @a → @b → @c.") {
		t.Errorf("c with a new selector: %v", err)
	}
	if err := selector.Acyclic("self", parse(t, "@self"), id, get); err == nil || !strings.Contains(err.Error(), "@self → @self.") {
		t.Errorf("a group of itself: %v", err)
	}
}

func TestAnchors(t *testing.T) {
	for s, want := range map[string]string{
		`a[x] == 1`:          `[{{attributes x} 1 }]`,
		`a[x] == "01"`:       `[{{attributes x} 1 }]`,
		`a[x] == "b" and up`: `[{{attributes x} b }]`,
		`a[x] in ["b", true, null] and a[y] == 2`: `[{{attributes y} 2 }]`,
		`a[x] in ["b", true, null]`:               `[{{attributes x} b } {{attributes x} true } {{attributes x} null }]`,
		`%g or a[x] == 1.50`:                      `[{{ }  g} {{attributes x} 1.5 }]`,
		`name in n[7-7]`:                          `[{{node name} n7 }]`,
		`a[x] in []`:                              `[]`,
		`%g or a[x] > 1`:                          `none`,
		`%g and a[x] > 1`:                         `[{{ }  g}]`,
		`not %g`:                                  `none`,
		`a[x] != 1`:                               `none`,
		`name not in n[7-7]`:                      `none`,
		`h[ram_total] == 1GB`:                     `none`,
		`s[a.b] == 1`:                             `none`,
		`@d`:                                      `none`,
	} {
		anchors, ok := parse(t, s).Anchors()
		got := fmt.Sprint(anchors)
		if !ok {
			got = "none"
		}
		if got != want {
			t.Errorf("%s: %s, want %s", s, got, want)
		}
	}
	for want, values := range map[string][]any{
		"12":   {12, "12", "012", json.Number("12.0"), 12.0, uint64(12)},
		"b":    {"b"},
		"true": {true, "true"},
		"null": {nil, (*string)(nil)},
	} {
		for _, v := range values {
			if got, ok := selector.Key(v); got != want || !ok {
				t.Errorf("key of %#v: %q, %v, want %q", v, got, ok, want)
			}
		}
	}
	if k, ok := selector.Key([]any{}); ok {
		t.Errorf("a list has the key %q", k)
	}
}

// Values that JSON cannot hold are no reason to fail.
func TestStrangeValues(t *testing.T) {
	for _, v := range []any{math.NaN(), math.Inf(1), json.Number("x"), json.Number(""), uint(math.MaxUint64), struct{}{}, []int{1}, (*int64)(nil)} {
		n := &node{attributes: map[string]any{"x": v}}
		for _, s := range []string{`a[x] == 1`, `a[x] < 1 and a[x] > 1`, `a[x] in [1, "a"]`, `a[x] in n[1-2]`, `1 in a[x]`, `a[x.y] == 1`} {
			if parse(t, s).Match(n) {
				t.Errorf("%s holds for %#v", s, v)
			}
		}
		if !parse(t, `a[x] != 1`).Match(n) {
			t.Errorf("a[x] != 1 does not hold for %#v", v)
		}
	}
}

func parse(t testing.TB, s string) *selector.Expr {
	t.Helper()
	e, err := selector.Parse(s)
	if err != nil {
		t.Fatalf("%s: %v", s, err)
	}
	return e
}
