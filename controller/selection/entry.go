package selection

import (
	"bytes"

	"github.com/go-json-experiment/json/jsontext"
)

// find gives the text of one value of a JSON object, the last of that key as
// encoding/json takes it.
func find(object []byte, key string) (value jsontext.Value, found bool) {
	d := jsontext.NewDecoder(bytes.NewReader(object), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if t, err := d.ReadToken(); err != nil || t.Kind() != '{' {
		return nil, false
	}
	for d.PeekKind() == '"' {
		t, err := d.ReadToken()
		if err != nil {
			return nil, false
		}
		if t.String() != key {
			if d.SkipValue() != nil {
				return nil, false
			}
			continue
		}
		v, err := d.ReadValue()
		if err != nil {
			return nil, false
		}
		value, found = v.Clone(), true
	}
	return value, found
}
