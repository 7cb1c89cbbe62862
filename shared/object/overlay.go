package object

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"muster/shared/fault"
	"muster/shared/kind"
	"muster/shared/template"
	"muster/shared/wire"
)

// Overlay is files that some nodes get beside their image, rendered for each
// of them.
type Overlay struct {
	kind.Meta
	Name        string        `json:"name"`
	Description string        `json:"description,omitempty"`
	Selector    string        `json:"selector"`
	Files       []OverlayFile `json:"files,omitempty"`
}

// OverlayFile is one of them. The content of a Secret one is shown to those
// only who may read reserved attributes.
type OverlayFile struct {
	Path    string `json:"path"`
	Owner   string `json:"owner,omitempty"` // a name or number in the node; root when empty
	Group   string `json:"group,omitempty"`
	Mode    string `json:"mode,omitempty"` // octal; 0644 when empty, 0600 when secret
	Content string `json:"content"`
	Literal bool   `json:"literal,omitempty"` // not a template
	Secret  bool   `json:"secret,omitempty"`  // only for nodes that prove who they are
	Hidden  bool   `json:"hidden,omitempty"`  // shown without its content
}

// Bounds of an overlay's files.
const (
	maxOverlayFiles = 256
	maxOverlayFile  = 256 << 10 // bytes of a content
	maxOverlayBytes = 1 << 20   // of all
)

// Permissions gives the mode as bits.
func (f *OverlayFile) Permissions() uint32 {
	var mode uint32
	switch {
	case f.Mode != "":
		fmt.Sscanf(f.Mode, "%o", &mode) // checked when it was stored
	case f.Secret:
		mode = 0o600
	default:
		mode = 0o644
	}
	return mode
}

func overlay() *kind.Spec {
	return &kind.Spec{
		Name: KindOverlay, Plural: "overlays", Title: "Overlay",
		Doc:     "Files that some nodes get beside their image, rendered for each of them.",
		New:     func() kind.Object { return &Overlay{} },
		Names:   []string{"name"},
		Read:    "OverlaysRead",
		Write:   "OverlaysWrite",
		Columns: []string{"name", "selector", "description"},
		Fields: meta(
			nameField(true),
			descriptionField(),
			kind.Field{Path: "selector", Summary: `for which nodes, such as %gpu or name in n[0-15]; of overlays with the same path the last by name wins`, Source: kind.User, Format: selectorFormat, Required: true, Tells: TellsReserved},
			kind.Field{Path: "files", Summary: "path, owner, group, mode, content, literal and secret of each; a content is a template unless it is literal", Source: kind.User, Format: kind.Sequence("overlay-files", overlayFile), Secret: true},
		),
		Check:   func(obj kind.Object) error { return checkOverlay(obj.(*Overlay)) },
		Prepare: func(tx kind.Tx, obj, old kind.Object) error { return prepareOverlay(tx, obj.(*Overlay), old) },
		Hide: func(obj kind.Object) kind.Object {
			o := *obj.(*Overlay)
			o.Files = slices.Clone(o.Files)
			for i := range o.Files {
				if f := &o.Files[i]; f.Secret || reservedInText(f) != "" {
					f.Content, f.Hidden = "", true
				}
			}
			return &o
		},
	}
}

// reservedInText gives a reserved attribute that a template uses, "" for none.
func reservedInText(f *OverlayFile) string {
	if f.Literal {
		return ""
	}
	parts, err := template.Parse(f.Content)
	if err != nil {
		return ""
	}
	for _, p := range parts {
		if p.Ref != nil && (p.Ref.Section == template.Attribute || p.Ref.Section == template.Any) && kind.Reserved(p.Ref.Key) {
			return p.Ref.Key
		}
	}
	return ""
}

func checkOverlay(o *Overlay) error {
	seen, sum := map[string]bool{}, 0
	for _, f := range o.Files {
		if seen[f.Path] {
			return fault.Invalidf("files: %s is there twice.", f.Path)
		}
		seen[f.Path] = true
		sum += len(f.Content)
	}
	if len(o.Files) > maxOverlayFiles || sum > maxOverlayBytes {
		return fault.New(fault.TooLarge, "files: %d of them with %d bytes are too much for one overlay, at most %d and %d are taken.", len(o.Files), sum, maxOverlayFiles, maxOverlayBytes)
	}
	return nil
}

