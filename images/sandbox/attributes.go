package sandbox

import (
	"bytes"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// attributes gives the extended attributes of a file, not of what a symbolic
// link leads to.
func attributes(path string) (map[string][]byte, error) {
	list, err := sized(func(b []byte) (int, error) { return unix.Llistxattr(path, b) })
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, &os.PathError{Op: "listxattr", Path: path, Err: err}
	}
	out := map[string][]byte{}
	for name := range bytes.SplitSeq(list, []byte{0}) {
		if len(name) == 0 || bytes.HasPrefix(name, []byte("trusted.overlay.")) {
			continue
		}
		value, err := sized(func(b []byte) (int, error) { return unix.Lgetxattr(path, string(name), b) })
		if err != nil {
			return nil, &os.PathError{Op: "getxattr " + string(name), Path: path, Err: err}
		}
		out[string(name)] = value
	}
	return out, nil
}

// sized calls fn with a buffer that is large enough; 64 KiB is Linux's limit.
func sized(fn func([]byte) (int, error)) ([]byte, error) {
	b := make([]byte, 64<<10)
	n, err := fn(b)
	return b[:max(n, 0)], err
}
