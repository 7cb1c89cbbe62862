package apply

import (
	"slices"

	"golang.org/x/sys/unix"

	"muster/images/tree"
)

// file looks after a file with all its names, at the first of them.
func (p *planner) file(name string) error {
	e := p.now.Of(name)
	if p.groups[e.Path] {
		return nil
	}
	p.groups[e.Path] = true
	f := &group{planner: p, entry: e, names: p.now.Names(name), now: map[string]*local{}}
	for _, n := range f.names {
		if n != name && p.off(n) {
			p.keep(name, "it is one file with /"+n+", where nothing is written")
			return nil
		}
	}
	return f.plan()
}

// group is one file of the wanted version with all its names.
type group struct {
	*planner
	entry *tree.Entry
	names []string
	now   map[string]*local // what is in each place
}

func (f *group) plan() error {
	for _, name := range f.names {
		l, err := f.look(name)
		if err != nil {
			f.keep(name, err.Error())
			return nil
		}
		f.now[name] = l
	}
	if slices.ContainsFunc(f.names, func(n string) bool { return f.own[n] }) {
		return f.beneath()
	}
	base, done, err := f.base()
	if err != nil || done {
		return err
	}
	if stays, err := f.local(); err != nil || stays {
		return err
	}
	for _, name := range f.names {
		if l := f.now[name]; l != nil && l.kind() == tree.Dir {
			f.cleared[name] = true
		}
	}
	return f.write(base)
}

// base finds a name whose file can stay because nothing but its attributes is
// another one, "" where there is none. done says that all is as it should be.
func (f *group) base() (base string, done bool, err error) {
	for _, name := range f.names {
		l := f.now[name]
		same, err := l.holds(f.entry)
		if err != nil {
			return "", false, err
		}
		if !same || f.shared(l) {
			continue
		}
		ok, err := l.hasMeta(f.entry)
		if err != nil {
			return "", false, err
		}
		if !ok && l.kind() != tree.File {
			continue // made anew, which takes no room
		}
		if base = name; !ok || f.timed(l) {
			return base, false, nil
		}
		for _, other := range f.names {
			if o := f.now[other]; o == nil || o.st.Ino != l.st.Ino || o.st.Dev != l.st.Dev {
				return base, false, nil
			}
		}
		return base, true, nil
	}
	return "", false, nil
}

// timed says whether a file has another time than it shall have, since the
// version's is another one now. What is only of another time on the node is
// left so.
func (f *group) timed(l *local) bool {
	was := f.was(f.entry.Path)
	return was != nil && l.kind() == tree.File && (was.MTime != f.entry.MTime || was.NSec != f.entry.NSec) &&
		(l.st.Mtim.Sec != f.entry.MTime || l.st.Mtim.Nsec != int64(f.entry.NSec))
}

// shared says whether a file has a name beside those of the group that stays:
// both would change with one.
func (f *group) shared(l *local) bool {
	if l.st.Nlink < 2 || f.old == nil {
		return false
	}
	for _, name := range f.names {
		for _, mate := range f.old.Names(name) {
			if f.Entry(mate) == nil || slices.Contains(f.names, mate) {
				continue
			}
			if o, err := f.look(mate); err == nil && o != nil && o.st.Ino == l.st.Ino && o.st.Dev == l.st.Dev {
				return true
			}
		}
	}
	return false
}

// Entry gives what the wanted version has in a place.
func (p *planner) Entry(name string) *tree.Entry { return p.now.Of(name) }

// local says whether the file stays as it is because somebody changed it on the
// node, or because its place cannot be reached.
func (f *group) local() (stays bool, err error) {
	for _, name := range f.names {
		why, err := f.reachable(name)
		if why == "" && err == nil {
			why, err = f.foreign(name)
		}
		if err != nil {
			return false, err
		}
		if why != "" {
			f.keep(name, why)
			stays = true
		}
	}
	return stays, nil
}

// foreign says why what is in a place is the node's own; "" where it is what
// the running version has there, or is not to be minded.
func (f *group) foreign(name string) (string, error) {
	was, l := f.was(name), f.now[name]
	if l != nil && l.kind() == tree.Dir {
		return f.directoryInstead(name)
	}
	if f.force {
		return "", nil
	}
	switch {
	case was == nil && l == nil:
		return "", nil
	case l == nil:
		return "it was removed on the node", nil
	case was == nil:
		same, err := l.holds(f.entry)
		if same || err != nil {
			return "", err
		}
		return "it is the node's own, the version that runs has none", nil
	}
	for _, e := range []*tree.Entry{was, f.entry} {
		if same, err := l.is(e); err != nil || same {
			return "", err
		}
	}
	return "it was changed on the node", nil
}

// directoryInstead says what keeps a directory from giving way to a file:
// anything in it that is not of the running version.
func (f *group) directoryInstead(name string) (string, error) {
	why := ""
	err := each(f.root, name, func(l *local) error {
		if f.force || why != "" {
			return nil
		}
		was := f.was(l.path)
		if was == nil {
			why = "it is a directory on the node, with files of its own in it: /" + l.path
			return nil
		}
		if l.kind() == tree.Dir {
			return nil
		}
		same, err := l.is(was)
		if !same && err == nil {
			why = "it is a directory on the node, with a file that was changed: /" + l.path
		}
		return err
	})
	if err != nil {
		return "what is in this directory cannot go: " + err.Error(), nil
	}
	return why, nil
}

// write makes the names that are not what they should be.
func (f *group) write(base string) error {
	first, meta := base, false
	if base != "" {
		l := f.now[base]
		ok, err := l.hasMeta(f.entry)
		if err != nil {
			return err
		}
		if meta = !ok || f.timed(l); meta {
			f.ops = append(f.ops, op{Do: set, Path: base, Entry: metaOf(f.entry), Names: uint64(l.st.Nlink) + uint64(len(f.names)), Owner: l.st.Uid})
		}
	}
	for _, name := range f.names {
		l := f.now[name]
		if base != "" && l != nil && l.st.Ino == f.now[base].st.Ino && l.st.Dev == f.now[base].st.Dev {
			if meta {
				f.changes(name, tree.Attributes)
			}
			continue
		}
		at, inside := f.place(name)
		f.stage = append(f.stage, staged{at: at, entry: f.entry, link: first})
		if !inside {
			f.ops = append(f.ops, op{Do: put, Path: name, Staged: at, Clear: l != nil && l.kind() == tree.Dir})
		}
		if first == "" {
			first = at
		}
		what := tree.Changed
		if l == nil {
			what = tree.Added
		}
		f.changes(name, what)
	}
	return nil
}

// beneath makes what comes back once no overlay wants the place any more.
func (f *group) beneath() error {
	if len(f.names) > 1 || f.entry.Kind != tree.File && f.entry.Kind != tree.Symlink {
		f.keep(f.names[0], "it is the node's own by an overlay, and a file of several names or no file in the version")
		return nil
	}
	name := f.names[0]
	at := workDir + "/" + besideName(name)
	f.stage = append(f.stage, staged{at: at, entry: f.entry})
	f.ops = append(f.ops, op{Do: below, Path: name, Staged: at})
	f.leave(name, "an overlay has its place; what is below it changes")
	return nil
}

// unixMode is the type of what is made by mknod.
func unixMode(k tree.Kind) uint32 {
	switch k {
	case tree.Block:
		return unix.S_IFBLK
	case tree.Char:
		return unix.S_IFCHR
	case tree.Fifo:
		return unix.S_IFIFO
	}
	return unix.S_IFSOCK
}
