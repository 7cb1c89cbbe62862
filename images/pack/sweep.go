package pack

import (
	"cmp"
	"context"
	"maps"
	"os"
	"slices"

	"muster/images/chunk"
)

// rewriteAt is the part of a pack, one in so many, that must be dead before
// what lives in it is moved.
const rewriteAt = 3

// Sweep removes chunks that nobody needs: that live does not mark and no
// session needs. live is asked without any lock; what is needed by a session
// that ended before, it must know. It gives the bytes that were freed on disk.
func (s *Store) Sweep(ctx context.Context, live func(mark func(chunk.Digest)) error) (freed int64, err error) {
	s.mu.Lock()
	s.ended = map[chunk.Digest]struct{}{}
	s.mu.Unlock()
	marked := map[chunk.Digest]struct{}{}
	err = live(func(d chunk.Digest) { marked[d] = struct{}{} })
	usage := s.forget(marked, err == nil)
	if err != nil {
		return 0, err
	}
	for _, u := range usage {
		if ctx.Err() != nil {
			return freed, ctx.Err()
		}
		dead := u.size - u.live
		if u.live > 0 && (dead*rewriteAt < u.size || dead < 1<<20) {
			continue
		}
		if u.live > 0 {
			if err := s.rewrite(ctx, u.num); err != nil {
				return freed, err
			}
		}
		if err := s.remove(u.num); err != nil {
			return freed, err
		}
		freed += dead
	}
	return freed, nil
}

type usage struct {
	num        uint32
	size, live int64
}

// forget drops the dead from the map, so that no session can come to need them,
// and gives what lives in which pack, those with least first.
func (s *Store) forget(marked map[chunk.Digest]struct{}, really bool) []usage {
	s.mu.Lock()
	defer s.mu.Unlock()
	ended := s.ended
	s.ended = nil
	if !really {
		return nil
	}
	needed := func(d chunk.Digest) bool {
		if _, ok := marked[d]; ok {
			return true
		}
		_, ok := ended[d]
		return ok
	}
	kept := map[chunk.Digest]struct{}{}
	for x := range s.sessions {
		x.needs.Lock()
		maps.Copy(kept, x.needed)
		x.needs.Unlock()
	}
	type spot struct {
		pack uint32
		off  int64
	}
	s.changes++
	live, counted := map[uint32]int64{}, map[spot]bool{}
	for d, p := range s.places {
		if _, ok := kept[d]; !ok && !needed(d) {
			delete(s.places, d)
			continue
		}
		if at := (spot{p.pack, p.off}); !counted[at] {
			counted[at] = true
			live[p.pack] += int64(p.stored)
		}
	}
	var out []usage
	for num, f := range s.packs {
		if st, err := f.Stat(); err == nil {
			out = append(out, usage{num, st.Size(), live[num]})
		}
	}
	slices.SortFunc(out, func(a, b usage) int { return cmp.Compare(a.live, b.live) })
	return out
}

// rewrite copies what lives in a pack into a new one.
func (s *Store) rewrite(ctx context.Context, num uint32) error {
	x := s.Begin()
	defer x.End()
	from, entries := s.in(num)
	var buf []byte
	at := map[int64]place{}
	for _, e := range entries {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if p, ok := at[e.off]; ok { // another name of the same
			p.enc = e.enc
			x.writing.entries[e.digest] = p
			continue
		}
		b, err := e.read(from, buf)
		if err != nil {
			s.log.Warn("a damaged chunk is left behind", "chunk", e.digest.String(), "error", err)
			s.Drop(e.digest)
			continue
		}
		buf = b
		if err := x.Put(e.digest, b, e.enc); err != nil {
			return err
		}
		at[e.off] = x.writing.entries[e.digest]
	}
	return x.Commit()
}

type named struct {
	digest chunk.Digest
	place
}

// in gives the chunks of a pack in their order.
func (s *Store) in(num uint32) (*os.File, []named) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var out []named
	for d, p := range s.places {
		if p.pack == num {
			out = append(out, named{d, p})
		}
	}
	slices.SortFunc(out, func(a, b named) int {
		return cmp.Or(cmp.Compare(a.off, b.off), slices.Compare(a.digest[:], b.digest[:]))
	})
	return s.packs[num], out
}

// remove removes a pack in which nothing lives any more; its index goes first.
func (s *Store) remove(num uint32) error {
	if err := os.Remove(s.path(num, idxExt)); err != nil {
		return err
	}
	s.mu.Lock()
	delete(s.sizes, s.packs[num])
	delete(s.packs, num)
	s.mu.Unlock()
	return os.Remove(s.path(num, packExt))
}

// Drop makes a chunk absent, so that it can be put again.
func (s *Store) Drop(d chunk.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.places, d)
	s.changes++
}

// Check reads everything and compares it with its digests. It gives the chunks
// that are damaged.
func (s *Store) Check(ctx context.Context, each func(bytes int64)) (damaged []chunk.Digest, err error) {
	s.mu.RLock()
	nums := make([]uint32, 0, len(s.packs))
	for num := range s.packs {
		nums = append(nums, num)
	}
	s.mu.RUnlock()
	codec := chunk.NewCodec()
	var buf, out []byte
	for _, num := range nums {
		f, entries := s.in(num)
		for _, e := range entries {
			if ctx.Err() != nil {
				return damaged, ctx.Err()
			}
			b, err := e.read(f, buf)
			if err == nil {
				buf = b
				if e.enc == chunk.Zstd {
					if b, err = codec.Unpack(out, b, chunk.MaxSize); err == nil {
						out = b
					}
				}
			}
			if err != nil || chunk.Sum(b) != e.digest {
				damaged = append(damaged, e.digest)
			}
			each(int64(e.stored))
		}
	}
	return damaged, nil
}
