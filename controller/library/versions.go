package library

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"

	"muster/controller/api"
	"muster/images/tree"
	"muster/shared/fault"
	"muster/shared/kind"
	"muster/shared/object"
	"muster/shared/wire"
)

// setContent makes an upload the newest version of an image, and its content;
// without a file the image has nothing any more. Numbers go on all the same:
// one that was given names the same bytes for ever.
func setContent(i *object.Image, f *object.File, c object.Content) {
	i.Content = nil
	if c.Squash = f; f == nil {
		i.Versions, i.Version = nil, 0
		return
	}
	i.Content = &c
	i.LastVersion++
	i.Version = i.LastVersion
	i.Versions = append(slices.Clone(i.Versions), object.Version{Number: i.Version, Digest: object.VersionDigest(f), Size: f.Size,
		Created: c.LastModified, On: c.LastModifiedOn, By: c.LastModifiedBy, File: f})
}

// eachVersion calls fn for every version of every image. Contents of before
// there were versions are one.
func (l *Library) eachVersion(fn func(*object.Version)) {
	for _, o := range l.opt.Objects.All(object.KindImage) {
		img := o.(*object.Image)
		for i := range img.Versions {
			fn(&img.Versions[i])
		}
		if f := img.Squash(); f != nil && len(img.Versions) == 0 {
			fn(&object.Version{File: f, Size: f.Size})
		}
	}
}

func (l *Library) versionRoutes() []api.Route {
	const image = api.Root + "/image/{id}/"
	return []api.Route{
		{Method: "POST", Path: api.Root + "/images/fsck", Permission: "ImagesWrite", Doc: "Read the whole store and compare it with its digests.", Handler: l.fsck, Answer: Health{}},
		{Method: "GET", Path: image + "versions", Permission: "ImagesRead", Doc: "The image's versions, oldest first.", Handler: l.listVersions, Answer: []shownVersion{}},
		{Method: "GET", Path: image + "diff", Permission: "ImagesRead", Doc: "What differs between two versions of the image: files and packages.", Handler: l.diff, Answer: Difference{},
			Query: []api.Param{{Name: "from", Doc: "a version's number or tag"}, {Name: "to", Doc: "another one; the content when it is left out"}}},
		{Method: "POST", Path: image + "rollback", Permission: "ImagesWrite", Doc: "Make a version the content of the image again.", Handler: l.rollback, Body: choice{}, Answer: api.Nothing{}},
		{Method: "POST", Path: image + "tag", Permission: "ImagesWrite", Doc: "Give a version a tag, and take it from any other.", Handler: l.tag, Body: tagging{}, Answer: api.Nothing{}},
		{Method: "DELETE", Path: image + "version/{version}", Permission: "ImagesWrite", Doc: "Remove a version that nothing uses.", Handler: l.removeVersion, Answer: api.Nothing{}},
		{Method: "GET", Path: image + "version/{version}/content", Permission: "ImagesRead", Doc: "A version as it was uploaded.", Handler: l.versionContent, Raw: "application/octet-stream"},
	}
}

// shownVersion is a version as it is listed.
type shownVersion struct {
	object.Version
	Current bool     `json:"current,omitempty"`
	Pinned  []string `json:"pinned,omitempty"` // the boot configurations that name it
	Booted  bool     `json:"booted,omitempty"` // nodes run it
}

func (l *Library) image(id string) (*object.Image, error) {
	o, err := l.opt.Objects.Find(object.KindImage, id)
	if err != nil {
		return nil, err
	}
	return o.(*object.Image), nil
}

func (l *Library) listVersions(w http.ResponseWriter, r *http.Request) error {
	img, err := l.image(r.PathValue("id"))
	if err != nil {
		return err
	}
	booted := l.booted()
	out := []shownVersion{}
	for _, v := range img.Versions {
		out = append(out, shownVersion{v, v.Number == img.Version, l.pinned(img, &v), booted[v.Digest]})
	}
	return api.Data(w, out)
}

func (l *Library) booted() map[string]bool {
	if l.opt.Booted == nil {
		return nil
	}
	return l.opt.Booted()
}

