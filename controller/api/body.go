package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"reflect"
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
			return fault.Invalidf("The body is not valid JSON: %v.", err)
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
			return fault.Invalidf("%s: a JSON %s is not what belongs here, want %s.", name(wrong.Field), wrong.Value, wanted(wrong.Type))
		}
		if key, ok := unknownField(err); ok {
			return fault.Invalidf("Unhandled parameter(s): %s", key)
		}
		return fault.Invalidf("The body does not fit: %v.", err)
	}
	return nil
}

// wanted says what JSON a Go type takes.
func wanted(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Pointer:
		return wanted(t.Elem())
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "a string"
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.Slice, reflect.Array:
		return "a list"
	case reflect.Struct, reflect.Map:
		return "an object"
	}
	return "a whole number"
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
