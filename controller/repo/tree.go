package repo

import (
	"bytes"
	"errors"
	"html/template"
	"io/fs"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"muster/images/iso9660"
	"muster/shared/fault"
	"muster/shared/object"
)

// tree serves what is at a path in a repo's ISO. Files are never declared to
// be anything a browser would run: who made them is unknown, and the portal
// lives at the same address.
func (s *Repos) tree(w http.ResponseWriter, r *http.Request) error {
	rp, err := s.repo(r)
	if err != nil {
		return err
	}
	img, done, err := s.open(rp)
	if err != nil {
		return err
	}
	defer done()
	path := r.PathValue("path")
	e, err := img.Lookup(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fault.New(fault.NotFound, "There is no %q in the ISO of the repo %s.", path, rp.Name)
	case errors.Is(err, iso9660.ErrFormat):
		return unreadable(rp, err)
	case err != nil:
		return err
	}
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("ETag", `"`+rp.ISO.UID+"-"+e.ID()+`"`)
	slash := path == "" || strings.HasSuffix(path, "/")
	switch {
	case e.Dir && !slash:
		http.Redirect(w, r, r.URL.EscapedPath()+"/", http.StatusMovedPermanently)
		return nil
	case e.Dir:
		return s.list(w, r, rp, img, e)
	case slash:
		return fault.New(fault.NotFound, "%q is a file, not a directory, in the ISO of the repo %s.", path, rp.Name)
	}
	content, err := img.Content(e)
	if err != nil {
		return unreadable(rp, err)
	}
	w.Header().Set("Content-Type", fileType)
	http.ServeContent(w, r, "", e.Time, content)
	return nil
}

func listing() *template.Template {
	return template.Must(template.New("").Parse(`<!DOCTYPE html>
<title>{{.Title}}</title>
<h1>{{.Title}}</h1>
<pre>
{{range .Lines}}<a href="{{.Ref}}">{{.Name}}</a>  {{.About}}
{{end}}</pre>
`))
}

type line struct{ Ref, Name, About string }

// list shows a directory as tools that mirror repositories read it: one link
// for each entry.
func (s *Repos) list(w http.ResponseWriter, r *http.Request, rp *object.Repo, img *iso9660.Image, dir iso9660.Entry) error {
	all, err := img.List(dir)
	if err != nil {
		return unreadable(rp, err)
	}
	page := struct {
		Title string
		Lines []line
	}{Title: rp.Name + ": /" + r.PathValue("path")}
	if r.PathValue("path") != "" {
		page.Lines = []line{{"../", "../", ""}}
	}
	for _, e := range all {
		l := line{Ref: "./" + url.PathEscape(e.Name), Name: e.Name, About: e.Time.Format("2006-01-02 15:04") + "  " + strconv.FormatInt(e.Size, 10)}
		switch {
		case e.Dir:
			l.Ref, l.Name, l.About = l.Ref+"/", l.Name+"/", ""
		case e.Link != "":
			l.About = "-> " + e.Link
		}
		page.Lines = append(page.Lines, l)
	}
	var body bytes.Buffer
	if err := listing().Execute(&body, page); err != nil {
		return err
	}
	w.Header().Set("Content-Type", pageType+"; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'")
	http.ServeContent(w, r, "", dir.Time, bytes.NewReader(body.Bytes()))
	return nil
}
