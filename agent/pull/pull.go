// Package pull fetches an image, as a whole (File) or so that it can be read
// while it arrives (Pieces), and checks it by its digests.
//
// A transfer that breaks off is taken up where it stopped, for as long as the
// caller wants: the head may be restarting or hundreds of machines may be
// asking at once. Nothing is used before its digest is right. The package must
// not decide what to fetch nor what becomes of it.
package pull

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"muster/agent/head"
	"muster/shared/wire"
)

const (
	block    = 256 << 10        // bytes read at once
	ahead    = 8                // blocks that may wait to be hashed
	stall    = 20 * time.Second // without a byte, a transfer counts as broken
	minDelay = 250 * time.Millisecond
	maxDelay = 10 * time.Second
)

// Source is where images come from.
type Source struct {
	Head   string // http or https URL
	Client *http.Client
	Header http.Header
	// Trouble is told each new reason why a transfer does not go on; it is
	// tried again all the same. Progress is told the bytes that are there.
	Trouble  func(error)
	Progress func(done int64)
}

// New makes a source that reads from the head over plain HTTP, which the
// digest makes safe.
func New(headURL string, d head.Dialer) *Source {
	return &Source{
		Head: strings.TrimRight(headURL, "/"), Client: &http.Client{Transport: d.Transport(nil)}, Header: d.Header(),
		Trouble: func(error) {}, Progress: func(int64) {},
	}
}

// Mismatch says that what came is not what was wanted.
type Mismatch struct{ What, Want, Got string }

func (m *Mismatch) Error() string {
	return fmt.Sprintf("%s has SHA-256 %s, not %s as the head announced: it is damaged on the head or on the way", m.What, m.Got, m.Want)
}

// local marks an error that another attempt does not cure: of the file, not of
// the network.
type local struct{ error }

func (l local) Unwrap() error { return l.error }

// File fetches an image into an empty file. It returns only with the whole
// image, when ctx ends, or for a reason that trying again does not cure: a
// *Mismatch, a *head.Refused, or the file itself.
func (s *Source) File(ctx context.Context, image wire.Image, to *os.File) error {
	sum := newHasher()
	defer sum.close()
	done, delay, said := int64(0), minDelay, ""
	for done < image.Size {
		n, err := s.part(ctx, image, done, to, sum)
		done += n
		if done == image.Size {
			break
		}
		var refused *head.Refused
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.As(err, &refused), errors.As(err, new(local)):
			return err
		case n > 0:
			delay = minDelay
		}
		if err == nil {
			err = io.ErrUnexpectedEOF
		}
		if err.Error() != said {
			s.Trouble(fmt.Errorf("image %s, at byte %d of %d: %w", image.Name, done, image.Size, err))
			said = err.Error()
		}
		if !pause(ctx, &delay) {
			return context.Cause(ctx)
		}
	}
	if got := sum.sum(); got != image.SHA256 {
		return &Mismatch{What: "the image", Want: image.SHA256, Got: got}
	}
	return nil
}

// part fetches from offset on, and says how many bytes it added.
func (s *Source) part(ctx context.Context, image wire.Image, offset int64, to *os.File, sum *hasher) (int64, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := time.AfterFunc(stall, func() { cancel(fmt.Errorf("nothing came for %v", stall)) })
	defer watch.Stop()
	body, err := s.open(ctx, image, offset)
	if body != nil {
		defer body.Close()
	}
	if err != nil {
		return 0, err
	}
	from := io.LimitReader(body, image.Size-offset)
	done := int64(0)
	for {
		buf := sum.buffer()
		n, err := io.ReadFull(from, buf)
		if n > 0 {
			watch.Reset(stall)
			if _, err := to.WriteAt(buf[:n], offset+done); err != nil {
				return done, local{fmt.Errorf("the image does not fit: %w", err)}
			}
			sum.add(buf[:n])
			done += int64(n)
			s.Progress(offset + done)
		}
		if err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				err = nil // too short or not, File knows
			} else if cause := context.Cause(ctx); cause != nil {
				err = cause
			}
			return done, err
		}
	}
}

// open asks for the content from offset on.
func (s *Source) open(ctx context.Context, image wire.Image, offset int64) (io.ReadCloser, error) {
	return s.openRange(ctx, image, offset, 0)
}

// openRange asks for the content from offset on, up to end unless that is 0;
// more may come.
func (s *Source) openRange(ctx context.Context, image wire.Image, offset, end int64) (io.ReadCloser, error) {
	name := strings.Map(func(r rune) rune {
		if r > ' ' && r < 0x7f && !strings.ContainsRune(`/?#%\`, r) {
			return r
		}
		return '_'
	}, image.Name)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Head+wire.PathFile+image.SHA256+"/"+name, nil)
	if err != nil {
		return nil, local{err}
	}
	req.Header = s.Header.Clone()
	want := http.StatusOK
	if offset > 0 || end > 0 {
		last := ""
		if end > 0 {
			last = fmt.Sprint(end - 1)
		}
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%s", offset, last))
		want = http.StatusPartialContent
	}
	resp, err := s.Client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == want {
		return resp.Body, nil
	}
	if resp.StatusCode == http.StatusOK { // it knows no ranges: pass over what is here
		_, err := io.CopyN(io.Discard, resp.Body, offset)
		return resp.Body, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusRequestedRangeNotSatisfiable {
		return nil, &head.Refused{Status: resp.StatusCode, Reason: fmt.Sprintf("the content of image %s ends before byte %d, it is truncated on the head", image.Name, offset)}
	}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	return nil, fmt.Errorf("image %s: %w", image.Name, head.Refusal(resp.StatusCode, text))
}

// hasher hashes beside the reading, on another core where there is one.
type hasher struct {
	hash  hash.Hash
	todo  chan []byte
	free  chan []byte
	ended chan struct{}
}

func newHasher() *hasher {
	h := &hasher{hash: sha256.New(), todo: make(chan []byte, ahead), free: make(chan []byte, ahead+2), ended: make(chan struct{})}
	go func() {
		defer close(h.ended)
		for b := range h.todo {
			h.hash.Write(b)
			h.free <- b[:block]
		}
	}()
	return h
}

// buffer gives one of a fixed number of buffers of block bytes, when it is free.
func (h *hasher) buffer() []byte {
	select {
	case b := <-h.free:
		return b
	default:
		return make([]byte, block)
	}
}

func (h *hasher) add(b []byte) { h.todo <- b }

func (h *hasher) close() {
	if h.todo != nil {
		close(h.todo)
		<-h.ended
		h.todo = nil
	}
}

func (h *hasher) sum() string {
	h.close()
	return hex.EncodeToString(h.hash.Sum(nil))
}
