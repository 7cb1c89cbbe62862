package registry

import (
	"encoding/json"
	"regexp"
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
func redact(key string, raw json.RawMessage) json.RawMessage {
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

func hide(raw json.RawMessage) json.RawMessage {
	if empty(raw) == nil {
		return nil
	}
	return json.RawMessage(`"` + hidden + `"`)
}

func redactText(s string) string {
	s = secretInURI.ReplaceAllString(s, "${1}"+hidden+"@")
	return secretOption.ReplaceAllString(s, "${1}"+hidden)
}
