package pull

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"

	"muster/agent/head"
	"muster/images/chunk"
	"muster/images/delta"
	"muster/images/pack"
	"muster/images/tree"
	"muster/shared/wire"
)

// Form is a face of an image: what comes of a pull.
type Form string

// The forms.
const (
	Tree   Form = "tree"   // files below a directory
	Squash Form = "squash" // one file
)

// Image pulls an image in chunks: from the cache, from peers, from the head,
// in this order. Everything is verified, and written where it belongs as it
// comes. It is also the shelf of what other nodes may have of it meanwhile.
type Image struct {
	Source *Source
	Cache  *Cache // nil for none
	Peers  Swarm  // nil for none
	Room   int64  // bytes that the files of a tree may have, where that is known beforehand
	Local  Chunks // what the machine has anyway, asked first; nil for nothing

	coming  arrivals // where there is no cache
	files   atomic.Pointer[Files]
	head    headChunks
	content atomic.Int64 // bytes that are there, for Source.Progress
	peers   atomic.Int64
	reused  atomic.Int64
	indices atomic.Int64
}

// TooLarge says that the files of an image do not fit, before any is fetched.
type TooLarge struct{ Want, Room int64 }

func (t *TooLarge) Error() string {
	return fmt.Sprintf("the image's files have %d MiB, and there is room for %d MiB", t.Want>>20, t.Room>>20)
}

// Swarm is other nodes, and the head as far as it is asked in between.
type Swarm interface {
	Chunks
	FromHead() int64 // bytes that came over the wire from the head
	// Now gives chunks, of those that a Fetch is about, from one node that has
	// them all, and nothing where there is none.
	Now(ctx context.Context, want []chunk.Ref, take func(i int, g Got) error)
}

// Stats says what went where, in bytes as they are stored and sent.
type Stats struct {
	Head   int64 `json:"bytes_head"`   // chunks from the head
	Peers  int64 `json:"bytes_peers"`  // chunks from other nodes
	Reused int64 `json:"bytes_reused"` // chunks that the cache had
	Index  int64 `json:"index_bytes"`  // indices, from the head
}

// Expect says that something is going to be pulled, so that others wait for it,
// until the function is called.
func (p *Image) Expect() (end func()) {
	if p.Cache != nil {
		return p.Cache.expect()
	}
	return p.coming.expect()
}

// Has says whether a chunk can be given to others.
func (p *Image) Has(d chunk.Digest) bool {
	if p.Cache != nil {
		return p.Cache.Has(d)
	}
	f := p.files.Load()
	return f != nil && f.Has(d)
}

// Stored gives a chunk for others, in buf where there is room.
func (p *Image) Stored(d chunk.Digest, buf []byte) ([]byte, chunk.Encoding, error) {
	if p.Cache != nil {
		return p.Cache.Stored(d, buf)
	}
	if f := p.files.Load(); f != nil {
		return f.Stored(d, buf)
	}
	return nil, 0, pack.ErrAbsent
}

// Follow gives what came; see arrivals.
func (p *Image) Follow(n int) (fresh []chunk.Digest, grown <-chan struct{}) {
	if p.Cache != nil {
		return p.Cache.Follow(n)
	}
	return p.coming.Follow(n)
}

// Stats gives the figures so far.
func (p *Image) Stats() Stats {
	s := Stats{p.head.bytes.Load(), p.peers.Load(), p.reused.Load(), p.indices.Load()}
	if p.Peers != nil {
		s.Head += p.Peers.FromHead()
	}
	return s
}

// Find asks the head what a version of an image is; version is a number or a
// tag, "" for the content.
func (s *Source) Find(ctx context.Context, name, version string) (wire.Image, error) {
	var image wire.Image
	path := wire.PathImage + url.PathEscape(name)
	if version != "" {
		path += "?" + url.Values{wire.QueryVersion: {version}}.Encode()
	}
	body, err := s.get(ctx, path)
	if err != nil {
		return image, err
	}
	defer body.Close()
	var envelope struct{ Data *wire.Image }
	if err := json.NewDecoder(io.LimitReader(body, 1<<20)).Decode(&envelope); err != nil || envelope.Data == nil {
		return image, fmt.Errorf("the answer is not one of a head: %w", errors.Join(err, io.ErrUnexpectedEOF))
	}
	image = *envelope.Data
	if got := wire.VersionDigest(image.Tree, image.Index); image.Digest != "" && got != image.Digest {
		return image, &Mismatch{What: "the image's version", Want: image.Digest, Got: got}
	}
	return image, nil
}

func (s *Source) get(ctx context.Context, path string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Head+path, nil)
	if err != nil {
		return nil, local{err}
	}
	req.Header = s.Header.Clone()
	resp, err := s.Client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	return nil, head.Refusal(resp.StatusCode, text)
}

// index gives an index: from the cache, or as what differs from the last one.
func (p *Image) index(ctx context.Context, f Form, digest string, size int64) ([]byte, error) {
	if digest == "" {
		return nil, fmt.Errorf("the image has no %s on the head: what was uploaded is no sound squashfs", f)
	}
	if size < 0 || size > delta.MaxSize {
		return nil, fmt.Errorf("the index of the image has %d bytes, at most %d are taken", size, delta.MaxSize)
	}
	have, old := "", []byte(nil)
	if p.Cache != nil {
		if raw, ok := p.Cache.index(f, digest); ok {
			return raw, p.Cache.use(f, digest)
		}
		have, old = p.Cache.latest(f)
	}
	delay := minDelay
	for {
		raw, err := p.askIndex(ctx, digest, have, old, size)
		var refused *head.Refused
		switch {
		case err == nil && p.Cache != nil:
			return raw, p.Cache.addIndex(f, digest, raw)
		case err == nil, errors.As(err, &refused), errors.As(err, new(local)):
			return raw, err
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		}
		p.Source.Trouble(fmt.Errorf("index: %w", err))
		have, old = "", nil // what is here may be what is wrong
		if !pause(ctx, &delay) {
			return nil, context.Cause(ctx)
		}
	}
}

