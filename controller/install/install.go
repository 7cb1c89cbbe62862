// Package install lets a machine that runs already become a node or a head: it
// serves the scripts that do it, and the packages that they install.
//
// All of it is public, since such a machine has no token. Nothing that a
// request says gets into a script but through quote. The package must not
// change any object: a machine becomes a node when an admin says so.
package install

import (
	"bytes"
	"embed"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"text/template"

	"muster/controller/api"
	"muster/shared/fault"
	"muster/shared/kind"
)

// Options are what the package has to be told.
type Options struct {
	Head        string // host name
	Version     string
	Dir         string // of the packages
	Made        string // directory for those that the head makes of its own programs
	Programs    Programs
	CA          func() []byte // certificates of the head's authority, PEM
	Fingerprint string        // SHA-256 of the first of them, 64 hex digits
	HTTPSPort   func() string // "" while HTTPS is down
	// Password is nil for the cluster's password; it slows down guessing.
	Password func(w http.ResponseWriter, r *http.Request, given string) error
}

// Install serves scripts and packages.
type Install struct {
	opt      Options
	packages *shelf
}

// New makes it.
func New(opt Options) *Install {
	return &Install{opt, &shelf{dir: opt.Dir, made: opt.Made, programs: opt.Programs, version: opt.Version, known: map[string]Package{}}}
}

// Media types of what is served.
const (
	scriptType  = "text/x-shellscript"
	packageType = "application/octet-stream"
)

// Routes are the endpoints.
func (i *Install) Routes() []api.Route {
	path := api.Root + "/install"
	return []api.Route{
		{Method: "GET", Path: path + "/head/scyld-install", Permission: kind.Public, Doc: "A shell script that installs muster on a server and makes it a head beside this one.", Handler: i.headScript, Raw: scriptType},
		{Method: "POST", Path: path + "/password", Permission: kind.Public, Doc: "Whether admin_pass is the cluster's password, which a server needs to become a head.", Handler: i.password, Answer: api.Nothing{}},
		{Method: "GET", Path: path + "/repo", Permission: kind.Public, Doc: "What another head needs to install itself from this one: packages with URLs and checksums, and the authority's certificates.", Handler: i.repo, Answer: shop{}},
		{Method: "GET", Path: path + "/client/installer", Permission: kind.Public, Doc: "A shell script that makes a running system a node; cpu, os and pkg choose the package, without them the script finds out.", Handler: i.installer, Raw: scriptType,
			Query: []api.Param{{Name: "cpu", Doc: "x86_64 or arm64, also called aarch64"}, {Name: "os", Doc: "rhel, debian, cumulus or sonic, with or without a version"}, {Name: "pkg", Doc: "tar, rpm or deb"}}},
		{Method: "GET", Path: path + "/client/download/{pkgsys}/{name}", Permission: kind.Public, Doc: "A package, tar, rpm or deb, by its name.", Handler: i.download, Raw: packageType},
	}
}

func (i *Install) password(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		Pass string `json:"admin_pass"`
	}
	if err := api.Decode(w, r, &in); err != nil {
		return err
	}
	if in.Pass == "" {
		return fault.Invalidf("Give the cluster's password as admin_pass.")
	}
	if err := i.opt.Password(w, r, in.Pass); err != nil {
		return err
	}
	return api.OK(w)
}

// listed is a package as another head reads it.
type listed struct {
	Package
	URL string `json:"url"`
}

// shop is where another head gets its packages, and what it can trust there.
type shop struct {
	Head        string   `json:"head"`
	Version     string   `json:"version"`
	URL         string   `json:"url"`
	HTTPS       string   `json:"https"`
	Packages    []listed `json:"packages"`
	CABundle    string   `json:"cabundle"`
	Fingerprint string   `json:"fingerprint"`
}

