package object

import "muster/shared/kind"

// Attrib is an attribute group: attributes given to every node that joins it.
type Attrib struct {
	kind.Meta
	Name        string      `json:"name"`
	Description string      `json:"description,omitempty"`
	Attributes  kind.Values `json:"attributes"`
	Edited      *kind.Stamp `json:"edited,omitempty"` // shown among the attributes where they are read alone
}

func attrib() *kind.Spec {
	return &kind.Spec{
		Name: KindAttrib, Plural: "attribs", Title: "Attrib",
		Doc:     "A group of attributes that its member nodes inherit.",
		New:     func() kind.Object { return &Attrib{} },
		Names:   []string{"name"},
		Read:    "AttribsRead",
		Write:   "AttribsWrite",
		Columns: []string{"name", "attributes", "description"},
		Fields: meta(
			nameField(true),
			descriptionField(),
			kind.Field{Path: "attributes", Summary: "names and values, one level deep", Source: kind.User, Format: kind.KeyValues, Default: "{}", Sub: kind.SubMap, Guarded: true, Stamp: "edited"},
			kind.Field{Path: "edited", Summary: "when and by whom single attributes were last changed; shown with the attributes alone", Source: kind.Head, Format: kind.Shown("object")},
		),
		Prepare: func(tx kind.Tx, obj, old kind.Object) error {
			var was kind.Values
			if old != nil {
				was = old.(*Attrib).Attributes
			}
			if err := guardConsole(tx.By(), obj.(*Attrib).Attributes, was); err != nil {
				return err
			}
			return guardIgnition(tx, obj.(*Attrib).Attributes, was)
		},
		Show: func(_ kind.Look, obj kind.Object) kind.Object {
			g := *obj.(*Attrib)
			g.Edited = nil
			return &g
		},
	}
}
