package apply

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"slices"
	"strings"

	"muster/agent/rootfs"
	"muster/images/tree"
	"muster/shared/wire"
)

// verb is what is done in a place.
type verb string

const (
	put    verb = "put"    // what is staged comes to the place
	set    verb = "set"    // owner, mode, attributes and time
	below  verb = "below"  // what is staged comes below the node's own file
	remove verb = "remove" // what is no directory
	rmdir  verb = "rmdir"  // a directory, if it is empty
	touch  verb = "touch"  // a directory's time, after all else
)

// op is one change of a place. Done twice it is as if done once.
type op struct {
	Do     verb   `json:"do"`
	Path   string `json:"path"`
	Staged string `json:"staged,omitempty"` // where what comes lies
	Clear  bool   `json:"clear,omitempty"`  // a directory in the place goes with what is in it
	Entry  *meta  `json:"entry,omitempty"`
	Names  uint64 `json:"names,omitempty"` // of a file whose attributes are set: how many it has
	Owner  uint32 `json:"owner,omitempty"` // and whose it is
}

// meta is what a file has beside its content.
type meta struct {
	Mode, UID, GID uint32
	MTime          int64
	NSec           uint32
	Xattrs         map[string][]byte
}

func metaOf(e *tree.Entry) *meta {
	m := &meta{Mode: e.Mode, UID: e.UID, GID: e.GID, MTime: e.MTime, NSec: e.NSec, Xattrs: map[string][]byte{}}
	for _, x := range e.Xattrs {
		m.Xattrs[x.Name] = []byte(x.Value)
	}
	return m
}

// staged is something that is made beside its place. It is a file of its own,
// or with link another name of one.
type staged struct {
	at    string
	entry *tree.Entry
	link  string
}

// maxListed bounds the lists of what is told, in bytes.
const maxListed = 256 << 10

// planner finds out what is to be done.
type planner struct {
	root  *rootfs.Root
	old   *tree.Index // nil: it is not known, every file is compared
	now   *tree.Index
	force bool
	made  map[string]bool // files that are made at each boot
	own   map[string]bool // places of the node's own files
	again map[string]bool // paths that were not as they should be before

	ops     []op
	stage   []staged
	said    wire.Applied
	listed  int // bytes of its lists
	kept    []string
	paths   []string          // that change
	dirs    map[string]string // directories that are made, by where they are staged
	blocked map[string]bool   // nothing is done here and below
	cleared map[string]bool   // directories that give way to something else
	groups  map[string]bool   // that were looked at
}

func (p *planner) run() error {
	p.dirs, p.blocked, p.cleared, p.groups = map[string]string{}, map[string]bool{}, map[string]bool{}, map[string]bool{}
	// Directories first: a file may have a name in one that comes later.
	for _, dirs := range []bool{true, false} {
		for _, name := range p.now.Order {
			e := p.now.Entries[name]
			if (e.Kind == tree.Dir) != dirs || p.off(name) {
				continue
			}
			err := error(nil)
			if dirs {
				err = p.directory(name, e)
			} else {
				err = p.file(name)
			}
			if err != nil {
				return fmt.Errorf("/%s: %w", name, err)
			}
		}
	}
	if p.old != nil {
		for _, name := range slices.Backward(p.old.Order) {
			if p.now.Entries[name] != nil || p.off(name) || above(name, p.cleared) {
				continue
			}
			if err := p.gone(name); err != nil {
				return fmt.Errorf("/%s: %w", name, err)
			}
		}
	}
	p.order()
	return nil
}

// off says whether nothing is done in a place.
func (p *planner) off(name string) bool {
	if p.blocked[name] || above(name, p.blocked) || wire.Protected("/"+name) {
		return true
	}
	if p.made[name] {
		p.leave(name, "it is made anew at each boot")
		return true
	}
	return false
}

// above says whether a directory above a place is in the set.
func above(name string, set map[string]bool) bool {
	for name != "." && len(set) > 0 {
		if name = path.Dir(name); set[name] {
			return true
		}
	}
	return false
}

func (p *planner) list(to *[]wire.PathNote, name, note string) {
	if p.listed += len(name) + len(note) + 30; len(*to) >= wire.MaxListed || p.listed > maxListed {
		p.said.More = true
		return
	}
	*to = append(*to, wire.PathNote{Path: "/" + name, Note: note})
}

func (p *planner) keep(name, why string) {
	p.kept = append(p.kept, name)
	p.list(&p.said.Kept, name, why)
}

func (p *planner) leave(name, why string) { p.list(&p.said.Left, name, why) }

// changes counts a path that changes.
func (p *planner) changes(name string, what tree.What) {
	switch what {
	case tree.Added:
		p.said.Added++
	case tree.Removed:
		p.said.Removed++
	case tree.Attributes:
		p.said.Attributes++
	default:
		p.said.Changed++
	}
	p.paths = append(p.paths, "/"+name)
	p.list(&p.said.Files, name, string(what))
}

// was gives what the running version has in a place.
func (p *planner) was(name string) *tree.Entry {
	if p.old == nil {
		return nil
	}
	return p.old.Of(name)
}

