// Package audit shows the audit trail: who changed what, from what to what, and
// who ran commands or logged in.
//
// The records are written by the registry, with the changes that they tell of;
// this package only reads them.
package audit

import (
	"context"
	"math"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"muster/controller/api"
	"muster/controller/registry"
	"muster/shared/fault"
	"muster/shared/kind"
)

// Trail is what the package needs of the registry.
type Trail interface {
	Specs() []*kind.Spec
	Audit(ctx context.Context, q registry.Trail) ([]registry.Entry, error)
}

// Audit serves the endpoint.
type Audit struct {
	Trail Trail
}

var idPattern = regexp.MustCompile(`^[0-9a-f]{20}$`)

// How many records are given at once.
const (
	usual = 100
	most  = 10_000
)

// Routes is the endpoint.
func (a *Audit) Routes() []api.Route {
	return []api.Route{{
		Method: "GET", Path: api.Root + "/audit", Permission: kind.AuditRead, Handler: a.list, Answer: []registry.Entry{},
		Doc: "Who did what: the newest records that the filters pick, oldest first. Secrets are left out.",
		Query: []api.Param{
			{Name: "kind", Doc: "only objects of this kind"},
			{Name: "uid", Doc: "only the object with this UID"},
			{Name: "name", Doc: "only objects that had this name"},
			{Name: "admin", Doc: "only what this admin did"},
			{Name: "action", Doc: "only this: create, change, delete, exec, login, …"},
			{Name: "since", Doc: "only from this time on: seconds since 1970 or RFC 3339"},
			{Name: "before", Doc: "only before the record with this ID: for the next older ones"},
			{Name: "limit", Type: "integer", Doc: "how many at most: 100 unless given, 10000 at most"},
		},
	}}
}

func (a *Audit) list(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	t := registry.Trail{Limit: usual, Before: q.Get("before")}
	var err error
	if text := q.Get("limit"); text != "" {
		if t.Limit, err = strconv.Atoi(text); err != nil || t.Limit < 1 || t.Limit > most {
			return fault.Invalidf("limit: %q is not a number from 1 to %d.", text, most)
		}
	}
	if t.Before != "" && !idPattern.MatchString(t.Before) {
		return fault.Invalidf("before: %q is not the id of a record.", t.Before)
	}
	if t.Since, err = since(q.Get("since")); err != nil {
		return err
	}
	if t.Match, err = a.match(q); err != nil {
		return err
	}
	entries, err := a.Trail.Audit(r.Context(), t)
	if err != nil {
		return err
	}
	seesAll := api.CallerOf(r.Context()).Can(kind.ReservedAttribRead)
	for i := range entries {
		if !seesAll {
			a.conceal(&entries[i])
		}
	}
	return api.Data(w, append([]registry.Entry{}, entries...))
}

// since reads a time.
func since(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	s, err := strconv.ParseFloat(text, 64)
	if err != nil || !(math.Abs(s) < 1e10) {
		return time.Time{}, fault.Invalidf("since: %q is neither seconds since 1970 nor a time such as 2026-01-31T12:00:00Z.", text)
	}
	return time.UnixMicro(int64(s * 1e6)), nil
}

func (a *Audit) match(q url.Values) (func(*registry.Entry) bool, error) {
	want := map[string]string{}
	for _, key := range []string{"kind", "uid", "name", "admin", "action"} {
		if v := q.Get(key); v != "" {
			want[key] = v
		}
	}
	if k := want["kind"]; k != "" {
		known := false
		for _, spec := range a.Trail.Specs() {
			known = known || spec.Name == k
		}
		if !known {
			return nil, fault.Invalidf("kind: there is no kind %q.", k)
		}
	}
	if len(want) == 0 {
		return nil, nil
	}
	return func(e *registry.Entry) bool {
		for key, have := range map[string]string{"kind": e.Kind, "uid": e.UID, "name": e.Name, "admin": e.Admin, "action": e.Action} {
			if v, ok := want[key]; ok && v != have {
				return false
			}
		}
		return true
	}, nil
}

// conceal leaves out what the caller could not read of the object either.
func (a *Audit) conceal(e *registry.Entry) {
	var spec *kind.Spec
	for _, s := range a.Trail.Specs() {
		if s.Name == e.Kind {
			spec = s
		}
	}
	for path, d := range e.Changes {
		if _, key, ok := strings.Cut(path, "."); ok && kind.Reserved(key) || spec != nil && tells(spec, path, d) {
			delete(e.Changes, path)
		}
	}
}

// tells says whether one side of a field's change tells of reserved keys.
func tells(spec *kind.Spec, path string, d registry.Delta) bool {
	f, ok := spec.Field(path)
	if !ok || f.Tells == nil {
		return false
	}
	for _, side := range []jsontext.Value{d.From, d.To} {
		if text, err := jsontext.AppendUnquote(nil, side); side != nil && (err != nil || f.Tells(string(text))) {
			return true
		}
	}
	return false
}