func (p *Image) askIndex(ctx context.Context, digest, have string, old []byte, size int64) ([]byte, error) {
	path := wire.PathIndex + digest
	if have != "" {
		path += "?" + url.Values{wire.QueryHave: {have}}.Encode()
	}
	body, err := p.Source.get(ctx, path)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	answer, err := io.ReadAll(io.LimitReader(&counting{r: body, n: &p.indices, alive: func() {}}, 2*size+1<<20))
	if err != nil || len(answer) == 0 {
		return nil, errors.Join(err, io.ErrUnexpectedEOF)
	}
	if answer[0] == wire.IndexWhole {
		old = nil
	}
	raw, err := delta.Apply(old, answer[1:], int(size))
	if err != nil {
		return nil, err
	}
	if got := chunk.Sum(raw).String(); got != digest {
		return nil, &Mismatch{What: "the index of the image", Want: digest, Got: got}
	}
	return raw, nil
}

// Manifest gives the image's files by name.
func (p *Image) Manifest(ctx context.Context, image wire.Image) (*tree.Manifest, error) {
	raw, err := p.index(ctx, Tree, image.Tree, image.TreeSize)
	if err != nil {
		return nil, err
	}
	return tree.Decode(raw)
}

// Fetch gives content to take, from whoever has it. It is a tree.Fetch.
func (p *Image) Fetch(ctx context.Context, want []chunk.Ref, take func(i int, content []byte) error) error {
	p.head.src = p.Source
	defer p.Expect()()
	files := p.files.Load()
	var keep *keeper
	if p.Cache != nil {
		keep = p.Cache.keep()
		defer p.Cache.end(keep)
	}
	rest := make([]int, len(want))
	for i := range rest {
		rest[i] = i
	}
	for _, from := range p.sources() {
		if len(rest) == 0 {
			break
		}
		now, part := rest, make([]chunk.Ref, len(rest))
		for i, at := range now {
			part[i] = want[at]
		}
		left, err := from.Fetch(ctx, part, func(i int, g Got) error {
			if from == Chunks(p.Cache) || from == p.Local {
				p.reused.Add(int64(len(g.Stored)))
			} else if keep != nil {
				if err := keep.put(part[i].Digest, g); err != nil {
					return err
				}
			}
			if from == Chunks(p.Peers) && !g.Head {
				p.peers.Add(int64(len(g.Stored)))
			}
			if err := take(now[i], g.Content); err != nil {
				return err
			}
			p.Source.Progress(p.content.Add(int64(len(g.Content))))
			if files == nil {
				return nil
			}
			files.came(part[i].Digest)
			return nil
		})
		if err != nil {
			return err
		}
		rest = rest[:0:0]
		for _, i := range left {
			rest = append(rest, now[i])
		}
	}
	if len(rest) > 0 {
		return fmt.Errorf("nobody has the chunk %s", want[rest[0]].Digest)
	}
	if keep != nil {
		return keep.session.Commit()
	}
	return nil
}

func (p *Image) sources() []Chunks {
	var out []Chunks
	if p.Local != nil {
		out = append(out, p.Local)
	}
	if p.Cache != nil {
		out = append(out, p.Cache)
	}
	if p.Peers != nil {
		out = append(out, p.Peers)
	}
	return append(out, &p.head)
}

// Tree writes the image's files below a directory: one that is empty or not
// there, or that was written from the same cache before and is replaced.
func (p *Image) Tree(ctx context.Context, image wire.Image, into string) error {
	m, err := p.Manifest(ctx, image)
	if err != nil {
		return err
	}
	if p.Room > 0 && m.Bytes > p.Room {
		return &TooLarge{Want: m.Bytes, Room: p.Room}
	}
	if into, err = filepath.Abs(into); err != nil {
		return err
	}
	if err := p.clear(into); err != nil {
		return err
	}
	if p.Cache == nil {
		f, err := TreeFiles(m, into)
		if err != nil {
			return err
		}
		p.files.Store(f.empty(&p.coming))
	}
	if err := tree.Write(ctx, m, into, p.Fetch); err != nil {
		return err
	}
	return p.done(ctx)
}

// clear makes the directory empty.
func (p *Image) clear(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if len(entries) > 0 && (p.Cache == nil || !p.Cache.wrote(dir)) {
		return fmt.Errorf("%s is not empty: name an empty directory, or one that was written with the same cache before", dir)
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	if p.Cache != nil {
		return p.Cache.noteWritten(dir)
	}
	return nil
}

// done lets the cache forget what is too old.
func (p *Image) done(ctx context.Context) error {
	if p.Cache == nil {
		return nil
	}
	return p.Cache.Sweep(ctx)
}

// Squash writes the image as one file, which appears when it is whole.
func (p *Image) Squash(ctx context.Context, image wire.Image, into string) error {
	x, err := p.SquashIndex(ctx, image)
	if err != nil {
		return err
	}
	if st, err := os.Lstat(into); err == nil && !st.Mode().IsRegular() {
		return fmt.Errorf("%s is there and is no regular file", into)
	}
	part := into + ".part"
	if err := os.Remove(part); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer os.Remove(part)
	if p.Cache != nil {
		defer f.Close() // else others read from it as long as there is somebody who gives
	}
	if err := p.squash(ctx, x, f); err != nil {
		return err
	}
	if err := os.Rename(part, into); err != nil {
		return err
	}
	return p.done(ctx)
}
