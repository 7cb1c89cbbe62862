package library

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net/http"
	"os"
	"sync"

	"muster/controller/api"
	"muster/images/chunk"
	"muster/images/delta"
	"muster/images/squash"
	"muster/images/tree"
	"muster/shared/fault"
	"muster/shared/kind"
	"muster/shared/object"
	"muster/shared/wire"
)

// What agents need to fetch an image in chunks. None of it is secret, as
// nothing is that a machine without an identity boots from; what was not
// meant to be is noticed by its digest.
func (l *Library) chunkRoutes() []api.Route {
	return []api.Route{
		{Method: "GET", Path: wire.PathImage + "{name}", Permission: kind.Public, Doc: "What an image's version is known by, for agents.", Handler: l.describe, Answer: wire.Image{},
			Query: []api.Param{{Name: "version", Doc: "a version's number or tag; the content when it is left out"}}},
		{Method: "GET", Path: wire.PathIndex + "{digest}", Permission: kind.Public, Doc: "An index as a delta from another one, for agents.", Handler: l.serveIndex, Raw: "application/octet-stream",
			Query: []api.Param{{Name: "have", Doc: "digest of an index that the asker has"}}},
		{Method: "POST", Path: wire.PathChunks, Permission: kind.Public, Doc: "Chunks by their digests, as frames; the body is digests of 32 bytes each.", Handler: l.serveChunks, Upload: true, Raw: "application/octet-stream"},
		{Method: "POST", Path: wire.PathSpare, Permission: kind.NodeOnly, Doc: "Which of these chunks the asking node, which shares what it gets, shall fetch here: those that no other node was told of late. The answer is their places in the list.",
			Handler: l.serveSpare, Body: wire.Spare{}, Answer: []uint32{}},
	}
}

// Wire is what an agent is told of a version.
func (l *Library) Wire(img *object.Image, v *object.Version) *wire.Image {
	f := v.File
	out := &wire.Image{Name: img.Name, UID: img.UID, SHA256: f.SHA256, Size: f.Size, Pieces: f.Pieces,
		Version: v.Number, Digest: v.Digest, Index: f.Index, Tree: f.Tree}
	for digest, size := range map[string]*int64{f.Index: &out.IndexSize, f.Tree: &out.TreeSize} {
		if digest == "" {
			continue
		}
		if st, err := os.Stat(l.opt.Blobs.Path(digest)); err == nil {
			*size = st.Size()
		}
	}
	return out
}

func (l *Library) describe(w http.ResponseWriter, r *http.Request) error {
	img, err := l.image(r.PathValue("name"))
	if err != nil {
		return err
	}
	v, err := img.VersionOf(r.URL.Query().Get("version"))
	if err != nil {
		return err
	}
	return api.Data(w, l.Wire(img, v))
}

func (l *Library) serveIndex(w http.ResponseWriter, r *http.Request) error {
	want, have := r.PathValue("digest"), r.URL.Query().Get("have")
	d, err := l.deltas.get(r.Context(), have, want)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	_, err = w.Write(d)
	return err
}

// deltas makes deltas between indices when they are first asked for, and keeps
// the last ones: a thousand nodes ask for the same.
type deltas struct {
	blobs *Blobs
	slots chan struct{} // as many are made at once
	mu    sync.Mutex
	known map[[2]string]*madeDelta
	bytes int
}

type madeDelta struct {
	done chan struct{}
	b    []byte
	err  error
}

// maxDeltas bounds the memory for deltas, in bytes.
const maxDeltas = 128 << 20

func newDeltas(b *Blobs) *deltas {
	return &deltas{blobs: b, slots: make(chan struct{}, 2), known: map[[2]string]*madeDelta{}}
}

