package gitrepo

import (
	"context"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"muster/controller/api"
	"muster/shared/fault"
	"muster/shared/object"
)

// listed is a branch in a list.
type listed struct {
	branch
	Head   bool   `json:"head"`             // it is checked out
	Remote string `json:"remote,omitempty"` // the remote's branch that it follows, or is
	Of     string `json:"of"`               // "local", or "remote" for one of the remote's
}

// branchesBody says which branches to list: all of the repository's when empty.
type branchesBody struct {
	branchList
	All    bool   `json:"all"`
	Filter string `json:"filter"`
}

// deleteBody says which branches to delete.
type deleteBody struct {
	Branches []string `json:"branches"`
	All      bool     `json:"all"`
}

func (s *Repos) getBranches(w http.ResponseWriter, req *http.Request) error {
	var in branchesBody
	err := asked(w, req, &in, func(q url.Values) (err error) {
		in.Branchmap, in.Filter = listOf(q.Get("branchmap")), q.Get("filter")
		if text := q.Get("all"); text != "" {
			if in.All, err = strconv.ParseBool(text); err != nil {
				return fault.Invalidf("all: %.40q is neither true nor false.", text)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	only, err := in.mapping()
	if err != nil {
		return err
	}
	filter, err := glob(in.Filter)
	if err != nil {
		return err
	}
	o, r, err := s.find(req.PathValue("id"))
	if err != nil {
		return err
	}
	if err := s.ready(req.Context(), o, r); err != nil {
		return err
	}
	out, err := r.list(req.Context(), o, in.All)
	if err != nil {
		return err
	}
	return api.Data(w, slices.DeleteFunc(out, func(b listed) bool {
		wanted := func(m object.Mapping) bool {
			return b.Of == "local" && m.Local == b.Name || b.Of == "remote" && m.Remote == b.Name
		}
		return !filter.MatchString(b.Name) || only != nil && !slices.ContainsFunc(only, wanted)
	}))
}

// list gives the repository's branches, and with all those of the remote.
func (r *repo) list(ctx context.Context, o *object.Gitrepo, all bool) ([]listed, error) {
	local, err := r.branches(ctx, localPrefix)
	if err != nil {
		return nil, err
	}
	theirs := map[string]branch{}
	if m := remoteOf(o); m.url != "" {
		if theirs, err = r.branches(ctx, remotePrefix); err != nil {
			return nil, err
		}
	}
	head, err := r.headBranch(ctx)
	if err != nil {
		return nil, err
	}
	follows := map[string]string{}
	for _, m := range object.Mappings(o.BranchMap) {
		follows[m.Local] = m.Remote
	}
	out := []listed{}
	for _, name := range slices.Sorted(maps.Keys(local)) {
		b := listed{branch: local[name], Head: name == head, Remote: follows[name], Of: "local"}
		if _, ok := theirs[name]; ok && len(follows) == 0 {
			b.Remote = name
		}
		out = append(out, b)
	}
	for _, name := range slices.Sorted(maps.Keys(theirs)) {
		if all {
			out = append(out, listed{branch: theirs[name], Remote: name, Of: "remote"})
		}
	}
	return out, nil
}

// glob reads a filter of names: * and ? stand for anything, / included; without
// them it is a part of the name.
func glob(filter string) (*regexp.Regexp, error) {
	if len(filter) > 1024 {
		return nil, fault.Invalidf("filter: %d bytes are too long, at most 1024 are taken.", len(filter))
	}
	quoted := strings.NewReplacer(`\*`, ".*", `\?`, ".").Replace(regexp.QuoteMeta(filter))
	if strings.ContainsAny(filter, "*?") {
		quoted = "^" + quoted + "$"
	}
	re, err := regexp.Compile(quoted)
	if err != nil {
		return nil, fault.Invalidf("filter: %q cannot be read.", filter)
	}
	return re, nil
}

func (s *Repos) deleteBranches(w http.ResponseWriter, req *http.Request) error {
	var in deleteBody
	if err := api.Decode(w, req, &in); err != nil {
		return err
	}
	if in.All == (in.Branches != nil) {
		return fault.Invalidf("Give either branches, a list of those to delete, or all, as true.")
	}
	o, r, err := s.find(req.PathValue("id"))
	if err != nil {
		return err
	}
	var gone []string
	err = s.change(req.Context(), r, func(ctx context.Context) (err error) {
		if gone, err = r.remove(ctx, in.Branches); err != nil || len(gone) == 0 {
			return err
		}
		return s.opt.Record(context.WithoutCancel(ctx), api.By(req), o, "delete branches", map[string]string{"branches": strings.Join(gone, ", ")})
	})
	if err != nil {
		return err
	}
	s.opt.Log.Info("git branches deleted", "name", o.Name, "branches", gone, "admin", api.By(req).Name)
	return api.OK(w)
}

const (
	usualLog = 20
	maxLog   = 1000
)

// commit is one line of a log.
type commit struct {
	Commit  string  `json:"commit"`
	Author  string  `json:"author"`
	Time    float64 `json:"time"`
	Subject string  `json:"subject"`
}

func (s *Repos) getLog(w http.ResponseWriter, req *http.Request) error {
	o, r, err := s.find(req.PathValue("id"))
	if err != nil {
		return err
	}
	rev, limit := "HEAD", usualLog
	if name := req.URL.Query().Get("branch"); name != "" {
		if err := object.BranchName(name); err != nil {
			return fault.Invalidf("branch: %v.", err)
		}
		rev = localPrefix + name
	}
	if text := req.URL.Query().Get("limit"); text != "" {
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > maxLog {
			return fault.Invalidf("limit: %.40q is not between 1 and %d.", text, maxLog)
		}
	}
	if err := s.ready(req.Context(), o, r); err != nil {
		return err
	}
	tip, err := r.git.text(req.Context(), r.bare(), "rev-parse", "--verify", "--quiet", rev+"^{commit}")
	switch {
	case status(err) > 0 && rev == "HEAD":
		return api.Data(w, []commit{}) // nothing was committed yet
	case status(err) > 0:
		return fault.New(fault.NotFound, "The git repository %s has no branch %q.", o.Name, strings.TrimPrefix(rev, localPrefix))
	case err != nil:
		return err
	}
	out, err := r.git.do(req.Context(), run{dir: r.bare(), args: []string{"log", "-z", "--format=%H%x01%an%x01%ct%x01%s", "-n", strconv.Itoa(limit), tip, "--"}})
	if err != nil {
		return err
	}
	list := []commit{}
	for entry := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		if f := strings.SplitN(entry, "\x01", 4); len(f) == 4 {
			at, _ := strconv.ParseFloat(f[2], 64)
			list = append(list, commit{f[0], strings.ToValidUTF8(f[1], "\ufffd"), at, strings.ToValidUTF8(f[3], "\ufffd")})
		}
	}
	return api.Data(w, list)
}
