package library

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"muster/controller/api"
	"muster/shared/fault"
	"muster/shared/kind"
	"muster/shared/object"
)

// fileType is the media type of every file that was uploaded.
const fileType = "application/octet-stream"

// size is what stat answers.
type size struct {
	MTime float64 `json:"mtime"` // seconds since 1970
	Size  int64   `json:"size"`  // bytes
}

// known is what is known of an image's content.
type known struct {
	size
	Chksum  string `json:"chksum"`
	Format  string `json:"fmt"`
	Problem string `json:"problem,omitempty"` // why no node can boot it
	Refs    int    `json:"refcnt"`            // how many images have the same
	SHA256  string `json:"sha256"`
}

type inspection func(f *os.File, about *object.File) error

// idle is how long an upload may stand still.
const idle = 2 * time.Minute

func (l *Library) upload(s slot) api.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		// A refusal should come before gigabytes are sent, not after.
		if err := l.changeable(r.Context(), api.By(r), s, r.PathValue("id")); err != nil {
			return err
		}
		body, err := uploaded(w, r)
		if err != nil {
			return err
		}
		if err := l.store(r.Context(), api.By(r), s, r.PathValue("id"), body); err != nil {
			return err
		}
		return api.OK(w)
	}
}

// store keeps what body gives and makes it the content of an object's slot.
func (l *Library) store(ctx context.Context, by kind.Author, s slot, id string, body io.Reader) error {
	f, release, err := l.add(ctx, body, s)
	if err != nil {
		return err
	}
	defer release()
	stamps := object.Content{LastModified: f.MTime, LastModifiedOn: l.opt.Head, LastModifiedBy: by.Name}
	err = l.opt.Objects.Modify(ctx, by, s.kindName, id, func(_ kind.Tx, o kind.Object) error {
		s.set(o, f, stamps)
		return nil
	})
	if err != nil {
		return err
	}
	l.opt.Log.Info("upload", "kind", s.kindName, "id", id, "what", s.name, "bytes", f.Size, "sha256", f.SHA256, "problem", f.Problem, "admin", by.Name)
	return nil
}

// changeable says why a slot of an object may not be changed.
func (l *Library) changeable(ctx context.Context, by kind.Author, s slot, id string) error {
	if err := l.opt.Objects.Modify(ctx, by, s.kindName, id, refuse); !errors.Is(err, errLooked) {
		return err
	}
	return nil
}

// imageSlot is where an image's content is.
func imageSlot() slot {
	all := slots()
	return all[slices.IndexFunc(all, func(s slot) bool { return s.kindName == object.KindImage })]
}

// Changeable says why an image may not get another content.
func (l *Library) Changeable(ctx context.Context, by kind.Author, image string) error {
	return l.changeable(ctx, by, imageSlot(), image)
}

// SetImage makes what r gives the content of an image, as an upload would.
func (l *Library) SetImage(ctx context.Context, by kind.Author, image string, r io.Reader) error {
	return l.store(ctx, by, imageSlot(), image, r)
}

// refuse is a change that never happens: it lets the registry say whether a
// change would be allowed.
var errLooked = errors.New("looked")

func refuse(kind.Tx, kind.Object) error { return errLooked }

// uploaded gives the file in a request: its body, or the first file of a form.
func uploaded(w http.ResponseWriter, r *http.Request) (io.Reader, error) {
	body := api.Incoming(w, r.Body, idle)
	media, params, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if !strings.HasPrefix(media, "multipart/") || params["boundary"] == "" {
		return body, nil
	}
	r.Body = io.NopCloser(body)
	form, err := r.MultipartReader()
	if err != nil {
		return nil, fault.Invalidf("The form cannot be read: %v.", err)
	}
	for range 100 {
		part, err := form.NextPart()
		if err != nil {
			break
		}
		if part.FileName() != "" {
			return part, nil
		}
	}
	return nil, fault.Invalidf("The form holds no file.")
}

func (l *Library) remove(s slot) api.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		err := l.opt.Objects.Modify(r.Context(), api.By(r), s.kindName, r.PathValue("id"), func(_ kind.Tx, o kind.Object) error {
			if s.get(o) == nil {
				return fault.New(fault.NotFound, "There is no %s to delete.", s.name)
			}
			s.set(o, nil, object.Content{})
			return nil
		})
		if err != nil {
			return err
		}
		return api.OK(w)
	}
}

func (l *Library) download(s slot) api.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		f, err := l.held(s, r)
		if err != nil {
			return err
		}
		return l.send(w, r, f)
	}
}

