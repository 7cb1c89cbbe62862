package repo

import (
	"fmt"
	"net/http"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"muster/controller/api"
	"muster/images/repotree"
	"muster/shared/fault"
	"muster/shared/object"
)

// section is one repository as a package manager knows it.
type section struct {
	id         string // letters, digits, - _ and .
	title      string // one line
	urls       []string
	list       string   // URL of a list of all of urls, where there are several
	suite      string   // of deb; "" where it follows from the release
	components []string // of deb
	disabled   bool
	unchecked  bool // signatures need not be right
	key        key
	entitled   string
}

// key is what signs a section; the zero value is no key of its own.
type key struct {
	path  string // on the node
	url   string
	armor string // the key itself; url then has it too
}

// source is a distribution with all that its file is made of.
type source struct {
	distro   *object.Distro
	release  string // a single word, or ""
	sections []section
}

// sources answers with the file of a distribution.
func (s *Repos) sources(w http.ResponseWriter, r *http.Request) error {
	o, err := s.Objects.Find(object.KindDistro, r.PathValue("id"))
	if err != nil {
		return err
	}
	base, err := s.base(r)
	if err != nil {
		return err
	}
	d := o.(*object.Distro)
	packaging := object.Packaging(s.Objects.Look(), d)
	src := &source{distro: d}
	if releasePattern.MatchString(d.Release) {
		src.release = d.Release
	}
	ids := map[string]bool{}
	for _, uid := range d.Repos {
		ro, ok := s.Objects.Look().Get(object.KindRepo, uid)
		if !ok {
			continue // deleted a moment ago
		}
		all, err := s.sections(ro.(*object.Repo), packaging, base)
		if err != nil {
			return err
		}
		for _, sec := range all {
			sec.id = unused(ids, sec.id)
			src.sections = append(src.sections, sec)
		}
	}
	if len(src.sections) == 0 {
		return fault.New(fault.Conflict, "The distro %s has no repos: give it some with muster distro update %q --repos NAME,…", d.Name, d.Name)
	}
	body, err := map[string]func(*source) (string, error){object.DEB: deb822, object.RPM: dnf, object.APK: apk}[packaging](src)
	if err != nil {
		return err
	}
	return text(w, body)
}

var releasePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._/+-]*$`)

// base is the head's address for package managers, without a slash at its end.
func (s *Repos) base(r *http.Request) (string, error) {
	host, port, err := api.Host(r)
	if err != nil {
		return "", err
	}
	if r.TLS != nil {
		port = s.HTTPPort()
	}
	return "http://" + api.HostPort(host, port), nil
}

func unused(ids map[string]bool, id string) string {
	name := id
	for n := 2; ids[name]; n++ {
		name = id + "-" + strconv.Itoa(n)
	}
	ids[name] = true
	return name
}

var notInID = regexp.MustCompile(`[^A-Za-z0-9_.]+`)

// idOf makes a name of words that is good for a section and for a file.
func idOf(words ...string) string {
	id := strings.Trim(notInID.ReplaceAllString(strings.Join(words, "-"), "-"), "-.")
	if id == "" {
		return "repo"
	}
	return id
}

// sections gives what a repo holds: what its URLs name, and what is in its ISO.
func (s *Repos) sections(rp *object.Repo, packaging, base string) ([]section, error) {
	title := rp.FullName
	if title == "" {
		title = rp.Name
	}
	common := section{unchecked: rp.Check != nil && !*rp.Check, entitled: rp.RHELEntitlement}
	var out []section
	urls := rp.URLs
	if len(urls) == 0 && rp.ISO == nil && len(rp.Mirrors) > 0 && rp.Mirrors[0] != "" {
		urls = rp.Mirrors[:1]
	}
	for n, u := range urls {
		words := strings.Fields(u)
		if len(words) == 0 {
			continue
		}
		sec := common
		sec.id, sec.title, sec.urls = idOf(rp.Name), title, words[:1]
		if len(urls) > 1 {
			sec.id, sec.title = idOf(rp.Name, strconv.Itoa(n+1)), fmt.Sprintf("%s (%d)", title, n+1)
		}
		if len(words) > 1 {
			sec.suite, sec.components = words[1], words[2:]
		}
		if more := alternates(rp, n); len(rp.URLs) > 0 && len(more) > 0 {
			sec.urls = append(slices.Clone(sec.urls), more...)
			sec.list = base + "/repo/" + rp.UID + "/mirrors/" + strconv.Itoa(n)
		}
		sec.disabled = n < len(rp.Disable) && rp.Disable[n]
		sec.key = keyOf(rp, n, base)
		out = append(out, sec)
	}
	if rp.ISO == nil {
		if len(out) == 0 {
			return nil, fault.New(fault.Conflict, "The repo %s has neither URLs nor an ISO.", rp.Name)
		}
		return out, nil
	}
	local, err := s.local(rp, packaging, base, title, common)
	return append(out, local...), err
}

// local gives what is in a repo's ISO.
func (s *Repos) local(rp *object.Repo, packaging, base, title string, common section) (out []section, err error) {
	img, done, err := s.open(rp)
	if err != nil {
		return nil, err
	}
	defer done()
	found := repotree.Find(img)
	switch {
	case len(found) == 0:
		return nil, fault.New(fault.Conflict, "The ISO of the repo %s holds no repository that apt, dnf or apk would know.", rp.Name)
	case found[0].Packaging != packaging:
		return nil, fault.New(fault.Conflict, "The ISO of the repo %s holds %s packages, the distro has %s.", rp.Name, found[0].Packaging, packaging)
	}
	for _, f := range found {
		sec := common
		sec.id, sec.title = idOf(rp.Name, f.Path, f.Suite), title
		if f.Path != "" {
			sec.title = title + " " + f.Path
		}
		sec.urls = []string{strings.TrimSuffix(base+rp.TreePath()+f.Path, "/") + "/"}
		sec.suite, sec.components = f.Suite, f.Components
		sec.key = keyOf(rp, 0, base)
		out = append(out, sec)
	}
	return out, nil
}

// alternates are the mirrors of a repo's n-th URL. Where there is one URL they
// are all its own.
func alternates(rp *object.Repo, n int) (out []string) {
	mirrors := rp.Mirrors
	if len(rp.URLs) > 1 {
		mirrors = mirrors[min(n, len(mirrors)):min(n+1, len(mirrors))]
	}
	for _, m := range mirrors {
		if m != "" {
			out = append(out, m)
		}
	}
	return out
}

// keyOf is the key of a repo's n-th URL. A single one is that of all.
func keyOf(rp *object.Repo, n int, base string) key {
	if len(rp.Keys) == 1 {
		n = 0
	}
	if n >= len(rp.Keys) || rp.Keys[n] == "" {
		return key{}
	}
	k := rp.Keys[n]
	switch {
	case strings.HasPrefix(k, object.Armor):
		return key{armor: k, url: base + "/repo/" + rp.UID + "/key/" + strconv.Itoa(n)}
	case strings.HasPrefix(k, "/"):
		return key{path: k}
	case strings.HasPrefix(k, "file://"):
		return key{path: path.Clean("/" + strings.TrimPrefix(k, "file://"))}
	}
	return key{url: k}
}
