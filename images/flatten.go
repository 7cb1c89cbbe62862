package images

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// The names by which a layer removes what lies in those below it
// (OCI image-spec, layer.md).
const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
)

// flatten makes the image from a container image's layers. It reads each layer
// twice: first from the top, to learn which entry of each name is seen, then
// from the bottom, to write those. go-containerregistry's mutate.Extract reads
// once from the top and so gives a hard link whose target a higher layer
// replaced the content of the replacement; package upgrades in a container
// build do just that.
func (j *job) flatten(ctx context.Context, image v1.Image) error {
	layers, err := image.Layers()
	if err != nil {
		return err
	}
	digests, err := unpackedDigests(image, len(layers))
	if err != nil {
		return err
	}
	p, left := newPlan(), int64(maxUnpacked)
	for l := len(layers) - 1; l >= 0; l-- {
		s := &scan{plan: p, layer: l, links: map[string]string{}, hidden: map[string]int{}, aliases: map[string]string{}}
		if err := eachEntry(ctx, layers[l], &left, &digests[l], s.entry); err != nil {
			return fmt.Errorf("layer %d: %w", l+1, err)
		}
		s.finish()
	}
	for target, links := range p.pending {
		return fmt.Errorf("%q is a hard link to %q, which no layer below it has", links[0], target)
	}
	return j.stream(ctx, p.root, func(e *emitter) error {
		done, left := int64(0), int64(maxUnpacked)
		for l, layer := range layers {
			err := eachEntry(ctx, layer, &left, nil, func(n int, h *tar.Header, content io.Reader) error {
				if done += h.Size; h.Size > 0 {
					j.progress(min(done, p.total), p.total)
				}
				return p.emit(e, place{l, n}, h, content)
			})
			if err != nil {
				return fmt.Errorf("layer %d: %w", l+1, err)
			}
		}
		return nil
	})
}

// eachEntry calls fn for each entry of a layer with its number, its name clean.
// What the layer unpacks to is taken off left; it must have the digest
// want unless that is nil.
func eachEntry(ctx context.Context, layer v1.Layer, left *int64, want *v1.Hash, fn func(int, *tar.Header, io.Reader) error) error {
	r, err := openLayer(layer, left, want)
	if err != nil {
		return err
	}
	defer r.Close()
	in := tar.NewReader(r)
	for n := 0; ; n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			// Reading to the end verifies the layer's digests.
			_, err := io.Copy(io.Discard, r)
			return err
		}
		if err != nil {
			return err
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if h.Name, err = cleanName(h.Name); err != nil {
			return err
		}
		if h.Typeflag == tar.TypeLink {
			if h.Linkname, err = cleanName(h.Linkname); err != nil {
				return err
			}
		}
		if err := fn(n, h, in); err != nil {
			return err
		}
	}
}

// place is one entry: layer and number in it.
type place struct{ layer, n int }

// plan says which entries make up the image, and under which names.
type plan struct {
	root    owner
	rooted  bool
	total   int64             // bytes of all layers
	seen    map[string]place  // the entry that is seen by each name
	removed map[string]bool   // hidden in lower layers, with all below it
	emptied map[string]bool   // directories whose content in lower layers is hidden
	rename  map[place]string  // hidden files that live on under the name of a link
	target  map[string]string // what the link of this name is to point to
	pending map[string][]string
}

func newPlan() *plan {
	return &plan{root: plainRoot(), seen: map[string]place{}, removed: map[string]bool{}, emptied: map[string]bool{},
		rename: map[place]string{}, target: map[string]string{}, pending: map[string][]string{}}
}

// covered says whether what a lower layer has under a name is not seen.
func (p *plan) covered(name string) bool {
	if p.removed[name] {
		return true
	}
	for dir := name; dir != "."; {
		dir = path.Dir(dir)
		if p.removed[dir] || p.emptied[dir] {
			return true
		}
	}
	return false
}

// scan goes through one layer for the plan, which knows only those above.
type scan struct {
	plan             *plan
	layer            int
	removed, emptied []string
	links            map[string]string // visible hard links → target
	order            []string          // of links, as they come
	hidden           map[string]int    // hidden regular files → number
	aliases          map[string]string // hidden hard links → target
}

func (s *scan) entry(n int, h *tar.Header, _ io.Reader) error {
	p := s.plan
	p.total += h.Size
	if len(p.seen) > maxFiles {
		return fmt.Errorf("more than %d files", maxFiles)
	}
	dir, base := path.Split(h.Name)
	dir = path.Clean(dir)
	switch {
	case base == opaque:
		s.emptied = append(s.emptied, dir)
		return nil
	case strings.HasPrefix(base, whiteout):
		s.removed = append(s.removed, path.Join(dir, strings.TrimPrefix(base, whiteout)))
		return nil
	case h.Name == ".":
		if !p.rooted && h.Typeflag == tar.TypeDir {
			p.root, p.rooted = owner{h.Mode, h.Uid, h.Gid, clampTime(h.ModTime).Unix()}, true
		}
		return nil
	}
	if h.Typeflag != tar.TypeDir {
		s.removed = append(s.removed, h.Name)
	}
	higher, ok := p.seen[h.Name]
	if (ok && higher.layer > s.layer) || p.covered(h.Name) {
		switch h.Typeflag {
		case tar.TypeReg:
			s.hidden[h.Name] = n
		case tar.TypeLink:
			s.aliases[h.Name] = h.Linkname
		}
		return nil
	}
	p.seen[h.Name] = place{s.layer, n}
	delete(s.links, h.Name)
	if h.Typeflag == tar.TypeLink {
		s.links[h.Name] = h.Linkname
		s.order = append(s.order, h.Name)
	}
	return nil
}

// finish tells the plan what this layer hides, and finds the hidden files
// that links still lead to: those of this layer, and those that links of
// higher layers were looking for.
func (s *scan) finish() {
	p := s.plan
	for _, link := range s.order {
		target, ok := s.links[link]
		if !ok {
			continue
		}
		delete(s.links, link)
		for range s.aliases { // a link to a hidden link; as many steps as there are at most
			if next, ok := s.aliases[target]; ok {
				target = next
				continue
			}
			break
		}
		p.target[link] = target
		if at, ok := p.seen[target]; !ok || at.layer > s.layer {
			p.pending[target] = append(p.pending[target], link)
		}
	}
	for target, links := range p.pending {
		if at, ok := p.seen[target]; ok && at.layer == s.layer {
			delete(p.pending, target)
		} else if n, ok := s.hidden[target]; ok {
			p.rename[place{s.layer, n}] = links[0]
			p.target[links[0]] = ""
			for _, link := range links[1:] {
				p.target[link] = links[0]
			}
			delete(p.pending, target)
		}
	}
	for _, name := range s.removed {
		p.removed[name] = true
	}
	for _, name := range s.emptied {
		p.emptied[name] = true
	}
}

// emit writes an entry if it is seen, or lives on under another name.
func (p *plan) emit(e *emitter, at place, h *tar.Header, content io.Reader) error {
	if name, ok := p.rename[at]; ok {
		h.Name = name
		return e.put(h, content)
	}
	if seen, ok := p.seen[h.Name]; !ok || seen != at {
		return nil
	}
	if h.Typeflag == tar.TypeLink {
		if h.Linkname = p.target[h.Name]; h.Linkname == "" {
			return nil // written already, when the file came by its hidden name
		}
	}
	return e.put(h, content)
}
