package library

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"muster/controller/api"
	"muster/controller/registry"
	"muster/shared/fault"
	"muster/shared/kind"
	"muster/shared/object"
)

// Bounds of an import.
const (
	maxManifest = 16 << 20 // bytes
	maxFiles    = 16
)

// imported is what an import made.
type imported struct {
	UID   string `json:"uid"` // of the boot configuration
	Name  string `json:"name"`
	Image string `json:"image,omitempty"` // name
}

// importing is one import under way. Files are in the store, kept there, before
// the first object is made; what was made is unmade when something fails.
type importing struct {
	*Library
	ctx   context.Context
	by    kind.Author
	m     manifest
	files map[string]*object.File // by slot
	undo  []func()
}

func (l *Library) importBootconfig(w http.ResponseWriter, r *http.Request) error {
	body, err := uploaded(w, r)
	if err != nil {
		return err
	}
	i := &importing{Library: l, ctx: r.Context(), by: api.By(r), files: map[string]*object.File{}}
	t := tar.NewReader(body)
	if err := i.readManifest(t); err != nil {
		return err
	}
	q := r.URL.Query()
	if err := i.rename(q.Get("name"), q.Get("image")); err != nil {
		return err
	}
	if err := i.check(); err != nil { // before gigabytes are sent
		return err
	}
	release, err := i.readFiles(t)
	defer release()
	if err != nil {
		return err
	}
	made, err := i.make()
	if err != nil {
		for n := len(i.undo) - 1; n >= 0; n-- {
			i.undo[n]()
		}
		return err
	}
	l.opt.Log.Info("boot configuration imported", "name", made.Name, "image", made.Image, "from", i.m.Head, "admin", i.by.Name)
	return api.Data(w, made)
}

// next gives the next entry, which must be the plain file of that name. Sparse
// ones would say that a small archive is a large file.
func next(t *tar.Reader, name string, limit int64) (int64, error) {
	h, err := t.Next()
	if errors.Is(err, io.EOF) {
		return 0, fault.Invalidf("The export ends before %s: it is not complete. Nothing was changed.", name)
	}
	if err != nil {
		return 0, fault.Invalidf("The export is no tar archive, or broke off: %v. Nothing was changed.", err)
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse") {
			h.Typeflag = tar.TypeGNUSparse
		}
	}
	switch {
	case h.Name != name || h.Typeflag != tar.TypeReg:
		return 0, fault.Invalidf("The export has the entry %.100q of type %q where the file %s should be: it was not made by `muster bootconfig export`.", h.Name, h.Typeflag, name)
	case h.Size > limit:
		return 0, fault.New(fault.TooLarge, "The export's %s has %d bytes, at most %d are taken.", name, h.Size, limit)
	}
	return h.Size, nil
}

func (i *importing) readManifest(t *tar.Reader) error {
	size, err := next(t, manifestName, maxManifest)
	if err != nil {
		return err
	}
	raw := make([]byte, size)
	if _, err := io.ReadFull(t, raw); err != nil {
		return fault.Invalidf("The export broke off: %v. Nothing was changed.", err)
	}
	if err := api.CheckJSON(raw); err != nil {
		return err
	}
	if err := json.Unmarshal(raw, &i.m); err != nil {
		return fault.Invalidf("The export's %s does not fit: %v.", manifestName, err)
	}
	switch {
	case i.m.Format != manifestFormat:
		return fault.Invalidf("The export's format is %q, not %s.", i.m.Format, manifestFormat)
	case i.m.Version != manifestVersion:
		return fault.Invalidf("The export has version %d of the format, this head knows %d: a newer head made it.", i.m.Version, manifestVersion)
	case len(i.m.Files) > maxFiles || len(i.m.Groups) > maxGroups:
		return fault.Invalidf("The export lists %d files and %d groups, at most %d and %d are taken.", len(i.m.Files), len(i.m.Groups), maxFiles, maxGroups)
	case i.m.Bootconfig == nil:
		return fault.Invalidf("The export holds no boot configuration.")
	}
	return nil
}

func (i *importing) rename(bootconfig, image string) error {
	set := func(to map[string]json.RawMessage, name string) error {
		raw, err := json.Marshal(name)
		to["name"] = raw
		return err
	}
	if bootconfig != "" {
		if err := set(i.m.Bootconfig, bootconfig); err != nil {
			return err
		}
	}
	if image != "" && i.m.Image == nil {
		return fault.Invalidf("image: the export holds no image to be named %q.", image)
	}
	if image != "" {
		return set(i.m.Image, image)
	}
	return nil
}

func name(fields map[string]json.RawMessage) (s string) {
	_ = json.Unmarshal(fields["name"], &s) // the registry says what is wrong with it
	return s
}

// check says what would be refused at the end.
func (i *importing) check() error {
	for _, need := range []struct {
		wanted bool
		perm   kind.Permission
	}{{i.m.Image != nil, "ImagesWrite"}, {len(i.m.Groups) > 0, "AttribsWrite"}} {
		if need.wanted && !i.by.May(need.perm) {
			return fault.New(fault.Forbidden, "Admin %s lacks the permission %s, which this import needs.", i.by.Name, need.perm)
		}
	}
	if len(i.m.Kickstarts) > 0 && i.opt.Kickstarts == nil {
		return fault.New(fault.Conflict, "The export holds kickstarts, and this head has no directory for them.")
	}
	if n := name(i.m.Bootconfig); n != "" {
		if _, err := i.opt.Objects.Find(object.KindBootconfig, n); err == nil {
			return fault.New(fault.Conflict, "A boot configuration %s is here already: import it under another name, ?name=NAME.", n)
		}
	}
	for _, f := range i.m.Files {
		if _, ok := slotOf(f.Slot); !ok || !digestForm.MatchString(f.SHA256) || f.Size < 0 {
			return fault.Invalidf("The export lists a file for %.50q with the digest %.70q, which cannot be.", f.Slot, f.SHA256)
		}
		if f.Slot == "content" && i.m.Image == nil {
			return fault.Invalidf("The export holds the content of an image and no image.")
		}
	}
	_, err := i.sameImage()
	return err
}