// pinned gives the boot configurations that name a version.
func (l *Library) pinned(img *object.Image, v *object.Version) []string {
	var out []string
	for _, o := range l.opt.Objects.All(object.KindBootconfig) {
		bc := o.(*object.Bootconfig)
		if bc.Image != img.UID || bc.ImageVersion == "" {
			continue
		}
		if bc.ImageVersion == strconv.Itoa(v.Number) || slices.Contains(v.Tags, bc.ImageVersion) {
			out = append(out, bc.Name)
		}
	}
	return out
}

// choice names a version.
type choice struct {
	Version string `json:"version"` // its number or a tag
}

func (l *Library) rollback(w http.ResponseWriter, r *http.Request) error {
	var in choice
	if err := api.Decode(w, r, &in); err != nil {
		return err
	}
	if in.Version == "" {
		return fault.Invalidf("version: say which one shall be the content again.")
	}
	err := l.change(r, func(i *object.Image) error {
		v, err := i.VersionOf(in.Version)
		if err != nil {
			return err
		}
		i.Version = v.Number
		i.Content = &object.Content{Squash: v.File, LastModified: float64(l.opt.Now().UnixMicro()) / 1e6, LastModifiedOn: l.opt.Head, LastModifiedBy: api.By(r).Name}
		return nil
	})
	if err != nil {
		return err
	}
	l.opt.Log.Info("image rolled back", "id", r.PathValue("id"), "to", in.Version, "admin", api.By(r).Name)
	return api.OK(w)
}

func (l *Library) change(r *http.Request, fn func(*object.Image) error) error {
	return l.opt.Objects.Modify(r.Context(), api.By(r), object.KindImage, r.PathValue("id"), func(_ kind.Tx, o kind.Object) error {
		return fn(o.(*object.Image))
	})
}

// tagging gives a tag, or takes it away.
type tagging struct {
	Version string `json:"version"`
	Tag     string `json:"tag"`
	Remove  bool   `json:"remove,omitempty"`
}

