package object

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"muster/shared/kind"
)

// The packaging schemes.
const (
	RPM = "rpm"
	DEB = "deb"
	APK = "apk"
)

// Repo is where packages come from: an upstream repository, or an ISO that
// this head holds. Mirrors, Disable and Keys go with URLs by their position.
type Repo struct {
	kind.Meta
	Name            string   `json:"name"`
	Description     string   `json:"description,omitempty"`
	FullName        string   `json:"full_name,omitempty"`
	URLs            []string `json:"urls,omitempty"`
	Mirrors         []string `json:"mirrors,omitempty"`
	Disable         []bool   `json:"disable,omitempty"`
	Keys            []string `json:"keys,omitempty"`
	Check           *bool    `json:"check,omitempty"`
	RHELEntitlement string   `json:"rhel_entitlement,omitempty"`
	ISO             *File    `json:"iso,omitempty"`
	Tree            string   `json:"tree,omitempty"`
}

// TreePath is where the head serves what is in a repo's ISO.
func (r *Repo) TreePath() string { return "/repo/" + r.UID + "/tree/" }

func repo() *kind.Spec {
	fields := []kind.Field{
		nameField(true),
		descriptionField(),
		{Path: "full_name", Summary: "what package managers show of it", Source: kind.User, Format: kind.Line},
		{Path: "urls", Summary: "where the packages are; for deb each followed by a suite and its components, as in sources.list", Source: kind.User, Format: kind.Sequence("repo-urls", repoURL)},
		{Path: "mirrors", Summary: "other addresses of the same: of the first URL, or where there are several one for each", Source: kind.User, Format: kind.Sequence("mirror-urls", mirrorURL)},
		{Path: "disable", Summary: "for each URL whether it is switched off", Source: kind.User, Format: kind.Sequence("flags", kind.Flag)},
		{Path: "keys", Summary: "for each URL the key that signs it, one key for all of them: a URL, a path on the node, or the key itself (armored)", Source: kind.User, Format: kind.Sequence("repo-keys", repoKey)},
		{Path: "check", Summary: "whether signatures must be right; true when unset", Source: kind.User, Format: kind.Bool},
		{Path: "rhel_entitlement", Summary: "serial number of the Red Hat entitlement certificate in /etc/pki/entitlement, or the path of its key", Source: kind.User, Format: entitlement},
		{Path: "tree", Summary: "where this head serves the ISO's content, as a path", Source: kind.Head, Format: kind.Shown("text")},
	}
	return &kind.Spec{
		Name: KindRepo, Plural: "repos", Title: "Repo",
		Doc:     "A repository of software packages, upstream or in an ISO on this head.",
		New:     func() kind.Object { return &Repo{} },
		Names:   []string{"name"},
		Read:    "ReposRead",
		Write:   "ReposWrite",
		Columns: []string{"name", "urls", "iso.size", "tree", "description"},
		Fields:  meta(append(fields, fileFields("iso", "the ISO")...)...),
		Show: func(_ kind.Look, obj kind.Object) kind.Object {
			out := *obj.(*Repo)
			out.Tree = ""
			if out.ISO != nil {
				out.Tree = out.TreePath()
			}
			return &out
		},
	}
}

