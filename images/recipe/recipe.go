// Package recipe reads the files that say how an image is built: a base, the
// packages, files and scripts that make it what it is, and what stays out.
//
// It judges a recipe completely before anything is done. It runs nothing and
// reads no file beside the recipe.
package recipe

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/BurntSushi/toml"
	"gopkg.in/yaml.v3"
)

// Recipe is how an image is built. Its parts are applied in the order of the
// fields.
type Recipe struct {
	Base     Base     // what it begins as
	Packages []string // names for the base's package manager
	Files    []File
	Scripts  []Script // run in the root, one after the other
	Exclude  []string // patterns from the root: what matches stays out of the image
	// Epoch, in seconds since 1970, is the latest time that a file of the image
	// has: with it the same packages give the same bytes. 0 keeps the times.
	Epoch int64
	// Credentials keeps keys, machine ids and the like, see images.Identity.
	Credentials bool
}

// Base is what an image begins as: exactly one of Tool, Source, Image and
// Distro says what that is.
type Base struct {
	Tool   string // mmdebstrap or dnf
	Source string // what images.Import takes: a directory, an archive, docker://…
	Image  string // an image of the head, perhaps with its version
	Distro string // a distro of the head

	Release    string   // of Tool: such as bookworm or 9
	Variant    string   // of mmdebstrap; minbase unless given
	Mirrors    []string // of Tool: URLs, or whole lines of sources.list
	Components []string // of mmdebstrap; main unless given
	Keyring    string   // of mmdebstrap: a file with the keys that sign the packages
	Repos      []Repo   // of dnf
	Options    []string // further ones of Tool, as they are
}

// Repo is a repository of rpm packages.
type Repo struct {
	URL string
	Key string // URL of the key that signs the packages
	// Unsigned takes packages that nobody signed.
	Unsigned bool
}

// File is put into the root.
type File struct {
	Path    string  // absolute; a directory where it ends with a slash
	Content *string // what is in it, or
	Source  string  // a file beside the recipe, or
	Link    string  // what it is a symbolic link to
	Owner   string  // user:group of the image, by name or number; root:root unless given
	Mode    string  // octal; 0644 unless given, and 0755 for directories
}

// Script is run in the root, as root.
type Script struct {
	Name string // for people
	Run  string // its text, for /bin/sh -e unless it begins with #!, or
	File string // the file beside the recipe that holds it
}

// Bounds of a recipe.
const (
	maxSize  = 4 << 20 // bytes
	maxItems = 10_000  // in each list
	maxWord  = 4096    // bytes of all but contents and scripts
)

// Read reads a recipe from what is called name: YAML where that ends with
// .yaml or .yml, else TOML.
func Read(name string, r io.Reader) (Recipe, error) {
	raw, err := io.ReadAll(io.LimitReader(r, maxSize+1))
	if err != nil {
		return Recipe{}, err
	}
	if len(raw) > maxSize {
		return Recipe{}, fmt.Errorf("the recipe is larger than %d bytes: give large files by their source", maxSize)
	}
	if !utf8.Valid(raw) {
		return Recipe{}, errors.New("the recipe is no text in UTF-8")
	}
	var out Recipe
	if ext := path.Ext(name); ext == ".yaml" || ext == ".yml" {
		err = readYAML(raw, &out)
	} else {
		err = readTOML(raw, &out)
	}
	if err != nil {
		return Recipe{}, err
	}
	return out, out.Check()
}

func readTOML(raw []byte, out *Recipe) error {
	meta, err := toml.Decode(string(raw), out)
	var parse toml.ParseError
	if errors.As(err, &parse) {
		return fmt.Errorf("line %d: %s", parse.Position.Line, parse.Message)
	}
	if err != nil {
		return err
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		return fmt.Errorf("%s is no part of a recipe", unknown[0])
	}
	return nil
}

func readYAML(raw []byte, out *Recipe) error {
	d := yaml.NewDecoder(bytes.NewReader(raw))
	d.KnownFields(true)
	if err := d.Decode(out); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return errors.New("the recipe is more than one document")
	}
	return nil
}

