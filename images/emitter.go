package images

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"time"
)

// maxFiles bounds the names in one image, which are held in memory to tell
// what came twice.
const maxFiles = 20_000_000

// emitter writes a tar archive that mksquashfs turns into the same image every
// time: plain names, each file once, each directory present.
type emitter struct {
	w     *tar.Writer
	warn  func(string)
	files map[string]bool // written; true for a directory
	acls  bool            // already warned
}

func newEmitter(w *tar.Writer, warn func(string)) *emitter {
	return &emitter{w: w, warn: warn, files: map[string]bool{}}
}

// put writes one entry with its content.
func (e *emitter) put(h *tar.Header, content io.Reader) error {
	name, err := cleanName(h.Name)
	if err != nil {
		return err
	}
	if name == "." || h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	out := tar.Header{
		Typeflag: h.Typeflag, Name: name, Linkname: h.Linkname, Size: h.Size, Mode: h.Mode & 0o7777, Uid: h.Uid, Gid: h.Gid,
		ModTime: clampTime(h.ModTime), Devmajor: h.Devmajor, Devminor: h.Devminor, PAXRecords: e.attributes(name, h.PAXRecords),
	}
	switch h.Typeflag {
	case tar.TypeSymlink:
		if len(h.Linkname) > shortLink && strings.HasPrefix(h.Linkname, "/") {
			e.longLink(&out)
		}
	case tar.TypeReg, tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
	case tar.TypeDir:
		out.Name += "/"
	case tar.TypeCont, tar.TypeGNUSparse: // read like any file
		out.Typeflag = tar.TypeReg
	case tar.TypeLink:
		if out.Linkname, err = cleanName(h.Linkname); err != nil {
			return err
		}
		out.Size = 0
		if dir, ok := e.files[out.Linkname]; !ok || dir {
			return fmt.Errorf("%q is a hard link to %q, which is no file before it in the archive", name, out.Linkname)
		}
	default:
		return fmt.Errorf("%q has the type %q, which cannot be in an image", name, h.Typeflag)
	}
	if err := e.once(name, h.Typeflag == tar.TypeDir); err != nil {
		return err
	}
	if err := e.w.WriteHeader(&out); err != nil {
		return fmt.Errorf("%q: %w", name, err)
	}
	if out.Typeflag != tar.TypeReg {
		return nil
	}
	if _, err := io.Copy(e.w, content); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return fmt.Errorf("the archive is truncated in %q", name)
		}
		return fmt.Errorf("%q: %w", name, err)
	}
	return nil
}

// shortLink is how long a link's target may be in a plain header, in bytes.
const shortLink = 100

// longLink has the target of a symbolic link written as GNU tar does: where it
// comes in an extended header mksquashfs 4.5 takes the slash off its beginning.
// Such headers have no attributes.
func (e *emitter) longLink(out *tar.Header) {
	if len(out.PAXRecords) > 0 {
		e.warn(fmt.Sprintf("mksquashfs cannot give the symbolic link %s its attributes: left out", out.Name))
	}
	out.PAXRecords, out.Format = nil, tar.FormatGNU
}

// once refuses a second file of one name: unpacked, the last would win, and
// mksquashfs takes the first.
func (e *emitter) once(name string, dir bool) error {
	if was, ok := e.files[name]; ok && !(was && dir) {
		return fmt.Errorf("%q is in the archive twice; unpack it and import the directory", name)
	}
	if len(e.files) >= maxFiles {
		return fmt.Errorf("more than %d files", maxFiles)
	}
	e.files[name] = dir
	return nil
}

// attributes keeps the extended attributes that squashfs can hold.
func (e *emitter) attributes(name string, records map[string]string) map[string]string {
	kept := map[string]string{}
	for key, value := range records {
		attr, ok := strings.CutPrefix(key, "SCHILY.xattr.")
		if !ok && strings.HasPrefix(key, "SCHILY.acl.") {
			attr, ok = key, true
		}
		space, _, _ := strings.Cut(attr, ".")
		switch {
		case !ok:
		case space == "user" || space == "trusted" || space == "security":
			kept[key] = value
		case !e.acls:
			e.acls = true
			e.warn(fmt.Sprintf("squashfs cannot hold the attribute %s (of %s and perhaps others): left out", attr, name))
		}
	}
	return kept
}

// fill adds empty files where there are none of these names in a directory
// that there is.
func (e *emitter) fill(names []string) error {
	for _, name := range names {
		if _, ok := e.files[name]; ok || !e.files[path.Dir(name)] {
			continue
		}
		if err := e.put(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o444, ModTime: time.Unix(0, 0)}, strings.NewReader("")); err != nil {
			return err
		}
	}
	return nil
}

// finish adds the directories that the archive only implies, which would get
// the current time, and ends the archive.
func (e *emitter) finish() error {
	implied := map[string]bool{}
	for name := range e.files {
		for dir := path.Dir(name); dir != "." && !implied[dir]; dir = path.Dir(dir) {
			if is, ok := e.files[dir]; ok && !is {
				return fmt.Errorf("%q lies below %q, which is no directory", name, dir)
			} else if !ok {
				implied[dir] = true
			}
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(implied)) {
		if err := e.w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755, ModTime: time.Unix(0, 0)}); err != nil {
			return err
		}
	}
	return e.w.Close()
}

// cleanName gives a name relative to the root, "." for the root itself.
func cleanName(name string) (string, error) {
	if slices.Contains(strings.Split(name, "/"), "..") || strings.ContainsRune(name, 0) || name == "" {
		return "", fmt.Errorf("the archive has the name %q, which is not allowed", name)
	}
	if name = path.Clean("/" + name)[1:]; name == "" {
		return ".", nil
	}
	return name, nil
}

// clampTime gives whole seconds that squashfs can hold: 1970 to 2106.
func clampTime(t time.Time) time.Time {
	return time.Unix(min(max(t.Unix(), 0), 1<<32-1), 0)
}
