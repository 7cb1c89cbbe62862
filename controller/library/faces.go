package library

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sort"
	"sync"
	"time"

	"muster/images/chunk"
	"muster/images/pack"
	"muster/images/squash"
	"muster/images/squashfs"
	"muster/images/tree"
	"muster/shared/object"
)

// AddImage takes the content of an image of at most limit bytes, as Add does,
// and keeps it in chunks: any bytes as one file, a sound squashfs also as the
// files in it. What the store has already is not written again, and is
// repaired where it was damaged.
func (b *Blobs) AddImage(ctx context.Context, r io.Reader, limit int64, now time.Time) (f *object.File, release func(), err error) {
	p := newPieces()
	tmp, f, err := b.receive(io.TeeReader(r, p), limit, now)
	if err != nil {
		return nil, nil, err
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	if err := inspectImage(tmp, f); err != nil {
		return nil, nil, err
	}
	m := &making{blobs: b, session: b.chunks.Begin(), file: tmp, about: f}
	release = m.release
	f.Pieces, err = m.keep(p.end())
	if err == nil {
		err = m.faces(ctx)
	}
	if err == nil {
		err = m.session.Commit()
	}
	if err != nil {
		release()
		if ctx.Err() != nil {
			return nil, nil, context.Cause(ctx)
		}
		return nil, nil, diskFault(err)
	}
	return f, release, nil
}

// making makes the faces of one upload.
type making struct {
	blobs   *Blobs
	session *pack.Session
	file    *os.File
	about   *object.File
	kept    []func()

	mu        sync.Mutex
	stretches []pack.Stretch
	fresh     int64 // bytes in chunks that the store does not have
	tools     chan *tools
	starts    []int64 // of the chunks in the file, and their digests
	digests   []chunk.Digest
	packs     bool // what the squashfs holds can be taken packed as it is
}

// tools are what one goroutine at a time needs.
type tools struct {
	codec *chunk.Codec
	buf   []byte
}

func (m *making) release() {
	m.session.End()
	for _, f := range m.kept {
		f()
	}
}

// keep stores an index, or a list, as a file of its own.
func (m *making) keep(raw []byte) (string, error) {
	f, release, err := m.blobs.Add(bytes.NewReader(raw), int64(len(raw)), time.Now(), nil)
	if err != nil {
		return "", err
	}
	m.kept = append(m.kept, release)
	return f.SHA256, nil
}

func (m *making) faces(ctx context.Context) error {
	m.tools = make(chan *tools, runtime.GOMAXPROCS(0))
	for range cap(m.tools) {
		m.tools <- &tools{codec: chunk.NewCodec()}
	}
	var r *squashfs.Reader
	if m.about.Problem == "" {
		var err error
		if r, err = squashfs.Open(m.file, m.about.Size); err != nil {
			m.problem(err)
		}
	}
	if err := m.squash(ctx, r); err != nil {
		return err
	}
	if r == nil {
		return nil
	}
	m.packs = r.Superblock().Compressor == squashfs.Zstd
	raw, err := tree.FromSquash(ctx, r, m.about.Size, m, nil)
	if err != nil {
		if ctx.Err() != nil || isDisk(err) {
			return err
		}
		m.problem(err)
		return nil
	}
	m.about.Tree, err = m.keep(raw)
	return err
}

// problem notes why an image that is sound to look at cannot be read. That this
// program cannot unpack it says nothing against it: nodes can.
func (m *making) problem(err error) {
	if !errors.Is(err, squashfs.ErrNoDecompressor) {
		m.about.Problem = err.Error()
	}
}

// squash makes the face as one file.
func (m *making) squash(ctx context.Context, r *squashfs.Reader) error {
	sum, err := chunk.Parse(m.about.SHA256)
	if err != nil {
		return err
	}
	f := squash.File{Content: m.file, Size: m.about.Size, SHA256: sum}
	if r != nil {
		f.Cuts = &squash.Cuts{}
		f.Head, f.Tables = squashfs.HeadSize, int64(r.Superblock().InodeTable)
		err := r.Nodes(func(n *squashfs.Node) error {
			for _, b := range n.Blocks {
				f.Cuts.Add(b.Pos, b.Stored)
			}
			return context.Cause(ctx)
		})
		if err != nil { // Check has read all that, so it is strange: take it as any file
			f.Cuts, f.Head, f.Tables = nil, 0, 0
		}
	}
	raw, err := squash.Build(ctx, f, m.segment)
	if err != nil {
		return err
	}
	if m.about.Index, err = m.keep(raw); err != nil {
		return err
	}
	if err := m.chunks(); err != nil {
		return err
	}
	return m.places(raw)
}

// segment looks whether a chunk of the file is new.
func (m *making) segment(ref chunk.Ref, at int64, b []byte) error {
	t := <-m.tools
	need, buf := m.session.Need(ref.Digest, t.buf)
	t.buf = buf
	m.tools <- t
	if !need {
		return nil
	}
	s := pack.Stretch{Digest: ref.Digest, Off: at, Size: ref.Size, CRC: pack.Checksum(b)}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stretches = append(m.stretches, s)
	m.fresh += int64(ref.Size)
	return nil
}

// chunks keeps what is new: where that is most of it, the upload as it is.
func (m *making) chunks() error {
	sort.Slice(m.stretches, func(i, j int) bool { return m.stretches[i].Off < m.stretches[j].Off })
	if m.fresh > m.about.Size/2 {
		return m.session.Adopt(m.file.Name(), m.stretches)
	}
	buf := make([]byte, chunk.MaxSize)
	for _, s := range m.stretches {
		b := buf[:s.Size]
		if _, err := m.file.ReadAt(b, s.Off); err != nil {
			return err
		}
		if err := m.session.Put(s.Digest, b, chunk.Raw); err != nil {
			return err
		}
	}
	return nil
}

// places remembers which chunk begins where.
func (m *making) places(raw []byte) error {
	x, err := squash.Decode(raw)
	if err != nil {
		return err
	}
	for at, s := range x.Segments() {
		m.starts, m.digests = append(m.starts, at), append(m.digests, s.Chunk.Digest)
	}
	return nil
}

// Put implements tree.Sink. What the squashfs holds packed in the same way is
// not packed and kept again.
func (m *making) Put(ref chunk.Ref, content []byte, from *squashfs.Block) error {
	t := <-m.tools
	defer func() { m.tools <- t }()
	need, buf := m.session.Need(ref.Digest, t.buf)
	t.buf = buf
	if !need {
		return nil
	}
	if from != nil && (m.packs || !from.Packed) {
		i := sort.Search(len(m.starts), func(i int) bool { return m.starts[i] >= from.Pos })
		if i < len(m.starts) && m.starts[i] == from.Pos && m.session.Here(m.digests[i]) {
			enc := chunk.Raw
			if from.Packed {
				enc = chunk.Zstd
			}
			return m.session.Alias(ref.Digest, m.digests[i], enc)
		}
	}
	stored, enc := t.codec.Encode(t.buf, content)
	if enc == chunk.Zstd {
		t.buf = stored
	}
	return m.session.Put(ref.Digest, stored, enc)
}

var errNoTree = errors.New("it is no squashfs, and so has no files to be told of")

// Tree gives the files of an image's content.
func (b *Blobs) Tree(f *object.File) (*tree.Manifest, error) {
	if f.Tree == "" {
		return nil, errNoTree
	}
	raw, err := b.ReadIndex(f.Tree)
	if err != nil {
		return nil, fmt.Errorf("the list of its files: %w", err)
	}
	return tree.Decode(raw)
}
