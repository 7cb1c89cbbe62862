// Package library keeps uploaded files by content and serves them: images,
// kernels, initramfs archives.
//
// A file is written to the side, checked, and only then named by the object
// that it belongs to: a broken upload leaves the old content, and what was
// acknowledged is on disk. Files that nothing names are removed later. The
// package must not decide who boots what.
package library

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"muster/images/pack"
	"muster/shared/fault"
	"muster/shared/filesystem"
	"muster/shared/object"
)

// Blobs is a directory of files named by their SHA-256, and of chunks.
type Blobs struct {
	dir    string
	chunks *pack.Store

	mu   sync.Mutex
	kept map[string]int // digests that no object names yet but must stay

	looked map[string]look // contents in chunks, by their index
}

// OpenBlobs opens the directory and removes what an interrupted upload left.
func OpenBlobs(dir string, log *slog.Logger) (*Blobs, error) {
	tmp := filepath.Join(dir, "tmp")
	if err := os.RemoveAll(tmp); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(tmp, 0o700); err != nil {
		return nil, err
	}
	chunks, err := pack.Open(filepath.Join(dir, "chunks"), pack.Options{Log: log})
	return &Blobs{dir: dir, chunks: chunks, kept: map[string]int{}, looked: map[string]look{}}, err
}

var digestForm = regexp.MustCompile(`^[0-9a-f]{64}$`)

// Path is where a file lies.
func (b *Blobs) Path(sha256 string) string { return filepath.Join(b.dir, sha256[:2], sha256) }

// Open opens a file for reading.
func (b *Blobs) Open(sha256 string) (*os.File, error) {
	if !digestForm.MatchString(sha256) {
		return nil, fs.ErrNotExist
	}
	return os.Open(b.Path(sha256))
}

// Add takes a file of at most limit bytes. It is on disk under its digest when
// Add returns, and stays at least until release is called. inspect, where
// given, may look at the file first and add to what is known of it; its error
// refuses the upload.
func (b *Blobs) Add(r io.Reader, limit int64, now time.Time, inspect func(*os.File, *object.File) error) (f *object.File, release func(), err error) {
	tmp, f, err := b.receive(r, limit, now)
	if err != nil {
		return nil, nil, err
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	if inspect != nil {
		if err := inspect(tmp, f); err != nil {
			return nil, nil, err
		}
	}
	release = b.keep(f.SHA256)
	if err := b.settle(tmp, f.SHA256); err != nil {
		release()
		return nil, nil, diskFault(err)
	}
	return f, release, nil
}

// receive takes a file to the side. The caller removes and closes it.
func (b *Blobs) receive(r io.Reader, limit int64, now time.Time) (*os.File, *object.File, error) {
	tmp, err := os.CreateTemp(filepath.Join(b.dir, "tmp"), "upload-")
	if err != nil {
		return nil, nil, diskFault(err)
	}
	f, err := fill(tmp, r, limit, now)
	if err != nil {
		tmp.Close()
		os.Remove(tmp.Name())
	}
	return tmp, f, err
}

// fill writes what comes, and names it.
func fill(tmp *os.File, r io.Reader, limit int64, now time.Time) (*object.File, error) {
	long, short := sha256.New(), sha1.New()
	size, err := io.Copy(io.MultiWriter(filesystem.Writer(tmp, tmp.Name()), long, short), io.LimitReader(r, limit+1))
	switch {
	case err != nil && isDisk(err):
		return nil, diskFault(err)
	case err != nil:
		return nil, fault.Invalidf("The upload broke off after %d bytes: %v. What was stored before is unchanged.", size, err)
	case size > limit:
		return nil, fault.New(fault.TooLarge, "The file is larger than %d bytes.", limit)
	}
	f := &object.File{Size: size, MTime: float64(now.UnixMicro()) / 1e6,
		SHA256: hex.EncodeToString(long.Sum(nil)), Chksum: "sha1:" + hex.EncodeToString(short.Sum(nil))}
	f.UID = f.SHA256[:32]
	f.Filename = f.UID
	return f, nil
}

// settle moves a complete file to its place and syncs both. A file that is
// there already is replaced: identical content repairs a damaged store.
func (b *Blobs) settle(tmp *os.File, digest string) error {
	if err := tmp.Chmod(0o600); err != nil {
		return err
	}
	if err := tmp.Sync(); err != nil {
		return err
	}
	dir := filepath.Dir(b.Path(digest))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), b.Path(digest)); err != nil {
		return err
	}
	for _, d := range []string{dir, b.dir} {
		if err := filesystem.SyncDir(d); err != nil {
			return err
		}
	}
	return nil
}

// keep protects a file from Sweep until release is called.
func (b *Blobs) keep(digest string) (release func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.kept[digest]++
	return sync.OnceFunc(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.kept[digest]--; b.kept[digest] == 0 {
			delete(b.kept, digest)
		}
	})
}

// Sweep removes the files that used does not name. Those that were uploaded
// within grace stay. A node that is fetching a file that was replaced keeps
// what it has open; if it has to ask again it is refused, and gets today's.
func (b *Blobs) Sweep(ctx context.Context, used func() map[string]bool, grace time.Duration, now time.Time) (removed int, err error) {
	files, err := filepath.Glob(filepath.Join(b.dir, "??", "*"))
	if err != nil {
		return 0, err
	}
	inUse := used()
	for _, path := range files {
		if ctx.Err() != nil {
			return removed, ctx.Err()
		}
		if digest := filepath.Base(path); !inUse[digest] && b.removeOld(digest, path, now.Add(-grace)) {
			removed++
		}
	}
	return removed, nil
}

// removeOld removes a file from before a time that nobody keeps. Its age is
// looked at under the lock: an upload of the same content makes it young before
// it lets go of it.
func (b *Blobs) removeOld(digest, path string, before time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	info, err := os.Stat(path)
	if err != nil || b.kept[digest] > 0 || info.ModTime().After(before) {
		return false
	}
	return os.Remove(path) == nil
}

func isDisk(err error) bool {
	var p *fs.PathError
	return errors.As(err, &p)
}

// diskFault says that the head cannot store the file, which is not the
// client's mistake.
func diskFault(err error) error {
	if filesystem.IsFull(err) {
		return filesystem.Full(err)
	}
	return fmt.Errorf("storing an upload: %w", err)
}