func (d *deltas) get(ctx context.Context, have, want string) ([]byte, error) {
	if f, err := d.blobs.Open(have); err != nil {
		have = "" // whatever strangers call theirs is one delta, from nothing
	} else {
		f.Close()
	}
	d.mu.Lock()
	key := [2]string{have, want}
	m, ok := d.known[key]
	if !ok {
		if len(d.known) > 1000 || d.bytes > maxDeltas {
			clear(d.known) // those under way go on for who waits
			d.bytes = 0
		}
		m = &madeDelta{done: make(chan struct{})}
		d.known[key] = m
		go d.make(key, m)
	}
	d.mu.Unlock()
	select {
	case <-m.done:
		return m.b, m.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (d *deltas) make(key [2]string, m *madeDelta) {
	defer close(m.done)
	d.slots <- struct{}{}
	defer func() { <-d.slots }()
	m.b, m.err = d.compute(key[0], key[1])
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.bytes += len(m.b); m.err != nil && d.known[key] == m {
		delete(d.known, key)
	}
}

func (d *deltas) compute(have, want string) ([]byte, error) {
	now, err := d.blobs.ReadIndex(want)
	if err != nil || !isIndex(now) {
		return nil, fault.New(fault.NotFound, "There is no index %.70q on this head: %w.", want, errors.Join(err, errNoIndex))
	}
	old, err := d.blobs.ReadIndex(have)
	if err != nil || !isIndex(old) {
		old = nil // the asker sees that it is no delta by what it is told to begin with
	}
	out, err := delta.Make(old, now)
	from := byte(0)
	if old != nil {
		from = 1
	}
	return append([]byte{from}, out...), err
}

var errNoIndex = errors.New("it is not here, or something else")

// isIndex keeps other files of the store from being taken for indices.
func isIndex(raw []byte) bool { return tree.Is(raw) || squash.Is(raw) }

func (l *Library) serveChunks(w http.ResponseWriter, r *http.Request) error {
	list, err := chunkList(r)
	if err != nil {
		return err
	}
	return l.sendChunks(w, list)
}

// chunkList reads the digests that a request is for.
func chunkList(r *http.Request) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(r.Body, wire.MaxChunks*sha256.Size+1))
	if err != nil {
		return nil, fault.Invalidf("The list of chunks broke off: %v.", err)
	}
	return raw, checkList(raw)
}

func checkList(raw []byte) error {
	if len(raw) == 0 || len(raw)%sha256.Size != 0 || len(raw) > wire.MaxChunks*sha256.Size {
		return fault.Invalidf("The list of chunks has %d bytes: want 1 to %d digests of %d bytes.", len(raw), wire.MaxChunks, sha256.Size)
	}
	return nil
}

// sendChunks answers a list.
func (l *Library) sendChunks(w http.ResponseWriter, list []byte) error {
	w.Header().Set("Content-Type", "application/octet-stream")
	out := bufio.NewWriterSize(w, 256<<10)
	var buf []byte
	for ; len(list) > 0; list = list[sha256.Size:] {
		var stored []byte
		enc := chunk.Absent
		if b, e, err := l.opt.Blobs.chunks.Stored(chunk.Digest(list[:sha256.Size]), buf); err == nil {
			stored, enc, buf = b, e, b
		}
		if _, err := out.Write(chunk.PutFrameHead(nil, enc, len(stored))); err != nil {
			return err
		}
		if _, err := out.Write(stored); err != nil {
			return err
		}
	}
	return out.Flush()
}

// SweepChunks removes chunks that no version needs, and gives the bytes freed.
func (l *Library) SweepChunks(ctx context.Context) (int64, error) {
	return l.opt.Blobs.chunks.Sweep(ctx, func(mark func(chunk.Digest)) error {
		var err error
		l.eachVersion(func(v *object.Version) {
			if err == nil && ctx.Err() == nil {
				err = l.opt.Blobs.markVersion(v.File, func(r chunk.Ref) { mark(r.Digest) })
			}
		})
		return errors.Join(err, ctx.Err())
	})
}

// markVersion calls mark for each chunk of both faces.
func (b *Blobs) markVersion(f *object.File, mark func(chunk.Ref)) error {
	if f.Index == "" {
		return nil
	}
	x, err := b.index(f.Index)
	if err != nil {
		return err
	}
	for _, s := range x.Segments() {
		if s.Chunk.Size > 0 {
			mark(s.Chunk)
		}
	}
	if f.Tree == "" {
		return nil
	}
	m, err := b.Tree(f)
	if err != nil {
		return err
	}
	return m.Walk(func(e *tree.Entry) error {
		for _, p := range e.Parts {
			if p.Hole == 0 {
				mark(p.Chunk)
			}
		}
		return nil
	})
}
