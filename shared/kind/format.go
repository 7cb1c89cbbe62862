package kind

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/go-json-experiment/json/jsontext"
)

// Values is a map of names and scalars. Numbers in it are json.Number, so that
// one comes back exactly as it was written.
type Values map[string]any

// UnmarshalJSON keeps numbers as they are written.
func (v *Values) UnmarshalJSON(raw []byte) error {
	if string(raw) == "null" {
		*v = nil
		return nil
	}
	m, err := object(raw)
	if err == nil {
		*v = m
	}
	return err
}

// UnmarshalJSONFrom does the same for go-json-experiment/json, by which stored
// objects are read at a head's start.
func (v *Values) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	if d.PeekKind() != '{' {
		raw, err := d.ReadValue()
		if err != nil {
			return err
		}
		return v.UnmarshalJSON(raw)
	}
	if _, err := d.ReadToken(); err != nil {
		return err
	}
	m := Values{}
	for d.PeekKind() != '}' {
		key, err := d.ReadToken()
		if err != nil {
			return err
		}
		name := key.String()
		if m[name], err = value(d); err != nil {
			return err
		}
	}
	*v = m
	_, err := d.ReadToken()
	return err
}

func value(d *jsontext.Decoder) (any, error) {
	if k := d.PeekKind(); k == '{' || k == '[' {
		raw, err := d.ReadValue()
		if err != nil {
			return nil, err
		}
		var v any
		numbers := json.NewDecoder(bytes.NewReader(raw))
		numbers.UseNumber()
		err = numbers.Decode(&v)
		return v, err
	}
	t, err := d.ReadToken()
	if err != nil {
		return nil, err
	}
	switch t.Kind() {
	case '"':
		return t.String(), nil
	case '0':
		return json.Number(t.String()), nil
	case 't', 'f':
		return t.Bool(), nil
	}
	return nil, nil
}

// Format says what values a field takes. Parse turns what a user sent (valid
// JSON, never null) into the one form that is stored; its error completes the
// sentence "<field>: …".
type Format struct {
	Name   string
	Parse  func(raw json.RawMessage) (any, error)
	Text   func(s string) (string, error) // the same for what is a string; nil for other formats
	Values []string                       // where only these are allowed
	// Schema is the JSON Schema (2020-12) of what Parse takes, as far as one can
	// say it; nil for any value.
	Schema map[string]any
}

// Bounds on what one field may hold.
const (
	MaxText  = 64 << 10 // bytes
	MaxName  = 128      // bytes
	MaxItems = 10_000   // keys of a map, entries of a list
)

// Parsed makes a format from a function on strings.
func Parsed(name string, parse func(s string) (string, error)) Format {
	return Format{Name: name, Text: parse, Schema: map[string]any{"type": "string"}, Parse: func(raw json.RawMessage) (any, error) {
		s, err := str(raw)
		if err != nil {
			return nil, err
		}
		return parse(s)
	}}
}

// Text is any string without control characters other than newline and tab.
var Text = Parsed("text", func(s string) (string, error) {
	if len(s) > MaxText {
		return "", fmt.Errorf("%d bytes are too long, at most %d are taken", len(s), MaxText)
	}
	if i := strings.IndexFunc(s, func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' }); i >= 0 {
		return "", fmt.Errorf("has a control character at position %d", i)
	}
	return s, nil
})

// Line is Text on one line, for what ends up on a kernel's command line or in a script.
var Line = Parsed("line", func(s string) (string, error) {
	if strings.ContainsFunc(s, unicode.IsControl) || len(s) > 4096 {
		return "", errors.New("must be one line of at most 4096 bytes without control characters")
	}
	return s, nil
})

var namePattern = regexp.MustCompile(`^[\p{L}\p{N}_]([\p{L}\p{N}_ .@+~#-]*[\p{L}\p{N}_.@+~#-])?$`)

// Name is an object's name: it must be good in a path, in a node set and in
// NAME:VERSION, and must not be mistaken for a UID.
var Name = Parsed("name", func(s string) (string, error) {
	switch {
	case len(s) > MaxName:
		return "", fmt.Errorf("a name of %d bytes is too long, at most %d are taken", len(s), MaxName)
	case !namePattern.MatchString(s):
		return "", fmt.Errorf("%q is no good as a name: it takes letters, digits, space and . _ @ + ~ # - and begins with a letter, digit or _", s)
	case UIDPattern.MatchString(s):
		return "", fmt.Errorf("%q could be mistaken for a UID", s)
	}
	return s, nil
})

// Bool is true or false.
var Bool = Format{Name: "boolean", Schema: map[string]any{"type": "boolean"}, Parse: func(raw json.RawMessage) (any, error) {
	var b bool
	if json.Unmarshal(raw, &b) != nil {
		return nil, fmt.Errorf("%s is neither true nor false", brief(raw))
	}
	return b, nil
}}

// Int is a whole number from low to high.
func Int(low, high int64) Format {
	schema := map[string]any{"type": "integer", "minimum": low, "maximum": high}
	return Format{Name: "integer", Schema: schema, Parse: func(raw json.RawMessage) (any, error) {
		n, err := strconv.ParseInt(string(bytes.TrimSpace(raw)), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%s is not a whole number", brief(raw))
		}
		if n < low || n > high {
			return nil, fmt.Errorf("%d is not between %d and %d", n, low, high)
		}
		return n, nil
	}}
}