// held gives the file that a request is about.
func (l *Library) held(s slot, r *http.Request) (*object.File, error) {
	o, err := l.opt.Objects.Find(s.kindName, r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	f := s.get(o)
	if f == nil {
		return nil, fault.New(fault.NotFound, "The %s %s has no %s: nothing was uploaded.", s.kindName, r.PathValue("id"), s.name)
	}
	return f, nil
}

func (l *Library) serveFile(w http.ResponseWriter, r *http.Request) error {
	digest := r.PathValue("digest")
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	f := &object.File{SHA256: digest, Size: -1} // whoever asks by digest verifies it
	l.eachVersion(func(v *object.Version) {
		if v.File.SHA256 == digest {
			f = v.File
		}
	})
	return l.send(w, r, f)
}

// send serves a file with ranges; on plain HTTP the kernel copies it. A file
// that has lost some of its bytes, where its size is known, must not pass as
// whole.
func (l *Library) send(w http.ResponseWriter, r *http.Request, f *object.File) error {
	c, err := l.opt.Blobs.OpenContent(f)
	var damaged *errDamaged
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fault.New(fault.NotFound, "There is no file with SHA-256 %s on this head.", strconv.Quote(f.SHA256))
	case errors.As(err, &damaged):
		return fault.New(fault.Conflict, "The file is damaged in this head's store, %s: upload it again.", damaged.reason)
	case err != nil:
		return err
	}
	defer c.Close()
	if problem := l.storeProblem(f); f.Size >= 0 && problem != "" {
		return fault.New(fault.Conflict, "The file is damaged in this head's store, %s: upload it again.", problem)
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("ETag", `"`+f.SHA256+`"`)
	if _, ok := c.(*assembled); ok {
		w = sender{w}
	}
	http.ServeContent(w, r, "", time.Time{}, c)
	return nil
}

// stat gives what the object's file is known by.
func (l *Library) stat(s slot) api.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		f, err := l.held(s, r)
		if err != nil {
			return err
		}
		return api.Data(w, size{f.MTime, f.Size})
	}
}

func (l *Library) info(w http.ResponseWriter, r *http.Request) error {
	o, err := l.opt.Objects.Find(object.KindImage, r.PathValue("id"))
	if err != nil {
		return err
	}
	f := o.(*object.Image).Squash()
	if f == nil {
		return fault.New(fault.NotFound, "The image %s has no content: nothing was uploaded.", r.PathValue("id"))
	}
	refs := 0
	for _, o := range l.opt.Objects.All(object.KindImage) {
		has := func(v object.Version) bool { return v.File.SHA256 == f.SHA256 }
		if img := o.(*object.Image); slices.ContainsFunc(img.Versions, has) || img.Squash() != nil && img.Squash().SHA256 == f.SHA256 {
			refs++
		}
	}
	return api.Data(w, known{size: size{f.MTime, f.Size}, Chksum: f.Chksum, Format: object.ContentFormat, Problem: f.Problem, Refs: refs, SHA256: f.SHA256})
}

func (l *Library) errors(w http.ResponseWriter, r *http.Request) error {
	o, err := l.opt.Objects.Find(object.KindBootconfig, r.PathValue("id"))
	if err != nil {
		return err
	}
	all, err := l.faults(r.Context(), o.(*object.Bootconfig))
	if err != nil {
		return err
	}
	return verdict(w, all)
}

// faults is Problems, what does not keep from booting but points nowhere, and
// whether the files still are what was uploaded.
func (l *Library) faults(ctx context.Context, bc *object.Bootconfig) ([]string, error) {
	out := l.Problems(bc)
	if _, ok := l.opt.Objects.Look().Get(object.KindImage, bc.Image); !ok && bc.Image != "" && !slices.Contains(out, imageGone(bc)) {
		out = append(out, imageGone(bc))
	}
	damage, err := l.damage(ctx, bc)
	return append(out, damage...), err
}

func (l *Library) allErrors(w http.ResponseWriter, r *http.Request) error {
	var all []string
	for _, o := range l.opt.Objects.All(object.KindBootconfig) {
		bc := o.(*object.Bootconfig)
		problems, err := l.faults(r.Context(), bc)
		if err != nil {
			return err
		}
		for _, p := range problems {
			all = append(all, bc.Name+": "+p)
		}
	}
	return verdict(w, all)
}

func verdict(w http.ResponseWriter, problems []string) error {
	if len(problems) > 0 {
		return fault.New(fault.Conflict, "%s", strings.Join(problems, "; "))
	}
	return api.OK(w)
}
