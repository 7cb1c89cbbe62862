package iso9660

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"
)

// Entry is a file or a directory.
type Entry struct {
	Name string
	Dir  bool
	Size int64     // bytes
	Time time.Time // UTC; zero when the image has none
	Link string    // the target of a symbolic link, "" for others

	extents []extent
	odd     string // what keeps it from being read
}

// ID tells the entry from all others of its image.
func (e Entry) ID() string {
	if len(e.extents) == 0 {
		return "0"
	}
	return fmt.Sprintf("%x-%x", e.extents[0].start, e.Size)
}

// Bounds on one walk.
const (
	maxDirectory = 16 << 20 // bytes of one directory, about 100,000 files
	maxRead      = 64 << 20 // bytes of directories for one Lookup
	maxSteps     = 128      // parts of a path, links resolved
	readAhead    = 32 * sector
)

// errStop ends a walk early.
var errStop = errors.New("stop")

// each calls fn with every record of a directory, its name resolved, until
// fn fails. Records of files in several extents come as one entry.
func (i *Image) each(dir Entry, fn func(Entry) error) error {
	if dir.Size > maxDirectory {
		return damaged("a directory has %d bytes, more than %d are not read", dir.Size, maxDirectory)
	}
	if err := i.within(dir.extents); err != nil {
		return err
	}
	var whole *Entry // a file of which more extents follow
	return i.records(i.reader(dir), func(rec record) error {
		if rec.special() || rec.flags&flagAssociated != 0 {
			return nil
		}
		e, ok, err := i.entry(rec)
		if err != nil {
			return err
		}
		if whole != nil {
			e.extents, e.Size = append(whole.extents, e.extents...), whole.Size+e.Size
			e.Name, ok, whole = whole.Name, usable(whole.Name), nil
		}
		if rec.flags&flagMore != 0 {
			if len(e.extents) > 1<<10 {
				return damaged("%s is in more than 1024 pieces", e.Name)
			}
			whole = &e
			return nil
		}
		if !ok {
			return nil
		}
		return fn(e)
	})
}

// records cuts a directory into its records. None crosses the end of a sector.
func (i *Image) records(r *io.SectionReader, fn func(record) error) error {
	buf := make([]byte, min(readAhead, (r.Size()+sector-1)/sector*sector))
	for off := int64(0); off < r.Size(); off += int64(len(buf)) {
		n, err := r.ReadAt(buf, off)
		if err != nil && err != io.EOF {
			return err
		}
		for at := 0; at < n; {
			size := int(buf[at])
			end := min((at/sector+1)*sector, n)
			if size == 0 { // the next one is in the next sector
				at = end
				continue
			}
			if at+size > end {
				return damaged("a directory record of %d bytes crosses a sector", size)
			}
			rec, err := parseRecord(buf[at : at+size])
			if err != nil {
				return err
			}
			if err := fn(rec); err != nil {
				return err
			}
			at += size
		}
	}
	return nil
}

// entry makes of a record what users see; ok is false for what they do not.
func (i *Image) entry(rec record) (e Entry, ok bool, err error) {
	e = Entry{Dir: rec.dir(), Size: rec.size, Time: rec.time, Name: i.plainName(&rec), extents: []extent{i.extent(rec)}}
	if rec.interleave {
		e.odd = "interleaved"
	}
	if i.naming != rockRidge || i.skip > len(rec.use) {
		return e, usable(e.Name), nil
	}
	x, err := i.extra(rec.use[i.skip:])
	if err != nil {
		return e, false, err
	}
	if x.name != "" {
		e.Name = x.name
	}
	if x.link {
		e.Link, e.Size, e.extents = x.target, 0, []extent{{}}
	}
	if x.odd != "" {
		e.odd = x.odd
	}
	if x.hasChild {
		if e, err = i.child(e, x.child); err != nil {
			return e, false, err
		}
	}
	return e, usable(e.Name) && !x.relocated, nil
}

// child makes an entry the directory that was moved elsewhere because it was
// too deep for the standard. Its size is in its own first record.
func (i *Image) child(e Entry, block uint32) (Entry, error) {
	at := extent{int64(block) * i.block, recordHead + 1}
	if err := i.within([]extent{at}); err != nil {
		return e, err
	}
	buf := make([]byte, at.size)
	if _, err := i.r.ReadAt(buf, at.start); err != nil {
		return e, err
	}
	rec, err := parseRecord(buf)
	if err != nil {
		return e, err
	}
	if !rec.special() || !rec.dir() || rec.location != block {
		return e, damaged("a moved directory is not where it should be")
	}
	e.Dir, e.Link, e.Size, e.extents = true, "", rec.size, []extent{i.extent(rec)}
	return e, nil
}

// List gives what is in a directory, by name.
func (i *Image) List(dir Entry) ([]Entry, error) {
	if !dir.Dir {
		return nil, fmt.Errorf("%s is no directory", dir.Name)
	}
	var all []Entry
	err := i.each(dir, func(e Entry) error {
		all = append(all, e)
		return nil
	})
	slices.SortStableFunc(all, func(a, b Entry) int { return cmp.Compare(a.Name, b.Name) })
	return slices.CompactFunc(all, func(a, b Entry) bool { return a.Name == b.Name }), err
}

// Lookup gives the entry at a path, "" for the root; symbolic links on the way
// and at its end are followed inside the image. What is not there, and links
// that lead out of the image, are fs.ErrNotExist.
func (i *Image) Lookup(path string) (Entry, error) {
	missing := fmt.Errorf("%q: %w", path, fs.ErrNotExist)
	stack := []Entry{i.root}
	todo := strings.Split(path, "/")
	read := int64(0)
	for step := 0; len(todo) > 0; step++ {
		word := todo[0]
		todo = todo[1:]
		here := stack[len(stack)-1]
		switch {
		case step >= maxSteps || len(todo) > maxSteps:
			return Entry{}, missing
		case word == "" || word == ".":
			continue
		case !here.Dir:
			return Entry{}, missing
		case word == "..":
			if len(stack) == 1 {
				return Entry{}, missing
			}
			stack = stack[:len(stack)-1]
			continue
		}
		if read += here.Size; read > maxRead {
			return Entry{}, damaged("its directories are too large to be searched")
		}
		e, err := i.find(here, word)
		switch {
		case err != nil:
			return Entry{}, err
		case e == nil || strings.HasPrefix(e.Link, "/"):
			return Entry{}, missing
		case e.Link != "":
			todo = append(strings.Split(e.Link, "/"), todo...)
		default:
			stack = append(stack, *e)
		}
	}
	return stack[len(stack)-1], nil
}

// find gives the entry of a directory that has the name, nil when there is none.
func (i *Image) find(dir Entry, name string) (found *Entry, err error) {
	err = i.each(dir, func(e Entry) error {
		if e.Name != name {
			return nil
		}
		found = &e
		return errStop
	})
	if err == errStop {
		err = nil
	}
	return found, err
}
