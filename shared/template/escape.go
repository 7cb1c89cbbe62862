package template

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Script is for values in kickstarts, shell scripts, JSON and YAML. What would
// end a line, a word in quotes or a command is refused: an attribute must not be
// able to add a command of its own. quote(…) and json(…) take any value.
func Script(ref Ref, value string) (string, error) {
	if err := oneLine(ref, value); err != nil {
		return "", err
	}
	if i := strings.IndexAny(value, "`\"'\\;|&<>()"); i >= 0 {
		return "", unfit(ref, value[i:i+1])
	}
	if i := strings.Index(value, "${"); i >= 0 {
		return "", unfit(ref, "${")
	}
	return value, nil
}

func unfit(ref Ref, what string) error {
	return fmt.Errorf("%s: its value has %s, which means something to a shell: write <quote(%s)> for one word in quotes, or <json(%s)>", ref, what, ref.text, ref.text)
}

// Word is for values on a kernel's command line: one word, no more.
func Word(ref Ref, value string) (string, error) {
	for _, r := range value {
		if r <= ' ' || r > '~' || r == '"' || r == '\\' {
			return "", fmt.Errorf("%s: its value has the character %q, which cannot stand on a kernel's command line", ref, r)
		}
	}
	return value, nil
}

func oneLine(ref Ref, value string) error {
	if !utf8.ValidString(value) {
		return fmt.Errorf("%s: its value is not UTF-8", ref)
	}
	for _, r := range value {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			return fmt.Errorf("%s: its value has the control character %q; only one line of text may stand here", ref, r)
		}
	}
	return nil
}

// shellWord puts a value into single quotes, as POSIX shells and Python's shlex
// (which reads kickstarts) take them.
func shellWord(ref Ref, value string) (string, error) {
	if err := oneLine(ref, value); err != nil {
		return "", err
	}
	return "'" + strings.ReplaceAll(value, "'", `'"'"'`) + "'", nil
}

func jsonString(value string) (string, error) {
	raw, err := json.Marshal(value) // also a scalar of YAML
	return string(raw), err
}
