// Package gitrepo hosts git repositories: it serves them to git's own clients
// and file by file, and keeps them in step with a remote.
//
// Each repository is a directory of its own, named by its object's UID: the
// bare repository, and beside it the tree of the branch that is checked out.
// The work is done by the distribution's git; nothing here interprets objects
// or packs. What a remote or a pushing user sends is never trusted: see git.go
// for what git may do, and tree.go for how files are read. The package must not
// know what the files are for: who needs one asks ReadFile.
package gitrepo

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"muster/controller/api"
	"muster/controller/registry"
	"muster/shared/fault"
	"muster/shared/kind"
	"muster/shared/object"
)

// Objects is what this needs of the registry.
type Objects interface {
	Find(kindName, id string) (kind.Object, error)
	All(kindName string) []kind.Object
	Look() kind.Look
	Changes(ctx context.Context, after uint64) iter.Seq2[registry.Change, error]
	Revision() uint64
}

// Options are what has to be told.
type Options struct {
	Objects Objects
	Auth    api.Authenticator      // for what is public or not, by repository
	Dir     string                 // holds the repositories
	Head    string                 // host name, for commits that are made here
	Env     []string               // of git, such as proxies: NAME=value
	Heads   func(addr string) bool // whether an address is one of a head
	// Record notes in the audit trail what somebody did to a repository.
	Record func(ctx context.Context, by kind.Author, o *object.Gitrepo, action string, detail map[string]string) error
	Log    *slog.Logger
	Now    func() time.Time
}

// Repos serves all repositories of this head.
type Repos struct {
	opt  Options
	git  *git
	gate *gate
	wake chan struct{} // tells Run that something may be due

	mu    sync.Mutex
	repos map[string]*repo
}

// New opens the directory, which it creates, and removes what crashes and
// deleted objects have left in it.
func New(opt Options) (*Repos, error) {
	if err := os.MkdirAll(opt.Dir, 0o700); err != nil {
		return nil, err
	}
	g, err := newGit(opt.Dir, opt.Env, opt.Heads)
	if err != nil {
		return nil, err
	}
	s := &Repos{opt: opt, git: g, gate: newGate(maxServing, maxServingEach), wake: make(chan struct{}, 1), repos: map[string]*repo{}}
	return s, s.sweep()
}

// sweep removes the directories of objects that are gone.
func (s *Repos) sweep() error {
	entries, err := os.ReadDir(s.opt.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		if _, ok := s.opt.Objects.Look().Get(object.KindGitrepo, e.Name()); ok {
			continue
		}
		s.opt.Log.Info("removing the directory of a deleted git repository", "uid", e.Name())
		if err := os.RemoveAll(filepath.Join(s.opt.Dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// find gives the object that an identifier names, and its place on disk.
func (s *Repos) find(id string) (*object.Gitrepo, *repo, error) {
	o, err := s.opt.Objects.Find(object.KindGitrepo, id)
	if err != nil {
		return nil, nil, err
	}
	return o.(*object.Gitrepo), s.place(o.Base().UID), nil
}

func (s *Repos) place(uid string) *repo {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.repos[uid]
	if r == nil {
		r = &repo{uid: uid, dir: filepath.Join(s.opt.Dir, uid), git: s.git, lock: make(chan struct{}, 1), dirty: true}
		r.load()
		s.repos[uid] = r
	}
	return r
}

// change runs fn while nobody else changes the repository, which exists. The
// context that fn gets ends when the repository is deleted.
func (s *Repos) change(ctx context.Context, r *repo, fn func(ctx context.Context) error) error {
	if err := r.acquire(ctx); err != nil {
		return err
	}
	defer r.unlock()
	ctx, cancel := r.working(ctx)
	defer cancel()
	if err := s.present(ctx, r); err != nil {
		return err
	}
	err := fn(ctx)
	r.dirty = r.dirty || err != nil
	return err
}

func (s *Repos) present(ctx context.Context, r *repo) error {
	if _, ok := s.opt.Objects.Look().Get(object.KindGitrepo, r.uid); !ok {
		return fault.New(fault.NotFound, "No gitrepo found for ID=%s", r.uid)
	}
	if _, err := os.Stat(r.bare()); errors.Is(err, fs.ErrNotExist) {
		return r.create(ctx)
	}
	if r.dirty {
		if err := r.tidy(); err != nil {
			return err
		}
		r.dirty = false
	}
	return nil
}

// ready makes sure that there is a repository to read, with what its remote has.
func (s *Repos) ready(ctx context.Context, o *object.Gitrepo, r *repo) error {
	if _, err := os.Stat(r.bare()); err != nil {
		if err := s.change(ctx, r, func(context.Context) error { return nil }); err != nil {
			return err
		}
	}
	return s.settled(ctx, o, r)
}

// forget removes a deleted repository, once whoever works on it has ended.
func (s *Repos) forget(ctx context.Context, uid string) {
	r := s.place(uid)
	r.cancel()
	if err := r.acquire(ctx); err != nil {
		return // the next start removes it
	}
	defer r.unlock()
	if err := os.RemoveAll(r.dir); err != nil {
		s.opt.Log.Warn("the directory of a deleted git repository cannot be removed", "dir", r.dir, "error", err)
	}
	s.mu.Lock()
	delete(s.repos, uid)
	s.mu.Unlock()
}

// author names who makes a change, for git.
func (s *Repos) author(name string) []string {
	if name == "" {
		name = "muster"
	}
	mail := name + "@" + s.opt.Head
	return []string{"GIT_AUTHOR_NAME=" + name, "GIT_AUTHOR_EMAIL=" + mail, "GIT_COMMITTER_NAME=" + name, "GIT_COMMITTER_EMAIL=" + mail}
}
