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

func image() *kind.Spec {
	fields := []kind.Field{
		nameField(true),
		descriptionField(),
		frozenField(),
		{Path: "parent", Summary: "the image that this one was made from; for information only", Source: kind.User, Format: kind.Reference, Ref: KindImage},
		{Path: "distro", Summary: "the distribution it holds", Source: kind.User, Format: kind.Text},
		{Path: "exports", Summary: "by head, the iSCSI name under which the content is the image's own there", Source: kind.Head, Format: kind.Shown("object")},
		{Path: "content", Summary: "the uploaded file by format, with the stamps of its upload", Source: kind.Head, Format: kind.Shown("object")},
	}
	return &kind.Spec{
		Name: KindImage, Plural: "images", Title: "Image",
		Doc:    "A root file system that nodes boot into.",
		New:    func() kind.Object { return &Image{} },
		Names:  []string{"name"},
		Read:   "ImagesRead",
		Write:  "ImagesWrite",
		Frozen: "Cannot modify frozen image.",
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
		)...),
	}
}
