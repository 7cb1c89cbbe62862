package api

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"muster/shared/fault"
)

// MaxBody bounds a JSON body in bytes, and maxDepth how deep it may nest:
// nothing in the API needs more than a handful of levels.
const (
	MaxBody  = 8 << 20
	maxDepth = 64
	bodyTime = time.Minute
)

// Body reads the request's JSON body, whatever its Content-Type and method, or
// nil when there is none. Duplicate keys, invalid UTF-8, trailing data and
// excessive depth are refused: two parsers must never read it differently.
func Body(w http.ResponseWriter, r *http.Request) (json.RawMessage, error) {
	if r.ContentLength > MaxBody { // need not be read to know
		return nil, tooLarge()
	}
	// A client that sends its body drop by drop must not hold a connection for
	// good. Where the transport has no deadlines, the server's own bounds hold.
	rc := http.NewResponseController(w)
	rc.SetReadDeadline(time.Now().Add(bodyTime))
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
	rc.SetReadDeadline(time.Time{})
	var tooBig *http.MaxBytesError
	switch {
	case errors.As(err, &tooBig):
		return nil, tooLarge()
	case err != nil:
		return nil, fault.Invalidf("The body broke off: %v.", err)
	}
	if len(bytes.TrimSpace(raw)) == 0 {
		return nil, nil
	}
	return raw, CheckJSON(raw)
}

func tooLarge() error {
	return fault.New(fault.TooLarge, "The body is larger than %d bytes; only uploads may be.", MaxBody)
}

// CheckJSON says what is wrong with a JSON text that must be exactly one value.
func CheckJSON(raw []byte) error {
	d := jsontext.NewDecoder(bytes.NewReader(raw))
	for {
		_, err := d.ReadToken()
		if err == io.EOF {
			return fault.Invalidf("The body is not complete JSON.")
		}
		if err != nil {
			return fault.Invalidf("The body is not valid JSON: %s.", syntax(err))
		}
		if d.StackDepth() > maxDepth {
			return fault.Invalidf("The JSON body nests deeper than %d levels.", maxDepth)
		}
		if d.StackDepth() == 0 {
			break
		}
	}
	if _, err := d.ReadToken(); err != io.EOF {
		return fault.Invalidf("There is more after the JSON value that the body holds.")
	}
	return nil
}

// syntax says in what way a text is no JSON, and where.
func syntax(err error) string {
	var wrong *jsontext.SyntacticError
	switch {
	case !errors.As(err, &wrong):
		return strings.TrimPrefix(err.Error(), "jsontext: ")
	case errors.Is(err, jsontext.ErrDuplicateName):
		return fmt.Sprintf("the key %.80q is there twice", wrong.JSONPointer.LastToken())
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "it ends too early"
	}
	return fmt.Sprintf("%v, at byte %d", wrong.Err, wrong.ByteOffset+1)
}

// Decode reads the body into v, which must be a pointer to a struct with the
// keys that the endpoint takes: unknown ones are refused by name.
func Decode(w http.ResponseWriter, r *http.Request, v any) error {
	raw, err := Body(w, r)
	if err != nil {
		return err
	}
	if raw == nil {
		return fault.Invalidf("This request needs a JSON object as its body.")
	}
	return Strict(raw, v)
}

// Strict decodes raw into v and refuses keys that v does not have.
func Strict(raw json.RawMessage, v any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		var wrong *json.UnmarshalTypeError
		if errors.As(err, &wrong) {
			return fault.Invalidf("%s: %s.", name(wrong.Field), mismatch(wrong))
		}
		if key, ok := unknownField(err); ok {
			return fault.Invalidf("Unhandled parameter(s): %s", key)
		}
		return fault.Invalidf("The body does not fit: %v.", err)
	}
	return exact(raw, reflect.TypeOf(v).Elem())
}

// exact refuses keys that are a struct's but for the case of letters: Go's
// decoder takes those, clients' tools and the OpenAPI document do not.
func exact(raw json.RawMessage, t reflect.Type) error {
	if t.Kind() != reflect.Struct {
		return nil
	}
	keys := map[string]bool{}
	for _, f := range reflect.VisibleFields(t) {
		key, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		keys[cmp.Or(key, f.Name)] = true
	}
	d := jsontext.NewDecoder(bytes.NewReader(raw))
	if first, err := d.ReadToken(); err != nil || first.Kind() != '{' {
		return nil // null, which is no key
	}
	for d.PeekKind() == '"' {
		key, err := d.ReadToken()
		if err == nil && !keys[key.String()] {
			return fault.Invalidf("Unhandled parameter(s): %s", key.String())
		}
		if err = errors.Join(err, d.SkipValue()); err != nil {
			return fault.Invalidf("The body is not valid JSON: %s.", syntax(err))
		}
	}
	return nil
}

// mismatch says what belongs in the place of a value, in the words of JSON.
func mismatch(wrong *json.UnmarshalTypeError) string {
	sent, number := strings.CutPrefix(wrong.Value, "number ")
	want, _ := SchemaOf(reflect.Zero(wrong.Type).Interface())["type"].(string)
	if number && (want == "number" || want == "integer" && !strings.ContainsAny(sent, ".eE")) {
		return sent + " is out of range"
	}
	if !number {
		sent = jsonWords(sent)
	}
	return fmt.Sprintf("must be %s, not %s", jsonWords(want), sent)
}

// jsonWords names a kind of value, as JSON Schema or encoding/json calls it.
func jsonWords(kind string) string {
	switch kind {
	case "bool", "boolean":
		return "true or false"
	case "array":
		return "a list"
	case "object":
		return "a JSON object"
	case "integer":
		return "a whole number"
	case "number", "string":
		return "a " + kind
	}
	return "another value"
}

func name(field string) string {
	if field == "" {
		return "The body"
	}
	return field
}

// unknownField takes the name out of the message of encoding/json, which has
// no type for it.
func unknownField(err error) (string, bool) {
	const prefix = `json: unknown field "`
	msg := err.Error()
	if len(msg) > len(prefix) && msg[:len(prefix)] == prefix {
		return msg[len(prefix) : len(msg)-1], true
	}
	return "", false
}
