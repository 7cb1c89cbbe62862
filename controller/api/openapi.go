package api

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"

	"muster/shared/kind"
)

// Where the description of the API is found.
const (
	PathOpenAPI = Root + "/openapi.json"
	PathDocs    = Root + "/docs"
)

// documentation gives the routes that describe all others and themselves. The
// document is made when it is first asked for, not at the head's start.
func documentation(routes []Route) []Route {
	var own []Route
	document := sync.OnceValues(func() ([]byte, error) { return json.Marshal(openAPI(slices.Concat(routes, own))) })
	page := sync.OnceValues(func() ([]byte, error) { return docsPage(slices.Concat(routes, own)) })
	serve := func(media string, get func() ([]byte, error)) Handler {
		return func(w http.ResponseWriter, r *http.Request) error {
			body, err := get()
			if err != nil {
				return err
			}
			return serveTagged(w, r, media, body)
		}
	}
	own = []Route{
		{Method: "GET", Path: PathOpenAPI, Permission: kind.Public, Doc: "This document: OpenAPI 3.1.", Raw: "application/json", Handler: serve("application/json", document)},
		{Method: "GET", Path: PathDocs, Permission: kind.Public, Doc: "The same for people, as a page.", Raw: "text/html", Handler: serve("text/html; charset=utf-8", page)},
	}
	return own
}

// openAPI describes routes. Paths that differ only in the names of their
// wildcards are one path.
func openAPI(routes []Route) Schema {
	paths, schemas, ids := map[string]Schema{}, Schema{}, map[string]bool{}
	byShape := map[string]string{}
	for _, rt := range routes {
		path, names := pathTemplate(rt.Path)
		shape := wildcard.ReplaceAllString(path, "{}")
		if first, ok := byShape[shape]; ok {
			path = first
			_, names = pathTemplate(first)
		}
		byShape[shape] = path
		if paths[path] == nil {
			paths[path] = Schema{}
		}
		paths[path][strings.ToLower(rt.Method)] = operation(rt, path, names, schemas, ids)
	}
	schemas["failure"] = Schema{
		"type": "object", "required": []string{"success", "reason"}, "additionalProperties": false,
		"properties": Schema{"success": Schema{"const": false}, "reason": Schema{"type": "string", "minLength": 1, "description": "what was wrong, with which value, and what to do"}},
	}
	return Schema{
		"openapi": "3.1.0",
		"info": Schema{"title": "muster", "version": "1", "description": "Every answer that is not raw is the envelope `{\"success\": true, \"data\": …}`, or `{\"success\": false, \"reason\": …}` with a status from 400 on. " +
			"Bodies are JSON whatever their Content-Type. An object is named by its UID or by one of its kind's names."},
		"servers":  []any{Schema{"url": "/"}},
		"security": []any{Schema{"token": []string{}}},
		"tags":     tags(routes),
		"paths":    paths,
		"components": Schema{
			"schemas": schemas,
			"securitySchemes": Schema{
				"token":       Schema{"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "the access token that POST " + Root + "/login gives"},
				"certificate": Schema{"type": "mutualTLS", "description": "the certificate of an enrolled node"},
			},
			"responses": Schema{"Failure": Schema{"description": "Refused, with the reason.", "content": jsonContent(ref("failure"))}},
		},
	}
}

func ref(name string) Schema { return Schema{"$ref": "#/components/schemas/" + name} }

func jsonContent(s Schema) Schema { return Schema{"application/json": Schema{"schema": s}} }

// wildcard is one in a pattern of http.ServeMux.
var wildcard = regexp.MustCompile(`\{[^}]*\}`)

// pathTemplate turns a pattern of http.ServeMux into a path template and gives the
// names of its parameters, that of a remainder of the path with "..." behind it.
func pathTemplate(pattern string) (path string, names []string) {
	path = strings.ReplaceAll(pattern, "{$}", "")
	for _, w := range wildcard.FindAllString(path, -1) {
		names = append(names, strings.Trim(w, "{}"))
	}
	return strings.ReplaceAll(path, "...}", "}"), names
}

// tag is the part of the API that a path belongs to.
func tag(path string) string {
	word, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(path, Root), "/"), "/")
	return word
}

func tags(routes []Route) []Schema {
	var names []string
	for _, rt := range routes {
		names = append(names, tag(rt.Path))
	}
	slices.Sort(names)
	var out []Schema
	for _, name := range slices.Compact(names) {
		out = append(out, Schema{"name": name})
	}
	return out
}

func operation(rt Route, path string, names []string, schemas Schema, ids map[string]bool) Schema {
	op := Schema{
		"operationId":  operationID(rt.Method, path, ids),
		"summary":      rt.Doc,
		"tags":         []string{tag(rt.Path)},
		"x-permission": rt.Permission,
		"responses":    responses(rt, schemas),
	}
	if rt.Deprecated {
		op["deprecated"] = true
	}
	if params := parameters(rt, names); len(params) > 0 {
		op["parameters"] = params
	}
	switch rt.Permission {
	case kind.Public, kind.HeadOnly, kind.OnlyLocal:
		op["security"] = []Schema{}
	case kind.NodeOnly:
		op["security"] = []Schema{{"certificate": []string{}}, {}}
	}
	switch {
	case rt.Upload:
		op["requestBody"] = Schema{"content": Schema{"*/*": Schema{}}}
	case rt.Body != nil:
		op["requestBody"] = Schema{"content": jsonContent(component(schemas, bodySchema(rt.Body)))}
	case rt.Method != "GET":
		op["requestBody"] = Schema{"content": jsonContent(Any())}
	}
	return op
}

