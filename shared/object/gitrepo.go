package object

import (
	"encoding/json"
	"fmt"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"muster/shared/fault"
	"muster/shared/kind"
)

// Gitrepo is a git repository that the head hosts.
type Gitrepo struct {
	kind.Meta
	Name        string   `json:"name"`
	Description string   `json:"description,omitempty"`
	Public      bool     `json:"public"`
	URL         string   `json:"url,omitempty"`
	Upstream    string   `json:"upstream,omitempty"`
	BranchMap   []string `json:"branch_map,omitempty"` // "LOCAL:REMOTE", or "NAME" for the same on both sides
	SyncPeriod  Period   `json:"sync_period,omitempty"`
	Confined    bool     `json:"confined,omitempty"`
}

// Remote gives what the repository is synchronized with; mirror says that it is
// a copy and holds nothing of its own. Empty for a repository of users alone.
func (g *Gitrepo) Remote() (remote string, mirror bool) {
	if g.URL != "" {
		return g.URL, true
	}
	return g.Upstream, false
}

// Period is a time between events, as its admin wrote it: a number of seconds,
// or a number and one of s, m, h, d. It is JSON accordingly.
type Period string

var periodPattern = regexp.MustCompile(`^([0-9]{1,9})([smhd]?)$`)

// maxPeriod keeps what is meant as "never" from overflowing.
const maxPeriod = 10 * 365 * 24 * time.Hour

// Duration gives the time, 0 for none.
func (p Period) Duration() time.Duration {
	m := periodPattern.FindStringSubmatch(string(p))
	if m == nil {
		return 0
	}
	n, _ := strconv.Atoi(m[1]) // nine digits
	unit := map[string]time.Duration{"": time.Second, "s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour}[m[2]]
	if time.Duration(n) > maxPeriod/unit {
		return maxPeriod + 1
	}
	return time.Duration(n) * unit
}

// MarshalJSON writes plain seconds as a number.
func (p Period) MarshalJSON() ([]byte, error) {
	if n, err := strconv.Atoi(string(p)); err == nil {
		return strconv.AppendInt(nil, int64(n), 10), nil
	}
	return json.Marshal(string(p))
}

// UnmarshalJSON takes both forms, and null for none.
func (p *Period) UnmarshalJSON(raw []byte) error {
	*p = Period(strings.Trim(string(raw), `"`))
	if *p == "null" { // older heads stored the word
		*p = ""
	}
	return nil
}

var periodFormat = kind.Format{Name: "period", Parse: func(raw json.RawMessage) (any, error) {
	text := strings.TrimSpace(string(raw))
	if strings.HasPrefix(text, `"`) {
		var s string
		if err := json.Unmarshal(raw, &s); err != nil {
			return nil, err
		}
		text = s
	}
	p := Period(text)
	switch {
	case !periodPattern.MatchString(text):
		return nil, fmt.Errorf(`%.40q is neither a whole number of seconds nor one with a unit, such as "10m", "2h" or "1d"`, text)
	case p.Duration() > maxPeriod:
		return nil, fmt.Errorf("%s is longer than ten years", text)
	}
	return p, nil
}}

// A name of a branch is a conservative subset of what git takes: letters,
// digits and . _ + / @ # = - , in parts that do not begin with a dot or dash.
var branchPattern = regexp.MustCompile(`^[\p{L}\p{N}_+@#=][\p{L}\p{N}._+@#=,-]*(/[\p{L}\p{N}_+@#=][\p{L}\p{N}._+@#=,-]*)*$`)

const maxBranch = 200 // bytes; a file name with room for git's .lock

// BranchName checks the name of a branch. What it takes is never an option, a
// path out of the repository or a revision expression.
func BranchName(s string) error {
	bad := len(s) > maxBranch || !branchPattern.MatchString(s) || strings.Contains(s, "..") || s == "@" || s == "HEAD"
	for part := range strings.SplitSeq(s, "/") {
		bad = bad || strings.HasSuffix(part, ".lock") || strings.HasSuffix(part, ".")
	}
	if bad {
		return fmt.Errorf("%.80q is no good as the name of a branch", s)
	}
	return nil
}

// Mapping says which branch here follows which branch of the remote.
type Mapping struct{ Local, Remote string }

// ParseMapping reads "LOCAL:REMOTE" or "NAME".
func ParseMapping(s string) (Mapping, error) {
	local, remote, two := strings.Cut(s, ":")
	if !two {
		remote = local
	}
	for _, name := range []string{local, remote} {
		if err := BranchName(name); err != nil {
			return Mapping{}, err
		}
	}
	return Mapping{local, remote}, nil
}

const maxMappings = 1000

var branchMapFormat = kind.Format{Name: "branch-map", Parse: func(raw json.RawMessage) (any, error) {
	v, err := kind.List("branch-map", kind.Format{Name: "mapping", Parse: parseMapping}).Parse(raw)
	if err != nil {
		return nil, err
	}
	list, locals := v.([]string), map[string]bool{}
	if len(list) > maxMappings {
		return nil, fmt.Errorf("%d mappings are too many, at most %d are taken", len(list), maxMappings)
	}
	for _, s := range list {
		m, _ := ParseMapping(s) // checked above
		if locals[m.Local] {
			return nil, fmt.Errorf("branch %s is mapped twice", m.Local)
		}
		locals[m.Local] = true
	}
	return list, nil
}}

// parseMapping takes the text form, {"local": …, "remote": …} and {"LOCAL": "REMOTE"}.
func parseMapping(raw json.RawMessage) (any, error) {
	var s string
	var pair map[string]string
	switch {
	case json.Unmarshal(raw, &s) == nil:
	case json.Unmarshal(raw, &pair) == nil && len(pair) == 1:
		for local, remote := range pair {
			s = local + ":" + remote
		}
	case len(pair) == 2 && pair["local"] != "" && pair["remote"] != "":
		s = pair["local"] + ":" + pair["remote"]
	default:
		return nil, fmt.Errorf(`%.60s is no mapping such as "main:master"`, raw)
	}
	_, err := ParseMapping(s)
	return s, err
}

// ParseBranchMap reads a list of mappings as the field branch_map takes it.
func ParseBranchMap(raw json.RawMessage) ([]Mapping, error) {
	v, err := branchMapFormat.Parse(raw)
	if err != nil {
		return nil, err
	}
	return Mappings(v.([]string)), nil
}

// Mappings gives stored mappings; what cannot be one is passed over.
func Mappings(list []string) []Mapping {
	var out []Mapping
	for _, s := range list {
		if m, err := ParseMapping(s); err == nil {
			out = append(out, m)
		}
	}
	return out
}

var (
	scpPattern  = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]*@[A-Za-z0-9][A-Za-z0-9.-]*:[^:\s-][^\s]*$`)
	hostPattern = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]*$|^[0-9a-fA-F:.]+$`)
	userPattern = regexp.MustCompile(`^[^-\s:@/][^\s:@/]*$`)
	plainURL    = regexp.MustCompile(`^[!-~]+$`) // printable ASCII
)

