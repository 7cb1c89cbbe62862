package pull

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"muster/shared/wire"
)

const (
	maxPieces = 1 << 20     // 256 GiB of image
	readAhead = 4           // pieces that are fetched together when one is wanted at once
	maxSkip   = 8           // pieces that a stream reads past rather than being opened anew
	listTime  = time.Minute // for the list of pieces
	wantedMax = 4           // fetches of what is wanted at once, beside the stream
)

// Pieces is an image that can be read while it is fetched. What is read is
// fetched first; meanwhile Run fetches everything, in order. Every piece is
// verified before anybody sees it. Its methods may be called by many at once.
type Pieces struct {
	src   *Source
	image wire.Image
	file  *os.File
	sums  []byte
	slots chan struct{}

	mu     sync.Mutex
	change chan struct{} // closed and replaced when a piece is there or nobody waits any more
	state  []pieceState
	// covered is how many bytes of each piece came in chunks.
	covered []int32
	nearby  func(ctx context.Context, piece int)
	left    int
	wanted  int    // readers that wait
	said    string // the last trouble told
}

type pieceState uint8

const (
	missing pieceState = iota
	coming
	present
)

// Pieces prepares an image that is fetched into an empty file. It fetches the
// list of the image's pieces, once: an error is for the caller to try again.
func (s *Source) Pieces(ctx context.Context, image wire.Image, to *os.File) (*Pieces, error) {
	sums, err := s.Sums(ctx, image)
	if err != nil {
		return nil, err
	}
	return &Pieces{src: s, image: image, file: to, sums: sums, slots: make(chan struct{}, wantedMax),
		change: make(chan struct{}), state: make([]pieceState, len(sums)/sha256.Size), covered: make([]int32, len(sums)/sha256.Size), left: len(sums) / sha256.Size}, nil
}

// Sums fetches the list of an image's pieces: 32 bytes for each.
func (s *Source) Sums(ctx context.Context, image wire.Image) ([]byte, error) {
	n := (image.Size + wire.PieceSize - 1) / wire.PieceSize
	if n > maxPieces {
		return nil, fmt.Errorf("image %s has %d bytes, more than can be read in pieces", image.Name, image.Size)
	}
	ctx, cancel := context.WithTimeout(ctx, listTime)
	defer cancel()
	body, err := s.open(ctx, wire.Image{Name: "pieces", SHA256: image.Pieces}, 0)
	if err != nil {
		return nil, fmt.Errorf("the list of the image's pieces: %w", err)
	}
	defer body.Close()
	sums, err := io.ReadAll(io.LimitReader(body, n*sha256.Size+1))
	if err != nil {
		return nil, fmt.Errorf("the list of the image's pieces: %w", err)
	}
	if got := fmt.Sprintf("%x", sha256.Sum256(sums)); got != image.Pieces {
		return nil, &Mismatch{What: "the list of the image's pieces", Want: image.Pieces, Got: got}
	}
	if int64(len(sums)) != n*sha256.Size {
		return nil, fmt.Errorf("the list of the image's pieces has %d bytes, for %d pieces it should have %d", len(sums), n, n*sha256.Size)
	}
	return sums, nil
}

// size is that of piece i.
func (p *Pieces) size(i int) int64 {
	return min(wire.PieceSize, p.image.Size-int64(i)*wire.PieceSize)
}

