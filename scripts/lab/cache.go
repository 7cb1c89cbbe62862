package lab

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// cache keeps what is expensive to make, one directory each, outside the
// repository. An entry's name ends in a digest of its recipe, so a changed
// recipe makes a new entry; it appears under that name by rename, whole or not
// at all.
type cache struct {
	dir string
	log *slog.Logger
}

// unusedFor is how long an entry of an older recipe is kept: another checkout may still use it.
const unusedFor = 14 * 24 * time.Hour

// entry returns the directory of name made by recipe, calling build with an
// empty directory to fill when there is none. Programs that want the same
// entry at once wait for the one that builds it.
func (c cache) entry(ctx context.Context, name, recipe string, build func(ctx context.Context, dir string) error) (string, error) {
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return "", fmt.Errorf("cache of the lab: %w", err)
	}
	unlock, err := c.lock(ctx, name)
	if err != nil {
		return "", err
	}
	defer unlock()

	sum := sha256.Sum256([]byte(recipe))
	final := filepath.Join(c.dir, name+"-"+hex.EncodeToString(sum[:6]))
	now := time.Now()
	if os.Chtimes(final, now, now) == nil {
		return final, nil
	}
	c.log.Info("making "+name+", once", "in", final)
	half := filepath.Join(c.dir, "half-"+name) // we hold the lock: an existing one is a dead run's
	if err := errors.Join(os.RemoveAll(half), os.Mkdir(half, 0o755)); err != nil {
		return "", err
	}
	defer os.RemoveAll(half)
	if err := build(ctx, half); err != nil {
		return "", fmt.Errorf("making %s for the lab: %w", name, err)
	}
	if err := os.Rename(half, final); err != nil {
		return "", err
	}
	c.log.Info("made "+name, "seconds", int(time.Since(now).Seconds()))
	c.dropUnused(name, final)
	return final, nil
}

func (c cache) lock(ctx context.Context, name string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(c.dir, "lock-"+name), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for told := false; ; told = true {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			f.Close()
			return nil, fmt.Errorf("locking %s: %w", f.Name(), err)
		}
		if !told {
			c.log.Info("another run is making " + name + ", waiting for it")
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, context.Cause(ctx)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// dropUnused removes entries of older recipes that nobody has used for long.
func (c cache) dropUnused(name, keep string) {
	others, _ := filepath.Glob(filepath.Join(c.dir, name+"-????????????"))
	for _, other := range others {
		info, err := os.Stat(other)
		if err != nil || other == keep || time.Since(info.ModTime()) < unusedFor {
			continue
		}
		if err := os.RemoveAll(other); err != nil {
			c.log.Warn("an old entry of the cache stays", "error", err)
		}
	}
}

// CacheDir is where assets are kept by default: /var/cache/muster-lab for
// root, else muster-lab in the user's own cache directory.
func CacheDir() (string, error) {
	if os.Geteuid() == 0 {
		return "/var/cache/muster-lab", nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "muster-lab"), nil
}
