// Package overlay keeps the files that are a node's own, as the head renders
// them: before the image's init starts and, when they change, while it runs.
//
// A file whose content, owner and mode are as the head wants them is not
// touched. Others are replaced by a rename. What was in a place before is kept,
// and comes back when no overlay wants the place any more; a file that somebody
// changed on the node in the meantime is left to him. What is there, and what
// was before, is noted below the root in Dir, so that it goes with the root: a
// disk that is booted again knows it, a root in RAM is forgotten as a whole.
//
// The package must not decide which files those are.
package overlay

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"muster/agent/rootfs"
	"muster/shared/wire"
)

// Dir is where the notes lie, below the root. It is root's alone.
const Dir = "var/lib/muster/overlay"

const notesFile = "files.json"

// maxBefore is how large a file may be that is kept for later, in bytes.
const maxBefore = 16 << 20

// Config is what a keeper needs. Every field but Told is required.
type Config struct {
	Root string // the root directory
	Log  *slog.Logger
	// Told is told of what is there, after each change.
	Told func(Report)
}

// Report is what the node says of its files.
type Report struct {
	Digest   string   `json:"digest"`
	Files    int      `json:"files"`
	Problems []string `json:"problems,omitempty"`
}

// Keeper keeps the files.
type Keeper struct {
	Config
	mu sync.Mutex
}

// New makes a keeper.
func New(c Config) *Keeper { return &Keeper{Config: c} }

// notes are what is known of the files that are there.
type notes struct {
	Digest string          `json:"digest"` // of the last that was taken without a problem
	Files  map[string]note `json:"files"`
}

// note is one file as it was written.
type note struct {
	Sum  string `json:"sum"` // SHA-256 of the content
	Mode uint32 `json:"mode"`
	UID  int    `json:"uid"`
	GID  int    `json:"gid"`
	// Pending says that it was about to be written: whether it was is to be seen.
	Pending bool `json:"pending,omitempty"`
	Before  *was `json:"before,omitempty"` // nil: there was nothing
}

// was is what a file has replaced: a file that lies in Dir, or a link.
type was struct {
	Sum  string `json:"sum,omitempty"`
	Link string `json:"link,omitempty"`
	Mode uint32 `json:"mode"`
	UID  int    `json:"uid"`
	GID  int    `json:"gid"`
}

// Wants says whether files with the digest have to be brought; those that are
// there are told of else.
func (k *Keeper) Wants(digest string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.none() {
		return digest != ""
	}
	s, err := k.open()
	if err != nil {
		return true
	}
	defer s.close()
	if s.Digest == digest && k.Told != nil {
		k.Told(Report{Digest: digest, Files: len(s.Files)})
	}
	return s.Digest != digest
}

// none says whether there never was a file.
func (k *Keeper) none() bool {
	_, err := os.Lstat(path.Join(k.Root, Dir, notesFile))
	return errors.Is(err, fs.ErrNotExist)
}

// Take makes the files what the head says. The error is about all of them;
// what is wrong with one is in the report, and stops no other.
func (k *Keeper) Take(want wire.Overlay) (Report, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	r := Report{Digest: want.Digest}
	if len(want.Files) == 0 && len(want.Failed) == 0 && k.none() {
		return r, nil
	}
	s, err := k.open()
	if err != nil {
		return r, fmt.Errorf("the node's own files: %w", err)
	}
	defer s.close()
	problems := s.apply(want)
	if s.Digest = ""; len(problems) == 0 {
		s.Digest = want.Digest
	}
	if err := s.save(); err != nil {
		return r, fmt.Errorf("the node's own files: %w", err)
	}
	for _, f := range want.Failed {
		problems = append(problems, fmt.Sprintf("overlay %s, %s: %s", f.Overlay, f.Path, f.Error))
	}
	r.Files, r.Problems = len(s.Files), problems
	for _, p := range problems {
		k.Log.Warn("a file of the node's own is not as it should be", "problem", p)
	}
	if k.Told != nil {
		k.Told(r)
	}
	return r, nil
}

