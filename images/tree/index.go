package tree

import (
	"math"
	"path"
)

// Index is a tree by its paths.
type Index struct {
	Order   []string // parents before what is in them
	Entries map[string]*Entry
	names   map[string][]string // by the first name of a file of several, all of them
}

// Index keeps all entries in memory.
func (m *Manifest) Index() (*Index, error) {
	x := &Index{Entries: make(map[string]*Entry, m.Count), names: map[string][]string{}}
	err := m.Walk(func(e *Entry) error {
		kept := keep(e)
		x.Order, x.Entries[e.Path] = append(x.Order, e.Path), &kept
		switch {
		case e.Kind == Link:
			x.names[e.Target] = append(x.names[e.Target], e.Path)
		case e.Group > 0:
			x.names[e.Path] = append(x.names[e.Path], e.Path)
		}
		return nil
	})
	return x, err
}

// Of gives the file that a path names: for a Link, that of the first name. nil
// where there is none.
func (x *Index) Of(path string) *Entry {
	e := x.Entries[path]
	if e != nil && e.Kind == Link {
		return x.Entries[e.Target]
	}
	return e
}

// Names gives all names of the file that a path names, the first one first.
func (x *Index) Names(path string) []string {
	e := x.Of(path)
	if e == nil {
		return nil
	}
	if all := x.names[e.Path]; len(all) > 0 {
		return all
	}
	return []string{e.Path}
}

// Between gives what differs between two trees as two small ones: of each the
// entries that are not in the other as they are, those that also names, and the
// directories above them. All names of a file go together. A machine that has
// the one tree needs no more to get the other.
func Between(old, now *Manifest, also []string) (before, after []byte, err error) {
	changes, _, err := Diff(old, now, math.MaxInt)
	if err != nil {
		return nil, nil, err
	}
	sides := make([]*Index, 2)
	for i, m := range []*Manifest{old, now} {
		if sides[i], err = m.Index(); err != nil {
			return nil, nil, err
		}
	}
	s := &selection{sides: sides, in: map[string]bool{}}
	for _, c := range changes {
		s.add(c.Path)
	}
	for _, p := range also {
		if sides[0].Entries[p] != nil || sides[1].Entries[p] != nil {
			s.add(p)
		}
	}
	if before, err = s.encode(sides[0]); err == nil {
		after, err = s.encode(sides[1])
	}
	return before, after, err
}

// selection is a part of two trees.
type selection struct {
	sides []*Index
	in    map[string]bool
}

// add takes a path with the directories above it, and with the other names of
// its file in either tree.
func (s *selection) add(name string) {
	if s.in[name] {
		return
	}
	s.in[name] = true
	if name != "." {
		s.add(path.Dir(name))
	}
	for _, side := range s.sides {
		for _, other := range side.Names(name) {
			s.add(other)
		}
	}
}

func (s *selection) encode(side *Index) ([]byte, error) {
	b, groups := NewBuilder(), map[string]int{}
	s.in["."] = true
	for _, name := range side.Order {
		if !s.in[name] {
			continue
		}
		e := *side.Entries[name]
		switch {
		case e.Kind == Link:
			e.Group = groups[e.Target]
		case e.Group > 0:
			e.Group = len(groups) + 1
			groups[name] = e.Group
		}
		if err := b.Add(&e); err != nil {
			return nil, err
		}
	}
	return b.Encode()
}
