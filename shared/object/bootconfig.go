package object

import (
	"fmt"
	"io/fs"
	"strings"
	"unicode"

	"muster/shared/kind"
)

// The boot styles of the published API.
const (
	StyleRWRAM   = "rwram"   // a writable copy of the image in RAM; the default
	StyleRORAM   = "roram"   // the squashed image in RAM, writable through an overlay
	StyleISCSI   = "iscsi"   // the image on a remote disk
	StyleNext    = "next"    // let the firmware try its next device
	StyleDisked  = "disked"  // the image on a local disk
	StyleSanboot = "sanboot" // the firmware boots a disk itself
	StyleLive    = "live"    // an ISO file
)

// Styles names the boot styles, the default first.
func Styles() []string {
	return []string{StyleRWRAM, StyleRORAM, StyleISCSI, StyleNext, StyleDisked, StyleSanboot, StyleLive}
}

// Bootconfig says how a node gets from power-on to a running system.
type Bootconfig struct {
	kind.Meta
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	Frozen      bool   `json:"frozen,omitempty"`
	Cmdline     string `json:"cmdline,omitempty"`
	Image       string `json:"image,omitempty"`
	// ImageVersion pins a version of the image, by number or tag.
	ImageVersion string `json:"image_version,omitempty"`
	BootStyle    string `json:"boot_style,omitempty"`
	Repo         string `json:"repo,omitempty"`
	Kickstart    string `json:"kickstart,omitempty"`
	Kernel       *File  `json:"kernel,omitempty"`
	Initramfs    *File  `json:"initramfs,omitempty"`
}

// Style gives the boot style, with its default.
func (b *Bootconfig) Style() string {
	if b.BootStyle == "" {
		return StyleRWRAM
	}
	return b.BootStyle
}

// BootsImage says whether the root of what it boots is made from an image.
func (b *Bootconfig) BootsImage() bool {
	switch b.Style() {
	case StyleNext, StyleSanboot, StyleLive:
		return false
	}
	return b.Kickstart == "" && (b.Repo == "" || b.Image != "")
}

// Installs says whether it starts a distribution's installer instead of an
// image: with a kickstart, or from a repository where there is no image.
func (b *Bootconfig) Installs() bool {
	switch b.Style() {
	case StyleNext, StyleSanboot, StyleLive:
		return false
	}
	return !b.BootsImage()
}

// KickstartFile refuses what is no path of a file below the head's kickstart
// directory. Hidden files are not there: editors leave them.
func KickstartFile(name string) (string, error) {
	if !fs.ValidPath(name) || name == "." || len(name) > 255 || strings.HasPrefix(name, ".") || strings.Contains(name, "/.") ||
		strings.Contains(name, "\\") || strings.ContainsFunc(name, unicode.IsControl) {
		return "", fmt.Errorf("%q is no name of a file in the kickstart directory", name)
	}
	return name, nil
}

func bootconfig() *kind.Spec {
	fields := []kind.Field{
		nameField(true),
		descriptionField(),
		frozenField(),
		{Path: "cmdline", Summary: "added to the kernel's command line; <x> stands for a value of the node", Source: kind.User, Format: kind.Line},
		{Path: "image", Summary: "the image to boot into", Source: kind.User, Format: kind.Reference, Ref: KindImage, Pin: "image_version"},
		{Path: "image_version", Summary: "the version of the image to stay with, a number or a tag, set as image NAME:VERSION too; unset for the image's content, whatever it is", Source: kind.User, Format: kind.Text},
		{Path: "boot_style", Summary: "how the image becomes the root file system; rwram when unset; the attribute _boot_style of a node wins", Source: kind.User,
			Format: kind.OneOf(Styles()...)},
		{Path: "repo", Summary: "what to install from, or with the style live the ISO: a repo of this head, or a URL", Source: kind.User, Format: kind.Line},
		{Path: "kickstart", Summary: "a file in the head's kickstart directory, for the installer that kernel and initramfs are", Source: kind.User, Format: kind.Parsed("file", KickstartFile)},
	}
	fields = append(fields, fileFields("kernel", "the kernel")...)
	fields = append(fields, fileFields("initramfs", "the kernel's modules, or an initramfs of your own")...)
	return &kind.Spec{
		Name: KindBootconfig, Plural: "bootconfigs", Title: "Bootconfig",
		Doc:      "How a node gets from power-on to a running system.",
		New:      func() kind.Object { return &Bootconfig{} },
		Names:    []string{"name"},
		Read:     "BootconfigsRead",
		Write:    "BootconfigsWrite",
		Frozen:   "Cannot modify frozen boot configuration.",
		Reserved: []string{"errors", "mkiso", "import"},
		Columns:  []string{"name", "image", "boot_style", "kernel.size", "initramfs.size", "cmdline", "frozen"},
		Fields:   meta(fields...),
	}
}
