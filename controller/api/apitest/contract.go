package apitest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"muster/controller/api"
)

// Contract is an OpenAPI document to which requests and answers are held.
type Contract struct {
	mux      *http.ServeMux // finds the operation that a request is for
	document map[string]any
	compiler *jsonschema.Compiler

	mu      sync.Mutex
	schemas map[string]*jsonschema.Schema // by JSON pointer
}

// documentURL names the document inside the compiler only.
const documentURL = "https://head.invalid/openapi.json"

// NewContract reads a document, as GET /api/v1/openapi.json gives it.
func NewContract(document []byte) (*Contract, error) {
	parsed, err := jsonschema.UnmarshalJSON(bytes.NewReader(document))
	if err != nil {
		return nil, err
	}
	c := &Contract{mux: http.NewServeMux(), compiler: jsonschema.NewCompiler(), schemas: map[string]*jsonschema.Schema{}}
	c.document, _ = parsed.(map[string]any)
	c.compiler.DefaultDraft(jsonschema.Draft2020)
	if err := c.compiler.AddResource(documentURL, parsed); err != nil {
		return nil, err
	}
	paths, _ := c.document["paths"].(map[string]any)
	for path, item := range paths {
		for method, op := range item.(map[string]any) {
			pattern := path
			for _, p := range list(op, "parameters") {
				if p := p.(map[string]any); p["x-remainder"] == true {
					pattern = strings.ReplaceAll(pattern, "{"+p["name"].(string)+"}", "{"+p["name"].(string)+"...}")
				}
			}
			c.mux.Handle(strings.ToUpper(method)+" "+pattern, &operation{c, op.(map[string]any), pointer("paths", path, method)})
		}
	}
	return c, nil
}

// ContractOf fetches the document of a head.
func ContractOf(tb testing.TB, client *http.Client, head string) *Contract {
	tb.Helper()
	resp, err := client.Get(head + api.PathOpenAPI)
	if err != nil {
		tb.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		tb.Fatal(err)
	}
	c, err := NewContract(raw)
	if err != nil {
		tb.Fatalf("the OpenAPI document cannot be used: %v", err)
	}
	return c
}

// Check holds a request and its answer to the document: the operation exists,
// query and body have the described form, and the answer's media type, envelope
// and data. A request that was refused may have been meant to be wrong, so that
// only its refusal is checked. The bodies are given apart, because those of r
// and the answer can be read once only.
func (c *Contract) Check(r *http.Request, sent []byte, status int, header http.Header, answer []byte) error {
	if r.Method == http.MethodHead {
		return nil // a GET without the answer
	}
	h, _ := c.mux.Handler(r)
	op, ok := h.(*operation)
	if !ok {
		if status == http.StatusNotFound || status == http.StatusMethodNotAllowed {
			return nil
		}
		return fmt.Errorf("%s %s is not in the OpenAPI document, and answered %d", r.Method, r.URL.Path, status)
	}
	err := op.answer(status, header, answer)
	if status < 400 {
		err = errors.Join(err, op.query(r.URL.Query()), op.body(sent))
	}
	if err != nil {
		return fmt.Errorf("%s %s (%d) is not as the OpenAPI document says: %w", r.Method, r.URL.Path, status, err)
	}
	return nil
}

// Transport gives a transport that reports, as an error of the test, what does
// not keep to the document. It reads answers whole: it is not for streams.
func (c *Contract) Transport(tb testing.TB, base http.RoundTripper) http.RoundTripper {
	return &checked{c, tb, base}
}

type checked struct {
	*Contract
	tb   testing.TB
	base http.RoundTripper
}

