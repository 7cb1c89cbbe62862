package object

import (
	"regexp"
	"strings"

	"muster/shared/kind"
)

// Distro is a software distribution: the repos that hold its packages, and
// how they are packaged.
type Distro struct {
	kind.Meta
	Name        string   `json:"name"`
	Description string   `json:"description,omitempty"`
	Repos       []string `json:"repos,omitempty"`
	Packaging   string   `json:"packaging,omitempty"`
	Release     string   `json:"release,omitempty"`
}

func distro() *kind.Spec {
	return &kind.Spec{
		Name: KindDistro, Plural: "distros", Title: "Distro",
		Doc:     "A software distribution: which repos hold its packages and how they are packaged.",
		New:     func() kind.Object { return &Distro{} },
		Names:   []string{"name"},
		Read:    "DistrosRead",
		Write:   "DistrosWrite",
		Columns: []string{"name", "packaging", "release", "repos", "description"},
		Fields: meta(
			nameField(true),
			descriptionField(),
			kind.Field{Path: "repos", Summary: "the repos that hold its packages", Source: kind.User, Format: kind.References, Ref: KindRepo},
			kind.Field{Path: "packaging", Summary: "rpm, deb or apk; when unset what its repos and names tell, else rpm", Source: kind.User, Format: kind.OneOf(RPM, DEB, APK)},
			kind.Field{Path: "release", Summary: "the release's name, such as bookworm or 9; in deb the suite, in URLs what $releasever stands for", Source: kind.User, Format: kind.Line},
		),
		Show: func(look kind.Look, obj kind.Object) kind.Object {
			out := *obj.(*Distro)
			out.Packaging = Packaging(look, &out)
			return &out
		},
	}
}

// Packaging gives the packaging scheme of a distro: what it says, what its
// repos' ISOs were found to hold, what names and URLs tell, or rpm.
func Packaging(look kind.Look, d *Distro) string {
	if d.Packaging != "" {
		return d.Packaging
	}
	var words []string
	for _, uid := range d.Repos {
		o, ok := look.Get(KindRepo, uid)
		if !ok {
			continue
		}
		r := o.(*Repo)
		if r.ISO != nil && r.ISO.Holds != "" {
			return r.ISO.Holds
		}
		for _, u := range r.URLs {
			if strings.Contains(u, " ") { // only deb has suites
				return DEB
			}
		}
		words = append(append(append(words, r.URLs...), r.Mirrors...), r.Name, r.FullName)
	}
	// The distro's own words come first: the repos may be anybody's.
	for _, text := range append([]string{d.Release, d.Name}, words...) {
		for _, t := range telling {
			if t.pattern.MatchString(text) {
				return t.packaging
			}
		}
	}
	return RPM
}

// telling are words that distributions with one packaging scheme use.
var telling = []struct {
	packaging string
	pattern   *regexp.Regexp
}{
	{APK, regexp.MustCompile(`(?i)\b(alpine|apks?|postmarketos|wolfi)\b`)},
	{DEB, regexp.MustCompile(`(?i)\b(debian|ubuntu|deb|dists|cumulus|sonic|devuan|proxmox|` +
		`buster|bullseye|bookworm|trixie|forky|sid|focal|jammy|noble|plucky|questing)\b`)},
	{RPM, regexp.MustCompile(`(?i)(\b(rpms?|yum|dnf|centos|fedora|rocky|almalinux|rhel|epel|suse|opensuse|sles|redhat|baseos|appstream)\b|\b(el|fc|rhel|epel)-?[0-9])`)},
}
