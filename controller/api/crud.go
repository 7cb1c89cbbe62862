package api

import (
	"context"
	"encoding/json"
	"net/http"

	"muster/controller/registry"
	"muster/shared/fault"
	"muster/shared/kind"
)

// Root is where the published API begins.
const Root = "/api/v1"

// Objects is what the generic endpoints need of the registry.
type Objects interface {
	Specs() []*kind.Spec
	All(kindName string) []kind.Object
	Find(kindName, id string) (kind.Object, error)
	Show(kindName string, obj kind.Object) kind.Object
	Encoded(kindName string, obj kind.Object, by kind.Author) (text []byte, tag string, err error)
	Resolve(kindName, id string) (string, error)
	Create(ctx context.Context, by kind.Author, kindName string, in registry.Input) (string, error)
	Patch(ctx context.Context, by kind.Author, kindName, id string, in registry.Input) error
	Put(ctx context.Context, by kind.Author, kindName, id string, in registry.Input) error
	Delete(ctx context.Context, by kind.Author, kindName, id string) error
	Set(ctx context.Context, by kind.Author, kindName, id, path string, fn func(json.RawMessage) (json.RawMessage, error)) error
}

// crud is the generic endpoints of one kind.
type crud struct {
	objects Objects
	spec    *kind.Spec
}

// Generic gives every kind's endpoints: list, create, read, change, replace,
// delete, meta, and those of the fields that are reachable for themselves.
func Generic(objects Objects) []Route {
	var routes []Route
	for _, spec := range objects.Specs() {
		c := &crud{objects, spec}
		if spec.Singleton {
			routes = append(routes, c.singleton()...)
			continue
		}
		for _, words := range spec.Called() {
			routes = append(routes, c.class(Root+"/"+words.Plural)...)
			// Objects answer under the plural word too, as the reference's prose has it.
			for _, word := range []string{words.Name, words.Plural} {
				routes = append(routes, c.object(Root+"/"+word+"/{id}")...)
			}
		}
	}
	return routes
}

func (c *crud) class(path string) []Route {
	s := c.spec
	return []Route{
		{Method: "GET", Path: path, Permission: s.Read, Doc: "All objects of the kind " + s.Name + ", by UID.", Handler: c.list, tagged: true, Query: listParams(), Answer: ByUID(c.shown())},
		{Method: "POST", Path: path, Permission: s.Write, Doc: "Create " + s.A() + "; the answer is its UID.", Handler: c.create, Body: named(s.Name+"Create", taken(s, forCreate)), Answer: UID()},
		{Method: "GET", Path: path + "/meta", Permission: kind.Public, Doc: "What " + s.A() + " is made of.", Handler: c.meta, Answer: named("meta", SchemaOf([]metaField{}))},
	}
}

func (c *crud) object(path string) []Route {
	s := c.spec
	routes := []Route{
		{Method: "GET", Path: path, Permission: s.Read, Doc: "One " + s.Name + ".", Handler: c.get, tagged: true, Query: []Param{fieldsParam()}, Answer: c.shown()},
		{Method: "PATCH", Path: path, Permission: s.Write, Doc: "Change the fields that are sent.", Handler: c.patch, tagged: true, Body: c.change(), Answer: Nothing{}},
		{Method: "DELETE", Path: path, Permission: s.Write, Doc: "Delete it for good.", Handler: c.delete, tagged: true, Body: Any(), Answer: Nothing{}},
	}
	if !s.NoPut {
		routes = append(routes, Route{Method: "PUT", Path: path, Permission: s.Write, Doc: "Replace the whole object; what is not sent is unset.", Handler: c.put, tagged: true, Body: named(s.Name+"Replace", taken(s, forReplace)), Answer: Nothing{}})
	}
	for i := range s.Fields {
		routes = append(routes, c.sub(path, &s.Fields[i])...)
	}
	return routes
}

func (c *crud) singleton() []Route {
	path, s := Root+"/"+c.spec.Name, c.spec
	return []Route{
		{Method: "GET", Path: path, Permission: s.Read, Doc: s.Doc, Handler: c.get, tagged: true, Query: []Param{fieldsParam()}, Answer: c.shown()},
		{Method: "PATCH", Path: path, Permission: s.Write, Doc: "Change the settings that are sent.", Handler: c.patch, tagged: true, Body: c.change(), Answer: Nothing{}},
		{Method: "GET", Path: path + "/meta", Permission: kind.Public, Doc: "What there is to set.", Handler: c.meta, Answer: named("meta", SchemaOf([]metaField{}))},
	}
}

func (c *crud) shown() Schema  { return Shown(c.spec) }
func (c *crud) change() Schema { return named(c.spec.Name+"Change", taken(c.spec, forChange)) }

func (c *crud) create(w http.ResponseWriter, r *http.Request) error {
	in, err := input(w, r)
	if err != nil {
		return err
	}
	uid, err := c.objects.Create(r.Context(), By(r), c.spec.Name, in)
	if err != nil {
		return err
	}
	return Data(w, uid)
}

func (c *crud) patch(w http.ResponseWriter, r *http.Request) error {
	in, err := input(w, r)
	if err != nil {
		return err
	}
	return done(w, c.objects.Patch(conditional(r), By(r), c.spec.Name, r.PathValue("id"), in))
}

func (c *crud) put(w http.ResponseWriter, r *http.Request) error {
	in, err := input(w, r)
	if err != nil {
		return err
	}
	return done(w, c.objects.Put(conditional(r), By(r), c.spec.Name, r.PathValue("id"), in))
}

func (c *crud) delete(w http.ResponseWriter, r *http.Request) error {
	return done(w, c.objects.Delete(conditional(r), By(r), c.spec.Name, r.PathValue("id")))
}

// metaField is one line of /meta, in the published form.
type metaField struct {
	Path     string   `json:"path"`
	Summary  string   `json:"summary"`
	Source   string   `json:"source"`
	Format   string   `json:"format"`
	Required bool     `json:"required,omitempty"`
	Values   []string `json:"values,omitempty"`
	Default  any      `json:"default,omitempty"`
	Ref      string   `json:"refers_to,omitempty"`
}

func (c *crud) meta(w http.ResponseWriter, r *http.Request) error {
	out := make([]metaField, 0, len(c.spec.Fields))
	for _, f := range c.spec.Fields {
		m := metaField{f.Path, f.Summary, string(f.Source), f.Format.Name, f.Required, f.Format.Values, nil, f.Ref}
		if f.Default != "" {
			m.Default = json.RawMessage(f.Default)
		}
		out = append(out, m)
	}
	return Data(w, out)
}

// By names the caller as the author of a change.
func By(r *http.Request) kind.Author {
	c := CallerOf(r.Context())
	by := kind.Author{Name: c.Admin, Roles: c.Roles, Can: c.Can}
	if c.Addr.IsValid() {
		by.From = c.Addr.String()
	}
	return by
}

func input(w http.ResponseWriter, r *http.Request) (registry.Input, error) {
	raw, err := Body(w, r)
	if err != nil {
		return nil, err
	}
	var in registry.Input
	if raw == nil || json.Unmarshal(raw, &in) != nil || in == nil {
		return nil, fault.Invalidf("The body must be a JSON object.")
	}
	return in, nil
}

func done(w http.ResponseWriter, err error) error {
	if err != nil {
		return err
	}
	return OK(w)
}
