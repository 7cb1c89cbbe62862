package object

import (
	"muster/shared/fault"
	"muster/shared/kind"
	"muster/shared/selector"
)

// Dyngroup is a group of the nodes that a selector picks at the moment of
// asking. It never changes what a node is.
type Dyngroup struct {
	kind.Meta
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	Selector    string `json:"selector"`
	Parsed      string `json:"parsed,omitempty"` // only shown, never stored
}

func dyngroup() *kind.Spec {
	return &kind.Spec{
		Name: KindDyngroup, Plural: "dyngroups", Title: "Dyngroup",
		Doc:   "The nodes that a selector picks.",
		New:   func() kind.Object { return &Dyngroup{} },
		Names: []string{"name"},
		Read:  "DyngroupsRead",
		Write: "DyngroupsWrite",
		Fields: meta(
			nameField(true),
			descriptionField(),
			kind.Field{Path: "selector", Summary: `which nodes, such as h[ram_total] > 100GB`, Source: kind.User, Format: selectorFormat, Required: true, Tells: TellsReserved},
			kind.Field{Path: "parsed", Summary: "the selector in its normal form", Source: kind.Head, Format: kind.Shown("text"), Tells: TellsReserved},
		),
		Columns: []string{"name", "selector", "description"},
		Prepare: func(tx kind.Tx, obj, old kind.Object) error {
			g := obj.(*Dyngroup)
			if old == nil || g.Selector != old.(*Dyngroup).Selector {
				if err := MayAsk(g.Selector, tx.By()); err != nil {
					return err
				}
			}
			return endsSomewhere(tx, g)
		},
		Show: func(_ kind.Look, obj kind.Object) kind.Object {
			g := *obj.(*Dyngroup)
			if e, err := selector.Parse(g.Selector); err == nil {
				g.Parsed = e.String()
			}
			return &g
		},
	}
}

var selectorFormat = kind.Parsed("selector", func(s string) (string, error) {
	_, err := selector.Parse(s)
	return s, err
})

// reservedIn gives the first reserved attribute that a selector looks up, ""
// where there is none.
func reservedIn(e *selector.Expr) string {
	for _, l := range e.Uses().Lookups {
		if l.Section == selector.Attributes && kind.Reserved(l.Key) {
			return l.Key
		}
	}
	return ""
}

// MayAsk refuses selectors about what their author may not see: by asking often
// enough he would know it.
func MayAsk(text string, by kind.Author) error {
	e, err := selector.Parse(text)
	if err != nil || by.May(kind.ReservedAttribRead) {
		return err
	}
	if key := reservedIn(e); key != "" {
		return fault.New(fault.Forbidden, "selector: %s is a reserved attribute, and %s lacks the permission %s.", key, by.Name, kind.ReservedAttribRead)
	}
	return nil
}

// TellsReserved says whether a selector tells of reserved attributes. One that
// cannot be read may.
func TellsReserved(text string) bool {
	e, err := selector.Parse(text)
	return text != "" && (err != nil || reservedIn(e) != "")
}

// endsSomewhere refuses a group whose selector leads back to itself.
func endsSomewhere(tx kind.Tx, g *Dyngroup) error {
	byID := map[string]*Dyngroup{}
	err := tx.Each(KindDyngroup, func(o kind.Object) error {
		if other := o.(*Dyngroup); other.UID != g.UID {
			byID[other.Name], byID[other.UID] = other, other
		}
		return nil
	})
	if err != nil {
		return err
	}
	byID[g.Name], byID[g.UID] = g, g
	e, err := selector.Parse(g.Selector)
	if err != nil {
		return err
	}
	id := func(name string) string {
		if other := byID[name]; other != nil {
			return other.Name
		}
		return name
	}
	return selector.Acyclic(g.Name, e, id, func(name string) *selector.Expr {
		other := byID[name]
		if other == nil {
			return nil
		}
		e, err := selector.Parse(other.Selector)
		if err != nil {
			return nil // stored by a version that took it; it has no members
		}
		return e
	})
}
