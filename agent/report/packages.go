package report

import (
	"bufio"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// maxPackages bounds the package list.
const maxPackages = 8000

// The files that package managers keep, below the root. RPM's are its own
// databases, which only rpm reads: its list comes from a run of it.
const (
	dpkgFile = "var/lib/dpkg/status"
	apkFile  = "lib/apk/db/installed"
)

// packageLists knows when what is installed was last looked at.
type packageLists struct {
	looked    bool
	dpkg, apk stamp
}

// look gives what dpkg or apk has installed below root, name → version, if
// that may have changed since the last look. A system of neither has nothing.
func (p *packageLists) look(root string) (map[string]string, bool) {
	dpkg, apk := stampOf(filepath.Join(root, dpkgFile)), stampOf(filepath.Join(root, apkFile))
	if p.looked && dpkg == p.dpkg && apk == p.apk {
		return nil, false
	}
	*p = packageLists{true, dpkg, apk}
	return packages(root), true
}

// rpmStamp is that of RPM's database, of whichever kind it is.
func rpmStamp(root string) stamp {
	for _, file := range []string{"rpmdb.sqlite", "rpmdb.sqlite-wal", "Packages.db", "Packages"} {
		for _, dir := range []string{"usr/lib/sysimage/rpm", "var/lib/rpm"} {
			if s := stampOf(filepath.Join(root, dir, file)); s != (stamp{}) {
				return s
			}
		}
	}
	return stamp{}
}

// packages is what dpkg or apk has installed below root, name → version.
func packages(root string) map[string]string {
	for file, parse := range map[string]func(io.Reader) map[string]string{dpkgFile: parseDpkg, apkFile: parseApk} {
		if f, err := os.Open(filepath.Join(root, file)); err == nil {
			defer f.Close()
			return parse(f)
		}
	}
	return map[string]string{}
}

// parseDpkg reads dpkg's status file: paragraphs of "Field: value" lines.
func parseDpkg(r io.Reader) map[string]string {
	list := map[string]string{}
	name, version, installed := "", "", false
	paragraphs(r, func(key, value string) {
		switch key {
		case "":
			if installed && name != "" && len(list) < maxPackages {
				list[name] = version
			}
			name, version, installed = "", "", false
		case "Package":
			name = value
		case "Version":
			version = value
		case "Status":
			installed = strings.HasSuffix(value, " installed")
		}
	})
	return list
}

// parseApk reads Alpine's list: paragraphs of "P:name" and "V:version" lines.
func parseApk(r io.Reader) map[string]string {
	list := map[string]string{}
	name, version := "", ""
	paragraphs(r, func(key, value string) {
		switch key {
		case "":
			if name != "" && len(list) < maxPackages {
				list[name] = version
			}
			name, version = "", ""
		case "P":
			name = value
		case "V":
			version = value
		}
	})
	return list
}

// parseRPM reads lines of a name and a version with a tab between.
func parseRPM(text string) map[string]string {
	list := map[string]string{}
	for line := range strings.Lines(text) {
		if name, version, ok := strings.Cut(strings.TrimSpace(line), "\t"); ok && len(list) < maxPackages {
			list[name] = version
		}
	}
	return list
}

// paragraphs calls fn for each field, and with nothing at the end of each
// paragraph. Lines too long to be one of the few that matter are passed over,
// and so are those of other fields: there are far more of them.
func paragraphs(r io.Reader, fn func(key, value string)) {
	b := bufio.NewReaderSize(r, 16<<10)
	for {
		line, long, err := b.ReadLine()
		for long && err == nil {
			line = nil
			_, long, err = b.ReadLine()
		}
		if err != nil {
			fn("", "")
			return
		}
		if len(line) == 0 {
			fn("", "")
			continue
		}
		key, value, _ := strings.Cut(string(line), ":")
		if key != "" {
			fn(key, strings.TrimSpace(value))
		}
	}
}
