package pull

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"muster/agent/head"
	"muster/images/chunk"
	"muster/shared/wire"
)

// Got is a chunk that came: its content, and the same as it was stored or sent.
// Both are only valid during the call that hands them over.
type Got struct {
	Content  []byte
	Stored   []byte
	Encoding chunk.Encoding
	Head     bool // it is from the head, though a swarm gave it
}

// Chunks is somewhere chunks may be had from: a cache, other nodes, the head.
type Chunks interface {
	// Fetch calls take, from many goroutines at once and in any order, for
	// each wanted chunk that it can give, verified, and gives the places of
	// the others. An error is for what makes going on useless: take's own, or
	// the end of ctx. take may be called by more than one for a chunk that
	// came damaged or not whole before, but succeeds once.
	Fetch(ctx context.Context, want []chunk.Ref, take func(i int, g Got) error) (left []int, err error)
}

const (
	streams    = 4       // requests to the head at once
	batchBytes = 4 << 20 // of content asked for in one
	batchMax   = 512     // chunks
	attempts   = 5       // for a chunk that the head does not have, or only damaged
)

// headChunks asks the head, for as long as that takes.
type headChunks struct {
	src   *Source
	bytes atomic.Int64 // that came over the wire
}

// Fetch implements Chunks. Nothing is left: what the head does not have either
// is an error.
func (h *headChunks) Fetch(ctx context.Context, want []chunk.Ref, take func(int, Got) error) ([]int, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	batches := make(chan []int)
	var workers sync.WaitGroup
	for range min(streams, len(want)) {
		workers.Go(func() {
			r := &reader{codec: chunk.NewCodec()}
			for b := range batches {
				if err := h.persist(ctx, r, want, b, take); err != nil {
					cancel(err)
				}
			}
		})
	}
	for at := 0; at < len(want) && ctx.Err() == nil; {
		var b []int
		for n := 0; at < len(want) && len(b) < batchMax && n < batchBytes; at++ {
			b, n = append(b, at), n+int(want[at].Size)
		}
		select {
		case batches <- b:
		case <-ctx.Done():
		}
	}
	close(batches)
	workers.Wait()
	return nil, context.Cause(ctx)
}

// reader is what one stream needs.
type reader struct {
	codec           *chunk.Codec
	stored, content []byte
}

// persist asks for the chunks of a batch until all are there.
func (h *headChunks) persist(ctx context.Context, r *reader, want []chunk.Ref, batch []int, take func(int, Got) error) error {
	delay, said := minDelay, ""
	for bad := 0; ; {
		left, err := h.ask(ctx, r, want, batch, take)
		var refused *head.Refused
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err == nil && len(left) == 0:
			return nil
		case errors.As(err, new(local)), errors.As(err, &refused):
			return err
		case err == nil || errors.Is(err, chunk.ErrDamaged):
			if bad++; bad == attempts {
				return fmt.Errorf("the head does not have the chunk %s whole: importing the image again repairs it", want[left[0]].Digest)
			}
		}
		if len(left) < len(batch) {
			delay = minDelay
		}
		batch = left
		if err == nil {
			err = fmt.Errorf("the head lacks %d chunks", len(left))
		}
		if err.Error() != said {
			said = err.Error()
			h.src.Trouble(err)
		}
		if !pause(ctx, &delay) {
			return context.Cause(ctx)
		}
	}
}

// ask makes one request, and gives what is still wanted.
func (h *headChunks) ask(ctx context.Context, r *reader, want []chunk.Ref, batch []int, take func(int, Got) error) (left []int, err error) {
	l := &Line{Client: h.src.Client, URL: h.src.Head + wire.PathChunks, Header: h.src.Header, Stall: stall, Bytes: &h.bytes, reader: r}
	return l.Ask(ctx, want, batch, take)
}

// Line is how one giver of chunks is asked: the head, or another node. It is
// for one goroutine at a time.
type Line struct {
	Client *http.Client
	URL    string
	Header http.Header
	Stall  time.Duration // without a byte, it counts as broken
	Bytes  *atomic.Int64 // that came over the wire

	reader *reader
}

// Ask makes one request for the chunks of a batch, verifies what comes, and
// gives what is still wanted. The error is nil where that is only absent, and a
// chunk.ErrDamaged where something came that was not what it should be.
func (l *Line) Ask(ctx context.Context, want []chunk.Ref, batch []int, take func(int, Got) error) (left []int, err error) {
	if l.reader == nil {
		l.reader = &reader{codec: chunk.NewCodec()}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := time.AfterFunc(l.Stall, func() { cancel(fmt.Errorf("nothing came for %v", l.Stall)) })
	defer watch.Stop()
	var list bytes.Buffer
	for _, i := range batch {
		list.Write(want[i].Digest[:])
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, l.URL, &list)
	if err != nil {
		return batch, local{err}
	}
	req.Header = l.Header.Clone()
	resp, err := l.Client.Do(req)
	if err != nil {
		return batch, because(ctx, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
		return batch, head.Refusal(resp.StatusCode, text)
	}
	body := &counting{r: resp.Body, n: l.Bytes, alive: func() { watch.Reset(l.Stall) }}
	var damaged error
	for n, i := range batch {
		got, err := l.reader.next(body, want[i])
		if errors.Is(err, chunk.ErrDamaged) || errors.Is(err, errAbsent) {
			left = append(left, i)
			if !errors.Is(err, errAbsent) {
				damaged = err
			}
			continue
		}
		if err != nil {
			return append(left, batch[n:]...), because(ctx, err)
		}
		if err := take(i, got); err != nil {
			return nil, local{err}
		}
	}
	// The end of the body is read too, or the connection could not be used again.
	io.CopyN(io.Discard, body, 1)
	return left, damaged
}

// because gives the reason why a request was given up, where that was here.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// IsLocal says whether an error is of the place that chunks are written to:
// nobody who is asked can cure it.
func IsLocal(err error) bool { return errors.As(err, new(local)) }

var errAbsent = errors.New("absent")

// next reads one frame, and verifies it.
func (r *reader) next(body io.Reader, want chunk.Ref) (Got, error) {
	stored, e, err := chunk.ReadFrame(body, r.stored)
	if err != nil {
		return Got{}, err
	}
	if e == chunk.Absent {
		return Got{}, errAbsent
	}
	r.stored = stored
	content, err := r.codec.Decode(r.content, stored, e, want)
	if e == chunk.Zstd && err == nil {
		r.content = content
	}
	return Got{Content: content, Stored: stored, Encoding: e}, err
}

// counting counts what is read.
type counting struct {
	r     io.Reader
	n     *atomic.Int64
	alive func()
}

func (c *counting) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	if n > 0 {
		c.n.Add(int64(n))
		c.alive()
	}
	return n, err
}
