package gitrepo

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"muster/shared/fault"
	"muster/shared/object"
)

// inner is the path inside the repository that a request names. The URL that
// is cloned ends in NAME.git, so that a clone gets the repository's name.
func inner(req *http.Request) string {
	path := req.PathValue("path")
	if first, rest, _ := strings.Cut(path, "/"); strings.HasSuffix(first, ".git") {
		return rest
	}
	return path
}

// The files of a bare repository that clients of git read (gitrepository-layout).
// Its configuration, logs and what is known of a remote are not among them.
var (
	repoFile  = regexp.MustCompile(`^(HEAD|objects/info/packs|objects/[0-9a-f]{2}/[0-9a-f]{38}|objects/pack/pack-[0-9a-f]{40}\.(pack|idx))$`)
	repoEntry = "HEAD\ninfo/refs\nobjects/\nrefs/heads/\nrefs/tags/\n"
)

// getRepo serves git's clients, smart ones and those that read file by file.
func (s *Repos) getRepo(w http.ResponseWriter, req *http.Request) error {
	path, service := inner(req), req.URL.Query().Get("service")
	if path == "info/refs" && (service == uploadPack || service == receivePack) {
		return s.advertise(w, req, service)
	}
	o, r, err := s.reader(w, req)
	if err != nil {
		return err
	}
	if err := s.ready(req.Context(), o, r); err != nil {
		return err
	}
	switch {
	case path == "":
		return text(w, req, repoEntry)
	case path == "info/refs":
		return s.turn(req, func() error { return r.serveRefs(w, req) })
	case path == "objects/info/packs":
		return r.servePacks(w, req)
	case strings.HasPrefix(path, localPrefix) || strings.HasPrefix(path, "refs/tags/"):
		return s.turn(req, func() error { return r.serveRef(w, req, path) })
	case !repoFile.MatchString(path):
		return missing(o, path)
	}
	root, err := os.OpenRoot(r.bare())
	if err != nil {
		return err
	}
	defer root.Close()
	return serveFile(w, req, o, root, path, "")
}

// serveRefs lists branches and tags, as git update-server-info would.
func (r *repo) serveRefs(w http.ResponseWriter, req *http.Request) error {
	out, err := r.git.do(req.Context(), run{dir: r.bare(), args: []string{"for-each-ref",
		"--format=%(objectname)\t%(refname)%(if)%(*objectname)%(then)\n%(*objectname)\t%(refname)^{}%(end)", "refs/heads", "refs/tags"}})
	if err != nil {
		return err
	}
	return text(w, req, string(out))
}

// serveRef gives the commit of one branch or tag, packed or not.
func (r *repo) serveRef(w http.ResponseWriter, req *http.Request, path string) error {
	if object.BranchName(path) != nil {
		return fault.New(fault.NotFound, "There is no %q.", path)
	}
	commit, err := r.git.text(req.Context(), r.bare(), "rev-parse", "--verify", "--quiet", path)
	if status(err) > 0 {
		return fault.New(fault.NotFound, "There is no %q.", path)
	}
	if err != nil {
		return err
	}
	return text(w, req, commit+"\n")
}

func (r *repo) servePacks(w http.ResponseWriter, req *http.Request) error {
	entries, err := os.ReadDir(r.bare() + "/objects/pack")
	if err != nil {
		return err
	}
	var list strings.Builder
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".pack") {
			list.WriteString("P " + e.Name() + "\n")
		}
	}
	return text(w, req, list.String()+"\n")
}

// getContent serves the work tree: files as they are, directories as a list.
func (s *Repos) getContent(w http.ResponseWriter, req *http.Request) error {
	o, r, err := s.reader(w, req)
	if err != nil {
		return err
	}
	if err := s.ready(req.Context(), o, r); err != nil {
		return err
	}
	root, name, err := s.openTree(req.Context(), r)
	if err != nil {
		return err
	}
	defer root.Close()
	path := strings.TrimSuffix(req.PathValue("path"), "/")
	if path == "" {
		path = "."
	}
	return serveFile(w, req, o, root, path, name)
}

func missing(o *object.Gitrepo, path string) error {
	return fault.New(fault.NotFound, "The git repository %s has no %.300q.", o.Name, path)
}

