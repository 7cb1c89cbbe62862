package object

import (
	"slices"
	"strconv"

	"muster/shared/fault"
	"muster/shared/kind"
	"muster/shared/wire"
)

// ContentFormat is the published name of the one image format there is: a
// squashfs file.
const ContentFormat = "cwsquash"

// Image is a root file system for nodes.
type Image struct {
	kind.Meta
	Name        string   `json:"name"`
	Description string   `json:"description,omitempty"`
	Frozen      bool     `json:"frozen,omitempty"`
	Parent      *string  `json:"parent"`
	Distro      string   `json:"distro,omitempty"`
	Content     *Content `json:"content,omitempty"`

	// Versions are the uploads that are kept, oldest first; Version is the
	// number of the one that is the content, LastVersion the highest ever given.
	Versions    []Version `json:"versions,omitempty"`
	Version     int       `json:"version,omitempty"`
	LastVersion int       `json:"last_version,omitempty"`
	// Keep is how many versions are kept that nothing else keeps; 0 is KeepVersions.
	Keep int `json:"keep,omitempty"`

	// Exports is filled in when an image is shown, and never stored.
	Exports map[string]Export `json:"exports,omitempty"`
}

// Export says how a head names an image to those that attach it over the
// network.
type Export struct {
	Target struct {
		Category string `json:"category"`
		Location string `json:"location"`
	} `json:"targetcli"`
	LastModified   float64 `json:"last_modified"`
	LastModifiedOn string  `json:"last_modified_on"`
}

// Target is the iSCSI qualified name (RFC 3721) of the image.
func (i *Image) Target() string { return "iqn.2026-01.muster:" + i.UID }

// Content holds an image's file by format, with the stamps of its upload.
type Content struct {
	Squash         *File   `json:"cwsquash,omitempty"`
	LastModified   float64 `json:"last_modified"`
	LastModifiedOn string  `json:"last_modified_on"`
	LastModifiedBy string  `json:"last_modified_by"`
}

// Squash gives the image's file, nil when none was uploaded.
func (i *Image) Squash() *File {
	if i.Content == nil {
		return nil
	}
	return i.Content.Squash
}

// KeepVersions is how many of an image's newest versions are kept where it
// does not say.
const KeepVersions = 10

// Version is one upload of an image. It never changes, but for its tags.
type Version struct {
	Number  int      `json:"number"` // from 1 on, never given twice
	Digest  string   `json:"digest"` // names what it holds, in both faces
	Size    int64    `json:"size"`   // of the file, in bytes
	Created float64  `json:"created"`
	On      string   `json:"on,omitempty"`
	By      string   `json:"by,omitempty"`
	Tags    []string `json:"tags,omitempty"`
	File    *File    `json:"file"`
}

// VersionDigest names what a version holds.
func VersionDigest(f *File) string {
	return wire.VersionDigest(f.Tree, f.Index)
}

// VersionOf finds a version by its number or a tag; "" is the image's content.
func (i *Image) VersionOf(ref string) (*Version, error) {
	if ref == "" {
		ref = strconv.Itoa(i.Version)
	}
	for n := range i.Versions {
		v := &i.Versions[n]
		if strconv.Itoa(v.Number) == ref || slices.Contains(v.Tags, ref) {
			return v, nil
		}
	}
	if len(i.Versions) == 0 && i.Squash() != nil && ref == "0" { // uploaded before there were versions
		return &Version{Size: i.Squash().Size, File: i.Squash()}, nil
	}
	if i.Content == nil {
		return nil, fault.New(fault.NotFound, "The image %s has no content: nothing was uploaded.", i.Name)
	}
	return nil, fault.New(fault.NotFound, "The image %s has no version or tag %q: `muster image log %s` lists those that are kept.", i.Name, ref, i.Name)
}

func image() *kind.Spec {
	fields := []kind.Field{
		nameField(true),
		descriptionField(),
		frozenField(),
		{Path: "parent", Summary: "the image that this one was made from; for information only", Source: kind.User, Format: kind.Reference, Ref: KindImage},
		{Path: "distro", Summary: "the distribution it holds", Source: kind.User, Format: kind.Text},
		{Path: "exports", Summary: "by head, the iSCSI name under which the content is the image's own there", Source: kind.Head, Format: kind.Shown("object")},
		{Path: "content", Summary: "the uploaded file by format, with the stamps of its upload", Source: kind.Head, Format: kind.Shown("object")},
		{Path: "version", Summary: "the number of the version that is the content", Source: kind.Head, Format: kind.Shown("integer")},
		{Path: "last_version", Summary: "the highest number that a version was given", Source: kind.Head, Format: kind.Shown("integer")},
		{Path: "versions", Summary: "the uploads that are kept, oldest first: number, digest, size, created, by, tags", Source: kind.Head, Format: kind.Shown("list")},
		{Path: "keep", Summary: "how many of the newest versions are kept; those that are tagged, pinned or booted are kept besides; 10 when unset", Source: kind.User, Format: kind.Int(1, 1000)},
	}
	return &kind.Spec{
		Name: KindImage, Plural: "images", Title: "Image",
		Doc:      "A root file system that nodes boot into.",
		New:      func() kind.Object { return &Image{} },
		Names:    []string{"name"},
		Reserved: []string{"fsck"},
		Read:     "ImagesRead",
		Write:    "ImagesWrite",
		Frozen:   "Cannot modify frozen image.",
		Show: func(_ kind.Look, obj kind.Object) kind.Object {
			i := *obj.(*Image)
			if i.Exports = nil; i.Content != nil {
				e := Export{LastModified: i.Content.LastModified, LastModifiedOn: i.Content.LastModifiedOn}
				e.Target.Category, e.Target.Location = "iscsi", i.Target()
				i.Exports = map[string]Export{i.Content.LastModifiedOn: e}
			}
			return &i
		},
		Columns: []string{"name", "content.cwsquash.size", "content.cwsquash.mtime", "distro", "frozen", "description"},
		Fields: meta(append(append(fields, fileFields("content."+ContentFormat, "the squashfs file")...),
			kind.Field{Path: "content." + ContentFormat + ".pieces", Summary: "the SHA-256 of the list by which nodes verify it piece by piece", Source: kind.Head, Format: kind.Shown("text")},
			kind.Field{Path: "content." + ContentFormat + ".index", Summary: "the SHA-256 of the index of its chunks as one file", Source: kind.Head, Format: kind.Shown("text")},
			kind.Field{Path: "content." + ContentFormat + ".tree", Summary: "the SHA-256 of the manifest of its files", Source: kind.Head, Format: kind.Shown("text")},
		)...),
	}
}