// tagForm keeps tags apart from numbers, and usable after a colon.
var tagForm = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]{0,63}$`)

// maxTags bounds the tags of one version.
const maxTags = 32

func (l *Library) tag(w http.ResponseWriter, r *http.Request) error {
	var in tagging
	if err := api.Decode(w, r, &in); err != nil {
		return err
	}
	if !tagForm.MatchString(in.Tag) {
		return fault.Invalidf("tag: %.100q is none: it begins with a letter, and has letters, digits, dots, dashes and underscores, 64 at most.", in.Tag)
	}
	err := l.change(r, func(i *object.Image) error {
		v, err := i.VersionOf(in.Version)
		if err != nil {
			return err
		}
		number := v.Number
		i.Versions = slices.Clone(i.Versions)
		for n := range i.Versions {
			v := &i.Versions[n]
			v.Tags = slices.DeleteFunc(slices.Clone(v.Tags), func(t string) bool { return t == in.Tag })
			if v.Number != number || in.Remove {
				continue
			}
			if len(v.Tags) >= maxTags {
				return fault.New(fault.Conflict, "Version %d of %s has %d tags already.", v.Number, i.Name, len(v.Tags))
			}
			v.Tags = append(v.Tags, in.Tag)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return api.OK(w)
}

func (l *Library) removeVersion(w http.ResponseWriter, r *http.Request) error {
	err := l.change(r, func(i *object.Image) error {
		v, err := i.VersionOf(r.PathValue("version"))
		if err != nil {
			return err
		}
		if why := l.inUse(i, v, l.booted()); why != "" {
			return fault.New(fault.Conflict, "Version %d of %s cannot be removed: %s.", v.Number, i.Name, why)
		}
		number := v.Number
		i.Versions = slices.DeleteFunc(slices.Clone(i.Versions), func(v object.Version) bool { return v.Number == number })
		return nil
	})
	if err != nil {
		return err
	}
	return api.OK(w)
}

// inUse says in words what keeps a version, "" when it is only its age.
func (l *Library) inUse(i *object.Image, v *object.Version, booted map[string]bool) string {
	pins := l.pinned(i, v)
	switch {
	case v.Number == i.Version:
		return "it is the content of the image"
	case len(v.Tags) > 0:
		return fmt.Sprintf("it is tagged %s", v.Tags[0])
	case len(pins) > 0:
		return fmt.Sprintf("the boot configuration %s names it", pins[0])
	case booted[v.Digest]:
		return "nodes run it"
	}
	return ""
}

// prune drops the versions that are neither new nor in use.
func (l *Library) prune(ctx context.Context) {
	booted := l.booted()
	dead := func(i *object.Image) []int {
		keep := i.Keep
		if keep == 0 {
			keep = object.KeepVersions
		}
		var out []int
		for n := range len(i.Versions) - keep {
			if v := &i.Versions[n]; l.inUse(i, v, booted) == "" {
				out = append(out, v.Number)
			}
		}
		return out
	}
	for _, o := range l.opt.Objects.All(object.KindImage) {
		img := o.(*object.Image)
		if img.Frozen || len(dead(img)) == 0 {
			continue
		}
		err := l.opt.Objects.Modify(ctx, kind.Author{Name: "muster"}, object.KindImage, img.UID, func(_ kind.Tx, o kind.Object) error {
			i := o.(*object.Image)
			gone := dead(i)
			i.Versions = slices.DeleteFunc(slices.Clone(i.Versions), func(v object.Version) bool { return slices.Contains(gone, v.Number) })
			return nil
		})
		if err != nil && ctx.Err() == nil {
			l.opt.Log.Warn("old versions could not be removed", "image", img.Name, "error", err)
		}
	}
}

func (l *Library) versionContent(w http.ResponseWriter, r *http.Request) error {
	img, err := l.image(r.PathValue("id"))
	if err != nil {
		return err
	}
	v, err := img.VersionOf(r.PathValue("version"))
	if err != nil {
		return err
	}
	return l.send(w, r, v.File)
}

// Difference is what differs between two versions.
type Difference struct {
	From     int           `json:"from"`
	To       int           `json:"to"`
	Files    []tree.Change `json:"files"`
	More     bool          `json:"more,omitempty"` // there are more files than are listed
	Packages []PackageDiff `json:"packages"`
}

// maxChanges bounds the files of a Difference.
const maxChanges = 100_000

func (l *Library) diff(w http.ResponseWriter, r *http.Request) error {
	img, err := l.image(r.PathValue("id"))
	if err != nil {
		return err
	}
	q := r.URL.Query()
	from, err := img.VersionOf(q.Get("from"))
	if err != nil {
		return err
	}
	to, err := img.VersionOf(q.Get("to"))
	if err != nil {
		return err
	}
	a, err := l.treeOf(img, from)
	if err != nil {
		return err
	}
	b, err := l.treeOf(img, to)
	if err != nil {
		return err
	}
	out := Difference{From: from.Number, To: to.Number, Files: []tree.Change{}}
	changes, more, err := tree.Diff(a, b, maxChanges)
	if err != nil {
		return err
	}
	out.Files, out.More = append(out.Files, changes...), more
	out.Packages = comparePackages(l.packages(r.Context(), a), l.packages(r.Context(), b))
	return api.Data(w, out)
}

// Version is what agents are told of a version of an image.
func (l *Library) Version(image, version string) (wire.Image, error) {
	img, err := l.image(image)
	if err != nil {
		return wire.Image{}, err
	}
	v, err := img.VersionOf(version)
	if err != nil {
		return wire.Image{}, err
	}
	return *l.Wire(img, v), nil
}

// Files gives the files of a version by the digest of its tree, where the head
// still keeps such a version.
func (l *Library) Files(digest string) (*tree.Manifest, error) {
	var file *object.File
	l.eachVersion(func(v *object.Version) {
		if v.File.Tree == digest {
			file = v.File
		}
	})
	if file == nil || digest == "" {
		return nil, fault.New(fault.NotFound, "No version of an image has the tree %.70q.", digest)
	}
	return l.opt.Blobs.Tree(file)
}

func (l *Library) treeOf(img *object.Image, v *object.Version) (*tree.Manifest, error) {
	m, err := l.opt.Blobs.Tree(v.File)
	if err != nil {
		return nil, fault.New(fault.Conflict, "The files of version %d of %s cannot be told: %w.", v.Number, img.Name, err)
	}
	return m, nil
}
