package object

import "muster/shared/kind"

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
}

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

func image() *kind.Spec {
	fields := []kind.Field{
		nameField(true),
		descriptionField(),
		frozenField(),
		{Path: "parent", Summary: "the image that this one was made from; for information only", Source: kind.User, Format: kind.Reference, Ref: KindImage},
		{Path: "distro", Summary: "the distribution it holds", Source: kind.User, Format: kind.Text},
		{Path: "content", Summary: "the uploaded file by format, with the stamps of its upload", Source: kind.Head, Format: kind.Shown("object")},
	}
	return &kind.Spec{
		Name: KindImage, Plural: "images", Title: "Image",
		Doc:     "A root file system that nodes boot into.",
		New:     func() kind.Object { return &Image{} },
		Names:   []string{"name"},
		Read:    "ImagesRead",
		Write:   "ImagesWrite",
		Frozen:  "Cannot modify frozen image.",
		Columns: []string{"name", "content.cwsquash.size", "content.cwsquash.mtime", "distro", "frozen", "description"},
		Fields:  meta(append(fields, fileFields("content."+ContentFormat, "the squashfs file")...)...),
	}
}
