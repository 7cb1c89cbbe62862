// Package filesystem is what a program that keeps files has to ask of the file
// system below them: how much room there is, whether an error says that there
// is none, and that names of files survive a loss of power.
//
// The package must not decide what is kept, nor where.
package filesystem

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"muster/shared/fault"
)

// keepFree is how many bytes of a file system stay free for what must always
// be written, such as the head's database; of a small one, a twentieth.
const keepFree = 1 << 30

// Room is how many bytes may still be written to the file system of path, 0 or
// less where it is full.
func Room(path string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	size := int64(st.Blocks) * st.Bsize
	return int64(st.Bavail)*st.Bsize - min(keepFree, size/20), nil
}

// IsFull says whether an error is that there is no more room, on the disk or
// in a quota.
func IsFull(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

// Full makes the fault (507) of an error for which IsFull says yes, and
// gives any other as it is.
func Full(err error) error {
	if !IsFull(err) || fault.Is(err, fault.Full) {
		return err
	}
	return &fault.Error{Code: fault.Full, Reason: "The disk of the head's data directory is full; make room and try again. What was stored before is unchanged.", Err: err}
}

// step is after how many bytes a writer looks at the room again.
const step = 16 << 20

// Writer writes to a file of the file system of path for as long as Room says
// that there is some; then it fails with an error for which IsFull says yes.
func Writer(to io.Writer, path string) io.Writer { return &writer{to: to, path: path} }

type writer struct {
	to   io.Writer
	path string
	left int64 // bytes that may be written before the next look
}

func (w *writer) Write(p []byte) (int, error) {
	if w.left < int64(len(p)) {
		room, err := Room(w.path)
		if err != nil {
			return 0, err
		}
		if room < int64(len(p)) {
			return 0, &os.PathError{Op: "write", Path: w.path, Err: unix.ENOSPC}
		}
		w.left = min(room, max(step, int64(len(p))))
	}
	n, err := w.to.Write(p)
	w.left -= int64(n)
	return n, err
}

// SyncDir makes the names in a directory, as they are now, survive a loss of
// power.
func SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
