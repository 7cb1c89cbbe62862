package tree

import (
	"context"
	"fmt"
	"runtime"
	"sync"

	"muster/images/chunk"
	"muster/images/squashfs"
)

// Sink keeps chunks. Its method is called by many goroutines at once.
type Sink interface {
	// Put keeps one. content and from are only valid during the call; from is
	// not nil where content is all that a block of the squashfs unpacks to.
	Put(ref chunk.Ref, content []byte, from *squashfs.Block) error
}

// Limits on what is unpacked of one image: it must not be possible to keep the
// head busy for days with a few kilobytes. An honest image may unpack to a
// thousand times its size where it is all zeros, but not everywhere.
const (
	unpackFree  = 16 << 30 // bytes
	unpackRatio = 64
)

// aheadFiles bounds the files that are read and not yet in the manifest.
const aheadFiles = 4096

// FromSquash makes the tree of a squashfs that squashfs.Check accepted, of size
// bytes, and gives its chunks to the sink. It takes all cores. each, unless
// nil, is called for every name before it is read, in order.
func FromSquash(ctx context.Context, r *squashfs.Reader, size int64, sink Sink, each func(*squashfs.Node)) ([]byte, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c := &converter{sink: sink, todo: make(chan *content, 64), order: make(chan *content, aheadFiles), cancel: cancel,
		budget: unpackFree + unpackRatio*size, groups: map[uint64]int{}, known: map[place]*content{}}
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		data, err := r.Data()
		if err != nil {
			return nil, err
		}
		workers.Go(func() { c.work(ctx, data) })
	}
	go func() {
		defer close(c.order)
		defer close(c.todo)
		err := r.Nodes(func(n *squashfs.Node) error {
			if each != nil {
				each(n)
			}
			return c.take(ctx, n)
		})
		if err != nil {
			cancel(err)
		}
	}()
	b := NewBuilder()
	for f := range c.order {
		if ctx.Err() == nil {
			if err := c.add(ctx, b, f); err != nil {
				cancel(err)
			}
		}
	}
	workers.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	return b.Encode()
}

// content is one entry on its way, done when its parts are known.
type content struct {
	entry  Entry
	blocks []squashfs.Block
	same   *content // has the parts, for another file with the same blocks
	done   chan struct{}
}

// place tells files with the same content, which mksquashfs stores once.
type place struct {
	pos, size int64
	frag      squashfs.Block
}

type converter struct {
	sink   Sink
	todo   chan *content
	order  chan *content
	cancel context.CancelCauseFunc
	budget int64
	groups map[uint64]int // by inode
	known  map[place]*content
}

