package gitrepo

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
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
	const private = " Where the repository is not public, a token with the permission GitreposRead is needed."
	return []api.Route{
		{Method: "GET", Path: one + "/url", Permission: kind.Public, Doc: "The URL to clone, as text." + private, Handler: s.getURL},
		{Method: "GET", Path: one + "/repo", Permission: kind.Public, Doc: "What there is below the repository, as text." + private, Handler: s.getRepo},
		{Method: "GET", Path: one + "/repo/{path...}", Permission: kind.Public, Doc: "A file of the bare repository, for clients of git, smart ones and others." + private, Handler: s.getRepo},
		{Method: "POST", Path: one + "/repo/{path...}", Permission: kind.Public, Upload: true, Handler: s.call,
			Doc: "What clients of git post to fetch, and to push, which needs a token with the permission GitreposWrite." + private},
		{Method: "GET", Path: one + "/content", Permission: kind.Public, Doc: "The files at the top of the work tree, one a line." + private, Handler: s.getContent},
		{Method: "GET", Path: one + "/content/{path...}", Permission: kind.Public, Doc: "A file of the work tree, or what is in a directory, one a line." + private, Handler: s.getContent},
		{Method: "GET", Path: one + "/sync", Permission: mayRead, Doc: "As POST, which is preferred.", Handler: s.postSync},
		{Method: "POST", Path: one + "/sync", Permission: mayRead, Doc: "Synchronize with the remote by an action: status (which only compares), checkout, reset, pull or rebase; all but status need GitreposWrite.", Handler: s.postSync},
		{Method: "GET", Path: one + "/branches", Permission: mayRead, Doc: "The branches, or some of them, with their newest commits.", Handler: s.getBranches},
		{Method: "DELETE", Path: one + "/branches", Permission: mayWrite, Doc: "Delete some branches, or all of them.", Handler: s.deleteBranches},
		{Method: "GET", Path: one + "/log", Permission: mayRead, Doc: "The newest commits of a branch; ?branch= and ?limit=.", Handler: s.getLog},
	}
}

// getURL gives the URL under which the client reached this head, which is one
// that it can reach.
func (s *Repos) getURL(w http.ResponseWriter, req *http.Request) error {
	o, r, err := s.reader(w, req)
	if err != nil {
		return err
	}
	if err := s.change(req.Context(), r, func(context.Context) error { return nil }); err != nil {
		return err
	}
	scheme := "http"
	if req.TLS != nil {
		scheme = "https"
	}
	return text(w, req, fmt.Sprintf("%s://%s%s/gitrepo/%s/repo/%s.git", scheme, host(req), api.Root, o.UID, url.PathEscape(o.Name)))
}

var hostPattern = regexp.MustCompile(`^([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?$`)

// host is the host that the client named, if it can be one, or else the address
// on which it reached us.
func host(req *http.Request) string {
	if hostPattern.MatchString(req.Host) {
		return req.Host
	}
	if a, ok := req.Context().Value(http.LocalAddrContextKey).(interface{ String() string }); ok {
		if ap, err := netip.ParseAddrPort(a.String()); err == nil {
			return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port()).String()
		}
	}
	return "localhost"
}

// branchList is a list of branches as bodies give it. Both spellings are taken.
type branchList struct {
	Branchmap   json.RawMessage `json:"branchmap"`
	Underscored json.RawMessage `json:"branch_map"`
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

func (s *Repos) postSync(w http.ResponseWriter, req *http.Request) error {
	var in struct {
		Action string `json:"action"`
		branchList
	}
	if err := api.Decode(w, req, &in); err != nil {
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
		if res, err = r.sync(ctx, j); err != nil || j.remote.url == "" {
			return plain(err)
		}
		return s.ended(ctx, o, r, j, begun, nil)
	})
	if err != nil {
		return err
	}
	s.opt.Log.Info("git repository synchronized", "name", o.Name, "action", in.Action, "admin", admin)
	return api.Data(w, res)
}

// comparison is one branch beside the remote's.
type comparison struct {
	Local        string `json:"local"`
	Remote       string `json:"remote"`
	Commit       string `json:"commit,omitempty"`
	RemoteCommit string `json:"remote_commit,omitempty"`
	Ahead        int    `json:"ahead"`  // commits that only the repository has
	Behind       int    `json:"behind"` // commits that only the remote has
}

