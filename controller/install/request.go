package install

import (
	"net/url"
	"slices"
	"strings"

	"muster/shared/fault"
)

// The processors, as the published API writes the first, and the packaging
// systems.
const (
	X86 = "x86_64"
	ARM = "aarch64"

	Tar = "tar"
	RPM = "rpm"
	Deb = "deb"
)

func cpus() []string { return []string{X86, ARM} }

// request is what a client said of itself; what it left out is "".
type request struct{ cpu, os, pkg string }

// aliases are words that mean the same. The published API writes aarm64.
func aliases() map[string]string {
	return map[string]string{
		"x86_64": X86, "amd64": X86, "x86-64": X86, "x64": X86,
		"aarm64": ARM, "aarch64": ARM, "arm64": ARM,
		"rhel": "rhel", "centos": "rhel", "rocky": "rhel", "alma": "rhel", "fedora": "rhel", "ol": "rhel", "oracle": "rhel",
		"debian": "debian", "ubuntu": "debian", "cumulus": "cumulus", "sonic": "sonic",
	}
}

// wanted reads the query. A word that is none of those that there are is
// refused: a typing error must not install something else.
func wanted(q url.Values) (request, error) {
	known := aliases()
	var out request
	if v := q.Get("cpu"); v != "" {
		if out.cpu = known[strings.ToLower(v)]; !slices.Contains(cpus(), out.cpu) {
			return out, fault.Invalidf("cpu: %.40q is none of x86_64, aarm64.", v)
		}
	}
	if v := strings.ToLower(q.Get("os")); v != "" {
		for word, os := range known { // with a version behind it, as in rhel8
			if rest, ok := strings.CutPrefix(v, word); ok && os != X86 && os != ARM && !startsWithLetter(rest) {
				out.os = os
			}
		}
		if out.os == "" {
			return out, fault.Invalidf("os: %.40q is none of rhel, debian, cumulus, sonic, with or without a version behind it.", v)
		}
	}
	if v := strings.ToLower(q.Get("pkg")); v != "" {
		if !slices.Contains([]string{Tar, RPM, Deb}, v) {
			return out, fault.Invalidf("pkg: %.40q is none of tar, rpm, deb.", v)
		}
		out.pkg = v
	}
	return out, nil
}

func startsWithLetter(s string) bool { return s != "" && s[0] >= 'a' && s[0] <= 'z' }

// cpus are the processors that the installer has to be good for.
func (q request) cpus() []string {
	if q.cpu != "" {
		return []string{q.cpu}
	}
	return cpus()
}

// systems are the packaging systems that would do, the best first. tar does
// anywhere; another one only where the system has it.
func (q request) systems() []string {
	var fit []string
	switch q.os {
	case "rhel":
		fit = []string{RPM, Tar}
	case "debian", "cumulus":
		fit = []string{Deb, Tar}
	case "sonic": // its root is rebuilt on updates, what dpkg knows is lost
		fit = []string{Tar, Deb}
	default:
		fit = []string{Tar}
		if q.pkg != "" && q.pkg != Tar {
			fit = []string{q.pkg, Tar}
		}
	}
	if n := slices.Index(fit, q.pkg); n > 0 {
		fit = append([]string{q.pkg}, slices.Delete(fit, n, n+1)...)
	}
	return fit
}
