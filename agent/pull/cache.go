package pull

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"muster/images/chunk"
	"muster/images/pack"
	"muster/images/squash"
	"muster/images/tree"
)

// Cache is a directory with chunks and indices of images that were pulled.
type Cache struct {
	dir   string
	store *pack.Store
	arrivals
	keepers keepers
}

const (
	indexDir    = "indices"
	writtenFile = "written"
	keepIndices = 6        // of each face
	commitEvery = 16 << 20 // bytes after which what came can be used by others, and after a crash
)

// OpenCache opens a cache, which is made when it is not there. One process at
// a time may have it open.
func OpenCache(dir string, log *slog.Logger) (*Cache, error) {
	if err := os.MkdirAll(filepath.Join(dir, indexDir), 0o700); err != nil {
		return nil, err
	}
	store, err := pack.Open(filepath.Join(dir, "chunks"), pack.Options{Log: log, Volatile: true})
	return &Cache{dir: dir, store: store}, err
}

func (c *Cache) indexFile(f Form, digest string) string {
	return filepath.Join(c.dir, indexDir, string(f)+"-"+digest)
}

// index gives an index that is there, verified.
func (c *Cache) index(f Form, digest string) ([]byte, bool) {
	raw, err := os.ReadFile(c.indexFile(f, digest))
	return raw, err == nil && chunk.Sum(raw).String() == digest
}

// latest gives the index of this face that was used last.
func (c *Cache) latest(f Form) (digest string, raw []byte) {
	for _, name := range c.indices(f) {
		if raw, ok := c.index(f, name); ok {
			return name, raw
		}
	}
	return "", nil
}

// indices gives the digests of those that are there, the last used first.
func (c *Cache) indices(f Form) []string {
	type used struct {
		digest string
		at     time.Time
	}
	var all []used
	entries, _ := os.ReadDir(filepath.Join(c.dir, indexDir))
	for _, e := range entries {
		digest, ok := strings.CutPrefix(e.Name(), string(f)+"-")
		if info, err := e.Info(); ok && err == nil {
			all = append(all, used{digest, info.ModTime()})
		}
	}
	slices.SortFunc(all, func(a, b used) int { return b.at.Compare(a.at) })
	var out []string
	for _, u := range all {
		out = append(out, u.digest)
	}
	return out
}

// addIndex keeps an index.
func (c *Cache) addIndex(f Form, digest string, raw []byte) error {
	tmp, err := os.CreateTemp(filepath.Join(c.dir, indexDir), "new-")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(raw)
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), c.indexFile(f, digest))
}

// use makes an index the last used.
func (c *Cache) use(f Form, digest string) error {
	now := time.Now()
	return os.Chtimes(c.indexFile(f, digest), now, now)
}

// Sweep drops all but the last used indices, and the chunks that none of the
// rest names.
func (c *Cache) Sweep(ctx context.Context) error {
	for _, f := range []Form{Tree, Squash} {
		for i, digest := range c.indices(f) {
			if i >= keepIndices {
				if err := os.Remove(c.indexFile(f, digest)); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return err
				}
			}
		}
	}
	_, err := c.store.Sweep(ctx, func(mark func(chunk.Digest)) error {
		for _, digest := range c.indices(Tree) {
			if raw, ok := c.index(Tree, digest); ok {
				if err := eachOfTree(raw, mark); err != nil {
					return err
				}
			}
		}
		for _, digest := range c.indices(Squash) {
			if raw, ok := c.index(Squash, digest); ok {
				x, err := squash.Decode(raw)
				if err != nil {
					return err
				}
				for _, s := range x.Segments() {
					if s.Chunk.Size > 0 {
						mark(s.Chunk.Digest)
					}
				}
			}
		}
		return nil
	})
	return err
}

func eachOfTree(raw []byte, mark func(chunk.Digest)) error {
	m, err := tree.Decode(raw)
	if err != nil {
		return err
	}
	return m.Walk(func(e *tree.Entry) error {
		for _, p := range e.Parts {
			if p.Hole == 0 {
				mark(p.Chunk.Digest)
			}
		}
		return nil
	})
}

// Fetch implements Chunks with what the cache has. What is damaged counts as
// not there.
func (c *Cache) Fetch(ctx context.Context, want []chunk.Ref, take func(int, Got) error) ([]int, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var mu sync.Mutex
	var left []int
	next := 0
	claim := func() (from, to int) {
		mu.Lock()
		defer mu.Unlock()
		from = next
		next = min(next+64, len(want))
		return from, next
	}
	var workers sync.WaitGroup
	for range 2 {
		workers.Go(func() {
			r := &reader{codec: chunk.NewCodec()}
			for from, to := claim(); from < to && ctx.Err() == nil; from, to = claim() {
				for i := from; i < to; i++ {
					g, ok := c.get(r, want[i])
					if !ok {
						mu.Lock()
						left = append(left, i)
						mu.Unlock()
					} else if err := take(i, g); err != nil {
						cancel(err)
					}
				}
			}
		})
	}
	workers.Wait()
	slices.Sort(left)
	return left, context.Cause(ctx)
}

func (c *Cache) get(r *reader, want chunk.Ref) (Got, bool) {
	stored, e, err := c.store.Stored(want.Digest, r.stored)
	if err != nil {
		return Got{}, false
	}
	r.stored = stored
	content, err := r.codec.Decode(r.content, stored, e, want)
	if err != nil {
		return Got{}, false
	}
	if e == chunk.Zstd {
		r.content = content
	}
	return Got{Content: content, Stored: stored, Encoding: e}, true
}

// wrote says whether a directory was written from this cache before, so that
// what is in it may be replaced.
func (c *Cache) wrote(path string) bool {
	raw, err := os.ReadFile(filepath.Join(c.dir, writtenFile))
	return err == nil && slices.Contains(strings.Split(string(raw), "\x00"), path)
}

func (c *Cache) noteWritten(path string) error {
	if c.wrote(path) {
		return nil
	}
	f, err := os.OpenFile(filepath.Join(c.dir, writtenFile), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(path + "\x00")
	return errors.Join(err, f.Close())
}
