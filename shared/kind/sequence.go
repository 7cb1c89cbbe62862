package kind

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// Sequence is a list whose entries belong to those of another list by their
// position: unlike in a List the same may stand there twice. One entry may be
// given alone.
func Sequence(name string, of Format) Format {
	return Format{Name: name, Values: of.Values, Parse: func(raw json.RawMessage) (any, error) {
		raws := []json.RawMessage{raw}
		if b := bytes.TrimSpace(raw); len(b) > 0 && b[0] == '[' {
			if err := json.Unmarshal(raw, &raws); err != nil {
				return nil, fmt.Errorf("%s is not a list", brief(raw))
			}
		}
		if len(raws) > MaxItems {
			return nil, fmt.Errorf("%d entries are too many, at most %d are taken", len(raws), MaxItems)
		}
		out := make([]any, len(raws))
		for i, r := range raws {
			var err error
			if out[i], err = of.Parse(r); err != nil {
				return nil, fmt.Errorf("entry %d: %w", i+1, err)
			}
		}
		return out, nil
	}}
}

// Flag is true or false; unlike Bool it takes the words too, as command lines
// and other languages write them.
var Flag = Format{Name: "flag", Parse: func(raw json.RawMessage) (any, error) {
	switch strings.ToLower(strings.Trim(string(bytes.TrimSpace(raw)), `"`)) {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return nil, fmt.Errorf("%s is neither true nor false", brief(raw))
}}
