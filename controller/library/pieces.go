package library

import (
	"bytes"
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

// add stores an upload and, where the slot wants it, the list of its pieces.
func (l *Library) add(body io.Reader, s slot) (*object.File, func(), error) {
	if !s.pieces {
		return l.opt.Blobs.Add(body, s.limit, l.opt.Now(), s.inspect)
	}
	p := newPieces()
	f, release, err := l.opt.Blobs.Add(io.TeeReader(body, p), s.limit, l.opt.Now(), s.inspect)
	if err != nil {
		return nil, nil, err
	}
	list := p.end()
	lf, releaseList, err := l.opt.Blobs.Add(bytes.NewReader(list), int64(len(list)), l.opt.Now(), nil)
	if err != nil {
		release()
		return nil, nil, err
	}
	f.Pieces = lf.SHA256
	return f, func() { release(); releaseList() }, nil
}