// prepareOverlay puts back contents that their author could not see, and holds
// who may not read reserved attributes off everything by which a node's user
// could come to read them.
func prepareOverlay(tx kind.Tx, o *Overlay, old kind.Object) error {
	before := &Overlay{}
	if old != nil {
		before = old.(*Overlay)
	}
	for i := range o.Files {
		f := &o.Files[i]
		if !f.Hidden {
			continue
		}
		at := slices.IndexFunc(before.Files, func(b OverlayFile) bool { return b.Path == f.Path })
		if at < 0 || f.Content != "" {
			return fault.Invalidf("files: %s is said to be hidden, but there is no such file to take the content from.", f.Path)
		}
		f.Content, f.Hidden = before.Files[at].Content, false
	}
	if o.Selector != before.Selector {
		if err := MayAsk(o.Selector, tx.By()); err != nil {
			return err
		}
	}
	if tx.By().May(kind.ReservedAttribRead) || o.Selector == before.Selector && slices.Equal(o.Files, before.Files) {
		return nil
	}
	for _, f := range slices.Concat(o.Files, before.Files) {
		if key := reservedInText(&f); key != "" {
			return fault.New(fault.Forbidden, "files: %s uses the reserved attribute %s, and %s lacks the permission %s.", f.Path, key, tx.By().Name, kind.ReservedAttribRead)
		}
		if f.Secret {
			return fault.New(fault.Forbidden, "files: %s is secret, and %s lacks the permission %s.", f.Path, tx.By().Name, kind.ReservedAttribRead)
		}
	}
	return nil
}

var (
	ownerPattern = regexp.MustCompile(`^([a-z_][a-z0-9_.-]{0,31}\$?|[0-9]{1,9})$`)
	modePattern  = regexp.MustCompile(`^[0-7]{3,4}$`)
)

// overlayFile is the format of one file.
var overlayFile = kind.Format{Name: "overlay-file", Schema: map[string]any{"type": "object"}, Parse: func(raw json.RawMessage) (any, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	var f OverlayFile
	if err := d.Decode(&f); err != nil {
		return nil, fmt.Errorf("is no object with path, owner, group, mode, content, literal and secret: %w", err)
	}
	return f, checkOverlayFile(&f)
}}

func checkOverlayFile(f *OverlayFile) error {
	switch {
	case !strings.HasPrefix(f.Path, "/") || path.Clean(f.Path) != f.Path || f.Path == "/" || len(f.Path) > 1024 || strings.ContainsFunc(f.Path, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return fmt.Errorf("%q is no absolute path of a file, without dots as its parts", short(f.Path))
	case wire.Protected(f.Path):
		return fmt.Errorf("%s is one of the places that are not changed on nodes: those of the kernel, of this machine's identity and of muster", f.Path)
	case f.Owner != "" && !ownerPattern.MatchString(f.Owner), f.Group != "" && !ownerPattern.MatchString(f.Group):
		return fmt.Errorf("%s: %q and %q must be a user and a group, by name or number", f.Path, short(f.Owner), short(f.Group))
	case f.Mode != "" && !modePattern.MatchString(f.Mode):
		return fmt.Errorf("%s: %q is no mode such as 0644", f.Path, short(f.Mode))
	case len(f.Content) > maxOverlayFile:
		return fmt.Errorf("%s: %d bytes are too much, at most %d are taken", f.Path, len(f.Content), maxOverlayFile)
	case !utf8.ValidString(f.Content) || strings.ContainsRune(f.Content, 0):
		return fmt.Errorf("%s: its content is not text", f.Path)
	}
	if f.Literal {
		return nil
	}
	if _, err := template.Parse(f.Content); err != nil {
		return errors.New(f.Path + ", " + err.Error())
	}
	return nil
}
