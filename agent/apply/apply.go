// Package apply changes the files of a running root to another version of an
// image, in place: those that differ, and no others.
//
// What the two versions differ in comes from the head. Everything new is first
// made beside its place, out of what the node has and of what the head gives
// chunk by chunk; then a journal decides, and only renames, attributes and
// removals are left, which are made again where a machine stopped in between.
// So a root is of the one version or of the other, or the journal knows what
// is missing. A file that was changed on the node is told of and stays, unless
// that is to be overwritten; the node's own files, what is mounted, and what
// makes the machine this one are never touched.
//
// The package must not decide which version is the right one.
package apply

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os/exec"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"muster/agent/overlay"
	"muster/agent/pull"
	"muster/agent/root"
	"muster/images/tree"
	"muster/shared/wire"
)

// Config is what an applier needs. Root, Source and Log are required.
type Config struct {
	Root   string       // the root directory
	Source *pull.Source // of chunks
	Log    *slog.Logger
	Own    *overlay.Keeper       // keeps the node's own files; nil for none
	Run    func(*exec.Cmd) error // runs systemctl; nil: no service is restarted
	Told   func(Record)          // is told of the version that the root has become
	// Reached is told of each step before it is made, for tests.
	Reached func(step string)
}

// Applier changes one root.
type Applier struct {
	Config
	mu sync.Mutex
}

// New makes an applier.
func New(c Config) *Applier { return &Applier{Config: c} }

func (a *Applier) at(step string) {
	if a.Reached != nil {
		a.Reached(step)
	}
}

// Serve does what a stream asks for, and closes it.
func (a *Applier) Serve(ctx context.Context, stream net.Conn, want wire.Apply) {
	defer stream.Close()
	if !a.mu.TryLock() {
		wire.WriteValue(stream, wire.Running{Problem: "its files are being changed already; wait until that has ended"})
		return
	}
	defer a.mu.Unlock()
	c, running, record := a.running()
	if err := wire.WriteValue(stream, running); err != nil || c == nil {
		return
	}
	defer c.close()
	d, err := receive(stream)
	if err != nil {
		return // the head found that there is nothing to do, or that nothing can be
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() { // nothing follows: the head gives up when the stream ends
		io.Copy(io.Discard, stream)
		cancel(errors.New("the head gave it up"))
	}()
	t := &task{change: c, want: want, record: record, say: func(m wire.Applied) error { return wire.WriteValue(stream, m) }}
	said, err := t.run(ctx, d)
	if err != nil {
		said.Error = err.Error()
		a.Log.Warn("the root was not changed as wanted", "image", want.Image.Name, "version", want.Image.Version, "by", want.By, "error", err)
	}
	said.Done, said.Files = true, nil
	wire.WriteValue(stream, said)
}

// running says what the root is now; the change is nil where nothing can be
// done.
func (a *Applier) running() (*change, wire.Running, *Record) {
	var r wire.Running
	c, err := a.open()
	if err == nil {
		err = c.usable()
	}
	var record *Record
	if err == nil {
		record, err = Load(a.Root)
	}
	if err != nil {
		if r.Problem = err.Error(); c != nil {
			c.close()
		}
		return nil, r, nil
	}
	if record != nil {
		r.Image, r.Differs = &record.Image, record.Differs
	}
	return c, r, record
}

// usable says why a root cannot be changed.
func (c *change) usable() error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(c.root.Fd(), &st); err != nil {
		return err
	}
	if st.Flags&unix.ST_RDONLY != 0 {
		return errors.New("its root is mounted read-only")
	}
	if _, err := c.top.Lstat(journalFile); err == nil {
		return errors.New("an earlier change could not be ended, the agent's log says why: restart the agent, or boot the node")
	}
	return nil
}

// differing is what the two versions differ in.
type differing struct {
	whole         bool
	before, after *tree.Manifest
}

func receive(stream io.Reader) (d differing, err error) {
	var m wire.Differing
	if err := wire.ReadValue(stream, &m); err != nil {
		return d, err
	}
	if d.whole = m.Whole; d.whole {
		return d, nil
	}
	for _, side := range []struct {
		size int64
		to   **tree.Manifest
	}{{m.Before, &d.before}, {m.After, &d.after}} {
		if side.size < 0 || side.size > wire.MaxDiffering {
			return d, fmt.Errorf("a tree of %d bytes", side.size)
		}
		raw, err := io.ReadAll(io.LimitReader(stream, side.size))
		if err == nil && int64(len(raw)) < side.size {
			err = io.ErrUnexpectedEOF
		}
		if err == nil {
			*side.to, err = tree.Decode(raw)
		}
		if err != nil {
			return d, err
		}
	}
	return d, nil
}

// task is one change from its beginning to its end.
type task struct {
	*change
	want   wire.Apply
	record *Record
	say    func(wire.Applied) error
}