// serveFile serves what is at a path below root; no link leads out of it.
func serveFile(w http.ResponseWriter, req *http.Request, o *object.Gitrepo, root *os.Root, path, version string) error {
	if !fs.ValidPath(path) || strings.ContainsRune(path, 0) {
		return fault.Invalidf("%.300q is no path inside the repository.", path)
	}
	f, err := root.Open(path)
	if err != nil {
		return missing(o, path) // which of the reasons it is, a stranger need not know
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return err
	case info.IsDir():
		return listing(w, req, f)
	case !info.Mode().IsRegular():
		return missing(o, path)
	}
	var start [sniff]byte
	n, err := io.ReadFull(f, start[:])
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	plainHeader(w, contentType(start[:n]))
	if version != "" {
		w.Header().Set("ETag", `"`+version+`"`)
		w.Header().Set("Cache-Control", "no-cache")
	}
	http.ServeContent(w, req, "", time.Time{}, f)
	return nil
}

// contentType says text or bytes and nothing else: a page or a script from a
// repository must not run in the browser of who is logged in here.
func contentType(start []byte) string {
	whole := start
	for i := 0; i < utf8.UTFMax-1 && len(start) == sniff && !utf8.Valid(whole); i++ {
		whole = whole[:len(whole)-1] // a letter may be cut in the middle
	}
	if utf8.Valid(whole) && bytes.IndexByte(whole, 0) < 0 {
		return "text/plain; charset=utf-8"
	}
	return "application/octet-stream"
}

const sniff = 512 // bytes by which text is told from bytes

func plainHeader(w http.ResponseWriter, media string) {
	w.Header().Set("Content-Type", media)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Security-Policy", "sandbox; default-src 'none'")
}

// listing gives the names in a directory, one a line, directories with a slash.
func listing(w http.ResponseWriter, req *http.Request, dir *os.File) error {
	entries, err := dir.ReadDir(-1)
	if err != nil {
		return err
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		name := e.Name()
		if e.IsDir() {
			name += "/"
		}
		names = append(names, name+"\n")
	}
	slices.Sort(names)
	return text(w, req, strings.Join(names, ""))
}

func text(w http.ResponseWriter, req *http.Request, s string) error {
	plainHeader(w, "text/plain; charset=utf-8")
	http.ServeContent(w, req, "", time.Time{}, strings.NewReader(s))
	return nil
}

// ReadFile gives a file of a repository as it is on a branch; the branch that is
// checked out when that is "". At most max bytes are taken. It reads private
// repositories too: whether the result may be shown is for the caller to decide.
func (s *Repos) ReadFile(ctx context.Context, id, branch, path string, max int64) ([]byte, error) {
	o, r, err := s.find(id)
	if err != nil {
		return nil, err
	}
	rev := "HEAD"
	if branch != "" {
		if err := object.BranchName(branch); err != nil {
			return nil, fault.Invalidf("%v.", err)
		}
		rev = localPrefix + branch
	}
	if !fs.ValidPath(path) || path == "." || strings.ContainsAny(path, "\x00\n") {
		return nil, fault.Invalidf("%.300q is no path inside the git repository %s.", path, o.Name)
	}
	if err := s.ready(ctx, o, r); err != nil {
		return nil, err
	}
	return r.blob(ctx, o, rev, path, max)
}

// blob reads a regular file: what a link leads to is not followed.
func (r *repo) blob(ctx context.Context, o *object.Gitrepo, rev, path string, max int64) ([]byte, error) {
	tree, err := r.git.text(ctx, r.bare(), "rev-parse", "--verify", "--quiet", rev+"^{tree}")
	if status(err) > 0 {
		return nil, fault.New(fault.NotFound, "The git repository %s has no branch %q.", o.Name, strings.TrimPrefix(rev, localPrefix))
	}
	if err != nil {
		return nil, err
	}
	entry, err := r.git.do(ctx, run{dir: r.bare(), args: []string{"ls-tree", "-z", "--full-tree", tree, "--", path}})
	if err != nil {
		return nil, err
	}
	meta, _, _ := strings.Cut(string(entry), "\t")
	f := strings.Fields(meta)
	if len(f) != 3 || f[1] != "blob" || !strings.HasPrefix(f[0], "100") {
		return nil, missing(o, path)
	}
	out := &bounded{left: int(max)}
	if _, err := r.git.do(ctx, run{dir: r.bare(), args: []string{"cat-file", "blob", f[2]}, stdout: out}); err != nil {
		return nil, err
	}
	if out.over {
		return nil, fault.New(fault.TooLarge, "%q of the git repository %s has more than %d bytes.", path, o.Name, max)
	}
	return out.buf.Bytes(), nil
}