// What is handed to a tool must be none of its options, nor more than one word.
var (
	packagePattern   = regexp.MustCompile(`^[A-Za-z0-9@][A-Za-z0-9+.:_/=~*@^-]*$`)
	releasePattern   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._/-]*$`)
	componentPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+/-]*$`)
	ownerPattern     = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?$`)
)

// Check says what is wrong with a recipe.
func (r *Recipe) Check() error {
	for what, n := range map[string]int{"packages": len(r.Packages), "files": len(r.Files), "scripts": len(r.Scripts), "exclude": len(r.Exclude)} {
		if n > maxItems {
			return fmt.Errorf("%s: %d are more than %d", what, n, maxItems)
		}
	}
	if err := r.Base.check(); err != nil {
		return fmt.Errorf("base: %w", err)
	}
	if err := words("packages", r.Packages, packagePattern); err != nil {
		return err
	}
	if r.Base.Tool == DNF && len(r.Packages) == 0 {
		return errors.New("packages: dnf makes a root of nothing but these, so there must be some, such as \"systemd\" or \"@core\"")
	}
	if r.Epoch < 0 || r.Epoch > 1<<32-1 {
		return fmt.Errorf("epoch: %d is no time between 1970 and 2106", r.Epoch)
	}
	for i, f := range r.Files {
		if err := f.check(); err != nil {
			return fmt.Errorf("files, number %d (%s): %w", i+1, shorten(f.Path), err)
		}
	}
	for i, s := range r.Scripts {
		if err := s.check(); err != nil {
			return fmt.Errorf("scripts, number %d: %w", i+1, err)
		}
	}
	for _, p := range r.Exclude {
		if trimmed := strings.Trim(p, "/"); trimmed == "" || bad(p) || slices.Contains(strings.Split(p, "/"), "..") || strings.HasPrefix(p, "-") {
			return fmt.Errorf("exclude: %q is no pattern of paths from the root", shorten(p))
		}
	}
	return nil
}

// The tools that make a base.
const (
	Mmdebstrap = "mmdebstrap"
	DNF        = "dnf"
)

func (b *Base) check() error {
	n := 0
	for _, s := range []string{b.Tool, b.Source, b.Image, b.Distro} {
		if bad(s) {
			return fmt.Errorf("%q is no single line", shorten(s))
		}
		if s != "" {
			n++
		}
	}
	if n != 1 {
		return errors.New("needs exactly one of tool (mmdebstrap or dnf), source, image and distro")
	}
	if b.Tool == "" && (len(b.Mirrors)+len(b.Components)+len(b.Repos) > 0 || b.Keyring != "") {
		return errors.New("mirrors, components, keyring and repos go with a tool only")
	}
	switch b.Tool {
	case "":
	case Mmdebstrap:
		if b.Release == "" {
			return errors.New("release: mmdebstrap needs one, such as bookworm")
		}
		if len(b.Repos) > 0 {
			return errors.New("repos are dnf's; mmdebstrap has mirrors")
		}
	case DNF:
		if len(b.Repos) == 0 {
			return errors.New("repos: dnf needs at least one, with its url")
		}
		if len(b.Mirrors)+len(b.Components) > 0 || b.Keyring != "" || b.Variant != "" {
			return errors.New("mirrors, components, keyring and variant are mmdebstrap's; dnf has repos")
		}
	default:
		return fmt.Errorf("tool: %q is neither mmdebstrap nor dnf", shorten(b.Tool))
	}
	return b.checkWords()
}

func (b *Base) checkWords() error {
	if b.Release != "" && (!releasePattern.MatchString(b.Release) || len(b.Release) > maxWord) {
		return fmt.Errorf("release: %q is no release", shorten(b.Release))
	}
	if b.Variant != "" && !releasePattern.MatchString(b.Variant) {
		return fmt.Errorf("variant: %q is none", shorten(b.Variant))
	}
	if err := words("components", b.Components, componentPattern); err != nil {
		return err
	}
	for _, s := range append(append(slices.Clone(b.Mirrors), b.Options...), b.Keyring) {
		if bad(s) {
			return fmt.Errorf("%q is no single line", shorten(s))
		}
	}
	for _, m := range b.Mirrors {
		if !strings.Contains(m, "://") && !strings.HasPrefix(m, "copy:/") && !strings.HasPrefix(m, "deb ") {
			return fmt.Errorf("mirrors: %q is neither a URL nor a line of sources.list", shorten(m))
		}
	}
	for _, r := range b.Repos {
		if !strings.Contains(r.URL, "://") || bad(r.URL) || bad(r.Key) {
			return fmt.Errorf("repos: %q is no URL", shorten(r.URL))
		}
		if (r.Key == "") != r.Unsigned {
			return fmt.Errorf("repos: %s needs the key that signs its packages, or unsigned = true", shorten(r.URL))
		}
	}
	return nil
}

func (f *File) check() error {
	if !path.IsAbs(f.Path) || bad(f.Path) || slices.Contains(strings.Split(f.Path, "/"), "..") || path.Clean(f.Path) == "/" {
		return errors.New("path: must be absolute, and below the root")
	}
	n := 0
	for _, given := range []bool{f.Content != nil, f.Source != "", f.Link != ""} {
		if given {
			n++
		}
	}
	switch {
	case f.Dir() && n > 0:
		return errors.New("a directory (its path ends with a slash) has no content, source or link")
	case !f.Dir() && n != 1:
		return errors.New("needs one of content, source and link")
	case bad(f.Source) || bad(f.Link):
		return errors.New("source and link are single lines")
	case f.Owner != "" && !ownerPattern.MatchString(f.Owner):
		return fmt.Errorf("owner: %q is not user:group", shorten(f.Owner))
	}
	_, err := f.Bits()
	return err
}

// Dir says whether it is a directory.
func (f *File) Dir() bool { return strings.HasSuffix(f.Path, "/") }

// Bits gives the mode as chmod(2) takes it.
func (f *File) Bits() (uint32, error) {
	switch {
	case f.Mode == "" && f.Dir():
		return 0o755, nil
	case f.Mode == "":
		return 0o644, nil
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(f.Mode, "0o"), 8, 32)
	if err != nil || n > 0o7777 {
		return 0, fmt.Errorf("mode: %q is no octal mode such as \"0644\"", shorten(f.Mode))
	}
	return uint32(n), nil
}

func (s *Script) check() error {
	if (s.Run == "") == (s.File == "") {
		return errors.New("needs one of run and file")
	}
	if bad(s.Name) || bad(s.File) {
		return errors.New("name and file are single lines")
	}
	return nil
}

func words(what string, list []string, pattern *regexp.Regexp) error {
	if len(list) > maxItems {
		return fmt.Errorf("%s: %d are more than %d", what, len(list), maxItems)
	}
	for _, s := range list {
		if len(s) > maxWord || !pattern.MatchString(s) {
			return fmt.Errorf("%s: %q is not one of them", what, shorten(s))
		}
	}
	return nil
}

// bad says whether a word is longer than any, or would be more than one line.
func bad(s string) bool { return len(s) > maxWord || strings.ContainsAny(s, "\x00\r\n") }

func shorten(s string) string {
	if len(s) > 80 {
		return strings.ToValidUTF8(s[:80], "") + "…"
	}
	return s
}