// The words of a repo's URL; anything else could become a line or an option of
// its own in the files that are made of them.
var (
	suitePattern       = regexp.MustCompile(`^[A-Za-z0-9./][A-Za-z0-9._~+:/$-]*$`)
	componentPattern   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+/-]*$`)
	entitlementPattern = regexp.MustCompile(`^/?[A-Za-z0-9][A-Za-z0-9._/-]*$`)
)

const maxURL = 2048 // bytes

var repoURL = kind.Parsed("repo-url", func(s string) (string, error) {
	words := strings.Fields(s)
	if len(words) == 0 || len(s) > maxURL {
		return "", fmt.Errorf("needs a URL of at most %d bytes", maxURL)
	}
	if strings.ContainsFunc(s, unicode.IsControl) {
		return "", errors.New("must be one line without control characters")
	}
	if err := checkURL(words[0]); err != nil {
		return "", err
	}
	if len(words) > 1 && !suitePattern.MatchString(words[1]) {
		return "", fmt.Errorf("%q is no name of a suite", words[1])
	}
	for _, w := range words[min(2, len(words)):] {
		if !componentPattern.MatchString(w) {
			return "", fmt.Errorf("%q is no name of a component", w)
		}
	}
	return strings.Join(words, " "), nil
})

var mirrorURL = kind.Parsed("mirror-url", func(s string) (string, error) {
	if s == "" { // this position has none
		return "", nil
	}
	return s, checkURL(s)
})

// checkURL takes what package managers fetch from. A password has no place
// here: everybody on the nodes may read the files that are made of it.
func checkURL(s string) error {
	if len(s) > maxURL || strings.ContainsFunc(s, func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r) || strings.ContainsRune("\"'<>\\`|^[]", r)
	}) {
		return fmt.Errorf("%q is no URL: it must be at most %d bytes without spaces, quotes and brackets", short(s), maxURL)
	}
	u, err := url.Parse(s)
	switch {
	case err != nil || !slices.Contains([]string{"http", "https", "ftp", "file", "cdrom"}, u.Scheme):
		return fmt.Errorf("%q is no URL that begins with http, https, ftp, file or cdrom", short(s))
	case u.Host == "" && u.Scheme != "file" && u.Scheme != "cdrom":
		return fmt.Errorf("%q names no host", short(s))
	case u.User != nil:
		return errors.New("must hold no user and no password: everybody on the nodes can read it")
	}
	return nil
}

func short(s string) string {
	if len(s) > 80 {
		return strings.ToValidUTF8(s[:80], "") + "…"
	}
	return s
}

// Armor is how a key begins that is given itself.
const Armor = "-----BEGIN PGP PUBLIC KEY BLOCK-----"

const armorEnd = "-----END PGP PUBLIC KEY BLOCK-----"

var pathPattern = regexp.MustCompile(`^/[A-Za-z0-9._/+@-]+$`)

var repoKey = kind.Parsed("repo-key", func(s string) (string, error) {
	s = strings.TrimSpace(strings.ReplaceAll(s, "\r\n", "\n"))
	switch {
	case s == "", pathPattern.MatchString(s): // a position without one; a file on the node
		return s, nil
	case strings.Contains(s, "PRIVATE KEY"):
		return "", errors.New("this is a private key: give the public one")
	case strings.HasPrefix(s, "-----"):
		return s, checkArmor(s)
	case strings.Contains(s, "://"):
		return s, checkURL(s)
	}
	return "", fmt.Errorf("%q is neither a URL, nor a path, nor an armored PGP key", short(s))
})

// checkArmor takes exactly one block of printable lines, so that it can be put
// into a file of another format line by line (RFC 9580, section 6.2).
func checkArmor(s string) error {
	lines := strings.Split(s, "\n")
	if len(s) > kind.MaxText || lines[0] != Armor || lines[len(lines)-1] != armorEnd || strings.Count(s, "-----BEGIN") != 1 {
		return fmt.Errorf("must be one block from %s to %s of at most %d bytes", Armor, armorEnd, kind.MaxText)
	}
	for i, l := range lines {
		if strings.ContainsFunc(l, func(r rune) bool { return r < ' ' || r > '~' }) {
			return fmt.Errorf("line %d of the key has a character that armor does not have", i+1)
		}
	}
	return nil
}

var entitlement = kind.Parsed("entitlement", func(s string) (string, error) {
	if len(s) > 256 || !entitlementPattern.MatchString(s) || strings.Contains(s, "..") {
		return "", fmt.Errorf("%q is neither a serial number nor a path such as /etc/pki/entitlement/123-key.pem", short(s))
	}
	return s, nil
})