func slotOf(name string) (slot, bool) {
	for _, s := range slots() {
		if s.name == name && s.kindName != object.KindRepo {
			return s, true
		}
	}
	return slot{}, false
}

// sameImage gives the image that is here already with this name and content;
// nil when it has to be made.
func (i *importing) sameImage() (*object.Image, error) {
	n := name(i.m.Image)
	o, err := i.opt.Objects.Find(object.KindImage, n)
	if i.m.Image == nil || n == "" || err != nil {
		return nil, nil
	}
	sum := ""
	for _, f := range i.m.Files {
		if f.Slot == "content" {
			sum = f.SHA256
		}
	}
	img := o.(*object.Image)
	if have := img.Squash(); have != nil && have.SHA256 == sum || have == nil && sum == "" {
		return img, nil
	}
	return nil, fault.New(fault.Conflict, "An image %s with other content is here already: import this one under another name, ?image=NAME.", n)
}

// readFiles takes the files into the store and compares each with its digest.
func (i *importing) readFiles(t *tar.Reader) (release func(), err error) {
	var kept []func()
	release = func() {
		for _, f := range kept {
			f()
		}
	}
	for _, want := range i.m.Files {
		s, _ := slotOf(want.Slot)
		size, err := next(t, want.name(), s.limit)
		if err != nil {
			return release, err
		}
		f, rel, err := i.add(i.ctx, t, s)
		if err != nil {
			return release, err
		}
		kept = append(kept, rel)
		if f.SHA256 != want.SHA256 || size != want.Size {
			return release, fault.Invalidf("The export's %s is damaged: it has SHA-256 %s and %d bytes, not %s and %d. Nothing was changed.", want.Slot, f.SHA256, size, want.SHA256, want.Size)
		}
		i.files[want.Slot] = f
	}
	if h, err := t.Next(); err == nil {
		return release, fault.Invalidf("The export has %.100q after its last file.", h.Name)
	} else if !errors.Is(err, io.EOF) {
		return release, fault.Invalidf("The export broke off: %v. Nothing was changed.", err)
	}
	return release, nil
}

// make makes the objects, the boot configuration last.
func (i *importing) make() (imported, error) {
	img, err := i.makeImage()
	if err != nil {
		return imported{}, err
	}
	for _, g := range i.m.Groups {
		if err := i.makeGroup(g); err != nil {
			return imported{}, err
		}
	}
	if len(i.m.Kickstarts) > 0 {
		undo, err := i.opt.Kickstarts.Add(i.m.Kickstarts)
		if err != nil {
			return imported{}, err
		}
		i.undo = append(i.undo, undo)
	}
	if img != "" {
		i.m.Bootconfig["image"], _ = json.Marshal(img)
	}
	uid, err := i.create(object.KindBootconfig, i.m.Bootconfig)
	if err != nil {
		return imported{}, err
	}
	if err := i.fill(object.KindBootconfig, uid, "kernel", "initramfs"); err != nil {
		return imported{}, err
	}
	return imported{uid, name(i.m.Bootconfig), name(i.m.Image)}, nil
}

func (i *importing) makeImage() (uid string, err error) {
	if i.m.Image == nil {
		return "", nil
	}
	same, err := i.sameImage()
	if same != nil || err != nil {
		if same != nil {
			uid = same.UID
		}
		return uid, err
	}
	if uid, err = i.create(object.KindImage, i.m.Image); err != nil {
		return "", err
	}
	return uid, i.fill(object.KindImage, uid, "content")
}

// makeGroup makes an attribute group, unless the same one is here.
func (i *importing) makeGroup(fields map[string]json.RawMessage) error {
	o, err := i.opt.Objects.Find(object.KindAttrib, name(fields))
	if err != nil {
		_, err = i.create(object.KindAttrib, fields)
		return err
	}
	have, err := i.fields(object.KindAttrib, o)
	if err != nil {
		return err
	}
	var a, b kind.Values
	_ = json.Unmarshal(have["attributes"], &a)
	_ = json.Unmarshal(fields["attributes"], &b)
	if fmt.Sprint(a) != fmt.Sprint(b) { // maps print in the order of their keys
		return fault.New(fault.Conflict, "An attribute group %s with other attributes is here already: rename it, or import without groups.", name(fields))
	}
	return nil
}

func (i *importing) create(kindName string, fields map[string]json.RawMessage) (string, error) {
	uid, err := i.opt.Objects.Create(i.ctx, i.by, kindName, registry.Input(fields))
	if err == nil {
		i.undo = append(i.undo, func() {
			// The client may be gone; what it began must not stay.
			if err := i.opt.Objects.Delete(context.WithoutCancel(i.ctx), i.by, kindName, uid); err != nil {
				i.opt.Log.Warn("a failed import left an object", "kind", kindName, "uid", uid, "error", err)
			}
		})
	}
	return uid, err
}

// fill gives an object its files.
func (i *importing) fill(kindName, uid string, names ...string) error {
	return i.opt.Objects.Modify(i.ctx, i.by, kindName, uid, func(_ kind.Tx, o kind.Object) error {
		for _, n := range names {
			if f := i.files[n]; f != nil {
				s, _ := slotOf(n)
				s.set(o, f, object.Content{LastModified: f.MTime, LastModifiedOn: i.opt.Head, LastModifiedBy: i.by.Name})
			}
		}
		return nil
	})
}