func (t *task) run(ctx context.Context, d differing) (wire.Applied, error) {
	image := &pull.Image{Source: t.Source}
	p, err := t.plan(ctx, d, image)
	if err != nil {
		return wire.Applied{}, err
	}
	text, err := rules(t.root, t.want.Rules)
	if err != nil {
		return wire.Applied{}, fmt.Errorf("the rules of which services are to be restarted: %w", err)
	}
	p.said.Restart = units(text, p.paths)
	told := p.said
	if !t.want.DryRun {
		told.Files = nil
	}
	if err := t.say(told); err != nil {
		return p.said, err
	}
	if len(p.kept) > wire.MaxDiffers && !t.want.DryRun {
		return p.said, fmt.Errorf("%d files were changed on the node, more than can be kept apart; --force overwrites them", len(p.kept))
	}
	if t.want.DryRun {
		return p.said, ctx.Err()
	}
	image.Local = newOnNode(t.root, p.now, p.old)
	err = t.make(ctx, p, image)
	p.said.Fetched = image.Stats().Head + image.Stats().Index
	if err != nil {
		return p.said, err
	}
	if text, err = rules(t.root, t.want.Rules); err == nil {
		p.said.Restart = units(text, p.paths)
	}
	if t.want.Restart {
		p.said.Restarted, err = t.restart(context.WithoutCancel(ctx), p.said.Restart, p.paths)
	}
	return p.said, err
}

// plan finds out what is to be done.
func (t *task) plan(ctx context.Context, d differing, image *pull.Image) (*planner, error) {
	p := &planner{root: t.root, force: t.want.Force, made: map[string]bool{}, again: map[string]bool{}}
	if d.whole {
		var err error
		if d.after, err = image.Manifest(ctx, t.want.Image); err != nil {
			return nil, err
		}
		p.force = true
	}
	if t.record != nil {
		for _, name := range t.record.Made {
			p.made[name] = true
		}
		for _, name := range t.record.Differs {
			p.again[name] = true
		}
	}
	var err error
	if d.before != nil {
		if p.old, err = d.before.Index(); err != nil {
			return nil, err
		}
	}
	if p.now, err = d.after.Index(); err != nil {
		return nil, err
	}
	if p.own, err = t.places(); err != nil {
		return nil, err
	}
	return p, p.run()
}

// places gives those of the node's own files.
func (t *task) places() (own map[string]bool, err error) {
	err = t.hold(func(h *overlay.Held) (err error) {
		if h != nil {
			own, err = h.Places()
		}
		return err
	})
	return own, err
}

// make does what was planned. Until it is decided everything is taken back on
// an error; from then on nothing holds it up.
func (t *task) make(ctx context.Context, p *planner, image *pull.Image) error {
	j := journal{Record: Record{Image: t.want.Image, Differs: p.kept}, Ops: p.ops}
	if t.record != nil {
		j.Record.Made = t.record.Made
	}
	if len(j.Ops) == 0 {
		return t.renamed(j.Record)
	}
	if err := save(t.top, journalFile, j); err != nil {
		return err
	}
	t.at("stage")
	err := t.staged(ctx, p, image)
	if err == nil {
		err = context.Cause(ctx)
	}
	var failed []wire.PathNote
	decided := false
	if err == nil {
		err = t.hold(func(own *overlay.Held) (err error) {
			if own != nil {
				now, err := own.Places()
				if err != nil || !maps.Equal(now, p.own) {
					return errors.Join(errors.New("the node's own files have changed meanwhile: apply it again"), err)
				}
			}
			if err := t.decide(j); err != nil {
				return err
			}
			decided = true
			failed, err = t.finish(j, own)
			return err
		})
	}
	if err != nil && !decided {
		err = errors.Join(err, t.undecide(t.record))
		t.discard(j)
		return errors.Join(err, t.forget())
	}
	for _, f := range failed {
		p.list(&p.said.Kept, f.Path[1:], f.Note)
	}
	if err == nil && len(failed) > 0 {
		err = fmt.Errorf("%d files could not be changed: %s: %s", len(failed), failed[0].Path, failed[0].Note)
	}
	return err
}

// renamed notes that the root is of a version without a change.
func (t *task) renamed(r Record) error {
	err := save(t.top, recordFile, r)
	if err == nil {
		err = root.MarkDisk(t.Root, root.DiskState{Image: r.Image.SHA256, Name: r.Image.Name, Complete: true})
	}
	if err == nil && t.Told != nil {
		t.Told(r)
	}
	return err
}

// staged makes everything beside its place.
func (t *task) staged(ctx context.Context, p *planner, image *pull.Image) error {
	work, err := t.top.Open(workDir)
	if err != nil {
		return err
	}
	defer work.Close()
	// What a crash left of an attempt before stands in the way.
	for _, o := range p.ops {
		if o.Do == put {
			if l, err := look(t.root, o.Staged); err == nil && l != nil {
				t.discard(journal{Ops: []op{o}})
			}
		}
	}
	s := &stager{root: t.root, work: work}
	return s.run(ctx, slices.Clone(p.stage), image.Fetch)
}
