package library

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"muster/controller/api"
	"muster/shared/fault"
	"muster/shared/kind"
	"muster/shared/object"
)

// An export is a tar archive: a manifest, then the files that it lists, in its
// order. Everything in it is named by its digest, and nothing is compressed:
// images are already, and what is not compressed cannot grow.
const (
	manifestName    = "muster.json"
	manifestFormat  = "muster-bootconfig"
	manifestVersion = 1
)

// manifest is what an export says of itself.
type manifest struct {
	Format     string                       `json:"format"`
	Version    int                          `json:"version"`
	Head       string                       `json:"head"`
	Time       time.Time                    `json:"time"`
	Bootconfig map[string]json.RawMessage   `json:"bootconfig"`
	Image      map[string]json.RawMessage   `json:"image,omitempty"`
	Groups     []map[string]json.RawMessage `json:"groups,omitempty"`
	Kickstarts map[string]string            `json:"kickstarts,omitempty"` // text by name, with what they include
	Files      []listed                     `json:"files"`
}

// listed is a file of an export. Its name in the archive is "files/" and the digest.
type listed struct {
	Slot   string `json:"slot"` // kernel, initramfs or content
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`

	file *object.File
}

func (l listed) name() string { return "files/" + l.SHA256 }

// Kickstarts reads and adds files of the kickstart directory.
type Kickstarts interface {
	// Files gives a kickstart and all that it includes, by name.
	Files(name string) (map[string]string, error)
	// Add writes those that are not there. One that is there and differs is an
	// error, and then nothing is written; undo takes back what was.
	Add(files map[string]string) (undo func(), err error)
}

const exportType = "application/x-tar"

func (l *Library) export(w http.ResponseWriter, r *http.Request) error {
	o, err := l.opt.Objects.Find(object.KindBootconfig, r.PathValue("id"))
	if err != nil {
		return err
	}
	bc := o.(*object.Bootconfig)
	m, err := l.manifest(r, bc)
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", exportType)
	w.Header().Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": bc.Name + ".tar"}))
	t := tar.NewWriter(w)
	if err := entry(t, manifestName, int64(len(text)), m.Time, bytes.NewReader(text)); err != nil {
		return err
	}
	for _, f := range m.Files {
		if err := l.exportFile(t, f, m.Time); err != nil {
			return err
		}
	}
	return t.Close()
}

func (l *Library) exportFile(t *tar.Writer, f listed, at time.Time) error {
	file, err := l.opt.Blobs.OpenContent(f.file)
	if err != nil {
		return err
	}
	defer file.Close()
	return entry(t, f.name(), f.Size, at, file)
}

func entry(t *tar.Writer, name string, size int64, at time.Time, r io.Reader) error {
	if err := t.WriteHeader(&tar.Header{Name: name, Size: size, Mode: 0o644, ModTime: at, Typeflag: tar.TypeReg}); err != nil {
		return err
	}
	_, err := io.CopyN(t, r, size)
	return err
}

// manifest collects a boot configuration and what belongs to it. ?image=false
// leaves the image out, ?groups=A,B adds attribute groups.
func (l *Library) manifest(r *http.Request, bc *object.Bootconfig) (*manifest, error) {
	by, q := api.By(r), r.URL.Query()
	m := &manifest{Format: manifestFormat, Version: manifestVersion, Head: l.opt.Head, Time: l.opt.Now().UTC().Truncate(time.Second), Files: []listed{}}
	var err error
	if m.Bootconfig, err = l.fields(object.KindBootconfig, bc); err != nil {
		return nil, err
	}
	list := func(slot, what string, f *object.File) error {
		if f == nil {
			return nil
		}
		if problem := l.storeProblem(f); problem != "" {
			return fault.New(fault.Conflict, "%s: %s: upload it again.", what, problem)
		}
		m.Files = append(m.Files, listed{slot, f.Size, f.SHA256, f})
		return nil
	}
	if err := list("kernel", "kernel", bc.Kernel); err != nil {
		return nil, err
	}
	if err := list("initramfs", "initramfs", bc.Initramfs); err != nil {
		return nil, err
	}
	if o, ok := l.opt.Objects.Look().Get(object.KindImage, bc.Image); ok && q.Get("image") != "false" {
		if !by.May("ImagesRead") {
			return nil, fault.New(fault.Forbidden, "%s may not read images; leave it out with ?image=false.", by.Name)
		}
		img := o.(*object.Image)
		if m.Image, err = l.fields(object.KindImage, img); err != nil {
			return nil, err
		}
		if err := list("content", "image "+img.Name, img.Squash()); err != nil {
			return nil, err
		}
	}
	if bc.Kickstart != "" && l.opt.Kickstarts != nil {
		if m.Kickstarts, err = l.opt.Kickstarts.Files(bc.Kickstart); err != nil {
			return nil, err
		}
	}
	m.Groups, err = l.groups(by, q.Get("groups"))
	return m, err
}

// maxGroups bounds how many attribute groups go along.
const maxGroups = 100

func (l *Library) groups(by kind.Author, names string) ([]map[string]json.RawMessage, error) {
	ids := strings.FieldsFunc(names, func(r rune) bool { return r == ',' })
	switch {
	case len(ids) == 0:
		return nil, nil
	case len(ids) > maxGroups:
		return nil, fault.Invalidf("groups: %d are too many, at most %d are taken.", len(ids), maxGroups)
	case !by.May("AttribsRead"):
		return nil, fault.New(fault.Forbidden, "%s may not read attribute groups.", by.Name)
	}
	var out []map[string]json.RawMessage
	for _, id := range ids {
		o, err := l.opt.Objects.Find(object.KindAttrib, id)
		if err != nil {
			return nil, err
		}
		spec, _ := l.spec(object.KindAttrib)
		fields, err := l.fields(object.KindAttrib, spec.Redact(o, by))
		if err != nil {
			return nil, err
		}
		out = append(out, fields)
	}
	return out, nil
}

func (l *Library) spec(kindName string) (*kind.Spec, bool) {
	for _, s := range l.opt.Objects.Specs() {
		if s.Name == kindName {
			return s, true
		}
	}
	return nil, false
}

// fields gives what a user may set of an object, as it would be sent to make
// it elsewhere. References are of this head and stay here; a copy is not frozen.
func (l *Library) fields(kindName string, o kind.Object) (map[string]json.RawMessage, error) {
	spec, ok := l.spec(kindName)
	if !ok {
		return nil, fmt.Errorf("kind %s is not declared", kindName)
	}
	out := map[string]json.RawMessage{}
	for _, f := range spec.Writable() {
		v, _ := spec.Value(o, f.Path)
		if f.Ref != "" || f.Path == "frozen" || v.IsZero() {
			continue
		}
		raw, err := json.Marshal(v.Interface())
		if err != nil {
			return nil, err
		}
		out[f.Path] = raw
	}
	return out, nil
}
