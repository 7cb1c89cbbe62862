// Package keyfile keeps small private files (keys, secrets, certificates) on
// disk: each is there whole or not at all, also after a power cut.
//
// It knows nothing of what the files hold, and holds no contents itself.
package keyfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"muster/shared/filesystem"
)

// maxSize bounds what Read takes, in bytes: keys and certificates are small.
const maxSize = 64 << 10

// Read gives the contents of a private file. An error for which
// errors.Is(err, fs.ErrNotExist) holds means that there is none yet. A file
// that others may read or write is refused: its secret is none any more.
func Read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("%s has mode %#o, so others may know it: if nobody has read it run `chmod 600 %s`, else remove it and start again", path, mode, path)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err == nil && len(data) > maxSize {
		err = fmt.Errorf("%s is larger than %d bytes, so it is no key", path, maxSize)
	}
	return data, err
}

// Create writes a file that must not exist yet, with mode 0600. When another
// process was quicker the error satisfies errors.Is(err, fs.ErrExist).
func Create(path string, data []byte) error { return write(path, data, os.Link) }

// Replace writes a file with mode 0600 in place of whatever the path names.
func Replace(path string, data []byte) error { return write(path, data, os.Rename) }

// LoadOrCreate reads the file or, when there is none, creates it with what
// fresh gives; the first of several creators wins and all get its contents.
func LoadOrCreate(path string, fresh func() ([]byte, error)) ([]byte, error) {
	data, err := Read(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return data, err
	}
	if data, err = fresh(); err != nil {
		return nil, err
	}
	err = Create(path, data)
	if errors.Is(err, fs.ErrExist) {
		return Read(path)
	}
	return data, err
}

// write puts the data into a temporary file beside path, makes it durable and
// gives it its name with publish.
func write(path string, data []byte, publish func(from, to string) error) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*") // made with mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails once renamed, which is what we want
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if closing := f.Close(); err == nil {
		err = closing
	}
	if err == nil {
		err = publish(f.Name(), path)
	}
	if err != nil {
		return err
	}
	return filesystem.SyncDir(dir)
}
