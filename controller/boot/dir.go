package boot

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// Dir is the directory that holds the iPXE binaries, usually DefaultDir. They
// are under the GPL and belong to the distribution's package.
type Dir string

// DefaultDir is where Debian's and Ubuntu's package ipxe puts them.
const DefaultDir Dir = "/usr/lib/ipxe"

// ErrNotServed is for names that are no boot program: whatever else lies in
// the directory, firmware gets none of it.
var ErrNotServed = errors.New("only *.kpxe, *.kkpxe, *.pxe and *.efi of the iPXE directory are served")

// Open opens a boot program by its bare name, and gives its size in bytes.
// Links are followed: Debian links some to /boot.
func (d Dir) Open(name string) (*os.File, int64, error) {
	if !isProgram(name) {
		return nil, 0, fmt.Errorf("%q: %w", name, ErrNotServed)
	}
	f, err := os.Open(filepath.Join(string(d), name))
	if errors.Is(err, os.ErrNotExist) {
		return nil, 0, fmt.Errorf("%s: %w", missingProgram(d, name), os.ErrNotExist)
	}
	if err != nil {
		return nil, 0, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a file", f.Name())
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, st.Size(), nil
}

// Have says whether Open would find the program.
func (d Dir) Have(name string) bool {
	st, err := os.Stat(filepath.Join(string(d), name))
	return isProgram(name) && err == nil && st.Mode().IsRegular()
}

func isProgram(name string) bool {
	if name == "" || len(name) > 255 || name[0] == '.' || strings.ContainsAny(name, "/\\\x00") {
		return false
	}
	switch path.Ext(name) {
	case ".kpxe", ".kkpxe", ".pxe", ".efi":
		return true
	}
	return false
}

func missingProgram(d Dir, name string) string {
	return fmt.Sprintf("%s is not in %s: install the package ipxe (`apt-get install ipxe`) or configure the directory that has it", name, d)
}
