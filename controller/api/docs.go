package api

import (
	"bytes"
	_ "embed" // for the page
	"encoding/json"
	"html/template"
	"maps"
	"slices"
	"strings"
)

//go:embed docs.html
var docsHTML string

// docsPage shows the document to people. It is one page without scripts: it
// can be read, searched and printed without any network.
func docsPage(routes []Route) ([]byte, error) {
	type endpoint struct {
		Route
		ID, Params, Body, Answer string
	}
	type part struct {
		Name      string
		Endpoints []endpoint
	}
	var parts []part
	for _, t := range tags(routes) {
		p := part{Name: t["name"].(string)}
		for _, rt := range routes {
			if tag(rt.Path) != p.Name {
				continue
			}
			e := endpoint{Route: rt, ID: rt.Method + strings.ReplaceAll(rt.Path, "/", "-")}
			var err error
			if e.Body, err = pretty(rt.Body); err != nil {
				return nil, err
			}
			if e.Answer, err = pretty(rt.Answer); err != nil {
				return nil, err
			}
			p.Endpoints = append(p.Endpoints, e)
		}
		slices.SortStableFunc(p.Endpoints, func(a, b endpoint) int { return strings.Compare(a.Path, b.Path) })
		parts = append(parts, p)
	}
	page, err := template.New("docs").Parse(docsHTML)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = page.Execute(&out, struct {
		Parts   []part
		OpenAPI string
	}{parts, PathOpenAPI})
	return out.Bytes(), err
}

// pretty is a schema as people read it.
func pretty(v any) (string, error) {
	switch a := v.(type) {
	case nil, Nothing, WebSocket:
		return "", nil
	case Maybe:
		v = a.Of
	}
	s := maps.Clone(SchemaOf(v))
	delete(s, nameKey)
	raw, err := json.MarshalIndent(s, "", "  ")
	return string(raw), err
}