// Count is a whole number from 0 to 2^31-1.
var Count = Int(0, math.MaxInt32)

// OneOf is one of the words.
func OneOf(words ...string) Format {
	f := Parsed("choice", func(s string) (string, error) {
		if !slices.Contains(words, s) {
			return "", fmt.Errorf("%q is none of %s", s, strings.Join(words, ", "))
		}
		return s, nil
	})
	f.Values, f.Schema = words, map[string]any{"type": "string", "enum": words}
	return f
}

// IP is an address; IPv4 in IPv6 form becomes IPv4.
var IP = Parsed("ip", func(s string) (string, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return "", fmt.Errorf("%q is not an IP address", s)
	}
	return a.Unmap().String(), nil
})

// IPv4 is an IPv4 address.
var IPv4 = Parsed("ip", func(s string) (string, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || !a.Is4() {
		return "", fmt.Errorf("%q is not an IPv4 address", s)
	}
	return a.String(), nil
})

// MAC is an Ethernet address, written as aa:bb:cc:dd:ee:ff.
var MAC = Parsed("mac", func(s string) (string, error) {
	m, err := net.ParseMAC(s)
	if err != nil || (len(m) != 6 && len(m) != 20) {
		return "", fmt.Errorf("%q is not a MAC address such as 52:54:00:12:34:56", s)
	}
	// Multicast addresses are taken: the API's own documentation uses one.
	if (m[0] == 0 || m[0] == 0xff) && bytes.Count(m, m[:1]) == len(m) {
		return "", fmt.Errorf("%q is an address that no machine has", s)
	}
	return m.String(), nil
})

// KeyValues is an object of names and scalars, one level deep.
var KeyValues = Format{Name: "key-values", Schema: map[string]any{
	"type": "object", "additionalProperties": map[string]any{"type": []string{"string", "number", "boolean"}},
}, Parse: func(raw json.RawMessage) (any, error) {
	m, err := object(raw)
	if err != nil {
		return nil, err
	}
	for k, v := range m {
		if k == "" || len(k) > MaxName || strings.ContainsFunc(k, unicode.IsControl) {
			return nil, fmt.Errorf("%q is no good as a key", k)
		}
		switch x := v.(type) {
		case map[string]any, []any:
			return nil, fmt.Errorf("%s is not a single value: only one level is kept", k)
		case nil:
			return nil, fmt.Errorf("%s is null: to remove a key, delete it", k)
		case string:
			if len(x) > MaxText {
				return nil, fmt.Errorf("%s has %d bytes, at most %d are taken", k, len(x), MaxText)
			}
		}
	}
	return m, nil
}}

// Settings is any JSON object; its owner gives it a meaning.
var Settings = Format{Name: "object", Schema: map[string]any{"type": "object"}, Parse: func(raw json.RawMessage) (any, error) { return object(raw) }}

// Reference is the UID or a name of an object of the field's Ref kind.
var Reference = Parsed("reference", func(s string) (string, error) {
	if s == "" || len(s) > MaxName {
		return "", errors.New("needs a UID or a name")
	}
	return s, nil
})

// References is a list of them, in order, each once; a single one may be given
// as a string.
var References = List("references", Reference)

// List is a list whose entries have the format; one entry may be given alone.
// Entries that are there already are not added twice.
func List(name string, of Format) Format {
	one := of.Schema
	if one == nil {
		one = map[string]any{}
	}
	schema := map[string]any{"anyOf": []any{map[string]any{"type": "array", "items": one, "maxItems": MaxItems}, one}}
	return Format{Name: name, Values: of.Values, Schema: schema, Parse: func(raw json.RawMessage) (any, error) {
		var raws []json.RawMessage
		if b := bytes.TrimSpace(raw); len(b) > 0 && b[0] != '[' {
			raws = []json.RawMessage{raw}
		} else if err := json.Unmarshal(raw, &raws); err != nil {
			return nil, fmt.Errorf("%s is not a list", brief(raw))
		}
		if len(raws) > MaxItems {
			return nil, fmt.Errorf("%d entries are too many, at most %d are taken", len(raws), MaxItems)
		}
		out := make([]string, 0, len(raws))
		for i, r := range raws {
			v, err := of.Parse(r)
			if err != nil {
				return nil, fmt.Errorf("entry %d: %w", i+1, err)
			}
			if s := v.(string); !slices.Contains(out, s) {
				out = append(out, s)
			}
		}
		return out, nil
	}}
}

// Shown is the format of a field that users only read.
func Shown(name string) Format { return Format{Name: name} }

func str(raw json.RawMessage) (string, error) {
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return "", fmt.Errorf("%s is not a string", brief(raw))
	}
	return s, nil
}

func object(raw json.RawMessage) (map[string]any, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	m := map[string]any{}
	if err := d.Decode(&m); err != nil || m == nil {
		return nil, fmt.Errorf("%s is not a JSON object", brief(raw))
	}
	if len(m) > MaxItems {
		return nil, fmt.Errorf("%d keys are too many, at most %d are taken", len(m), MaxItems)
	}
	return m, nil
}

// brief is a value as a message can show it.
func brief(raw json.RawMessage) string {
	if len(raw) > 60 {
		return strings.ToValidUTF8(string(raw[:60]), "") + "…"
	}
	return string(raw)
}
