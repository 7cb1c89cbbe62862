package registry

import (
	"regexp"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// hidden stands for a secret.
const hidden = "(secret)"

var (
	// secretName is how people call attributes that hold one.
	secretName = regexp.MustCompile(`(?i)pass|secret|token|credential|private|community|(^|[_.-])key$|api_?key`)
	// secretInURI is the password of a URI, which may itself hold an @ or a /.
	secretInURI = regexp.MustCompile(`(://[^:/@\s]*:)\S*@`)
	// secretOption is one on a command line: password=x, --token x.
	secretOption = regexp.MustCompile(`(?i)((?:pass(?:word|wd|phrase)?|secret|token|api_?key)(?:=|:\s*|\s+))("[^"]*"|'[^']*'|\S+)`)
)

// redact gives a value as the audit trail may hold it.
func redact(key string, raw jsontext.Value) jsontext.Value {
	if raw == nil {
		return nil
	}
	if secretName.MatchString(key) {
		return hide(raw)
	}
	var s string
	if raw[0] != '"' || json.Unmarshal(raw, &s) != nil {
		return raw
	}
	out, err := json.Marshal(redactText(s))
	if err != nil {
		return hide(raw)
	}
	return out
}

func hide(raw jsontext.Value) jsontext.Value {
	if empty(raw) == nil {
		return nil
	}
	return jsontext.Value(`"` + hidden + `"`)
}

func redactText(s string) string {
	s = secretInURI.ReplaceAllString(s, "${1}"+hidden+"@")
	return secretOption.ReplaceAllString(s, "${1}"+hidden)
}
