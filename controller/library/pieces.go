package library

import (
	"context"
	"crypto/sha256"
	"hash"
	"io"

	"muster/shared/object"
	"muster/shared/wire"
)

// pieces makes the list of a file's pieces of what is written to it.
type pieces struct {
	hash hash.Hash
	n    int // bytes of the piece so far
	list []byte
}

func newPieces() *pieces { return &pieces{hash: sha256.New()} }

func (p *pieces) Write(b []byte) (int, error) {
	done := 0
	for done < len(b) {
		part := b[done:min(len(b), done+wire.PieceSize-p.n)]
		p.hash.Write(part)
		done += len(part)
		if p.n += len(part); p.n == wire.PieceSize {
			p.cut()
		}
	}
	return done, nil
}

func (p *pieces) cut() {
	p.list = p.hash.Sum(p.list)
	p.hash.Reset()
	p.n = 0
}

// end gives the list.
func (p *pieces) end() []byte {
	if p.n > 0 {
		p.cut()
	}
	return p.list
}

// add stores an upload, an image in chunks.
func (l *Library) add(ctx context.Context, body io.Reader, s slot) (*object.File, func(), error) {
	if s.image {
		return l.opt.Blobs.AddImage(ctx, body, s.limit, l.opt.Now())
	}
	return l.opt.Blobs.Add(body, s.limit, l.opt.Now(), s.inspect)
}
