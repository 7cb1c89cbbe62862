package iscsi

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"

	"muster/shared/wire"
)

// kept is how many verified pieces are held, 8 MiB in all: squashfs reads what
// lies together one block after the other. What was read is in the kernel's
// page cache besides.
const kept = 32

// Verified is a disk of which every piece is checked.
type Verified struct {
	disk *Initiator
	size int64 // of the image
	sums []byte

	mu     sync.Mutex
	pieces map[int64]*piece
	recent []int64 // the last used comes last
}

type piece struct {
	there chan struct{}
	data  []byte
	err   error
}

// Verify gives the image on a disk; sums are the SHA-256 of its pieces.
func Verify(disk *Initiator, image wire.Image, sums []byte) (*Verified, error) {
	if n := (image.Size + wire.PieceSize - 1) / wire.PieceSize; int64(len(sums)) != n*sha256.Size {
		return nil, errors.New("the head's list of the image's pieces is not one: upload the image again")
	}
	return &Verified{disk: disk, size: image.Size, sums: sums, pieces: map[int64]*piece{}}, nil
}

// ReadAt fills b from off on; beyond the end of the image there are zeros.
func (v *Verified) ReadAt(ctx context.Context, b []byte, off int64) error {
	for len(b) > 0 {
		if off >= v.size {
			clear(b)
			return nil
		}
		data, err := v.piece(ctx, off/wire.PieceSize)
		if err != nil {
			return err
		}
		n := copy(b, data[off%wire.PieceSize:])
		b, off = b[n:], off+int64(n)
	}
	return nil
}

// piece gives one, read once however many want it.
func (v *Verified) piece(ctx context.Context, i int64) ([]byte, error) {
	v.mu.Lock()
	p, ok := v.pieces[i]
	if !ok {
		p = &piece{there: make(chan struct{})}
		v.pieces[i] = p
	}
	v.touch(i)
	v.mu.Unlock()
	if !ok {
		p.data, p.err = v.fetch(ctx, i)
		if p.err != nil {
			v.mu.Lock()
			delete(v.pieces, i)
			v.mu.Unlock()
		}
		close(p.there)
	}
	select {
	case <-p.there:
		return p.data, p.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// touch notes that a piece is used now, and forgets the one longest unused.
func (v *Verified) touch(i int64) {
	for k, r := range v.recent {
		if r == i {
			v.recent = append(v.recent[:k], v.recent[k+1:]...)
			break
		}
	}
	v.recent = append(v.recent, i)
	if len(v.recent) > kept {
		delete(v.pieces, v.recent[0])
		v.recent = v.recent[1:]
	}
}

func (v *Verified) fetch(ctx context.Context, i int64) ([]byte, error) {
	n := min(wire.PieceSize, v.size-i*wire.PieceSize)
	buf := make([]byte, (n+blockSize-1)/blockSize*blockSize)
	if err := v.disk.ReadAt(ctx, buf, i*wire.PieceSize); err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(buf[:n]); string(sum[:]) != string(v.sums[i*sha256.Size:(i+1)*sha256.Size]) {
		err := fmt.Errorf("piece %d is not that of the image: it is damaged on the head or on the way", i)
		v.disk.Trouble(err)
		return nil, err
	}
	// The last one goes on as the disk does: a read may end in its last block.
	out := make([]byte, wire.PieceSize)
	copy(out, buf[:n])
	return out, nil
}
