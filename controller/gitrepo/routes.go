package gitrepo

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"muster/controller/api"
	"muster/shared/fault"
	"muster/shared/kind"
	"muster/shared/object"
)

// Routes are the endpoints. Those that are public check by themselves whether
// the repository is.
func (s *Repos) Routes() []api.Route {
	one := api.Root + "/gitrepo/{id}"
	const plainText, file = "text/plain", "text/plain, application/octet-stream"
	advertised := fmt.Sprintf("%s, %s, %s", file, mediaOf(uploadPack, "advertisement"), mediaOf(receivePack, "advertisement"))
	results := mediaOf(uploadPack, "result") + ", " + mediaOf(receivePack, "result")
	synced := api.AnyOf(result{}, report{})
	mapped := api.Param{Name: "branchmap", Doc: "branches, with commas; like the other keys instead of a body"}
	syncQuery := []api.Param{{Name: "action", Doc: "status, checkout, reset, pull or rebase"}, mapped}
	branchesQuery := []api.Param{mapped, {Name: "all", Doc: "those of the remote too", Type: "boolean"}, {Name: "filter", Doc: "a pattern such as feature/*"}}
	const private = " Where the repository is not public, a token with the permission GitreposRead is needed."
	return []api.Route{
		{Method: "GET", Path: one + "/url", Permission: kind.Public, Doc: "The URL to clone, as text." + private, Raw: plainText, Handler: s.getURL},
		{Method: "GET", Path: one + "/repo", Permission: kind.Public, Doc: "What there is below the repository, as text." + private, Raw: plainText, Handler: s.getRepo},
		{Method: "GET", Path: one + "/repo/{path...}", Permission: kind.Public, Doc: "A file of the bare repository, for clients of git, smart ones and others." + private, Raw: advertised, Handler: s.getRepo,
			Query: []api.Param{{Name: "service", Doc: "what a client of git asks info/refs for"}}},
		{Method: "POST", Path: one + "/repo/{path...}", Permission: kind.Public, Upload: true, Raw: results, Handler: s.call,
			Doc: "What clients of git post to fetch, and to push, which needs a token with the permission GitreposWrite." + private},
		{Method: "GET", Path: one + "/content", Permission: kind.Public, Doc: "The files at the top of the work tree, one a line." + private, Raw: plainText, Handler: s.getContent},
		{Method: "GET", Path: one + "/content/{path...}", Permission: kind.Public, Doc: "A file of the work tree, or what is in a directory, one a line." + private, Raw: file, Handler: s.getContent},
		{Method: "GET", Path: one + "/sync", Permission: mayRead, Doc: "As POST, which is preferred.", Query: syncQuery, Body: syncBody{}, Answer: synced, Handler: s.postSync},
		{Method: "POST", Path: one + "/sync", Permission: mayRead, Doc: "Synchronize with the remote by an action: status (which only compares), checkout, reset, pull or rebase; all but status need GitreposWrite.", Query: syncQuery, Body: syncBody{}, Answer: synced, Handler: s.postSync},
		{Method: "GET", Path: one + "/branches", Permission: mayRead, Doc: "The branches, or some of them, with their newest commits.", Query: branchesQuery, Body: branchesBody{}, Answer: []listed{}, Handler: s.getBranches},
		{Method: "DELETE", Path: one + "/branches", Permission: mayWrite, Doc: "Delete some branches, or all of them.", Body: deleteBody{}, Answer: api.Nothing{}, Handler: s.deleteBranches},
		{Method: "GET", Path: one + "/log", Permission: mayRead, Doc: "The newest commits of a branch.", Answer: []commit{}, Handler: s.getLog,
			Query: []api.Param{{Name: "branch", Doc: "the one that is checked out when not given"}, {Name: "limit", Doc: "how many, 20 when not given", Type: "integer"}}},
	}
}

// getURL gives the URL under which the client reached this head, which is one
// that it can reach.
func (s *Repos) getURL(w http.ResponseWriter, req *http.Request) error {
	o, _, err := s.reader(w, req)
	if err != nil {
		return err
	}
	name, port, err := api.Host(req)
	if err != nil {
		return err
	}
	scheme := "http"
	if req.TLS != nil {
		scheme = "https"
	}
	return text(w, req, fmt.Sprintf("%s://%s%s/gitrepo/%s/repo/%s.git", scheme, api.HostPort(name, port), api.Root, o.UID, url.PathEscape(strings.TrimSuffix(o.Name, ".git"))))
}

// asked reads the body into in; without one it is the query that says what is
// wanted: many clients cannot send a body with GET.
func asked(w http.ResponseWriter, req *http.Request, in any, fromQuery func(url.Values) error) error {
	raw, err := api.Body(w, req)
	switch {
	case err != nil:
		return err
	case raw == nil:
		return fromQuery(req.URL.Query())
	}
	return api.Strict(raw, in)
}

// listOf is words with commas as a list of JSON, nil for none.
func listOf(words string) json.RawMessage {
	if words == "" {
		return nil
	}
	raw, _ := json.Marshal(strings.Split(words, ",")) // strings can always be written
	return raw
}

// branchList is a list of branches as bodies give it. Both spellings are taken.
type branchList struct {
	Branchmap   json.RawMessage `json:"branchmap,omitempty"`
	Underscored json.RawMessage `json:"branch_map,omitempty"`
}

// mapping gives nil for none.
func (b branchList) mapping() ([]object.Mapping, error) {
	raw := b.Branchmap
	if raw == nil {
		raw = b.Underscored
	} else if b.Underscored != nil {
		return nil, fault.Invalidf("branchmap and branch_map are the same: give one.")
	}
	if raw == nil || string(raw) == "null" {
		return nil, nil
	}
	m, err := object.ParseBranchMap(raw)
	if err != nil {
		return nil, fault.Invalidf("branchmap: %v.", err)
	}
	return m, nil
}

// syncBody says how to synchronize.
type syncBody struct {
	Action string `json:"action"`
	branchList
}

func (s *Repos) postSync(w http.ResponseWriter, req *http.Request) error {
	in := syncBody{}
	err := asked(w, req, &in, func(q url.Values) error {
		in.Action, in.Branchmap = q.Get("action"), listOf(q.Get("branchmap"))
		return nil
	})
	if err != nil {
		return err
	}
	if !slices.Contains(actions, in.Action) {
		return fault.Invalidf("action: %.100q is none of %s.", in.Action, strings.Join(actions, ", "))
	}
	mapping, err := in.mapping()
	if err != nil {
		return err
	}
	o, r, err := s.find(req.PathValue("id"))
	if err != nil {
		return err
	}
	if len(mapping) == 0 && in.Action != actCheckout {
		mapping = object.Mappings(o.BranchMap)
	}
	if in.Action == actStatus {
		return s.status(w, req, o, r, mapping)
	}
	if _, err := s.opt.Auth.Authenticate(req, mayWrite); err != nil {
		return err
	}
	admin := api.By(req).Name
	var res *result
	err = s.change(req.Context(), r, func(ctx context.Context) error {
		j, begun := job{in.Action, mapping, remoteOf(o), s.author(admin)}, s.opt.Now()
		var err error
		if res, err = r.sync(ctx, j); err != nil {
			return plain(err)
		}
		if err := s.opt.Record(context.WithoutCancel(ctx), api.By(req), o, "sync", res.detail(j.remote)); err != nil || j.remote.url == "" {
			return err
		}
		return s.ended(o, r, j, begun, nil)
	})
	if err != nil {
		return err
	}
	s.opt.Log.Info("git repository synchronized", "name", o.Name, "action", in.Action, "admin", admin)
	return api.Data(w, res)
}
