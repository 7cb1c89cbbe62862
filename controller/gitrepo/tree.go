package gitrepo

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"muster/shared/fault"
)

// Bounds on a work tree: a small repository can hold one that is huge.
const (
	maxFiles = 500_000
	maxTree  = 20 << 30 // bytes
)

// checkout makes the work tree that of HEAD. It is made beside the old one and
// replaces it in one step; the one before is kept until the next time, for
// those who are reading it. Caller holds the lock.
//
// Files are always read through os.Root, which follows no link out of the
// tree, and git refuses to check out a path with .git in it.
func (r *repo) checkout(ctx context.Context, force bool) error {
	err := r.replaceTree(ctx, force)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wrong = nil
	if fault.Is(err, fault.Conflict) { // that of the tree itself, which stays
		r.wrong = err
	}
	return err
}

func (r *repo) replaceTree(ctx context.Context, force bool) error {
	commit, err := r.head(ctx)
	if err != nil {
		return err
	}
	if commit == "" {
		commit = "empty"
	}
	now, _ := os.Readlink(r.treeLink())
	if !force && r.fresh.Load() && strings.HasPrefix(now, "trees/"+commit+"-") {
		return nil
	}
	name := "trees/" + commit + "-" + random()
	path := filepath.Join(r.dir, name)
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	if commit != "empty" {
		if err := r.extract(ctx, commit, path); err != nil {
			return errors.Join(err, os.RemoveAll(path))
		}
	}
	link := r.temporary("tree")
	if err := os.Symlink(name, link); err != nil {
		return err
	}
	if err := os.Rename(link, r.treeLink()); err != nil {
		return err
	}
	r.fresh.Store(true)
	return r.dropTrees(filepath.Base(name), filepath.Base(now))
}

func (r *repo) treeLink() string { return filepath.Join(r.dir, "tree") }

// head gives the commit of the branch that is checked out, "" where it has none.
func (r *repo) head(ctx context.Context) (string, error) {
	commit, err := r.git.text(ctx, r.bare(), "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
	if status(err) == 1 || status(err) == 128 {
		return "", nil
	}
	return commit, err
}

// extract writes a commit's files into an empty directory.
func (r *repo) extract(ctx context.Context, commit, path string) error {
	if err := r.measure(ctx, commit); err != nil {
		return err
	}
	room, err := r.room()
	if err != nil {
		return err
	}
	index := r.temporary("index")
	defer os.Remove(index)
	_, err = r.git.do(ctx, run{dir: path, args: []string{"read-tree", "--reset", "-u", commit}, disk: room,
		env: []string{"GIT_DIR=" + r.bare(), "GIT_WORK_TREE=" + path, "GIT_INDEX_FILE=" + index}})
	return err
}

// measure refuses a tree that is larger than the bounds, before it is written.
func (r *repo) measure(ctx context.Context, commit string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	size := &treeSize{stop: cancel}
	_, err := r.git.do(ctx, run{dir: r.bare(), args: []string{"ls-tree", "-r", "-l", "-z", "--full-tree", commit}, stdout: size})
	if size.over {
		return fault.New(fault.Conflict, "The tree of commit %.12s is too large to check out: more than %d files or %d GiB.", commit, maxFiles, maxTree>>30)
	}
	return err
}

// treeSize counts the entries of git ls-tree -l -z and their bytes.
type treeSize struct {
	stop        func()
	rest        []byte
	files, size int64
	over        bool
}

func (t *treeSize) Write(p []byte) (int, error) {
	t.rest = append(t.rest, p...)
	for {
		line, rest, ok := bytes.Cut(t.rest, []byte{0})
		if !ok {
			break
		}
		t.rest = rest
		t.files++
		meta, _, _ := bytes.Cut(line, []byte{'\t'})
		if f := bytes.Fields(meta); len(f) == 4 {
			n, _ := strconv.ParseInt(string(f[3]), 10, 64) // "-" for a submodule, which takes no room
			t.size += n
		}
	}
	if t.files > maxFiles || t.size > maxTree || len(t.rest) > 1<<20 {
		t.over = true
		t.stop()
		return 0, errors.New("the tree is too large")
	}
	return len(p), nil
}

// dropTrees removes all trees but these.
func (r *repo) dropTrees(keep ...string) error {
	entries, err := os.ReadDir(filepath.Join(r.dir, "trees"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == keep[0] || e.Name() == keep[1] {
			continue
		}
		if err := os.RemoveAll(filepath.Join(r.dir, "trees", e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// openTree gives the work tree, and a name for what is in it.
func (s *Repos) openTree(ctx context.Context, r *repo) (*os.Root, string, error) {
	r.mu.Lock()
	err := r.wrong
	r.mu.Unlock()
	if err != nil { // trying again without a change would only cost
		return nil, "", err
	}
	for range 3 { // while it is looked up it may be replaced, and more than once
		name, err := os.Readlink(r.treeLink())
		if err != nil || !r.fresh.Load() {
			if err := s.freshen(ctx, r); err != nil {
				return nil, "", err
			}
			continue
		}
		root, err := os.OpenRoot(filepath.Join(r.dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		return root, filepath.Base(name), err
	}
	return nil, "", fault.New(fault.Unavailable, "The work tree is being replaced; try again.")
}

// freshen makes the work tree once in every run of the head: what a crash of
// the machine left of it may have lost its last bytes.
func (s *Repos) freshen(ctx context.Context, r *repo) error {
	return s.change(ctx, r, func(ctx context.Context) error { return r.checkout(ctx, false) })
}
