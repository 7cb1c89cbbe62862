package template

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"muster/shared/kind"
)

// Options say what a template is filled with.
type Options struct {
	// Value gives what a section other than Any has under a key: what
	// encoding/json makes, numbers also as json.Number or Go's integers.
	Value func(s Section, key string) (any, bool)
	// RootURL is for root_url(); empty: there is none.
	RootURL string
	// Include gives the text of an included file; nil: nothing can be included.
	Include func(name string) (string, error)
	// Escape makes a value fit for where it goes, or says why it does not.
	// quote and json go past it.
	Escape func(ref Ref, value string) (string, error)
}

// Expand fills in a text. Its name is for messages.
func Expand(name, text string, opt Options) (string, error) {
	e := &expansion{Options: opt}
	err := e.expand([]string{name}, text)
	return e.out.String(), err
}

type expansion struct {
	Options
	out      strings.Builder
	includes int
}

// expand adds a text to the result. chain is the names of those that include
// each other, the text's own last.
func (e *expansion) expand(chain []string, text string) error {
	name := chain[len(chain)-1]
	parts, err := Parse(text)
	if err != nil {
		return fmt.Errorf("%s, %w", name, err)
	}
	for _, p := range parts {
		value := p.Text
		if p.Ref != nil {
			if p.Ref.Func == "include" {
				err = e.include(chain, p.Ref.Key)
			} else {
				value, err = e.fill(*p.Ref)
			}
			if err != nil && !errors.As(err, new(*located)) {
				err = &located{fmt.Errorf("%s, line %d: %w", name, p.line, err)}
			}
		}
		if err != nil {
			return err
		}
		if e.out.Len()+len(value) > MaxResult {
			return fmt.Errorf("%s: the result has more than %d bytes", name, MaxResult)
		}
		e.out.WriteString(value)
	}
	return nil
}

// located is an error that says where it is.
type located struct{ error }

func (l *located) Unwrap() error { return l.error }

func (e *expansion) include(chain []string, file string) error {
	e.includes++
	switch {
	case e.Include == nil:
		return fmt.Errorf("<include(%s)>: nothing can be included here", file)
	case slices.Contains(chain, file):
		return fmt.Errorf("%s includes itself: %s", file, strings.Join(append(chain[slices.Index(chain, file):], file), " → "))
	case len(chain) >= MaxDepth:
		return fmt.Errorf("more than %d files include each other: %s", MaxDepth, strings.Join(append(chain, file), " → "))
	case e.includes > MaxIncludes:
		return fmt.Errorf("more than %d files are included", MaxIncludes)
	}
	text, err := e.Include(file)
	if err != nil {
		return err
	}
	return e.expand(append(slices.Clone(chain), file), text)
}

func (e *expansion) fill(ref Ref) (string, error) {
	if ref.Func == "root_url" {
		if e.RootURL == "" {
			return "", errors.New("<root_url()>: the head's address is not known here")
		}
		return e.RootURL, nil
	}
	found, ok := e.lookup(ref)
	if !ok {
		return "", &Missing{ref}
	}
	value, err := Text(found)
	if err != nil {
		return "", fmt.Errorf("%s %w", ref, err)
	}
	switch ref.Func {
	case "quote":
		return shellWord(ref, value)
	case "json":
		return jsonString(value)
	}
	if e.Escape == nil {
		return value, nil
	}
	return e.Escape(ref, value)
}

func (e *expansion) lookup(ref Ref) (any, bool) {
	if ref.Section != Any {
		return e.Value(ref.Section, ref.Key)
	}
	if kind.Reserved(ref.Key) { // a node must not supply it by reporting a value of that name
		return e.Value(Attribute, ref.Key)
	}
	for _, s := range []Section{Attribute, Status, Hardware, Node} {
		if v, ok := e.Value(s, ref.Key); ok {
			return v, true
		}
	}
	return nil, false
}

// Missing is the error for a value that is not there.
type Missing struct{ Ref Ref }

func (m *Missing) Error() string {
	section := m.Ref.Section
	if section == Any && kind.Reserved(m.Ref.Key) {
		section = Attribute
	}
	where := map[Section]string{
		Any: "attribute, status or hardware value or field", Attribute: "attribute", Status: "status value",
		Hardware: "hardware value", Node: "field", Head: "head's value",
	}[section]
	return fmt.Sprintf(`%s: the node has no %s %q; set it, or write \%s to have it literally`, m.Ref, where, m.Ref.Key, m.Ref)
}

// Text writes a value as a template does: lists with commas.
func Text(value any) (string, error) {
	switch v := value.(type) {
	case string:
		return v, nil
	case *string:
		if v != nil {
			return *v, nil
		}
	case json.Number, bool, int, int64, uint64:
		return fmt.Sprint(v), nil
	case float64:
		raw, err := json.Marshal(v)
		return string(raw), err
	case []any:
		words := make([]string, len(v))
		for i, x := range v {
			switch x.(type) {
			case []any, map[string]any:
				return "", errors.New("is a list of lists or objects; name one of its values, as in h[disks.0.size]")
			}
			var err error
			if words[i], err = Text(x); err != nil {
				return "", err
			}
		}
		return strings.Join(words, ","), nil
	case []string:
		return strings.Join(v, ","), nil
	case map[string]any:
		return "", errors.New("is an object; name one of its values, as in h[disks.0.size]")
	}
	return "", errors.New("is null")
}
