package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"muster/images"
	"muster/images/sandbox"
)

// baseVersion is to be changed with what makes bases.
const baseVersion = 1

// identify gives a name for the base that changes with whatever it is made
// from, as far as that can be told here; "" when it cannot.
func (b *build) identify(ctx context.Context, source string) (string, error) {
	rec := b.opt.Recipe
	what := struct {
		Version  int
		Base     any
		Packages []string
		Epoch    int64
		Distro   *Distro
		Content  string
	}{baseVersion, rec.Base, rec.Packages, rec.Epoch, b.opt.Distro, ""}
	var err error
	switch {
	case source == "":
	case images.IsReference(source):
		b.opt.Watcher.Step("look at " + source)
		what.Content, err = images.Resolve(ctx, source)
	default:
		st, statErr := os.Stat(source)
		if statErr != nil {
			return "", statErr
		}
		if st.IsDir() {
			return "", nil
		}
		b.opt.Watcher.Step("look at " + filepath.Base(source))
		what.Content, err = digest(ctx, source, st.Size(), b.opt.Watcher)
	}
	if err != nil {
		return "", err
	}
	raw, err := json.Marshal(what)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:12]), nil
}

func digest(ctx context.Context, name string, size int64, w Watcher) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum, buf := sha256.New(), make([]byte, 1<<20)
	for done := int64(0); ; {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		n, err := f.Read(buf)
		sum.Write(buf[:n])
		if errors.Is(err, io.EOF) {
			return hex.EncodeToString(sum.Sum(nil)), nil
		}
		if err != nil {
			return "", err
		}
		done += int64(n)
		w.At(done, size)
	}
}

// cache keeps bases, each a squashfs that appears as a whole.
type cache struct {
	dir     string
	watcher Watcher
}

// unusedFor is how long a base is kept that nobody uses.
const unusedFor = 30 * 24 * time.Hour

// entry gives the base of an id, making it where there is none or fresh is
// wanted. Programs that want the same at once wait for the one that makes it.
func (c cache) entry(ctx context.Context, id string, fresh bool, produce func(dir, out string) error) (string, error) {
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return "", err
	}
	final := filepath.Join(c.dir, "base-"+id+".squashfs")
	unlock, err := c.lock(ctx, final+".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	now := time.Now()
	if st, err := os.Stat(final); err == nil && !fresh {
		c.watcher.Step("base from " + final + ", made " + st.ModTime().Format("2006-01-02 15:04"))
		return final, os.Chtimes(final, now, st.ModTime())
	}
	dir, remove, err := sandbox.Work(c.dir, "half-")
	if err != nil {
		return "", err
	}
	out := filepath.Join(dir, "base.squashfs")
	if err = produce(dir, out); err == nil {
		err = os.Rename(out, final)
	}
	if err := errors.Join(err, remove()); err != nil {
		return "", err
	}
	c.dropUnused(now)
	return final, nil
}

func (c cache) lock(ctx context.Context, name string) (unlock func(), err error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	f.Close()
	for told := false; ; told = true {
		lock, err := sandbox.Lock(name)
		if err == nil {
			return func() { lock.Close() }, nil
		}
		if !errors.Is(err, sandbox.ErrLocked) {
			return nil, err
		}
		if !told {
			c.watcher.Step("wait for another that makes the same base")
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// dropUnused removes bases by their time of access, which entry sets.
func (c cache) dropUnused(now time.Time) {
	all, _ := filepath.Glob(filepath.Join(c.dir, "base-*.squashfs"))
	for _, name := range all {
		if at, err := accessed(name); err == nil && now.Sub(at) > unusedFor {
			if err := os.Remove(name); err != nil {
				c.watcher.Said(fmt.Sprintf("an old base stays: %v", err))
			}
		}
	}
}