// bodySchema is that of a body. A Go type does not say which keys a request may
// leave out, so that of one none is required.
func bodySchema(body any) Schema {
	s := SchemaOf(body)
	if _, given := body.(Schema); !given {
		delete(s, "required")
	}
	return s
}

// operationID makes getNodeById of GET /api/v1/node/{id}.
func operationID(method, path string, ids map[string]bool) string {
	var b strings.Builder
	b.WriteString(strings.ToLower(method))
	for _, word := range strings.FieldsFunc(strings.TrimPrefix(path, Root), func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '{')
	}) {
		if name, ok := strings.CutPrefix(word, "{"); ok {
			word = "by" + strings.ToUpper(name[:1]) + name[1:]
		}
		b.WriteString(strings.ToUpper(word[:1]) + word[1:])
	}
	id := b.String()
	for n := 2; ids[id]; n++ {
		id = fmt.Sprintf("%s%d", b.String(), n)
	}
	ids[id] = true
	return id
}

func parameters(rt Route, names []string) []Schema {
	var out []Schema
	for _, name := range names {
		p := Schema{"name": strings.TrimSuffix(name, "..."), "in": "path", "required": true, "schema": Text()}
		if strings.HasSuffix(name, "...") {
			p["description"] = "the remainder of the path, slashes included"
			p["x-remainder"] = true
		}
		out = append(out, p)
	}
	for _, q := range rt.Query {
		s := Schema{"type": cmp.Or(q.Type, "string")}
		if q.Type == ManyTexts {
			s["items"] = Text()
		}
		out = append(out, Schema{"name": q.Name, "in": "query", "description": q.Doc, "schema": s})
	}
	switch {
	case rt.tagged && rt.Method == "GET":
		out = append(out, Schema{"name": "If-None-Match", "in": "header", "description": "the ETag of an earlier answer: 304 if this one would be the same", "schema": Text()})
	case rt.tagged:
		out = append(out, Schema{"name": "If-Match", "in": "header", "description": "the ETag of the object as it was read: 412 if somebody changed it since", "schema": Text()})
	}
	return out
}

// responses describes what comes back.
func responses(rt Route, schemas Schema) Schema {
	ok := Schema{"description": "Done."}
	done := Schema{"type": "object", "required": []string{"success"}, "properties": Schema{"success": Schema{"const": true}}}
	data := func(v any, required ...string) Schema {
		properties := Schema{"success": Schema{"const": true}, "data": component(schemas, SchemaOf(v))}
		return Schema{"type": "object", "required": append(required, "success"), "properties": properties}
	}
	failure := Schema{"$ref": "#/components/responses/Failure"}
	switch a := rt.Answer.(type) {
	case nil:
		content := Schema{}
		for media := range strings.SplitSeq(rt.Raw, ",") {
			content[strings.TrimSpace(media)] = Schema{}
		}
		ok["description"], ok["content"] = "As it is, without the envelope.", content
	case WebSocket:
		return Schema{"101": Schema{"description": "The connection is a websocket from here on."}, "default": failure}
	case Nothing:
		ok["content"] = jsonContent(done)
	case Maybe:
		ok["content"] = jsonContent(data(a.Of))
	default:
		ok["content"] = jsonContent(data(a, "data"))
	}
	out := Schema{"200": ok, "default": failure}
	switch {
	case rt.tagged && rt.Method == "GET":
		ok["headers"] = Schema{"ETag": Schema{"description": "names this state; for If-None-Match, and of an object for If-Match", "schema": Text()}}
		out["304"] = Schema{"description": "Not changed since the answer with that ETag."}
	case rt.tagged:
		out["412"] = Schema{"description": "It has changed meanwhile.", "content": jsonContent(ref("failure"))}
	case rt.Method == "GET" && rt.Answer == nil: // files
		out["206"] = Schema{"description": "The part that a Range asked for.", "content": ok["content"]}
		out["304"] = Schema{"description": "Not changed since the answer with that ETag."}
	}
	return out
}

// component moves a schema that has a name among the document's components.
func component(schemas Schema, s Schema) Schema {
	out := Schema{}
	for key, value := range s {
		switch v := value.(type) {
		case Schema:
			value = component(schemas, v)
		case []any:
			list := slices.Clone(v)
			for i := range list {
				if inner, ok := list[i].(Schema); ok {
					list[i] = component(schemas, inner)
				}
			}
			value = list
		}
		out[key] = value
	}
	name, ok := out[nameKey].(string)
	if !ok {
		return out
	}
	delete(out, nameKey)
	schemas[name] = out
	return ref(name)
}

// nameKey marks a schema that belongs among the components, by that name.
const nameKey = "$name"

func named(name string, s Schema) Schema {
	s[nameKey] = name
	return s
}
