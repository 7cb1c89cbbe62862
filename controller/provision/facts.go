package provision

import (
	"encoding/json"

	"muster/shared/kind"
	"muster/shared/object"
	"muster/shared/selector"
	"muster/shared/template"
)

// facts is all that is known of a node, each section made when it is first
// asked for. It answers as selectors ask, so that keys mean the same in both.
type facts struct {
	p    *Provision
	node *object.Node

	attributes, status, hardware, fields map[string]any
}

// Values gives what templates look up of a node, and of the head. Of no node,
// nil, there is nothing.
func (p *Provision) Values(n *object.Node) func(s template.Section, key string) (any, bool) {
	f := &facts{p: p, node: n}
	head := p.opt.Head
	return func(s template.Section, key string) (any, bool) {
		if n == nil && s != template.Head {
			return nil, false
		}
		switch s {
		case template.Attribute:
			return selector.Lookup{Section: selector.Attributes, Key: key}.Value(f)
		case template.Status:
			return selector.Lookup{Section: selector.Status, Key: key}.Value(f)
		case template.Hardware:
			return selector.Lookup{Section: selector.Hardware, Key: key}.Value(f)
		case template.Node:
			return selector.Lookup{Section: selector.Fields, Key: key}.Value(f)
		case template.Head:
			v, ok := head()[key]
			return v, ok
		}
		return nil, false
	}
}

// Attribute implements selector.Node, with those below.
func (f *facts) Attribute(key string) (any, bool) {
	if f.attributes == nil {
		f.attributes = object.Effective(f.p.opt.Objects.Look(), f.node)
	}
	return entry(f.attributes, key)
}

// Status gives what the node reported.
func (f *facts) Status(key string) (any, bool) {
	if f.status == nil {
		all, err := f.p.opt.Status(f.node.UID)
		if err != nil {
			return nil, false
		}
		f.status = decoded(all)
	}
	return entry(f.status, key)
}

// Hardware gives what the node is made of.
func (f *facts) Hardware(key string) (any, bool) {
	if f.hardware == nil {
		raw, _ := f.p.opt.Objects.Look().Live(f.node.UID)
		f.hardware = decoded(json.RawMessage(raw))
	}
	return entry(f.hardware, key)
}

// Field gives a field as users see it, with the names of the groups.
func (f *facts) Field(name string) (any, bool) {
	if f.fields == nil {
		look := f.p.opt.Objects.Look()
		shown := f.p.opt.Objects.Show(object.KindNode, f.node)
		f.fields = decoded(shown)
		groups := make([]string, 0, len(f.node.Groups))
		for _, uid := range f.node.Groups {
			groups = append(groups, groupName(look, uid))
		}
		f.fields["groups"] = groups
		delete(f.fields, "attributes") // a[…] is the way to them, which is watched for reserved ones
	}
	v, ok := entry(f.fields, name)
	return v, ok && v != nil
}

// InGroup is not asked by templates.
func (f *facts) InGroup(string) bool { return false }

// InDyngroup is not asked by templates.
func (f *facts) InDyngroup(string) bool { return false }

func groupName(look kind.Look, uid string) string {
	if g, ok := look.Get(object.KindAttrib, uid); ok {
		return g.(*object.Attrib).Name
	}
	return uid
}

// decoded gives v as JSON has it; what is there was checked when it came in.
func decoded(v any) map[string]any {
	out := kind.Values{}
	if raw, err := json.Marshal(v); err == nil {
		_ = json.Unmarshal(raw, &out)
	}
	if out == nil {
		out = kind.Values{}
	}
	return out
}

func entry(m map[string]any, key string) (any, bool) {
	v, ok := m[key]
	return v, ok
}
