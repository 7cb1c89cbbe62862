// Package overlay renders the files that nodes get beside their image: for
// each node those of all overlays whose selector picks it, as templates that
// are filled in with what is known of it.
//
// A template that fails is told by the names of its overlay, its file, the line
// and the node, and stops no other. What is secret, because its overlay says so
// or because it uses a reserved attribute, goes only to nodes that a
// certificate speaks for, and is shown only to who may read such attributes.
//
// The package must not bring files anywhere, and changes nothing.
package overlay

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"muster/controller/api"
	"muster/shared/fault"
	"muster/shared/kind"
	"muster/shared/object"
	"muster/shared/template"
	"muster/shared/wire"
)

// Objects is what the package needs of the registry.
type Objects interface {
	Find(kindName, id string) (kind.Object, error)
	All(kindName string) []kind.Object
	Look() kind.Look
}

// Overlays renders. Every field but RootURL is required.
type Overlays struct {
	Objects Objects
	// Matcher gives a function that says whether a selector picks a node.
	Matcher func(selector string, by kind.Author) (func(uid string) bool, error)
	// Values gives what templates look up of a node and of the head.
	Values func(n *object.Node) func(s template.Section, key string) (any, bool)
	// RootURL is the head's plain URL without a path; empty: not known.
	RootURL string
}

// Routes are the endpoints.
func (o *Overlays) Routes() []api.Route {
	return []api.Route{
		{Method: "GET", Path: wire.PathFiles, Permission: kind.NodeOnly, Doc: "The asking node's own files; secret ones where a certificate speaks for it.", Handler: o.own, Answer: wire.Overlay{}},
		{Method: "GET", Path: api.Root + "/node/{id}/overlay", Permission: "NodesRead", Doc: "The files that the node gets beside its image, rendered; their contents take OverlaysRead, those of secret ones ReservedAttribRead, too.", Handler: o.show, Answer: Shown{}},
	}
}

func (o *Overlays) own(w http.ResponseWriter, r *http.Request) error {
	all, ok := o.Of(api.CallerOf(r.Context()).Node, r.TLS != nil && len(r.TLS.PeerCertificates) > 0)
	if !ok {
		return fault.New(fault.NotFound, "The node is gone.")
	}
	return api.Data(w, all)
}

// Shown is what a node gets.
type Shown struct {
	Digest string                `json:"digest"` // as the node reports it
	Files  []ShownFile           `json:"files"`
	Failed []wire.OverlayFailure `json:"failed"`
}

// ShownFile is one file. Its content is there for those only who may read
// overlays, that of a secret one for who may read reserved attributes.
type ShownFile struct {
	Overlay string `json:"overlay"`
	Path    string `json:"path"`
	Owner   string `json:"owner"`
	Group   string `json:"group"`
	Mode    string `json:"mode"`
	Secret  bool   `json:"secret,omitempty"`
	Content string `json:"content"`
}

func (o *Overlays) show(w http.ResponseWriter, r *http.Request) error {
	who := api.CallerOf(r.Context())
	n, err := o.Objects.Find(object.KindNode, r.PathValue("id"))
	if err != nil {
		return err
	}
	all, _ := o.Of(n.Base().UID, true)
	out := Shown{Digest: all.Digest, Files: []ShownFile{}, Failed: all.Failed}
	if out.Failed == nil {
		out.Failed = []wire.OverlayFailure{}
	}
	for _, f := range all.Files {
		s := ShownFile{f.Overlay, f.Path, f.Owner, f.Group, fmt.Sprintf("%04o", f.Mode), f.Secret, string(f.Content)}
		if !who.Can("OverlaysRead") || f.Secret && !who.Can(kind.ReservedAttribRead) {
			s.Content = ""
		}
		out.Files = append(out.Files, s)
	}
	return api.Data(w, out)
}

