package library

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sort"

	"muster/images/chunk"
	"muster/images/squash"
	"muster/shared/object"
)

// content is a stored file, in one piece or put together from chunks. It is for
// one reader at a time.
type content interface {
	io.ReadSeeker
	io.Closer
}

// errDamaged says why a content cannot be given.
type errDamaged struct{ reason string }

func (e *errDamaged) Error() string { return e.reason }

// OpenContent opens what an object's file holds. An error that wraps
// fs.ErrNotExist says that it is not here.
func (b *Blobs) OpenContent(f *object.File) (content, error) {
	if f.Index == "" {
		return b.Open(f.SHA256)
	}
	x, err := b.index(f.Index)
	if err != nil {
		return nil, err
	}
	return newAssembled(b, x), nil
}

// index reads the index of a content in chunks.
func (b *Blobs) index(digest string) (*squash.Index, error) {
	raw, err := b.ReadIndex(digest)
	if err != nil {
		return nil, err
	}
	x, err := squash.Decode(raw)
	if err == nil && x.Digest.String() != digest {
		err = &errDamaged{"the index of its chunks is damaged"}
	}
	return x, err
}

// ReadIndex gives an index by its digest, verified.
func (b *Blobs) ReadIndex(digest string) ([]byte, error) {
	f, err := b.Open(digest)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(f)
	if err != nil {
		return nil, err
	}
	if chunk.Sum(raw).String() != digest {
		return nil, &errDamaged{fmt.Sprintf("its index %s is damaged in this head's store", digest)}
	}
	return raw, nil
}

// piece is where a stretch of a content is.
type piece struct {
	at     int64
	inline []byte
	file   *os.File
	off    int64
	ref    chunk.Ref
}

// assembled is a content put together from chunks.
type assembled struct {
	blobs  *Blobs
	size   int64
	pieces []piece
	pos    int64
	codec  *chunk.Codec
	buf    []byte // of a chunk that is not stored as it is
	bufAt  int
	opened map[*os.File]*os.File
}

func newAssembled(b *Blobs, x *squash.Index) *assembled {
	a := &assembled{blobs: b, size: x.Size, pieces: make([]piece, 0, x.Count), bufAt: -1, opened: map[*os.File]*os.File{}}
	for at, s := range x.Segments() {
		p := piece{at: at, inline: s.Inline, ref: s.Chunk}
		if s.Chunk.Size > 0 {
			if f, off, ok := b.chunks.Raw(s.Chunk.Digest); ok {
				p.file, p.off = f, off
			}
		}
		a.pieces = append(a.pieces, p)
	}
	return a
}

// Seek is that of io.Seeker.
func (a *assembled) Seek(off int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		off += a.pos
	case io.SeekEnd:
		off += a.size
	}
	if off < 0 {
		return 0, errors.New("seek before the beginning")
	}
	a.pos = off
	return off, nil
}

// here gives the piece at the position.
func (a *assembled) here() int {
	return sort.Search(len(a.pieces), func(i int) bool { return a.pieces[i].at > a.pos }) - 1
}

func (a *assembled) end(i int) int64 {
	if i+1 < len(a.pieces) {
		return a.pieces[i+1].at
	}
	return a.size
}

// Read reads at most to the end of one piece.
func (a *assembled) Read(b []byte) (int, error) {
	if a.pos >= a.size {
		return 0, io.EOF
	}
	i := a.here()
	p := &a.pieces[i]
	skip := a.pos - p.at
	b = b[:min(int64(len(b)), a.end(i)-a.pos)]
	n, err := 0, error(nil)
	switch {
	case p.inline != nil:
		n = copy(b, p.inline[skip:])
	case p.file != nil:
		n, err = p.file.ReadAt(b, p.off+skip)
	default:
		if err = a.unpack(i); err == nil {
			n = copy(b, a.buf[skip:])
		}
	}
	a.pos += int64(n)
	if err != nil {
		err = fmt.Errorf("reading the image at byte %d: %w", a.pos, err)
	}
	return n, err
}

// unpack makes buf the content of a piece that is stored packed.
func (a *assembled) unpack(i int) error {
	if a.bufAt == i {
		return nil
	}
	if a.codec == nil {
		a.codec = chunk.NewCodec()
	}
	stored, enc, err := a.blobs.chunks.Stored(a.pieces[i].ref.Digest, nil)
	if err != nil {
		return err
	}
	a.buf, err = a.codec.Decode(nil, stored, enc, a.pieces[i].ref)
	a.bufAt = i
	return err
}

