package provision

import (
	"fmt"
	"net/url"
	"path"
	"strings"

	"muster/shared/object"
	"muster/shared/template"
)

// installer is a program that installs a distribution by a file of answers.
type installer int

const (
	anaconda    installer = iota // Fedora, RHEL and their kin: kickstart
	preseed                      // Debian
	autoinstall                  // Ubuntu: cloud-init's user-data
	autoyast                     // SUSE
	ignition                     // CoreOS, Flatcar
)

// installerOf tells from a file which installer it is written for.
func installerOf(name, text string) installer {
	switch path.Ext(name) {
	case ".ign", ".bu":
		return ignition
	case ".preseed", ".seed":
		return preseed
	}
	switch {
	case strings.HasPrefix(text, "#cloud-config"), path.Base(name) == "user-data":
		return autoinstall
	case strings.HasPrefix(text, "<?xml"):
		return autoyast
	case strings.HasPrefix(text, "d-i ") || strings.Contains(text, "\nd-i "):
		return preseed
	}
	return anaconda
}

// Cmdline is the kernel's command line for a node: that of the boot
// configuration, filled in, and what tells an installer where its answers and
// its packages are. A word that the admin wrote himself is not added again.
func (p *Provision) Cmdline(n *object.Node, bc *object.Bootconfig) (string, error) {
	line, err := template.Expand("cmdline", bc.Cmdline, template.Options{Value: p.Values(n), RootURL: p.opt.RootURL, Escape: template.Word})
	if err != nil || !bc.Installs() {
		return line, err
	}
	add, err := p.arguments(bc)
	if err != nil {
		return "", err
	}
	words := strings.Fields(line)
	for _, word := range add {
		if !has(words, word) {
			words = append(words, word)
		}
	}
	return strings.Join(words, " "), nil
}

// has says whether the words set what word sets.
func has(words []string, word string) bool {
	key, _, _ := strings.Cut(word, "=")
	for _, w := range words {
		if k, _, _ := strings.Cut(w, "="); k == key {
			return true
		}
	}
	return false
}

func (p *Provision) arguments(bc *object.Bootconfig) ([]string, error) {
	if p.opt.RootURL == "" {
		return nil, fmt.Errorf("this head has no boot interface, so an installer could not reach it")
	}
	repo, err := p.repo(bc)
	if err != nil {
		return nil, err
	}
	kind := anaconda
	if bc.Kickstart != "" {
		text, err := p.files.read(bc.Kickstart)
		if err != nil {
			return nil, err
		}
		kind = installerOf(bc.Kickstart, text)
	}
	words := packages(kind, repo)
	if bc.Kickstart != "" {
		words = append(answers(kind, p.opt.RootURL), words...)
	}
	return words, nil
}

// answers tells an installer where its file is.
func answers(kind installer, root string) []string {
	from := root + pathKickstart
	switch kind {
	case preseed:
		return []string{"auto=true", "priority=critical", "url=" + from}
	case autoinstall:
		return []string{"ip=dhcp", "autoinstall", "ds=nocloud;s=" + root + pathSeed}
	case autoyast:
		return []string{"netsetup=dhcp", "autoyast=" + from}
	case ignition:
		return []string{"ignition.firstboot", "ignition.platform.id=metal", "ignition.config.url=" + from}
	}
	return []string{"ip=dhcp", "inst.ks=" + from}
}

// packages tells an installer where the distribution is.
func packages(kind installer, repo *url.URL) []string {
	switch {
	case repo == nil || kind == ignition:
		return nil
	case kind == preseed:
		return []string{"mirror/country=manual", "mirror/protocol=" + repo.Scheme, "mirror/" + repo.Scheme + "/hostname=" + repo.Host,
			"mirror/" + repo.Scheme + "/directory=" + repo.EscapedPath(), "mirror/" + repo.Scheme + "/proxy="}
	case kind == autoinstall:
		return []string{"url=" + repo.String()} // of an ISO
	case kind == autoyast:
		return []string{"install=" + repo.String()}
	}
	return []string{"inst.repo=" + repo.String()}
}

// repo gives the URL that a boot configuration's repo stands for: its own, or
// that of a repo object, whose ISO this head serves. Nil where none is named.
func (p *Provision) repo(bc *object.Bootconfig) (*url.URL, error) {
	if bc.Repo == "" {
		return nil, nil
	}
	text := bc.Repo
	if !strings.Contains(text, "://") {
		o, err := p.opt.Objects.Find(object.KindRepo, text)
		if err != nil {
			return nil, fmt.Errorf("its repo %q is neither a URL nor a repo of this head", text)
		}
		switch r := o.(*object.Repo); {
		case r.ISO != nil:
			text = p.opt.RootURL + r.TreePath()
		case len(r.URLs) > 0:
			text, _, _ = strings.Cut(r.URLs[0], " ")
		default:
			return nil, fmt.Errorf("its repo %s has neither an ISO nor a URL", r.Name)
		}
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || strings.ContainsAny(text, " \"\\") {
		return nil, fmt.Errorf("its repo %q is no URL such as http://mirror.example.org/rocky/9/BaseOS/x86_64/os/", bc.Repo)
	}
	return u, nil
}

// Problems says what is wrong with the parts of a boot configuration that this
// package knows, in words for an admin.
func (p *Provision) Problems(bc *object.Bootconfig) []string {
	var out []string
	if _, err := template.Parse(bc.Cmdline); err != nil {
		out = append(out, fmt.Sprintf("its cmdline is no good template: %v", err))
	}
	if _, err := p.repo(bc); err != nil {
		out = append(out, fmt.Sprintf("%v: muster bootconfig update %s --repo NAME", err, bc.Name))
	}
	if bc.Kickstart == "" {
		return out
	}
	text, err := p.files.read(bc.Kickstart)
	if err == nil { // with any values: those of a node are not known here
		_, err = template.Expand(bc.Kickstart, text, template.Options{
			RootURL: "x", Include: p.files.read, Value: func(template.Section, string) (any, bool) { return "x", true }})
	}
	if err != nil {
		out = append(out, fmt.Sprintf("its kickstart %s: %v", bc.Kickstart, err))
	}
	return out
}