const maxGitURL = 2048 // bytes

// gitURL is where git may fetch from. Nothing that it takes is an option or
// names a helper program of git (ext::).
var gitURL = kind.Parsed("git-url", func(s string) (string, error) {
	const forms = "want https://, http://, ssh://, git:// or user@host:path"
	switch {
	case len(s) > maxGitURL || !plainURL.MatchString(s):
		return "", fmt.Errorf("%.80q has characters that a URL cannot have, or is longer than %d; %s", s, maxGitURL, forms)
	case scpPattern.MatchString(s) && !strings.Contains(s, "://"):
		return s, nil
	case LocalURL(s):
		return s, localPath(s)
	}
	u, err := url.Parse(s)
	if err != nil || !slices.Contains([]string{"https", "http", "ssh", "git"}, u.Scheme) || !strings.HasPrefix(s, u.Scheme+"://") {
		return "", fmt.Errorf("%.80q is not a URL that git can fetch from; %s", s, forms)
	}
	password, secret := u.User.Password()
	switch {
	case !hostPattern.MatchString(u.Hostname()):
		return "", fmt.Errorf("%q is no host name", u.Hostname())
	case strings.Trim(u.Path, "/") == "" || u.Fragment != "" || strings.HasPrefix(u.Path, "/-"):
		return "", fmt.Errorf("%.80q names no repository", u.Redacted())
	case u.User != nil && !userPattern.MatchString(u.User.Username()):
		return "", fmt.Errorf("%q is no user name", u.User.Username())
	case u.User != nil && u.Scheme == "git", secret && u.Scheme == "ssh":
		return "", fmt.Errorf("%s does not log in by a password", u.Scheme)
	case strings.ContainsAny(password, "\r\n\x00"):
		return "", fmt.Errorf("the password has a line break")
	}
	return s, nil
})

// LocalURL says whether a URL names a path on the head itself.
func LocalURL(s string) bool { return strings.HasPrefix(s, "file://") || strings.HasPrefix(s, "/") }

