package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Work makes a directory of its own in parent, for the life of this program.
// remove takes it away; what a killed program left there under the same prefix
// goes too.
func Work(parent, prefix string) (dir string, remove func() error, err error) {
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return "", nil, err
	}
	clearDead(parent, prefix)
	dir, err = os.MkdirTemp(parent, prefix)
	if err != nil {
		return "", nil, err
	}
	lock, err := Lock(dir)
	if err != nil {
		return "", nil, errors.Join(err, os.RemoveAll(dir))
	}
	return dir, func() error { return errors.Join(os.RemoveAll(dir), lock.Close()) }, nil
}

// young is how long a directory may be without its lock: its owner may be
// about to take it.
const young = time.Minute

// clearDead removes directories whose owner is gone: its lock ended with it.
func clearDead(parent, prefix string) {
	found, _ := filepath.Glob(filepath.Join(parent, prefix+"*"))
	for _, dir := range found {
		st, err := os.Lstat(dir)
		if err != nil || !st.IsDir() || !owned(st) || time.Since(st.ModTime()) < young {
			continue
		}
		if lock, err := Lock(dir); err == nil {
			_ = os.RemoveAll(dir) // another user's stays; the next run sees it again
			lock.Close()
		}
	}
}

// owned: in a directory for everybody others may have made what has our names.
func owned(st os.FileInfo) bool {
	sys, ok := st.Sys().(*syscall.Stat_t)
	return ok && int(sys.Uid) == os.Geteuid()
}

// ErrLocked says that another has the lock.
var ErrLocked = errors.New("it is in use")

// Lock takes the lock of a file or directory that is there, which ends with
// Close or with the program. ErrLocked when another has it.
func Lock(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, ErrLocked
		}
		return nil, fmt.Errorf("locking %s: %w", path, err)
	}
	return f, nil
}