// state is the root while files are changed in it.
type state struct {
	notes
	log    *slog.Logger
	root   *rootfs.Root
	dir    *os.Root // Dir
	owners *owners
}

func (k *Keeper) open() (*state, error) {
	top, err := os.OpenRoot(k.Root)
	if err != nil {
		return nil, err
	}
	defer top.Close()
	if err := top.MkdirAll(Dir, 0o700); err != nil {
		return nil, err
	}
	s := &state{log: k.Log, notes: notes{Files: map[string]note{}}}
	if s.dir, err = top.OpenRoot(Dir); err != nil {
		return nil, err
	}
	if s.root, err = rootfs.Open(k.Root); err != nil {
		s.dir.Close()
		return nil, err
	}
	s.owners = &owners{root: s.root}
	raw, err := s.dir.ReadFile(notesFile)
	if err == nil {
		err = json.Unmarshal(raw, &s.notes)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		k.Log.Warn("what was noted of the node's own files is lost", "error", err)
		s.notes = notes{}
	}
	if s.Files == nil {
		s.Files = map[string]note{}
	}
	return s, nil
}

func (s *state) close() {
	s.root.Close()
	s.dir.Close()
}

func (s *state) save() error {
	raw, err := json.Marshal(s.notes)
	if err != nil {
		return err
	}
	return s.keep(notesFile, raw)
}