func (i *Install) repo(w http.ResponseWriter, r *http.Request) error {
	at, err := i.addresses(r)
	if err != nil {
		return err
	}
	all, err := i.packages.list()
	if err != nil {
		return err
	}
	packages := []listed{}
	for _, p := range all {
		packages = append(packages, listed{p, at.Here + p.Download()})
	}
	return api.Data(w, shop{
		Head: i.opt.Head, Version: i.opt.Version, URL: at.Here + api.Root + "/install/client/download", HTTPS: at.Secure,
		Packages: packages, CABundle: string(i.opt.CA()), Fingerprint: "sha256:" + i.opt.Fingerprint,
	})
}

// addresses are the URLs of this head, without a slash at the end.
type addresses struct {
	Here   string // as the client reached it
	Secure string // HTTPS, under an address that the head's certificate names
}

func (i *Install) addresses(r *http.Request) (at addresses, err error) {
	host, port, err := api.Host(r)
	if err != nil {
		return at, err
	}
	at.Here = "http://" + api.HostPort(host, port)
	// Clients may know the head by a name that its certificate lacks. The
	// address at which the request came in is in it.
	if local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		if ap, err := netip.ParseAddrPort(local.String()); err == nil {
			host = ap.Addr().Unmap().WithZone("").String()
		}
	}
	secure := i.opt.HTTPSPort()
	if secure == "" {
		return at, fault.New(fault.Unavailable, "HTTPS of this head is stopped, and agents and heads talk to it by nothing else: start the service https.")
	}
	at.Secure = "https://" + api.HostPort(host, secure)
	if r.TLS != nil {
		at.Here = at.Secure
	}
	return at, nil
}

// Download is the path of a package on the head.
func (p Package) Download() string {
	return api.Root + "/install/client/download/" + p.PkgSys + "/" + p.Name
}

//go:embed scripts/*.sh
var scripts embed.FS

// script answers with a script. In it every value is written with quote.
func (i *Install) script(w http.ResponseWriter, name string, data any) error {
	t, err := template.New(name).Delims("@{", "}").Funcs(template.FuncMap{"quote": quote}).ParseFS(scripts, "scripts/"+name, "scripts/parts.sh")
	if err != nil {
		return err
	}
	var body bytes.Buffer
	if err := t.Execute(&body, data); err != nil {
		return err
	}
	w.Header().Set("Content-Type", scriptType+"; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_, err = w.Write(body.Bytes())
	return err
}

// quote makes one word of the shell of a text.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// scriptData is what scripts are filled in with.
type scriptData struct {
	addresses
	Head, Version, CA, Fingerprint, Root string
	Packages                             []Package // at most one for each processor
}

func (i *Install) data(r *http.Request) (scriptData, error) {
	at, err := i.addresses(r)
	return scriptData{addresses: at, Head: i.opt.Head, Version: i.opt.Version, CA: string(i.opt.CA()), Fingerprint: i.opt.Fingerprint, Root: api.Root + "/install"}, err
}

func (i *Install) headScript(w http.ResponseWriter, r *http.Request) error {
	return i.forPackages(w, r, "head.sh", Head, cpus(), []string{Tar})
}

func (i *Install) installer(w http.ResponseWriter, r *http.Request) error {
	want, err := wanted(r.URL.Query())
	if err != nil {
		return err
	}
	if want == (request{}) {
		d, err := i.data(r)
		if err != nil {
			return err
		}
		return i.script(w, "probe.sh", d)
	}
	return i.forPackages(w, r, "client.sh", Agent, want.cpus(), want.systems())
}

// forPackages answers with a script that installs one of the packages. Where
// there is none, it is the script that says so: it is piped into a shell, which
// has no use for an error of HTTP.
func (i *Install) forPackages(w http.ResponseWriter, r *http.Request, script, holds string, cpus, systems []string) error {
	d, err := i.data(r)
	if err != nil {
		return err
	}
	all, err := i.packages.list()
	if err != nil {
		return err
	}
	for _, cpu := range cpus {
		if p := pick(all, holds, cpu, systems); p != nil {
			d.Packages = append(d.Packages, *p)
		}
	}
	return i.script(w, script, d)
}
