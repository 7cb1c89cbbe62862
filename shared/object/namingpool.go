package object

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"muster/shared/fault"
	"muster/shared/kind"
)

// Namingpool names nodes after a pattern and says where their addresses begin.
type Namingpool struct {
	kind.Meta
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	Pattern     string `json:"pattern"`
	FirstIndex  int64  `json:"first_index"`
	IPBase      string `json:"ip_base,omitempty"`
	IPOffset    *int64 `json:"ip_offset,omitempty"`
	Network     string `json:"network,omitempty"`
	Group       string `json:"group,omitempty"`
	Parent      string `json:"parent,omitempty"`
}

// DefaultPattern names nodes that are in no pool.
const DefaultPattern = "n{}"

var (
	patternForm   = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9.-]*)\{(?::0([1-9])d)?\}([A-Za-z0-9-]*)$`)
	domainPattern = regexp.MustCompile(`^([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$`)
)

func notDomain(s string) error { return fmt.Errorf("%q is not a domain name", s) }

// NodeName puts an index into a pattern: n{} with 3 is n3, gpu{:03d} gpu003.
func NodeName(pattern string, index int64) string {
	m := patternForm.FindStringSubmatch(pattern)
	if m == nil {
		return pattern
	}
	width, _ := strconv.Atoi(m[2])
	return fmt.Sprintf("%s%0*d%s", m[1], width, index, m[3])
}

var patternFormat = kind.Parsed("pattern", func(s string) (string, error) {
	if !patternForm.MatchString(s) || len(s) > 48 || strings.Contains(s, "..") {
		return "", fmt.Errorf("%q is not a pattern such as n{}, gpu{:03d} or rack1-{}x: letters, one pair of braces that is empty or holds :0Nd, letters", s)
	}
	return s, nil
})

func namingpool() *kind.Spec {
	return &kind.Spec{
		Name: KindNamingpool, Plural: "namingpools", Title: "Namingpool",
		Doc:      "A scheme by which nodes get names, indices and addresses.",
		New:      func() kind.Object { return &Namingpool{} },
		Names:    []string{"name"},
		Read:     "NamingpoolsRead",
		Write:    "NamingpoolsWrite",
		Reserved: []string{"info"},
		Fields: meta(
			nameField(true),
			kind.Field{Path: "pattern", Summary: "how the index becomes a name: n{} or gpu{:03d}", Source: kind.User, Format: patternFormat, Required: true},
			descriptionField(),
			kind.Field{Path: "first_index", Summary: "the index of the pool's first node", Source: kind.User, Format: kind.Count, Default: "0"},
			kind.Field{Path: "ip_base", Summary: "the address of the pool's first node", Source: kind.User, Format: kind.IP},
			kind.Field{Path: "ip_offset", Summary: "how far behind the network's first_ip the pool's first node is", Source: kind.User, Format: kind.Int(0, 1<<24)},
			kind.Field{Path: "network", Summary: "the network that the addresses are taken from; the oldest when unset", Source: kind.User, Format: kind.Reference, Ref: KindNet},
			kind.Field{Path: "group", Summary: "the attribute group of the pool's nodes that have no groups of their own", Source: kind.User, Format: kind.Reference, Ref: KindAttrib},
			kind.Field{Path: "parent", Summary: "the pool from which network and group are taken where unset here", Source: kind.User, Format: kind.Reference, Ref: KindNamingpool},
		),
		Columns: []string{"name", "pattern", "first_index", "network", "ip_base", "ip_offset", "group", "parent"},
		Check: func(obj kind.Object) error {
			p := obj.(*Namingpool)
			if p.IPBase != "" && p.IPOffset != nil {
				return fault.Invalidf("ip_base and ip_offset exclude each other: ip_base %s is already where the pool's addresses begin.", p.IPBase)
			}
			return nil
		},
		Prepare: checkParents,
		After: func(tx kind.Tx, obj, old kind.Object) error {
			if obj == nil || old == nil || obj.(*Namingpool).FirstIndex >= old.(*Namingpool).FirstIndex {
				return nil
			}
			return tx.SetHint(indexHint(obj.Base().UID), 0)
		},
	}
}

// maxParents bounds how deep pools nest.
const maxParents = 16

// checkParents refuses a pool that would be its own ancestor.
func checkParents(tx kind.Tx, obj, _ kind.Object) error {
	p := obj.(*Namingpool)
	for up, i := p.Parent, 0; up != ""; i++ {
		if up == p.UID {
			return fault.Invalidf("parent: the pool %s would be its own ancestor.", p.Name)
		}
		if i == maxParents {
			return fault.Invalidf("parent: pools nest at most %d deep.", maxParents)
		}
		o, err := tx.Get(KindNamingpool, up)
		if err != nil || o == nil {
			return err
		}
		up = o.(*Namingpool).Parent
	}
	return nil
}

// inherit fills the network and the group that a pool leaves unset from its
// ancestors; never where the addresses begin, which two pools cannot share.
// get gives a pool by UID or nil.
func (p Namingpool) inherit(get func(uid string) *Namingpool) *Namingpool {
	for up, i := p.Parent, 0; up != "" && i < maxParents; i++ {
		q := get(up)
		if q == nil {
			break
		}
		if p.Network == "" {
			p.Network = q.Network
		}
		if p.Group == "" {
			p.Group = q.Group
		}
		up = q.Parent
	}
	return &p
}