// report answers the action status.
type report struct {
	result
	Remote   string       `json:"remote,omitempty"`
	Kind     string       `json:"kind"`            // "url", "upstream" or "none"
	Error    string       `json:"error,omitempty"` // why the remote could not be asked now
	Branches []comparison `json:"branches"`
	Last     *Last        `json:"last"`             // the last synchronization
	Next     float64      `json:"next,omitempty"`   // when the next one is due
	Synced   float64      `json:"synced,omitempty"` // when it last worked
}

func (s *Repos) status(w http.ResponseWriter, req *http.Request, o *object.Gitrepo, r *repo, mapping []object.Mapping) error {
	m := remoteOf(o)
	out := report{result: result{Action: actStatus}, Remote: m.shown(), Kind: "upstream"}
	switch {
	case m.url == "":
		out.Kind = "none"
	case m.mirror:
		out.Kind = "url"
	}
	err := s.change(req.Context(), r, func(ctx context.Context) (err error) {
		if m.url != "" {
			if err := r.fetch(ctx, m); ctx.Err() != nil {
				return err
			} else if err != nil {
				out.Error = fault.Of(plain(err)).Reason
			}
		}
		if out.Head, err = r.headBranch(ctx); err != nil {
			return err
		}
		if out.Commit, err = r.head(ctx); err != nil {
			return err
		}
		out.Branches, err = r.compare(ctx, job{action: actStatus, mapping: mapping, remote: m})
		return err
	})
	if err != nil {
		return err
	}
	st := r.known()
	out.Last, out.Synced = st.Last, st.Synced
	if at, ok := s.due(o, st, s.opt.Now()); ok {
		out.Next = max(0, seconds(at))
	}
	return api.Data(w, out)
}

// maxCompared bounds the branches whose commits are counted: each costs a run
// of git.
const maxCompared = 200

func (r *repo) compare(ctx context.Context, j job) ([]comparison, error) {
	local, err := r.branches(ctx, localPrefix)
	if err != nil {
		return nil, err
	}
	theirs, err := r.branches(ctx, remotePrefix)
	if err != nil {
		return nil, err
	}
	pairs := j.mapping
	if len(pairs) == 0 {
		names := maps.Clone(local)
		if j.remote.url != "" {
			maps.Copy(names, theirs)
		}
		for _, name := range slices.Sorted(maps.Keys(names)) {
			pairs = append(pairs, object.Mapping{Local: name, Remote: name})
		}
	}
	out := []comparison{}
	for i, m := range pairs {
		c := comparison{Local: m.Local, Remote: m.Remote, Commit: local[m.Local].Commit}
		if j.remote.url != "" {
			c.RemoteCommit = theirs[m.Remote].Commit
		}
		if c.Commit != "" && c.RemoteCommit != "" && i < maxCompared {
			if c.Ahead, c.Behind, err = r.apart(ctx, c.Commit, c.RemoteCommit); err != nil {
				return nil, err
			}
		}
		out = append(out, c)
	}
	return out, nil
}

// listed is a branch in a list.
type listed struct {
	branch
	Head   bool   `json:"head"`             // it is checked out
	Remote string `json:"remote,omitempty"` // the remote's branch that it follows, or is
	Of     string `json:"of"`               // "local", or "remote" for one of the remote's
}

func (s *Repos) getBranches(w http.ResponseWriter, req *http.Request) error {
	var in struct {
		branchList
		All    bool   `json:"all"`
		Filter string `json:"filter"`
	}
	raw, err := api.Body(w, req)
	if err == nil && raw != nil {
		err = api.Strict(raw, &in)
	}
	if err != nil {
		return err
	}
	asked, err := in.mapping()
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
		return !filter.MatchString(b.Name) || asked != nil && !slices.ContainsFunc(asked, wanted)
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
	var in struct {
		Branches []string `json:"branches"`
		All      bool     `json:"all"`
	}
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
		gone, err = r.remove(ctx, in.Branches)
		return err
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
