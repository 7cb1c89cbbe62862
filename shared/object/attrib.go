package object

import "muster/shared/kind"

// Attrib is an attribute group: attributes given to every node that joins it.
type Attrib struct {
	kind.Meta
	Name        string      `json:"name"`
	Description string      `json:"description,omitempty"`
	Attributes  kind.Values `json:"attributes"`
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
			kind.Field{Path: "attributes", Summary: "names and values, one level deep", Source: kind.User, Format: kind.KeyValues, Default: "{}", Sub: kind.SubMap, Guarded: true},
		),
	}
}
