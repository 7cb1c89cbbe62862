// Package repo serves what repositories and distributions are declared for:
// the tree in a repo's ISO as a package repository over HTTP, straight from
// inside the ISO, and the files that make apt, dnf and apk use a distribution.
//
// All of it is public, since a package manager on a booting node has no token;
// nothing secret can be declared in a repo. ISOs are uploaded through the
// library. The package must not fetch anything from anywhere.
package repo

import (
	"errors"
	"io/fs"
	"net/http"
	"os"
	"strconv"
	"strings"

	"muster/controller/api"
	"muster/images/iso9660"
	"muster/shared/fault"
	"muster/shared/kind"
	"muster/shared/object"
)

// Objects is what the package needs of the registry.
type Objects interface {
	Find(kindName, id string) (kind.Object, error)
	Look() kind.Look
}

// Files opens uploaded files by their SHA-256.
type Files interface {
	Open(sha256 string) (*os.File, error)
}

// Repos serves repositories and distributions.
type Repos struct {
	Objects Objects
	Files   Files
	// HTTPPort gives the port of plain HTTP. Package managers do not know the
	// cluster's authority, and packages are signed.
	HTTPPort func() string
}

// Media types of what is served.
const (
	fileType = "application/octet-stream"
	pageType = "text/html"
	textType = "text/plain"
)

// Routes are the endpoints.
func (s *Repos) Routes() []api.Route {
	return []api.Route{
		{Method: "GET", Path: "/repo/{id}/tree/{path...}", Permission: kind.Public, Doc: "A file or directory in the repo's ISO, with ranges; the base URL for package managers.", Handler: s.tree, Raw: fileType + ", " + pageType},
		{Method: "GET", Path: "/repo/{id}/key/{n}", Permission: kind.Public, Doc: "The n-th of the repo's keys, counted from 0, where the key itself was given.", Handler: s.key, Raw: textType},
		{Method: "GET", Path: "/repo/{id}/mirrors/{n}", Permission: kind.Public, Doc: "The n-th of the repo's URLs, counted from 0, and its mirrors: a list for apt's mirror method.", Handler: s.mirrors, Raw: textType},
		{Method: "GET", Path: api.Root + "/distro/{id}/sources", Permission: kind.Public, Doc: "The distribution's repositories as a file for its package manager: .sources of apt (deb822), .repo of dnf, or apk's repositories.", Handler: s.sources, Raw: textType},
	}
}

func (s *Repos) repo(r *http.Request) (*object.Repo, error) {
	o, err := s.Objects.Find(object.KindRepo, r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	return o.(*object.Repo), nil
}

// open opens a repo's ISO; close must be called where there is no error.
func (s *Repos) open(rp *object.Repo) (img *iso9660.Image, close func(), err error) {
	if rp.ISO == nil {
		return nil, nil, fault.New(fault.NotFound, "The repo %s has no ISO: nothing was uploaded.", rp.Name)
	}
	f, err := s.Files.Open(rp.ISO.SHA256)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fault.New(fault.Conflict, "The ISO of the repo %s is missing from this head's store: upload it again.", rp.Name)
	}
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Size() != rp.ISO.Size {
		err = fault.New(fault.Conflict, "The ISO of the repo %s is damaged in this head's store, it has %d bytes instead of %d: upload it again.", rp.Name, info.Size(), rp.ISO.Size)
	}
	if err == nil {
		if img, err = iso9660.Open(f, rp.ISO.Size); errors.Is(err, iso9660.ErrFormat) {
			err = unreadable(rp, err)
		}
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return img, func() { f.Close() }, nil
}

func unreadable(rp *object.Repo, err error) error {
	return fault.New(fault.Conflict, "The ISO of the repo %s cannot be read: %w.", rp.Name, err)
}

// key serves a key that was given itself: dnf wants a URL.
func (s *Repos) key(w http.ResponseWriter, r *http.Request) error {
	rp, err := s.repo(r)
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(r.PathValue("n"))
	if err != nil || n < 0 || n >= len(rp.Keys) || !strings.HasPrefix(rp.Keys[n], object.Armor) {
		return fault.New(fault.NotFound, "The repo %s holds no key with the number %q.", rp.Name, r.PathValue("n"))
	}
	return text(w, rp.Keys[n]+"\n")
}

// mirrors serves the addresses of one URL, the best first.
func (s *Repos) mirrors(w http.ResponseWriter, r *http.Request) error {
	rp, err := s.repo(r)
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(r.PathValue("n"))
	if err != nil || n < 0 || n >= len(rp.URLs) {
		return fault.New(fault.NotFound, "The repo %s has no URL with the number %q.", rp.Name, r.PathValue("n"))
	}
	var out strings.Builder
	address, _, _ := strings.Cut(rp.URLs[n], " ")
	for i, u := range append([]string{address}, alternates(rp, n)...) {
		out.WriteString(u + "\tpriority:" + strconv.Itoa(i+1) + "\n")
	}
	return text(w, out.String())
}

func text(w http.ResponseWriter, body string) error {
	w.Header().Set("Content-Type", textType+"; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, err := w.Write([]byte(body))
	return err
}