// run gives the stretch at the position, of at most n bytes, that lies in one
// file one after the other; nil when it does not.
func (a *assembled) run(n int64) (*os.File, int64, int64) {
	i := a.here()
	p := a.pieces[i]
	if p.file == nil {
		return nil, 0, 0
	}
	off, end := p.off+a.pos-p.at, p.off+a.end(i)-p.at
	for i++; i < len(a.pieces) && end-off < n && a.pieces[i].file == p.file && a.pieces[i].off == end; i++ {
		end += a.end(i) - a.pieces[i].at
	}
	return p.file, off, min(n, end-off)
}

// own gives a file of a pack with a position of its own.
func (a *assembled) own(f *os.File) (*os.File, error) {
	if mine := a.opened[f]; mine != nil {
		return mine, nil
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var mine *os.File
	cerr := raw.Control(func(fd uintptr) { mine, err = os.Open(fmt.Sprintf("/proc/self/fd/%d", fd)) })
	if err = errors.Join(cerr, err); err == nil {
		a.opened[f] = mine
	}
	return mine, err
}

// Close closes what sending opened.
func (a *assembled) Close() error {
	var err error
	for _, f := range a.opened {
		err = errors.Join(err, f.Close())
	}
	return err
}

// sendRun is from how many bytes on the kernel copies a stretch.
const sendRun = 128 << 10

// sender lets the kernel copy what http.ServeContent sends of an assembled
// content, in long stretches where chunks lie one behind the other.
type sender struct{ http.ResponseWriter }

// Unwrap is for http.NewResponseController.
func (s sender) Unwrap() http.ResponseWriter { return s.ResponseWriter }

// ReadFrom is what io.Copy calls.
func (s sender) ReadFrom(src io.Reader) (total int64, err error) {
	limited, ok := src.(*io.LimitedReader)
	if !ok {
		return io.Copy(struct{ io.Writer }{s.ResponseWriter}, src)
	}
	a, ok := limited.R.(*assembled)
	if !ok {
		return io.Copy(s.ResponseWriter, src)
	}
	buf := make([]byte, sendRun)
	for limited.N > 0 && a.pos < a.size && err == nil {
		f, off, size := a.run(limited.N)
		n := int64(0)
		if size >= sendRun {
			n, err = s.copyRun(a, f, off, size)
		} else {
			var m, w int
			if m, err = io.ReadFull(a, buf[:min(limited.N, sendRun, a.size-a.pos)]); m > 0 {
				w, err = s.Write(buf[:m])
			}
			n = int64(w)
		}
		total, limited.N = total+n, limited.N-n
	}
	return total, err
}

func (s sender) copyRun(a *assembled, f *os.File, off, size int64) (int64, error) {
	mine, err := a.own(f)
	if err != nil {
		return 0, err
	}
	if _, err := mine.Seek(off, io.SeekStart); err != nil {
		return 0, err
	}
	n, err := io.CopyN(s.ResponseWriter, mine, size)
	a.pos += n
	return n, err
}

// chunkProblem says why a content in chunks is not here whole, "" when it is.
// It is asked at every boot, and what it found holds until the packs change.
func (b *Blobs) chunkProblem(f *object.File) string {
	stamp := b.chunks.Stamp()
	b.mu.Lock()
	known, ok := b.looked[f.Index]
	b.mu.Unlock()
	if ok && known.stamp == stamp {
		return known.problem
	}
	problem := b.lookForChunks(f)
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.looked) >= maxRemembered {
		clear(b.looked)
	}
	b.looked[f.Index] = look{stamp, problem}
	return problem
}

// look is what was found of a content.
type look struct{ stamp, problem string }

func (b *Blobs) lookForChunks(f *object.File) string {
	x, err := b.index(f.Index)
	if err != nil {
		return fmt.Sprintf("the index of its chunks is missing from this head's store (%v)", err)
	}
	if x.Size != f.Size || x.SHA256.String() != f.SHA256 {
		return "its index is that of another file"
	}
	for at, s := range x.Segments() {
		if s.Chunk.Size > 0 && !b.chunks.Reaches(s.Chunk.Digest) {
			return fmt.Sprintf("the chunk at byte %d of its %d is missing from this head's store", at, x.Size)
		}
	}
	return ""
}
