package tree

import (
	"cmp"
	"slices"
	"strings"
)

// Change is what became of one name between two trees.
type Change struct {
	Path string `json:"path"`
	What What   `json:"what"`
	Size int64  `json:"size,omitempty"` // of the new file, in bytes
}

// What happened to a name.
type What string

// The kinds of change. Changed is of the content or the target, Attributes of
// nothing but mode, owner, time or extended attributes; time alone is no change
// of a directory.
const (
	Added      What = "added"
	Removed    What = "removed"
	Changed    What = "changed"
	Attributes What = "attributes"
)

// Diff lists what differs, by path, at most limit of them; more says that
// there are others.
func Diff(old, now *Manifest, limit int) (changes []Change, more bool, err error) {
	before := map[string]Entry{}
	if err := old.Walk(func(e *Entry) error {
		before[e.Path] = keep(e)
		return nil
	}); err != nil {
		return nil, false, err
	}
	note := func(c Change) {
		if more = more || len(changes) >= limit; !more {
			changes = append(changes, c)
		}
	}
	err = now.Walk(func(e *Entry) error {
		was, ok := before[e.Path]
		delete(before, e.Path)
		if !ok {
			note(Change{e.Path, Added, e.Size})
		} else if what := Compare(&was, e); what != "" {
			note(Change{e.Path, what, e.Size})
		}
		return nil
	})
	if err != nil {
		return nil, false, err
	}
	gone := make([]string, 0, len(before))
	for path := range before {
		gone = append(gone, path)
	}
	slices.Sort(gone)
	for _, path := range gone {
		note(Change{Path: path, What: Removed})
	}
	slices.SortFunc(changes, func(a, b Change) int { return cmp.Compare(a.Path, b.Path) })
	return changes, more, nil
}

// keep copies an entry for longer than a call.
func keep(e *Entry) Entry {
	out := *e
	out.Parts = slices.Clone(e.Parts)
	return out
}

// Compare says how an entry differs from what it was; "" where it does not.
func Compare(a, b *Entry) What {
	if a.Kind != b.Kind || a.Target != b.Target || a.Size != b.Size || a.Major != b.Major || a.Minor != b.Minor || !slices.Equal(a.Parts, b.Parts) {
		return Changed
	}
	sameTime := a.MTime == b.MTime && a.NSec == b.NSec || a.Kind == Dir
	if a.Mode != b.Mode || a.UID != b.UID || a.GID != b.GID || !sameTime || !slices.Equal(a.Xattrs, b.Xattrs) {
		return Attributes
	}
	return ""
}

// Find gives an entry by its path, following no links. ok is false when there
// is none.
func (m *Manifest) Find(path string) (found Entry, ok bool, err error) {
	path = strings.Trim(path, "/")
	err = m.Walk(func(e *Entry) error {
		if e.Path == path {
			found, ok = keep(e), true
		}
		return nil
	})
	return found, ok, err
}
