package initramfs

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"muster/initramfs/modindex"
)

// maxTotal bounds the modules of one archive in bytes; they are held in
// memory while it is built, and by the node while it boots.
const maxTotal = 1 << 30

// Options says what Modules shall do beyond what every node needs.
type Options struct {
	// Extra are modules to be packed too; each must exist.
	Extra []string
	// BuiltIn are modules known to be in the kernel, for a directory without
	// modules.builtin.
	BuiltIn []string
	// Firmware is a lib/firmware directory from which the files that packed
	// modules ask for are packed too. Empty: none.
	Firmware string
}

// Report says what became of each wanted module, by name and sorted.
type Report struct {
	Release  string   // of the kernel (uname -r) that the modules are for
	Included []string // packed, with all that they need
	BuiltIn  []string // wanted, and in the kernel already
	Missing  []string // wanted, and neither; with the reason in brackets unless it just does not exist
	Firmware []string // packed firmware files
	Bytes    int64    // of all files, uncompressed
}

// Modules writes the archive of the modules in dir, a lib/modules/VERSION
// directory, that a node needs to find its image; modules.dep is not needed
// and compressed modules are packed as the kernel takes them. Package
// modindex describes the list that lies with them.
//
// It fails when a module is missing without which no image can become a root,
// or when there is no driver for any network card.
func Modules(w io.Writer, dir string, opt Options) (Report, error) {
	t, err := openTree(dir)
	if err != nil {
		return Report{}, err
	}
	for _, name := range opt.BuiltIn {
		t.builtIn[modindex.CanonicalName(name)] = true
	}
	s := &selection{tree: t, modules: map[string]*module{}, failed: map[string]error{}}
	if err := s.selectAll(opt.Extra); err != nil {
		return Report{}, err
	}
	return s.write(w, opt.Firmware)
}

func (s *selection) write(w io.Writer, firmware string) (Report, error) {
	ix := s.index()
	report := s.report(ix)
	a, err := newArchive(w)
	if err != nil {
		return report, err
	}
	var list bytes.Buffer
	if err := ix.Write(&list); err != nil {
		return report, fmt.Errorf("initramfs: %w", err)
	}
	if err := a.file(modindex.Path(ix.Release), list.Bytes(), 0o644); err != nil {
		return report, err
	}
	for _, m := range ix.Modules {
		if err := a.file(modindex.Dir(ix.Release)+"/"+m.Path, s.modules[m.Name].data, 0o644); err != nil {
			return report, err
		}
	}
	if report.Firmware, err = s.firmware(a, firmware); err != nil {
		return report, err
	}
	report.Bytes = a.raw
	return report, a.close()
}

// index lists the selection for the agent.
func (s *selection) index() *modindex.Index {
	ix := &modindex.Index{Release: s.release}
	for _, name := range slices.Sorted(maps.Keys(s.modules)) {
		m := s.modules[name]
		file := s.tree.files[name]
		ix.Modules = append(ix.Modules, modindex.Module{
			Name: name, Path: filepath.ToSlash(strings.TrimSuffix(file, compression(file))), Needs: s.needs(name),
		})
		for _, pattern := range m.info.aliases {
			if modindex.Plain(pattern) { // a few name products with blanks; no device has such a modalias
				ix.Aliases = append(ix.Aliases, modindex.Alias{Pattern: pattern, Name: name})
			}
		}
	}
	for _, g := range wanted() {
		for _, name := range g.names {
			switch {
			case s.modules[name] == nil && s.tree.builtIn[name]:
				ix.BuiltIn = append(ix.BuiltIn, name)
			case s.modules[name] != nil && g.boot:
				ix.Boot = append(ix.Boot, name)
			}
		}
	}
	return ix
}

func (s *selection) report(ix *modindex.Index) Report {
	r := Report{Release: s.release, Included: slices.Sorted(maps.Keys(s.modules)), BuiltIn: slices.Sorted(slices.Values(ix.BuiltIn))}
	for _, g := range wanted() {
		for _, name := range g.names {
			if s.modules[name] != nil || s.tree.builtIn[name] {
				continue
			}
			if err := s.failed[name]; err != nil {
				name += " (" + err.Error() + ")"
			}
			r.Missing = append(r.Missing, name)
		}
	}
	slices.Sort(r.Missing)
	return r
}

// firmware adds the files that the packed modules ask for and dir has.
func (s *selection) firmware(a *archive, dir string) ([]string, error) {
	if dir == "" {
		return nil, nil
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("initramfs: firmware: %w", err)
	}
	defer root.Close()
	names := map[string]bool{}
	for _, m := range s.modules {
		for _, name := range m.info.firmware {
			names[filepath.Clean(name)] = true
		}
	}
	var added []string
	for _, name := range slices.Sorted(maps.Keys(names)) {
		data, err := readFirmware(root, name)
		if errors.Is(err, fs.ErrNotExist) || !filepath.IsLocal(name) {
			continue // most drivers name files of every version of their card
		}
		if err != nil {
			return nil, fmt.Errorf("initramfs: firmware: %w", err)
		}
		if err := a.file("lib/firmware/"+filepath.ToSlash(name), data, 0o644); err != nil {
			return nil, err
		}
		added = append(added, name)
	}
	return added, nil
}

// readFirmware reads a file as the module names it, or its compressed form.
func readFirmware(root *os.Root, name string) (data []byte, err error) {
	for _, ext := range []string{"", ".xz", ".zst"} {
		if data, err = root.ReadFile(name + ext); err == nil {
			return decompress(data, ext)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	return nil, cmp.Or(err, fs.ErrNotExist)
}