// Ensure returns when the bytes from off on are in the file, for as long as
// that takes. Bytes beyond the end count as there.
func (p *Pieces) Ensure(ctx context.Context, off, n int64) error {
	first := int(off / wire.PieceSize)
	last := int((min(off+n, p.image.Size) - 1) / wire.PieceSize)
	for i := first; i <= last && i < len(p.state); i++ {
		if err := p.ensure(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

func (p *Pieces) ensure(ctx context.Context, i int) error {
	delay, asked := minDelay, false // asked other nodes
	for {
		p.mu.Lock()
		state, change := p.state[i], p.change
		if state == present {
			p.mu.Unlock()
			return nil
		}
		run, nearby := 0, p.nearby
		if state == missing && nearby != nil && !asked {
			run = p.take(i, 1)
		} else if state == missing {
			run = p.take(i, readAhead)
		}
		p.wanted++
		p.mu.Unlock()
		err := error(nil)
		if run > 0 && nearby != nil && !asked {
			asked = true
			nearby(ctx, i)
			p.release(i, run)
		} else if run > 0 {
			err = p.fetch(ctx, i, run)
		} else {
			select {
			case <-change:
			case <-ctx.Done():
			}
		}
		p.mu.Lock()
		p.wanted--
		p.changed()
		p.mu.Unlock()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			p.trouble(err)
			if !pause(ctx, &delay) {
				return context.Cause(ctx)
			}
		}
	}
}

// take claims up to n missing pieces from i on. p.mu is held.
func (p *Pieces) take(i, n int) int {
	run := 0
	for run < n && i+run < len(p.state) && p.state[i+run] == missing {
		p.state[i+run] = coming
		run++
	}
	return run
}

// changed wakes all who wait. p.mu is held.
func (p *Pieces) changed() {
	close(p.change)
	p.change = make(chan struct{})
}

// fetch gets pieces that were claimed. Those that do not come are given back.
func (p *Pieces) fetch(ctx context.Context, first, n int) error {
	done := 0
	defer func() { p.release(first+done, n-done) }()
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	end := min(int64(first+n)*wire.PieceSize, p.image.Size)
	s, err := p.src.stream(ctx, p.image, int64(first)*wire.PieceSize, end)
	if err != nil {
		return err
	}
	defer s.close()
	for ; done < n; done++ {
		if err := p.read(s, first+done); err != nil {
			return err
		}
	}
	return nil
}

func (p *Pieces) release(first, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := first; i < first+n; i++ {
		if p.state[i] == coming {
			p.state[i] = missing
		}
	}
	p.changed()
}

// read takes the next piece of a stream, which must be piece i.
func (p *Pieces) read(s *stream, i int) error {
	buf := s.buf[:p.size(i)]
	if err := s.full(buf); err != nil {
		return err
	}
	if sum := sha256.Sum256(buf); string(sum[:]) != string(p.sums[i*sha256.Size:(i+1)*sha256.Size]) {
		return fmt.Errorf("piece %d of image %s (%d bytes from byte %d on) is damaged on the head or on the way; importing the image again repairs it",
			i, p.image.Name, len(buf), int64(i)*wire.PieceSize)
	}
	if _, err := p.file.WriteAt(buf, int64(i)*wire.PieceSize); err != nil {
		return local{fmt.Errorf("the image does not fit: %w", err)}
	}
	p.mu.Lock()
	p.arrived(i)
	done := p.image.Size - int64(p.left)*wire.PieceSize
	p.mu.Unlock()
	p.src.Progress(max(done, 0))
	return nil
}

// arrived notes that a piece is there. p.mu is held.
func (p *Pieces) arrived(i int) {
	if p.state[i] == present {
		return // in pieces and in chunks
	}
	p.state[i] = present
	p.left--
	p.said = ""
	p.changed()
}

// Run fetches all pieces in order, and lets those go first that are wanted at
// once. It returns when all are there, or when ctx ends.
func (p *Pieces) Run(ctx context.Context) error {
	delay := minDelay
	for i := 0; ; {
		i = p.nextMissing(i)
		if i == len(p.state) {
			if p.complete() {
				return nil
			}
			if err := p.await(ctx); err != nil { // others are fetching the last ones
				return err
			}
			i = 0
			continue
		}
		from := i
		err := p.run(ctx, &i)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if i > from {
			delay = minDelay
		}
		if err != nil {
			p.trouble(err)
			if !pause(ctx, &delay) {
				return context.Cause(ctx)
			}
		}
	}
}

func (p *Pieces) nextMissing(i int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i < len(p.state) && p.state[i] != missing {
		i++
	}
	return i
}

func (p *Pieces) complete() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.left == 0
}

// await waits until anything changes.
func (p *Pieces) await(ctx context.Context) error {
	p.mu.Lock()
	change, done := p.change, p.left == 0
	p.mu.Unlock()
	if done {
		return nil
	}
	select {
	case <-change:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// yield waits while somebody wants a piece at once.
func (p *Pieces) yield(ctx context.Context) {
	for ctx.Err() == nil {
		p.mu.Lock()
		wanted, change := p.wanted, p.change
		p.mu.Unlock()
		if wanted == 0 {
			return
		}
		select {
		case <-change:
		case <-ctx.Done():
		}
	}
}

// run reads one stream from piece i on, until it breaks off or so many pieces
// are there already that another one is better.
func (p *Pieces) run(ctx context.Context, i *int) error {
	s, err := p.src.stream(ctx, p.image, int64(*i)*wire.PieceSize, p.image.Size)
	if err != nil {
		return err
	}
	defer s.close()
	for skipped := 0; *i < len(p.state); *i++ {
		p.yield(ctx)
		p.mu.Lock()
		mine := p.take(*i, 1) == 1
		p.mu.Unlock()
		if mine {
			skipped = 0
			if err := p.read(s, *i); err != nil {
				p.release(*i, 1)
				return err
			}
			continue
		}
		if skipped++; skipped > maxSkip {
			return nil
		}
		if err := s.full(s.buf[:p.size(*i)]); err != nil {
			return err
		}
	}
	return nil
}

// trouble tells of an error once, until another piece comes.
func (p *Pieces) trouble(err error) {
	p.mu.Lock()
	again := p.said == err.Error()
	p.said = err.Error()
	p.mu.Unlock()
	if !again {
		p.src.Trouble(fmt.Errorf("image %s: %w", p.image.Name, err))
	}
}

// pause waits before another attempt; false when ctx ended.
func pause(ctx context.Context, delay *time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(*delay/2 + rand.N(*delay)):
	}
	*delay = min(2**delay, maxDelay)
	return true
}

// stream is a part of a file that is being received. One that stands still is
// cut off.
type stream struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	watch  *time.Timer
	body   io.ReadCloser
	from   io.Reader
	buf    []byte // of one piece
}

func (s *Source) stream(ctx context.Context, image wire.Image, from, to int64) (*stream, error) {
	st := &stream{buf: make([]byte, wire.PieceSize)}
	st.ctx, st.cancel = context.WithCancelCause(ctx)
	st.watch = time.AfterFunc(stall, func() { st.cancel(fmt.Errorf("nothing came for %v", stall)) })
	body, err := s.openRange(st.ctx, image, from, to)
	if err != nil {
		st.watch.Stop()
		err = st.cause(err)
		st.cancel(nil)
		return nil, err
	}
	st.body, st.from = body, io.LimitReader(body, to-from)
	return st, nil
}

// full fills b.
func (s *stream) full(b []byte) error {
	for n := 0; n < len(b); {
		m, err := s.from.Read(b[n:])
		if m > 0 {
			s.watch.Reset(stall)
		}
		if n += m; err != nil && n < len(b) {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return s.cause(err)
		}
	}
	return nil
}

// cause gives the reason why a stream was cut off, where that was here.
func (s *stream) cause(err error) error {
	if cause := context.Cause(s.ctx); cause != nil {
		return cause
	}
	return err
}

func (s *stream) close() {
	s.watch.Stop()
	s.cancel(nil)
	s.body.Close()
}
