package squash

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"muster/images/chunk"
)

// maxCuts bounds the places at which a file is cut: two for every block of a
// TiB. A file with more is cut by its content.
const maxCuts = 16 << 20

// Cuts collects where to cut a squashfs.
type Cuts struct {
	at       []int64
	compact  int // length at which repetitions are thrown out again
	tooMany  bool
	previous int64
}

// Add notes the data block of stored bytes at pos.
func (c *Cuts) Add(pos int64, stored uint32) {
	if c.tooMany || stored == 0 {
		return
	}
	if pos != c.previous { // not right behind the one before
		c.at = append(c.at, pos)
	}
	c.previous = pos + int64(stored)
	c.at = append(c.at, c.previous)
	if len(c.at) > max(c.compact, 1<<20) {
		c.sort()
		if c.compact = 2 * len(c.at); len(c.at) > maxCuts {
			c.tooMany, c.at = true, nil
		}
	}
}

func (c *Cuts) sort() {
	slices.Sort(c.at)
	c.at = slices.Compact(c.at)
}

// between gives the regions that the cuts make between from and to.
func (c *Cuts) between(from, to int64) []region {
	c.sort()
	var out []region
	for _, at := range c.at {
		if at > from && at < to {
			out = append(out, region{from: from, to: at})
			from = at
		}
	}
	if from < to {
		out = append(out, region{from: from, to: to})
	}
	return out
}

// region is a stretch between two cuts, and what became of it.
type region struct {
	from, to int64
	inline   bool
	segments []Segment
}

// File is what an index is made of.
type File struct {
	Content io.ReaderAt
	Size    int64
	SHA256  chunk.Digest
	// Head and Tables say that the first Head bytes, and those from Tables on,
	// belong into the index. Both are 0 for what is no squashfs.
	Head, Tables int64
	Cuts         *Cuts // may be nil
}

// Build cuts a file on all cores and gives the encoded index. put is called by
// many goroutines at once for each chunk; b is only valid during the call.
func Build(ctx context.Context, f File, put func(ref chunk.Ref, at int64, b []byte) error) ([]byte, error) {
	regions := f.regions()
	var next atomic.Int64
	var workers sync.WaitGroup
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			buf := make([]byte, 2*chunk.MaxSize)
			for {
				i := next.Add(1) - 1
				if i >= int64(len(regions)) || ctx.Err() != nil {
					return
				}
				if err := f.cut(ctx, &regions[i], buf, put); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	workers.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	var all []Segment
	for _, r := range regions {
		all = append(all, r.segments...)
	}
	return encode(f.Size, f.SHA256, all)
}

func (f File) regions() []region {
	cuts, head, tables := f.Cuts, f.Head, f.Tables
	if cuts == nil {
		cuts = &Cuts{}
	}
	if tables == 0 || f.Size-tables > maxInline {
		tables = f.Size
	}
	var out []region
	if head > 0 {
		out = append(out, region{from: 0, to: head, inline: true})
	}
	out = append(out, cuts.between(head, tables)...)
	if tables < f.Size {
		out = append(out, region{from: tables, to: f.Size, inline: true})
	}
	return out
}

// cut makes the segments of one region.
func (f File) cut(ctx context.Context, r *region, buf []byte, put func(chunk.Ref, int64, []byte) error) error {
	if r.inline {
		b := make([]byte, r.to-r.from)
		r.segments = []Segment{{Inline: b}}
		return f.read(b, r.from)
	}
	whole := r.to-r.from <= chunk.MaxSize && f.Tables > 0
	for at, have := r.from, 0; at < r.to; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		want := int(min(r.to-at, int64(len(buf))))
		if err := f.read(buf[have:want], at+int64(have)); err != nil {
			return err
		}
		have = want
		b := buf[:have]
		// What is cut must not depend on how much was read.
		for len(b) > 0 && (len(b) >= chunk.MaxCut || at+int64(len(b)) == r.to) {
			n := len(b)
			if !whole {
				n = chunk.Cut(b)
			}
			ref := chunk.Ref{Digest: chunk.Sum(b[:n]), Size: uint32(n)}
			if err := put(ref, at, b[:n]); err != nil {
				return err
			}
			r.segments = append(r.segments, Segment{Chunk: ref})
			at, b = at+int64(n), b[n:]
		}
		have = copy(buf, b)
	}
	return nil
}

func (f File) read(b []byte, at int64) error {
	n, err := f.Content.ReadAt(b, at)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("reading the image at byte %d: %w", at, err)
}