func localPath(s string) error {
	p := strings.TrimPrefix(s, "file://")
	if !strings.HasPrefix(p, "/") || path.Clean(p) != strings.TrimSuffix(p, "/") || p == "/" {
		return fmt.Errorf("%.80q must be an absolute path without . and .. in it", s)
	}
	return nil
}

// hiddenPassword stands for a password in what is shown.
const hiddenPassword = "********"

// HidePassword gives a URL as it may be shown.
func HidePassword(s string) string {
	u, err := url.Parse(s)
	if err != nil || u.User == nil {
		return s
	}
	if _, ok := u.User.Password(); !ok {
		return s
	}
	user := u.User.Username()
	u.User = nil
	return strings.Replace(u.String(), "://", "://"+url.User(user).String()+":"+hiddenPassword+"@", 1)
}

func gitrepo() *kind.Spec {
	return &kind.Spec{
		Name: KindGitrepo, Plural: "gitrepos", Title: "Gitrepo",
		Doc:     "A git repository that the head hosts.",
		New:     func() kind.Object { return &Gitrepo{} },
		Names:   []string{"name"},
		Read:    "GitreposRead",
		Write:   "GitreposWrite",
		Columns: []string{"name", "public", "url", "upstream", "sync_period", "description"},
		Check:   checkGitrepo,
		Prepare: prepareGitrepo,
		Show: func(_ kind.Look, obj kind.Object) kind.Object {
			g := *obj.(*Gitrepo)
			g.URL, g.Upstream = HidePassword(g.URL), HidePassword(g.Upstream)
			return &g
		},
		Fields: meta(
			nameField(true),
			descriptionField(),
			kind.Field{Path: "public", Summary: "anybody may read it; when false, a token is needed", Source: kind.User, Format: kind.Bool, Default: "true"},
			kind.Field{Path: "url", Summary: "the repository that this one is a copy of; excludes upstream", Source: kind.User, Format: gitURL},
			kind.Field{Path: "upstream", Summary: "the repository whose changes are taken into this one; excludes url", Source: kind.User, Format: gitURL},
			kind.Field{Path: "branch_map", Summary: "LOCAL:REMOTE, or NAME for both, of the branches to synchronize; all when unset", Source: kind.User, Format: branchMapFormat},
			kind.Field{Path: "sync_period", Summary: `time between synchronizations: seconds, or such as "10m", "2h", "1d"`, Source: kind.User, Format: periodFormat},
			kind.Field{Path: "confined", Summary: "who named the remote may not do everything, so that it cannot redirect, or be the head itself", Source: kind.Head, Format: kind.Bool},
		),
	}
}

func checkGitrepo(obj kind.Object) error {
	g := obj.(*Gitrepo)
	if g.URL != "" && g.Upstream != "" {
		return fault.Invalidf("url and upstream exclude each other: unset one with null to set the other.")
	}
	remote, _ := g.Remote()
	if strings.Contains(remote, ":"+hiddenPassword+"@") {
		return fault.Invalidf("The URL holds %s where its password belongs: write the password itself, or leave the field out.", hiddenPassword)
	}
	return nil
}

// prepareGitrepo puts the password back into a URL that comes back as it was
// shown, and keeps paths and addresses of the head for those who may do
// everything: git acts there as the head's own user.
func prepareGitrepo(tx kind.Tx, obj, old kind.Object) error {
	g, was := obj.(*Gitrepo), &Gitrepo{}
	if old != nil {
		was = old.(*Gitrepo)
	}
	for _, f := range []struct {
		name     string
		now      *string
		previous string
	}{{"url", &g.URL, was.URL}, {"upstream", &g.Upstream, was.Upstream}} {
		if *f.now != f.previous && *f.now == HidePassword(f.previous) {
			*f.now = f.previous
		}
		if *f.now == f.previous || *f.now == "" {
			continue
		}
		g.Confined = !tx.By().Itself() && !slices.Contains(tx.By().Roles, RoleFullAdmin)
		if LocalURL(*f.now) && g.Confined {
			return fault.New(fault.Forbidden, "%s: only an admin with %s may name a path on the head; use a URL.", f.name, RoleFullAdmin)
		}
		if err := guardHost(tx, f.name, GitHost(*f.now)); err != nil {
			return err
		}
	}
	if g.URL == "" && g.Upstream == "" {
		g.Confined = false
	}
	return nil
}

// GitHost is the host of a remote, "" for a path on the head.
func GitHost(remote string) string {
	if LocalURL(remote) {
		return ""
	}
	if u, err := url.Parse(remote); err == nil && strings.Contains(remote, "://") {
		return u.Hostname()
	}
	host, _, _ := strings.Cut(remote, ":") // user@host:path
	return host[strings.LastIndexByte(host, '@')+1:]
}