// Of renders a node's files, ordered by their paths; secret ones only where
// the node has proven who it is. ok is false where there is no such node.
func (o *Overlays) Of(uid string, proven bool) (all wire.Overlay, ok bool) {
	obj, ok := o.Objects.Look().Get(object.KindNode, uid)
	if !ok {
		return all, false
	}
	r := &rendering{o: o, node: obj.(*object.Node), proven: proven, files: map[string]wire.OverlayFile{}, failed: map[string]wire.OverlayFailure{}}
	for _, over := range o.picking(uid) {
		for i := range over.Files {
			r.file(over, &over.Files[i])
		}
	}
	return r.result(), true
}

// picking gives the overlays that pick a node, by name.
func (o *Overlays) picking(uid string) []*object.Overlay {
	var out []*object.Overlay
	for _, obj := range o.Objects.All(object.KindOverlay) {
		over := obj.(*object.Overlay)
		// The head asks: whoever wrote the selector might ask this.
		if picks, err := o.Matcher(over.Selector, kind.Author{}); err == nil && picks(uid) {
			out = append(out, over)
		}
	}
	slices.SortFunc(out, func(a, b *object.Overlay) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// rendering is the files of one node while they are made.
type rendering struct {
	o      *Overlays
	node   *object.Node
	proven bool
	values func(s template.Section, key string) (any, bool)
	files  map[string]wire.OverlayFile // by path
	failed map[string]wire.OverlayFailure
	size   int
}

// file adds one file; it takes the place of one of an overlay before.
func (r *rendering) file(over *object.Overlay, f *object.OverlayFile) {
	out := wire.OverlayFile{Overlay: over.Name, Path: f.Path, Owner: f.Owner, Group: f.Group, Mode: f.Permissions(), Secret: f.Secret}
	r.size -= len(r.files[f.Path].Content)
	delete(r.files, f.Path)
	delete(r.failed, f.Path)
	text, reserved, err := r.fill(over, f)
	out.Secret = out.Secret || reserved
	switch {
	case err != nil:
	case out.Secret && !r.proven:
		err = fmt.Errorf("it is secret, and the node has no certificate that proves who it is")
	case r.size+len(text) > wire.MaxOverlay:
		err = fmt.Errorf("with it the files of node %s have more than %d bytes", r.node.Name, wire.MaxOverlay)
	}
	if err != nil {
		r.failed[f.Path] = wire.OverlayFailure{Overlay: over.Name, Path: f.Path, Error: err.Error()}
		return
	}
	out.Content = []byte(text)
	r.size += len(text)
	r.files[f.Path] = out
}

// fill renders a content, and says whether it uses a reserved attribute.
func (r *rendering) fill(over *object.Overlay, f *object.OverlayFile) (text string, reserved bool, err error) {
	if f.Literal {
		return f.Content, false, nil
	}
	if r.values == nil {
		r.values = r.o.Values(r.node)
	}
	text, err = template.Expand("overlay "+over.Name+", "+f.Path, f.Content, template.Options{
		Value: func(s template.Section, key string) (any, bool) {
			reserved = reserved || s == template.Attribute && kind.Reserved(key)
			return r.values(s, key)
		},
		RootURL: r.o.RootURL, Escape: template.Script,
	})
	if err != nil {
		err = fmt.Errorf("for node %s: %w", r.node.Name, err)
	}
	return text, reserved, err
}

func (r *rendering) result() wire.Overlay {
	var out wire.Overlay
	for _, f := range r.files {
		out.Files = append(out.Files, f)
	}
	for _, f := range r.failed {
		out.Failed = append(out.Failed, f)
	}
	slices.SortFunc(out.Files, func(a, b wire.OverlayFile) int { return strings.Compare(a.Path, b.Path) })
	slices.SortFunc(out.Failed, func(a, b wire.OverlayFailure) int { return strings.Compare(a.Path, b.Path) })
	if len(out.Files)+len(out.Failed) == 0 {
		return out // without a digest: there is nothing to know
	}
	if raw, err := json.Marshal(out); err == nil { // of text and numbers, which cannot fail
		sum := sha256.Sum256(raw)
		out.Digest = hex.EncodeToString(sum[:])
	}
	return out
}