// keep writes a file in Dir by a rename.
func (s *state) keep(name string, content []byte) error {
	f, err := s.dir.OpenFile(name+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return s.dir.Rename(name+".new", name)
}

// apply changes what has to be changed, and gives what could not be.
func (s *state) apply(want wire.Overlay) (problems []string) {
	stay := map[string]bool{}
	for _, f := range want.Failed {
		stay[path.Clean(f.Path)] = true
	}
	for _, f := range want.Files {
		f.Path = path.Clean("/" + f.Path)
		stay[f.Path] = true
		if err := s.put(f); err != nil {
			problems = append(problems, fmt.Sprintf("overlay %s: %v", f.Overlay, err))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Files)) {
		if stay[name] {
			continue
		}
		if err := s.drop(name); err != nil {
			problems = append(problems, err.Error())
		}
	}
	return problems
}

// put makes one file what it shall be.
func (s *state) put(f wire.OverlayFile) error {
	uid, err := s.owners.user(f.Owner)
	if err != nil {
		return err
	}
	gid, err := s.owners.group(f.Group)
	if err != nil {
		return err
	}
	p, err := s.root.Place(f.Path, rootfs.Follow|rootfs.Make)
	if err != nil {
		return err
	}
	defer p.Close()
	sum := sha256.Sum256(f.Content)
	now := note{Sum: hex.EncodeToString(sum[:]), Mode: f.Mode, UID: uid, GID: gid, Pending: true}
	old, known := s.Files[f.Path]
	if now.Before = old.Before; known && !old.Pending && now.same(old) {
		return nil // as the head wants it; what somebody changed since is his
	}
	is, err := look(p)
	if err != nil {
		return err
	}
	switch {
	case !known:
		if now.Before, err = s.setAside(p, is); err != nil {
			return err
		}
	case is != nil && !is.is(old) && !old.Pending:
		s.log.Warn("a change that was made on the node is replaced", "path", f.Path)
	}
	// What was before is noted before it is gone. Should the machine stop in
	// between, the file that is there is neither the one nor the other's.
	s.Files[f.Path] = now
	if err := s.save(); err != nil {
		return err
	}
	if is == nil || !is.is(now) {
		err = p.Write(rootfs.Meta{Mode: f.Mode, UID: uid, GID: gid}, func(to *os.File) error {
			_, err := to.Write(f.Content)
			return err
		})
	}
	if err == nil {
		now.Pending = false
		s.Files[f.Path] = now
	}
	return err
}

func (n note) same(o note) bool {
	return n.Sum == o.Sum && n.Mode == o.Mode && n.UID == o.UID && n.GID == o.GID
}

// drop takes a file away that is not wanted any more, and puts back what was
// before.
func (s *state) drop(name string) error {
	n := s.Files[name]
	p, err := s.root.Place(name, rootfs.Follow)
	if errors.Is(err, fs.ErrNotExist) {
		delete(s.Files, name)
		return nil
	}
	if err != nil {
		return err
	}
	defer p.Close()
	is, err := look(p)
	if err != nil {
		return err
	}
	switch {
	case is == nil: // gone already
	case !is.is(n):
		s.log.Warn("a file that no overlay wants any more stays, since it was changed on the node", "path", name)
	default:
		if err := s.putBack(p, n.Before); err != nil {
			return err
		}
	}
	delete(s.Files, name)
	if n.Before != nil && n.Before.Sum != "" {
		s.forget(n.Before.Sum)
	}
	return nil
}

// forget removes what was set aside, unless another file had the same.
func (s *state) forget(sum string) {
	for _, n := range s.Files {
		if n.Before != nil && n.Before.Sum == sum {
			return
		}
	}
	if err := s.dir.Remove(sum); err != nil {
		s.log.Warn("what was kept of a file could not be removed", "error", err)
	}
}

// found is what is in a place: nil where there is nothing.
type found struct {
	was
	content []byte
	other   bool // neither a file nor a link
}

func (f *found) is(n note) bool {
	return !f.other && f.Link == "" && f.Sum == n.Sum && f.Mode == n.Mode && f.UID == n.UID && f.GID == n.GID
}

func look(p *rootfs.Place) (*found, error) {
	st, err := p.Stat()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	f := &found{was: was{Mode: st.Mode & 0o7777, UID: int(st.Uid), GID: int(st.Gid)}}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return nil, fmt.Errorf("%s is a directory", p.Path)
	case unix.S_IFLNK:
		f.Link, err = p.ReadLink()
	case unix.S_IFREG:
		if st.Size > maxBefore {
			return nil, fmt.Errorf("%s is a file of %d bytes, larger ones than %d are not replaced", p.Path, st.Size, maxBefore)
		}
		var in *os.File
		if in, err = p.Open(); err != nil {
			return nil, err
		}
		defer in.Close()
		var b bytes.Buffer
		if _, err = b.ReadFrom(in); err == nil {
			sum := sha256.Sum256(b.Bytes())
			f.content, f.Sum = b.Bytes(), hex.EncodeToString(sum[:])
		}
	default:
		f.other = true
	}
	return f, err
}

// setAside keeps what is in a place for the time when no overlay wants it.
func (s *state) setAside(p *rootfs.Place, is *found) (*was, error) {
	switch {
	case is == nil:
		return nil, nil
	case is.other:
		return nil, fmt.Errorf("%s is neither a file nor a link", p.Path)
	case is.Link == "":
		if err := s.keep(is.Sum, is.content); err != nil {
			return nil, err
		}
	}
	w := is.was
	return &w, nil
}

func (s *state) putBack(p *rootfs.Place, w *was) error {
	if w == nil {
		return p.Remove()
	}
	if w.Link != "" {
		return p.Replace(func(dir int, name string) error {
			if err := unix.Symlinkat(w.Link, dir, name); err != nil {
				return err
			}
			return unix.Fchownat(dir, name, w.UID, w.GID, unix.AT_SYMLINK_NOFOLLOW)
		})
	}
	content, err := s.dir.ReadFile(w.Sum)
	if err != nil {
		return err
	}
	return p.Write(rootfs.Meta{Mode: w.Mode, UID: w.UID, GID: w.GID}, func(to *os.File) error {
		_, err := to.Write(content)
		return err
	})
}
