package install

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"time"

	"muster/shared/fault"
)

// What packages hold.
const (
	Head  = "muster"
	Agent = "muster-agent"
)

// Package is a file on the shelf.
type Package struct {
	Name    string `json:"name"`    // of the file
	Holds   string `json:"package"` // muster or muster-agent
	Version string `json:"version"`
	CPU     string `json:"cpu"`
	PkgSys  string `json:"pkgsys"`
	Size    int64  `json:"size"` // bytes
	SHA256  string `json:"sha256"`

	path     string
	modified time.Time
}

// Programs are the paths of this head's own.
type Programs struct{ Head, Agent, PAM string }

// shelf is the directory of packages, which may change while the head runs,
// and beside it what the head makes of its own programs.
type shelf struct {
	dir      string
	made     string // directory
	programs Programs
	version  string

	mu    sync.Mutex
	known map[string]Package // by path, with the checksum
}

// The names that scripts/packages gives: those that each system is used to.
var namePattern = regexp.MustCompile(`^(muster|muster-agent)[_-]([0-9][A-Za-z0-9.~+]*?)(?:-[0-9]+)?[_.-](x86_64|amd64|aarch64|arm64)\.(deb|rpm|tar\.gz)$`)

const maxPackages = 200

// list gives the packages, those of the newest build first.
func (s *shelf) list() ([]Package, error) {
	files, err := os.ReadDir(s.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Package
	for _, f := range files {
		m := namePattern.FindStringSubmatch(f.Name())
		if m == nil || !f.Type().IsRegular() || len(out) == maxPackages {
			continue
		}
		info, err := f.Info()
		if err != nil {
			continue // removed a moment ago
		}
		p := Package{Name: f.Name(), Holds: m[1], Version: m[2], CPU: aliases()[m[3]], PkgSys: m[4], Size: info.Size(),
			path: filepath.Join(s.dir, f.Name()), modified: info.ModTime()}
		if p.PkgSys == "tar.gz" {
			p.PkgSys = Tar
		}
		if p.SHA256, err = s.sum(p); err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	slices.SortStableFunc(out, func(a, b Package) int { return b.modified.Compare(a.modified) })
	for _, holds := range []string{Head, Agent} {
		if pick(out, holds, NativeCPU(), []string{Tar}) != nil {
			continue
		}
		p, err := s.own(holds)
		if err != nil {
			return nil, err
		}
		if p != nil {
			out = append(out, *p)
		}
	}
	return out, nil
}

// sum reads a file only when it has changed.
func (s *shelf) sum(p Package) (string, error) {
	if k := s.known[p.path]; k.SHA256 != "" && k.Size == p.Size && k.modified.Equal(p.modified) {
		return k.SHA256, nil
	}
	f, err := os.Open(p.path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	if len(s.known) > 2*maxPackages {
		clear(s.known)
	}
	p.SHA256 = hex.EncodeToString(h.Sum(nil))
	s.known[p.path] = p
	return p.SHA256, nil
}

// pick gives the package for a processor by the first of the systems that there
// is one for, nil when there is none.
func pick(all []Package, holds, cpu string, systems []string) *Package {
	for _, sys := range systems {
		for _, p := range all {
			if p.Holds == holds && p.CPU == cpu && p.PkgSys == sys {
				return &p
			}
		}
	}
	return nil
}

func (s *shelf) none(what string) error {
	return fault.New(fault.NotFound, "This head has no %s: `make packages` builds them, and they belong into %s (see --packages).", what, s.dir)
}

func (i *Install) download(w http.ResponseWriter, r *http.Request) error {
	sys, name := r.PathValue("pkgsys"), r.PathValue("name")
	if !slices.Contains([]string{Tar, RPM, Deb}, sys) {
		return fault.Invalidf("%.40q is none of the packaging systems tar, rpm, deb.", sys)
	}
	all, err := i.packages.list()
	if err != nil {
		return err
	}
	n := slices.IndexFunc(all, func(p Package) bool { return p.PkgSys == sys && p.Name == name })
	if n < 0 {
		return i.packages.none(fmt.Sprintf("%s package %.200s", sys, strconv.Quote(name)))
	}
	p := all[n]
	f, err := os.Open(p.path)
	if err != nil {
		return err
	}
	defer f.Close()
	w.Header().Set("Content-Type", packageType)
	w.Header().Set("Content-Disposition", `attachment; filename="`+p.Name+`"`)
	w.Header().Set("ETag", `"`+p.SHA256+`"`)
	http.ServeContent(w, r, "", p.modified, f)
	return nil
}