// take makes the entry of a node and hands its content to the workers.
func (c *converter) take(ctx context.Context, n *squashfs.Node) error {
	f := &content{entry: entryOf(n), done: make(chan struct{})}
	if err := c.group(n, f); err != nil {
		return err
	}
	if f.entry.Kind == File && len(n.Blocks) > 0 {
		c.share(f, n)
		for _, b := range f.blocks {
			if b.Stored > 0 {
				c.budget -= int64(b.Skip) + int64(b.Size)
			}
		}
		if c.budget < 0 {
			return fmt.Errorf("its files are too large for the size of the image: unpacking stopped at %q", n.Path)
		}
	}
	select {
	case c.order <- f:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if f.blocks == nil {
		close(f.done)
		return nil
	}
	select {
	case c.todo <- f:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// group makes the second name of a file a link to the first.
func (c *converter) group(n *squashfs.Node, f *content) error {
	if n.Links < 2 || n.Kind == squashfs.Dir {
		return nil
	}
	g, ok := c.groups[n.Inode]
	if ok {
		f.entry = Entry{Path: n.Path, Kind: Link, Group: g}
		return nil
	}
	f.entry.Group = len(c.groups) + 1
	c.groups[n.Inode] = f.entry.Group
	return nil
}

// maxKnown bounds the memory for recognising equal files.
const maxKnown = 1 << 20

// share reads content that several files have only once.
func (c *converter) share(f *content, n *squashfs.Node) {
	last := n.Blocks[len(n.Blocks)-1]
	at := place{n.Blocks[0].Pos, n.Size, last}
	if first, ok := c.known[at]; ok && n.Size > 0 && len(first.blocks) == len(n.Blocks) && equalBlocks(first.blocks, n.Blocks) {
		f.same = first
		return
	}
	f.blocks = n.Blocks
	if len(c.known) < maxKnown {
		c.known[at] = f
	}
}

func equalBlocks(a, b []squashfs.Block) bool {
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func entryOf(n *squashfs.Node) Entry {
	e := Entry{Path: n.Path, Kind: kinds[n.Kind], Mode: n.Mode, UID: n.UID, GID: n.GID, MTime: n.MTime, Target: n.Target}
	if e.Kind == File {
		e.Size = n.Size
	}
	if e.Kind == Block || e.Kind == Char {
		// The kernel's new_decode_dev.
		e.Major, e.Minor = n.Rdev>>8&0xfff, n.Rdev&0xff|n.Rdev>>12&0xfff00
	}
	for _, x := range n.Xattrs {
		e.Xattrs = append(e.Xattrs, Xattr{x.Name, string(x.Value)})
	}
	return e
}

var kinds = [...]Kind{squashfs.Dir: Dir, squashfs.File: File, squashfs.Symlink: Symlink, squashfs.BlockDevice: Block,
	squashfs.CharDevice: Char, squashfs.Fifo: Fifo, squashfs.Socket: Socket}

// add waits for an entry's content and writes it down.
func (c *converter) add(ctx context.Context, b *Builder, f *content) error {
	wait := f
	if f.same != nil {
		wait = f.same
	}
	select {
	case <-wait.done:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	f.entry.Parts = wait.entry.Parts
	return b.Add(&f.entry)
}

func (c *converter) work(ctx context.Context, data *squashfs.Data) {
	cut := &cutter{sink: c.sink, data: data}
	for f := range c.todo {
		if ctx.Err() != nil {
			continue
		}
		if err := cut.file(ctx, f); err != nil {
			c.cancel(fmt.Errorf("%s: %w", f.entry.Path, err))
			continue
		}
		close(f.done)
	}
}

// cutter cuts one file after the other.
type cutter struct {
	sink Sink
	data *squashfs.Data
	buf  []byte // content that is not cut yet
}

func (c *cutter) file(ctx context.Context, f *content) error {
	c.buf = c.buf[:0]
	blocks := f.blocks
	if len(blocks) == 1 && blocks[0].Stored > 0 && blocks[0].Size <= chunk.Whole {
		return c.single(f)
	}
	for i := range blocks {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		b := &blocks[i]
		if b.Stored == 0 {
			if err := c.flush(f, 0); err != nil {
				return err
			}
			f.hole(int64(b.Size))
			continue
		}
		content, err := c.data.Content(*b)
		if err != nil {
			return err
		}
		if len(content) == 0 {
			continue
		}
		c.buf = append(c.buf, content...)
		if err := c.flush(f, chunk.MaxCut); err != nil {
			return err
		}
	}
	return c.flush(f, 0)
}

// single takes a small file as the chunk that it is.
func (c *cutter) single(f *content) error {
	content, err := c.data.Content(f.blocks[0])
	if err != nil {
		return err
	}
	from := &f.blocks[0]
	if from.Skip > 0 || !c.data.Alone(*from) {
		from = nil
	}
	return c.put(f, content, from)
}

// flush cuts as long as more than keep bytes are there, so that a cut never
// depends on what has not come.
func (c *cutter) flush(f *content, keep int) error {
	rest := c.buf
	for len(rest) > keep {
		n := chunk.Cut(rest)
		if err := c.put(f, rest[:n], nil); err != nil {
			return err
		}
		rest = rest[n:]
	}
	c.buf = c.buf[:copy(c.buf, rest)]
	return nil
}

func (c *cutter) put(f *content, content []byte, from *squashfs.Block) error {
	ref := chunk.Ref{Digest: chunk.Sum(content), Size: uint32(len(content))}
	f.entry.Parts = append(f.entry.Parts, Part{Chunk: ref})
	return c.sink.Put(ref, content, from)
}

func (f *content) hole(n int64) {
	if last := len(f.entry.Parts) - 1; last >= 0 && f.entry.Parts[last].Hole > 0 {
		f.entry.Parts[last].Hole += n
		return
	}
	f.entry.Parts = append(f.entry.Parts, Part{Hole: n})
}
