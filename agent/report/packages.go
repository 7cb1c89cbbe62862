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

// packages is what dpkg has installed below root, name → version; empty on a
// system without dpkg.
func packages(root string) map[string]string {
	f, err := os.Open(filepath.Join(root, "var/lib/dpkg/status"))
	if err != nil {
		return map[string]string{}
	}
	defer f.Close()
	return parseDpkg(f)
}

// parseDpkg reads dpkg's status file: paragraphs of "Field: value" lines. Lines
// too long to be one of the few that matter are passed over.
func parseDpkg(r io.Reader) map[string]string {
	list := map[string]string{}
	name, version, installed := "", "", false
	flush := func() {
		if installed && name != "" && len(list) < maxPackages {
			list[name] = version
		}
		name, version, installed = "", "", false
	}
	b := bufio.NewReaderSize(r, 16<<10)
	for {
		line, long, err := b.ReadLine()
		for long && err == nil {
			line = nil
			_, long, err = b.ReadLine()
		}
		if err != nil {
			flush()
			return list
		}
		key, value, _ := strings.Cut(string(line), ":")
		value = strings.TrimSpace(value)
		switch {
		case len(line) == 0:
			flush()
		case key == "Package":
			name = value
		case key == "Version":
			version = value
		case key == "Status":
			installed = strings.HasSuffix(value, " installed")
		}
	}
}
