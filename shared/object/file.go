package object

import "muster/shared/kind"

// File is something uploaded, kept by content. It is immutable: a new upload
// is a new File.
type File struct {
	UID      string  `json:"uid"`
	Filename string  `json:"filename"` // the same as UID, for readers of the published form
	Size     int64   `json:"size"`     // bytes
	MTime    float64 `json:"mtime"`    // seconds since 1970
	Chksum   string  `json:"chksum"`   // "sha1:" and 40 hex digits, the published form
	SHA256   string  `json:"sha256"`   // 64 hex digits: what muster itself trusts
	// Pieces is the SHA-256 of the list of the file's pieces, kept like the
	// file itself; only of images.
	Pieces string `json:"pieces,omitempty"`
	// Index and Tree are the SHA-256 of the indices of the image's two faces,
	// by which it is kept and sent in chunks. A file with an Index is not kept
	// as a file; what is no sound squashfs has no Tree.
	Index string `json:"index,omitempty"`
	Tree  string `json:"tree,omitempty"`
	// Problem says why the file cannot be used for what it is meant for.
	Problem string `json:"problem,omitempty"`
	// Holds says what was found in it: the packaging scheme of an ISO's packages.
	Holds string `json:"holds,omitempty"`
	// Live is how the live system in an ISO is started; nil where none is known.
	Live *Live `json:"live,omitempty"`
}

// Live says where in an ISO the kernel and the initrd of its live system are,
// and what they must be told: {tree} stands for the URL of the ISO's content,
// {iso} for that of the ISO.
type Live struct {
	Kernel string   `json:"kernel"`
	Initrd string   `json:"initrd"`
	Args   []string `json:"args"`
}

func fileFields(path, what string) []kind.Field {
	return []kind.Field{
		{Path: path, Summary: what + "; uploaded through its own endpoint", Source: kind.Head, Format: kind.Shown("file")},
		{Path: path + ".size", Summary: "its size in bytes", Source: kind.Head, Format: kind.Shown("integer")},
		{Path: path + ".mtime", Summary: "when it was uploaded, in seconds since 1970", Source: kind.Head, Format: kind.Shown("time")},
		{Path: path + ".chksum", Summary: "its SHA-1 checksum, sha1:<hex>", Source: kind.Head, Format: kind.Shown("text")},
		{Path: path + ".sha256", Summary: "its SHA-256 digest", Source: kind.Head, Format: kind.Shown("text")},
		{Path: path + ".problem", Summary: "why it cannot be used", Source: kind.Head, Format: kind.Shown("text")},
	}
}
