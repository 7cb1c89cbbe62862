// Package repotree finds the package repositories in the tree of an ISO: what
// a package manager has to be told to install from it.
//
// It looks only where distributions put them, and reads no more than the
// Release files of Debian's. It must not judge packages or signatures: that is
// the package manager's.
package repotree

import (
	"bufio"
	"io"
	"path"
	"regexp"
	"strings"

	"muster/images/iso9660"
)

// Found is one repository in a tree. Its words hold no spaces and nothing that
// means something to apt or dnf.
type Found struct {
	Packaging  string   // rpm, deb or apk
	Path       string   // its directory in the tree, "" for the root
	Suite      string   // of deb; "./" where the packages lie flat
	Components []string // of deb
}

// Bounds on what is looked at.
const (
	maxDirs    = 256
	maxFound   = 64
	maxRelease = 64 << 10 // bytes of a Release file up to its list of components
)

// Find gives the repositories of a tree, those of one packaging scheme only:
// the first that it has of rpm, deb, apk.
func Find(img *iso9660.Image) []Found {
	t := tree{img}
	for _, look := range []func() []Found{t.rpm, t.deb, t.apk} {
		if found := look(); len(found) > 0 {
			return found[:min(len(found), maxFound)]
		}
	}
	return nil
}

type tree struct{ *iso9660.Image }

func (t tree) file(name string) bool {
	e, err := t.Lookup(name)
	return err == nil && !e.Dir
}

var wordPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._~+-]*$`)

// dirs gives the names of the directories in a directory. Links are left out:
// they lead to what is found under its own name.
func (t tree) dirs(name string) (out []string) {
	dir, err := t.Lookup(name)
	if err != nil {
		return nil
	}
	all, err := t.List(dir)
	if err != nil {
		return nil
	}
	for _, e := range all {
		if e.Dir && wordPattern.MatchString(e.Name) && len(out) < maxDirs {
			out = append(out, e.Name)
		}
	}
	return out
}

// rpm looks for what createrepo made, in the root or one below, as BaseOS and
// AppStream are.
func (t tree) rpm() (out []Found) {
	for _, dir := range append([]string{""}, t.dirs("")...) {
		if t.file(path.Join(dir, "repodata/repomd.xml")) {
			out = append(out, Found{Packaging: "rpm", Path: dir})
		}
	}
	return out
}

func (t tree) deb() (out []Found) {
	for _, suite := range t.dirs("dists") {
		if components, ok := t.components("dists/" + suite + "/Release"); ok {
			out = append(out, Found{Packaging: "deb", Suite: suite, Components: components})
		}
	}
	if len(out) > 0 {
		return out
	}
	for _, name := range []string{"Packages", "Packages.gz", "Packages.xz"} {
		if t.file(name) {
			return []Found{{Packaging: "deb", Suite: "./"}}
		}
	}
	return nil
}

// components reads the line of a Release file.
func (t tree) components(name string) (out []string, ok bool) {
	e, err := t.Lookup(name)
	if err != nil || e.Dir {
		return nil, false
	}
	r, err := t.Content(e)
	if err != nil {
		return nil, false
	}
	for lines := bufio.NewScanner(io.LimitReader(r, maxRelease)); lines.Scan(); {
		if list, found := strings.CutPrefix(lines.Text(), "Components:"); found {
			for _, w := range strings.Fields(list) {
				// Security suites write updates/main.
				if w = path.Base(w); wordPattern.MatchString(w) {
					out = append(out, w)
				}
			}
			break
		}
	}
	if len(out) == 0 {
		out = []string{"main"}
	}
	return out, true
}

// apk looks for Alpine's index of an architecture.
func (t tree) apk() []Found {
	for _, dir := range []string{"apks", ""} {
		for _, arch := range t.dirs(dir) {
			if t.file(path.Join(dir, arch, "APKINDEX.tar.gz")) {
				return []Found{{Packaging: "apk", Path: dir}}
			}
		}
	}
	return nil
}
