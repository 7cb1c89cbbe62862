package gitrepo

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"muster/shared/fault"
	"muster/shared/filesystem"
)

// Bounds on one repository.
const (
	maxRepo  = 50 << 30 // bytes on disk, the work trees included
	lockWait = time.Minute
)

// repo is a repository on disk. What changes it holds the lock; readers take
// none, because git's own files and the trees are replaced and never rewritten.
type repo struct {
	uid string
	dir string
	git *git

	lock  chan struct{} // holds one value while it is taken
	dirty bool          // with the lock: a run of git may have been cut off
	fresh atomic.Bool   // the work tree was made in this run of the head

	mu    sync.Mutex
	state state
	wrong error              // why the work tree is not that of HEAD
	stop  context.CancelFunc // ends who holds the lock
}

// state is what is remembered of synchronization; it outlives a restart.
type state struct {
	Remote   string  `json:"remote"`          // fingerprint of what was synchronized with
	Synced   float64 `json:"synced"`          // when that last worked, in seconds since 1970; 0 for never
	Last     *Last   `json:"last,omitempty"`  // the last attempt
	Failures int     `json:"failures"`        // attempts that failed since
	Grown    bool    `json:"grown,omitempty"` // there may be something to repack
}

// Last is how the last synchronization ended.
type Last struct {
	Time    float64 `json:"time"`
	Action  string  `json:"action"`
	Seconds float64 `json:"seconds"`
	Error   string  `json:"error,omitempty"`
}

func (r *repo) bare() string      { return filepath.Join(r.dir, "repo.git") }
func (r *repo) stateFile() string { return filepath.Join(r.dir, "state.json") }

// acquire waits for the lock, though not for ever.
func (r *repo) acquire(ctx context.Context) error {
	late := time.NewTimer(lockWait)
	defer late.Stop()
	select {
	case r.lock <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-late.C:
		return fault.New(fault.Unavailable, "The repository is being changed by another request or a synchronization; try again later.")
	}
}

func (r *repo) unlock() { <-r.lock }

// working gives a context that ends when the repository is deleted.
func (r *repo) working(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	r.mu.Lock()
	r.stop = cancel
	r.mu.Unlock()
	return ctx, cancel
}

func (r *repo) cancel() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stop != nil {
		r.stop()
	}
}

// create makes the repository; it is there as a whole or not at all.
func (r *repo) create(ctx context.Context) error {
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return err
	}
	if err := r.tidy(); err != nil {
		return err
	}
	fresh := r.temporary("new")
	_, err := r.git.do(ctx, run{dir: r.dir, args: []string{"init", "--quiet", "--bare", "--template=", "--", fresh}})
	if err != nil {
		return errors.Join(err, os.RemoveAll(fresh))
	}
	r.dirty = false
	return os.Rename(fresh, r.bare())
}

// temporary is a new name in the repository's directory, which tidy removes.
func (r *repo) temporary(what string) string {
	return filepath.Join(r.dir, "tmp-"+what+"-"+random())
}

func random() string { return strings.ToLower(rand.Text()[:10]) }

// tidy removes what runs of git that were cut off have left: nobody else works
// on the repository while the lock is held.
func (r *repo) tidy() error {
	left, err := filepath.Glob(filepath.Join(r.dir, "tmp-*"))
	if err != nil {
		return err
	}
	for _, pattern := range []string{"objects/pack/tmp_*", "objects/pack/.tmp-*", "objects/tmp_objdir-*", "objects/incoming-*", "worktrees/*"} {
		more, _ := filepath.Glob(filepath.Join(r.bare(), pattern)) // the patterns are right
		left = append(left, more...)
	}
	for _, path := range left {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	return filepath.WalkDir(r.bare(), func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case d.IsDir() && d.Name() == "objects":
			return fs.SkipDir
		case !d.IsDir() && strings.HasSuffix(path, ".lock"):
			return os.Remove(path)
		}
		return nil
	})
}

// room is how many bytes may still be written.
func (r *repo) room() (int64, error) {
	var used int64
	err := filepath.WalkDir(r.dir, func(_ string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // replaced while we look
		}
		if err != nil || d.IsDir() {
			return err
		}
		if info, err := d.Info(); err == nil {
			used += info.Size()
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	free, err := filesystem.Room(r.dir)
	if err != nil {
		return 0, err
	}
	if left := min(maxRepo-used, free); left > 0 {
		return left, nil
	}
	if free <= 0 {
		return 0, filesystem.Full(unix.ENOSPC)
	}
	return 0, fault.New(fault.Conflict, "The repository has %d GiB on disk, which is all that one may have.", used>>30)
}

// load reads the state; one that cannot be read is as good as none.
func (r *repo) load() {
	raw, err := os.ReadFile(r.stateFile())
	if err == nil && json.Unmarshal(raw, &r.state) != nil {
		r.state = state{}
	}
}

// remember changes the state and stores it.
func (r *repo) remember(change func(*state)) error {
	r.mu.Lock()
	change(&r.state)
	raw, err := json.Marshal(r.state)
	r.mu.Unlock()
	if err != nil {
		return err
	}
	next := r.temporary("state")
	if err := os.WriteFile(next, append(raw, '\n'), 0o600); err != nil {
		return fmt.Errorf("state of a git repository: %w", err)
	}
	return os.Rename(next, r.stateFile())
}

// known is the state as it is now.
func (r *repo) known() state {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state
}