func (t *checked) RoundTrip(r *http.Request) (*http.Response, error) {
	var sent bytes.Buffer
	if r.Body != nil && r.Body != http.NoBody {
		r = r.Clone(r.Context())
		r.Body = struct {
			io.Reader
			io.Closer
		}{io.TeeReader(r.Body, &sent), r.Body}
	}
	resp, err := t.base.RoundTrip(r)
	if err != nil || resp.StatusCode == http.StatusSwitchingProtocols {
		return resp, err
	}
	answer, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(answer))
	if err := t.Check(r, sent.Bytes(), resp.StatusCode, resp.Header, answer); err != nil {
		t.tb.Error(err)
	}
	return resp, nil
}

// operation is one of the document's.
type operation struct {
	*Contract
	op map[string]any
	at string // its JSON pointer
}

// ServeHTTP is there for the mux only, which finds operations and serves none.
func (*operation) ServeHTTP(http.ResponseWriter, *http.Request) {}

func (o *operation) query(q url.Values) error {
	types := map[string]string{}
	for _, p := range list(o.op, "parameters") {
		if p := p.(map[string]any); p["in"] == "query" {
			types[p["name"].(string)], _ = dig(p, "schema", "type").(string)
		}
	}
	if len(types) == 0 {
		return nil // this route says nothing of its query
	}
	for name, values := range q {
		kind, ok := types[name]
		if !ok {
			return fmt.Errorf("the query parameter %q is not described", name)
		}
		for _, v := range values {
			var number json.Number
			if (kind == "integer" || kind == "number") && json.Unmarshal([]byte(v), &number) != nil {
				return fmt.Errorf("the query parameter %s=%q is no %s", name, v, kind)
			}
		}
	}
	return nil
}

func (o *operation) body(sent []byte) error {
	sent = bytes.TrimSpace(sent)
	if len(sent) == 0 || dig(o.op, "requestBody", "content", "application/json") == nil {
		return nil
	}
	if err := o.valid(sent, pointer("requestBody", "content", "application/json", "schema")); err != nil {
		return fmt.Errorf("the request's body: %w", err)
	}
	return nil
}

func (o *operation) answer(status int, header http.Header, body []byte) error {
	code := fmt.Sprint(status)
	described, ok := dig(o.op, "responses", code).(map[string]any)
	at := pointer("responses", code)
	if !ok {
		if status < 400 {
			return errors.New("this status is not described")
		}
		described, at = dig(o.document, "components", "responses", "Failure").(map[string]any), ""
	}
	content, _ := described["content"].(map[string]any)
	if len(content) == 0 {
		if len(body) > 0 {
			return fmt.Errorf("no content is described, and %d bytes came", len(body))
		}
		return nil
	}
	media, _, err := mime.ParseMediaType(header.Get("Content-Type"))
	if _, ok := content[media]; err != nil || !ok {
		if _, any := content["*/*"]; any {
			return nil
		}
		return fmt.Errorf("the media type %q is not described", header.Get("Content-Type"))
	}
	if dig(content, media, "schema") == nil {
		return nil
	}
	at += pointer("content", media, "schema")
	if !ok { // a refusal
		err = o.validAt(body, "/components/responses/Failure"+at)
	} else {
		err = o.valid(body, at)
	}
	if err != nil {
		return fmt.Errorf("the answer: %w in %.300s", err, body)
	}
	return nil
}

func (o *operation) valid(text []byte, at string) error { return o.validAt(text, o.at+at) }

func (c *Contract) validAt(text []byte, at string) error {
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	schema := c.schemas[at]
	if schema == nil {
		if schema, err = c.compiler.Compile(documentURL + "#" + (&url.URL{Path: at}).EscapedPath()); err != nil {
			return err
		}
		c.schemas[at] = schema
	}
	return schema.Validate(value)
}

// pointer makes a JSON pointer (RFC 6901).
func pointer(words ...string) string {
	var b strings.Builder
	for _, w := range words {
		b.WriteString("/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(w))
	}
	return b.String()
}

func dig(v any, keys ...string) any {
	for _, k := range keys {
		m, _ := v.(map[string]any)
		v = m[k]
	}
	return v
}

func list(v any, key string) []any { l, _ := dig(v, key).([]any); return l }
