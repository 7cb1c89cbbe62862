package repo

import (
	"path"
	"strings"

	"muster/shared/fault"
)

// The formats. Every word in them was checked when it was declared, so that
// none can add a line or an option of its own.

// deb822 writes a .sources file of apt, see sources.list(5).
func deb822(src *source) (string, error) {
	var out strings.Builder
	out.WriteString("# " + src.distro.Name + ": belongs in /etc/apt/sources.list.d/NAME.sources\n")
	for _, s := range src.sections {
		suite, components := s.suite, s.components
		if suite == "" {
			suite = src.release
		}
		if suite == "" {
			return "", fault.New(fault.Conflict, "%s needs a suite: write it behind the URL, as in \"%s bookworm main\", or give the distro a release of one word.", s.title, s.urls[0])
		}
		if len(components) == 0 && !strings.HasSuffix(suite, "/") {
			components = []string{"main"}
		}
		uri := s.urls[0]
		if s.list != "" {
			uri = "mirror+" + s.list
		}
		out.WriteString("\nX-Repolib-Name: " + s.title + "\nTypes: deb\nURIs: " + uri + "\nSuites: " + suite + "\n")
		if len(components) > 0 {
			out.WriteString("Components: " + strings.Join(components, " ") + "\n")
		}
		if s.disabled {
			out.WriteString("Enabled: no\n")
		}
		if s.unchecked {
			out.WriteString("Trusted: yes\n")
		}
		out.WriteString(signedBy(s))
	}
	return out.String(), nil
}

// signedBy names the key of a section. apt fetches none by itself.
func signedBy(s section) string {
	switch {
	case s.key.armor != "":
		var out strings.Builder
		out.WriteString("Signed-By:\n")
		for l := range strings.SplitSeq(s.key.armor, "\n") {
			if l == "" {
				l = "."
			}
			out.WriteString(" " + l + "\n")
		}
		return out.String()
	case s.key.path != "":
		return "Signed-By: " + s.key.path + "\n"
	case s.key.url != "":
		file := "/etc/apt/keyrings/" + s.id + path.Ext(keyFile(s.key.url))
		return "# To be fetched: curl -fsSL -o " + file + " '" + s.key.url + "'\nSigned-By: " + file + "\n"
	}
	return ""
}

// keyFile gives a name with an extension that apt knows: armored keys are
// .asc, binary ones .gpg.
func keyFile(url string) string {
	if strings.HasSuffix(url, ".gpg") || strings.HasSuffix(url, ".pgp") {
		return "key.gpg"
	}
	return "key.asc"
}

// dnf writes a .repo file, see dnf.conf(5) and yum.conf(5).
func dnf(src *source) (string, error) {
	var out strings.Builder
	out.WriteString("# " + src.distro.Name + ": belongs in /etc/yum.repos.d/NAME.repo\n")
	for _, s := range src.sections {
		if s.suite != "" {
			return "", fault.New(fault.Conflict, "%s has a suite, which rpm repositories do not have: leave away what follows its URL, or set the distro's packaging to deb.", s.title)
		}
		out.WriteString("\n[" + s.id + "]\nname=" + s.title + "\n" + addresses(s.urls, src.release))
		out.WriteString("enabled=" + number(!s.disabled) + "\ngpgcheck=" + number(!s.unchecked) + "\n")
		switch {
		case s.key.url != "":
			out.WriteString("gpgkey=" + s.key.url + "\n")
		case s.key.path != "":
			out.WriteString("gpgkey=file://" + s.key.path + "\n")
		}
		out.WriteString(entitlement(s.entitled))
	}
	return out.String(), nil
}

// addresses writes where a repository is. A list of mirrors, which dnf fetches
// itself, has a key of its own.
func addresses(urls []string, release string) string {
	var base, lists []string
	for _, u := range urls {
		if release != "" {
			u = strings.ReplaceAll(u, "$releasever", release)
		}
		switch {
		case strings.Contains(u, "metalink"):
			lists = append(lists, "metalink="+u+"\n")
		case strings.Contains(u, "mirrorlist"):
			lists = append(lists, "mirrorlist="+u+"\n")
		default:
			base = append(base, u)
		}
	}
	if len(base) == 0 {
		return lists[0] // each key once
	}
	text := "baseurl=" + strings.Join(base, "\n        ") + "\n"
	if len(lists) > 0 {
		text += lists[0]
	}
	return text
}

func number(b bool) string {
	if b {
		return "1"
	}
	return "0"
}

// entitlement names the client certificate by which Red Hat's servers know a
// subscriber. It comes in two files, NUMBER.pem and NUMBER-key.pem.
func entitlement(e string) string {
	if e == "" {
		return ""
	}
	if !strings.HasPrefix(e, "/") {
		e = "/etc/pki/entitlement/" + e
	}
	e = strings.TrimSuffix(strings.TrimSuffix(e, ".pem"), "-key")
	return "sslverify=1\nsslcacert=/etc/rhsm/ca/redhat-uep.pem\nsslclientkey=" + e + "-key.pem\nsslclientcert=" + e + ".pem\n"
}

// apk writes /etc/apk/repositories: one address a line.
func apk(src *source) (string, error) {
	var out strings.Builder
	out.WriteString("# " + src.distro.Name + ": belongs in /etc/apk/repositories\n")
	for _, s := range src.sections {
		out.WriteString("# " + s.title + "\n")
		if s.key.url != "" {
			out.WriteString("# its key belongs in /etc/apk/keys: " + s.key.url + "\n")
		}
		if s.unchecked {
			out.WriteString("# not signed: apk --allow-untrusted\n")
		}
		for _, u := range s.urls {
			u = strings.TrimSuffix(strings.ReplaceAll(u, "$releasever", src.release), "/")
			if s.suite != "" {
				u += "/" + strings.Trim(s.suite, "/")
			}
			for _, c := range orNone(s.components) {
				l := u + c
				if s.disabled {
					l = "#" + l
				}
				out.WriteString(l + "\n")
			}
		}
	}
	return out.String(), nil
}

// orNone gives the ends of addresses, one empty one where there are no components.
func orNone(components []string) []string {
	if len(components) == 0 {
		return []string{""}
	}
	out := make([]string, len(components))
	for i, c := range components {
		out[i] = "/" + c
	}
	return out
}
