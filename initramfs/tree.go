package initramfs

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"muster/initramfs/modindex"
	"muster/shared/unxz"
)

const (
	maxModule  = 256 << 20 // bytes of one module, with all its debugging symbols
	maxModules = 100_000   // files below one directory
	maxWindow  = 64 << 20
)

// tree is a lib/modules/VERSION directory.
type tree struct {
	dir     string
	files   map[string]string // canonical name → path below dir
	builtIn map[string]bool
}

func openTree(dir string) (*tree, error) {
	t := &tree{dir: dir, files: map[string]string{}, builtIn: map[string]bool{}}
	if err := filepath.WalkDir(dir, t.visit); err != nil {
		return nil, fmt.Errorf("initramfs: modules: %w", err)
	}
	if len(t.files) == 0 {
		return nil, fmt.Errorf("initramfs: no kernel modules (*.ko) in %s; give a lib/modules/VERSION directory", dir)
	}
	return t, t.readBuiltIn()
}

func (t *tree) visit(name string, d fs.DirEntry, err error) error {
	if err != nil {
		return err
	}
	module, ok := moduleName(d.Name())
	if !ok || d.IsDir() {
		return nil
	}
	if len(t.files) >= maxModules {
		return fmt.Errorf("%s has more than %d modules", t.dir, maxModules)
	}
	rel, err := filepath.Rel(t.dir, name)
	if err != nil {
		return err
	}
	if old, ok := t.files[module]; !ok || priority(rel) < priority(old) {
		t.files[module] = rel
	}
	return nil
}

// priority ranks where a module lies: what was added later wins over what came
// with the kernel, as depmod has it by default.
func priority(rel string) int {
	first, _, _ := strings.Cut(rel, "/")
	for i, dir := range []string{"updates", "extra", "weak-updates"} {
		if first == dir {
			return i
		}
	}
	return 3
}

// moduleName gives the canonical name of a module from that of its file.
func moduleName(file string) (string, bool) {
	base := strings.TrimSuffix(file, compression(file))
	name, ok := strings.CutSuffix(base, ".ko")
	return modindex.CanonicalName(name), ok && modindex.Plain(name)
}

// compression gives the ending by which a file is compressed, or nothing.
func compression(file string) string {
	switch ext := path.Ext(file); ext {
	case ".gz", ".xz", ".zst":
		return ext
	}
	return ""
}

func (t *tree) readBuiltIn() error {
	f, err := os.Open(filepath.Join(t.dir, "modules.builtin"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("initramfs: %w", err)
	}
	defer f.Close()
	s := bufio.NewScanner(io.LimitReader(f, 16<<20))
	for s.Scan() {
		if name, ok := moduleName(path.Base(s.Text())); ok {
			t.builtIn[name] = true
		}
	}
	if err := s.Err(); err != nil {
		return fmt.Errorf("initramfs: modules.builtin: %w", err)
	}
	return nil
}

// read gives a module as the kernel takes it.
func (t *tree) read(name string) ([]byte, error) {
	return readPlain(filepath.Join(t.dir, t.files[name]))
}

// readPlain reads a file and decompresses it by its ending, within bounds.
func readPlain(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxModule+1))
	if err == nil {
		b, err = decompress(b, compression(file))
	}
	if err == nil && len(b) > maxModule {
		err = fmt.Errorf("larger than %d MiB", maxModule>>20)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return b, nil
}

func decompress(b []byte, ext string) ([]byte, error) {
	var r io.Reader
	switch ext {
	case "":
		return b, nil
	case ".xz":
		return unxz.Decode(b, maxModule, maxWindow)
	case ".gz":
		z, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			return nil, err
		}
		r = z
	case ".zst":
		z, err := zstd.NewReader(bytes.NewReader(b), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, err
		}
		defer z.Close()
		r = z
	}
	return io.ReadAll(io.LimitReader(r, maxModule+1))
}
