package report

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxPackages bounds the package list.
const maxPackages = 8000

// packages is what dpkg has installed below root, name → version, and a short
// word on it for comparison: number and hash. Both are nil on a system without
// dpkg.
func packages(root string) (list map[string]string, summary map[string]any) {
	f, err := os.Open(filepath.Join(root, "var/lib/dpkg/status"))
	if err != nil {
		return nil, nil
	}
	defer f.Close()
	list = parseDpkg(f)
	sum := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(list)) {
		fmt.Fprintf(sum, "%s %s\n", name, list[name])
	}
	return list, map[string]any{"count": len(list), "hash": hex.EncodeToString(sum.Sum(nil)[:8])}
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
