package provision

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"syscall"

	"muster/shared/fault"
	"muster/shared/object"
	"muster/shared/template"
)

// files is the kickstart directory. Nothing outside of it can be reached, not
// by a link either: os.Root sees to that while the file is opened.
type files struct{ dir string }

// read gives a file of at most template.MaxText bytes.
func (d files) read(name string) (string, error) {
	f, err := d.open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, template.MaxText+1))
	if err != nil {
		return "", err
	}
	if len(text) > template.MaxText {
		return "", fault.New(fault.Conflict, "The file %s has more than %d bytes, which is too much for a kickstart.", strconv.Quote(name), template.MaxText)
	}
	return string(text), nil
}

// open opens a file by its path below the directory.
func (d files) open(name string) (*os.File, error) {
	if _, err := object.KickstartFile(name); err != nil {
		return nil, fault.Invalidf("%v.", err)
	}
	root, err := os.OpenRoot(d.dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	// Not blocking: opening a pipe would wait for its writer.
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return nil, fault.New(fault.NotFound, "There is no file %s in the head's kickstart directory.", strconv.Quote(name))
	case errors.Is(err, fs.ErrPermission):
		return nil, err
	case err != nil: // a link that leads out, or in a circle
		return nil, fault.New(fault.Conflict, "The file %s in the head's kickstart directory cannot be read: %v.", strconv.Quote(name), errors.Unwrap(err))
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fault.New(fault.NotFound, "%s in the head's kickstart directory is no file.", strconv.Quote(path.Clean(name)))
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
