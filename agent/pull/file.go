package pull

import (
	"context"
	"fmt"
	"os"
	"sync"

	"muster/images/chunk"
	"muster/images/squash"
	"muster/shared/wire"
)

// SquashIndex fetches the index of the image as one file.
func (p *Image) SquashIndex(ctx context.Context, image wire.Image) (*squash.Index, error) {
	raw, err := p.index(ctx, Squash, image.Index, image.IndexSize)
	if err != nil {
		return nil, err
	}
	x, err := squash.Decode(raw)
	if err == nil && (x.SHA256.String() != image.SHA256 || x.Size != image.Size) {
		return nil, &Mismatch{What: "the file that the index of the image tells of", Want: image.SHA256, Got: x.SHA256.String()}
	}
	return x, err
}

// File writes the image into an empty file, which must stay open as long as
// others may ask for it.
func (p *Image) File(ctx context.Context, image wire.Image, to *os.File) error {
	x, err := p.SquashIndex(ctx, image)
	if err != nil {
		return err
	}
	return p.squash(ctx, x, to)
}

func (p *Image) squash(ctx context.Context, x *squash.Index, to *os.File) error {
	if err := to.Truncate(x.Size); err != nil {
		return fmt.Errorf("room for the image: %w", err)
	}
	l, err := lay(x, to, func(int64, int64) {})
	if err != nil {
		return err
	}
	return p.lay(ctx, x, l)
}

func (p *Image) lay(ctx context.Context, x *squash.Index, l *laying) error {
	if p.Cache == nil {
		p.files.Store(SquashFile(x, l.to).empty(&p.coming))
	}
	return p.Fetch(ctx, l.want, l.put)
}

// laying is a file that chunks are put into, each wherever it belongs.
type laying struct {
	to     *os.File
	wrote  func(off, n int64) // is told of each stretch once
	want   []chunk.Ref
	places [][]int64 // of each of them

	mu   sync.Mutex
	laid []bool
}

// lay writes what the index itself has, and lists the rest.
func lay(x *squash.Index, to *os.File, wrote func(off, n int64)) (*laying, error) {
	l, known := &laying{to: to, wrote: wrote}, map[chunk.Digest]int{}
	for at, s := range x.Segments() {
		if s.Chunk.Size == 0 {
			if _, err := to.WriteAt(s.Inline, at); err != nil {
				return nil, fmt.Errorf("the image does not fit: %w", err)
			}
			wrote(at, int64(len(s.Inline)))
			continue
		}
		i, ok := known[s.Chunk.Digest]
		if !ok {
			i = len(l.want)
			known[s.Chunk.Digest] = i
			l.want, l.places = append(l.want, s.Chunk), append(l.places, nil)
		}
		if l.want[i].Size != s.Chunk.Size {
			return nil, fmt.Errorf("the chunk %s has two sizes", s.Chunk.Digest)
		}
		l.places[i] = append(l.places[i], at)
	}
	l.laid = make([]bool, len(l.want))
	return l, nil
}

func (l *laying) put(i int, content []byte) error {
	l.mu.Lock()
	again := l.laid[i]
	l.mu.Unlock()
	if again {
		return nil
	}
	for _, at := range l.places[i] {
		if _, err := l.to.WriteAt(content, at); err != nil {
			return local{fmt.Errorf("the image does not fit: %w", err)}
		}
	}
	l.mu.Lock()
	again, l.laid[i] = l.laid[i], true
	l.mu.Unlock()
	if again {
		return nil
	}
	for _, at := range l.places[i] {
		l.wrote(at, int64(len(content)))
	}
	return nil
}