// place is where something is staged: in the directory that is made with it,
// or beside where it belongs.
func (p *planner) place(name string) (at string, inside bool) {
	dir, base := path.Dir(name), path.Base(name)
	if made, ok := p.dirs[dir]; ok {
		return path.Join(made, base), true
	}
	return path.Join(dir, besideName(base)), false
}

// besideName is the same each time, so that what a crash left is found.
func besideName(base string) string {
	sum := sha256.Sum256([]byte(base))
	return ".muster-apply-" + hex.EncodeToString(sum[:8])
}

// look is that of a place, nothing where the directory is only being made.
func (p *planner) look(name string) (*local, error) {
	if _, ok := p.dirs[path.Dir(name)]; ok {
		return nil, nil
	}
	return look(p.root, name)
}

// reachable says whether the directory of a place is there or comes, and why
// not.
func (p *planner) reachable(name string) (string, error) {
	dir := path.Dir(name)
	if _, ok := p.dirs[dir]; ok || dir == "." {
		return "", nil
	}
	l, err := look(p.root, dir)
	switch {
	case err != nil:
		return err.Error(), nil
	case l == nil:
		return "its directory is not on the node", nil
	case l.kind() != tree.Dir:
		return "its directory is something else on the node", nil
	}
	return "", nil
}

func (p *planner) directory(name string, e *tree.Entry) error {
	was := p.was(name)
	l, err := p.look(name)
	if err != nil {
		p.stop(name, err.Error())
		return nil
	}
	same := was != nil && tree.Compare(was, e) == "" && !p.again[name]
	switch {
	case l == nil:
		return p.missing(name, e, same || was != nil && was.Kind == tree.Dir)
	case l.kind() != tree.Dir:
		return p.instead(name, e, l)
	case same && p.old != nil:
		return nil // what is set here on the node stays
	}
	if ok, err := l.hasMeta(e); err != nil || ok {
		return err
	}
	ok := false
	if was != nil && was.Kind == tree.Dir {
		if ok, err = l.hasMeta(was); err != nil {
			return err
		}
	}
	if !ok && !p.force {
		p.keep(name, "its owner or mode was changed on the node")
		return nil
	}
	p.ops = append(p.ops, op{Do: set, Path: name, Entry: metaOf(e)})
	p.changes(name, tree.Attributes)
	return nil
}

// stop has nothing done in a place and below.
func (p *planner) stop(name, why string) {
	p.blocked[name] = true
	p.keep(name, why)
}

// missing makes a directory. One that was removed on the node stays away,
// unless that is to be undone.
func (p *planner) missing(name string, e *tree.Entry, was bool) error {
	if was && !p.force {
		return nil // what would come into it says so
	}
	if why, err := p.reachable(name); err != nil || why != "" {
		p.stop(name, why)
		return err
	}
	p.make(name, e, false)
	p.changes(name, tree.Added)
	return nil
}

func (p *planner) make(name string, e *tree.Entry, clear bool) {
	at, inside := p.place(name)
	p.dirs[name] = at
	p.stage = append(p.stage, staged{at: at, entry: e})
	if !inside {
		p.ops = append(p.ops, op{Do: put, Path: name, Staged: at, Clear: clear})
	}
}

// instead makes a directory in the place of something else.
func (p *planner) instead(name string, e *tree.Entry, l *local) error {
	was := p.was(name)
	ok := p.force
	if was != nil && was.Kind != tree.Dir && !ok {
		var err error
		if ok, err = l.is(was); err != nil {
			return err
		}
	}
	if !ok {
		p.stop(name, "there is no directory on the node, but something of its own")
		return nil
	}
	p.make(name, e, true)
	p.changes(name, tree.Changed)
	return nil
}

// gone removes what the wanted version does not have.
func (p *planner) gone(name string) error {
	was := p.was(name)
	l, err := look(p.root, name)
	if err != nil {
		p.keep(name, err.Error())
		return nil
	}
	if l == nil {
		return nil
	}
	if p.own[name] {
		p.ops = append(p.ops, op{Do: below, Path: name})
		return nil
	}
	if was.Kind == tree.Dir && l.kind() == tree.Dir {
		p.ops = append(p.ops, op{Do: rmdir, Path: name})
		p.changes(name, tree.Removed)
		return nil
	}
	ok, err := l.is(was)
	if err != nil {
		return err
	}
	if !ok && (!p.force || l.kind() == tree.Dir) {
		p.keep(name, "it was changed on the node")
		return nil
	}
	p.ops = append(p.ops, op{Do: remove, Path: name})
	p.changes(name, tree.Removed)
	return nil
}

// order puts what comes first and what goes last, and has directories keep the
// times that they have in the version.
func (p *planner) order() {
	rank := func(o op) int { return slices.Index([]verb{put, below, set, remove, rmdir}, o.Do) }
	slices.SortStableFunc(p.ops, func(a, b op) int { return rank(a) - rank(b) })
	seen := map[string]bool{}
	for _, o := range p.ops {
		dir := path.Dir(o.Path)
		if e := p.now.Entries[dir]; e != nil && e.Kind == tree.Dir && !seen[dir] && o.Do != below {
			seen[dir] = true
			p.ops = append(p.ops, op{Do: touch, Path: dir, Entry: metaOf(e)})
		}
	}
	slices.SortFunc(p.said.Files, func(a, b wire.PathNote) int { return strings.Compare(a.Path, b.Path) })
}
