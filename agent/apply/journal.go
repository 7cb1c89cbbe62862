package apply

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"muster/agent/overlay"
	"muster/agent/root"
	"muster/agent/rootfs"
	"muster/shared/wire"
)

// The journal lies in workDir. It is written before anything is staged. From
// the moment on when decidedFile is there the root is to become what the journal
// says, before that it is to stay what it is.
const (
	journalFile = workDir + "/journal.json"
	decidedFile = workDir + "/decided"
)

// journal is what is about to be done.
type journal struct {
	Record Record `json:"record"` // what holds when it was done
	Ops    []op   `json:"ops"`
}

// change is a root that is being changed.
type change struct {
	*Applier
	top  *os.Root
	root *rootfs.Root
}

func (a *Applier) open() (*change, error) {
	c := &change{Applier: a}
	var err error
	if c.top, err = os.OpenRoot(a.Root); err != nil {
		return nil, err
	}
	if c.root, err = rootfs.Open(a.Root); err != nil {
		c.top.Close()
		return nil, err
	}
	return c, nil
}

func (c *change) close() {
	c.top.Close()
	c.root.Close()
}

// decide makes all that is staged, and that it is to be taken, last on disk.
func (c *change) decide(j journal) error {
	if err := unix.Syncfs(c.root.Fd()); err != nil {
		return fmt.Errorf("writing to the root's file system: %w", err)
	}
	// Should the machine stop now, what is started from its disk must not be
	// half of this.
	if err := root.MarkDisk(c.Root, root.DiskState{Image: j.Record.Image.SHA256, Name: j.Record.Image.Name}); err != nil {
		return err
	}
	c.at("decide")
	f, err := c.top.OpenFile(decidedFile, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	return syncDir(c.top, workDir)
}

// undecide takes back that the root is to change from what the record says.
func (c *change) undecide(r *Record) error {
	if err := c.top.Remove(decidedFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if r == nil {
		return nil
	}
	return root.MarkDisk(c.Root, root.DiskState{Image: r.Image.SHA256, Name: r.Image.Name, Complete: true})
}

// finish makes the root what was decided.
func (c *change) finish(j journal, own *overlay.Held) (failed []wire.PathNote, err error) {
	failed = (&committer{c.root, c.top, own}).run(j.Ops, c.at)
	c.at("sync")
	if err := unix.Syncfs(c.root.Fd()); err != nil {
		return failed, fmt.Errorf("writing to the root's file system: %w", err)
	}
	for _, f := range failed {
		j.Record.Differs = append(j.Record.Differs, f.Path[1:])
	}
	c.at("record")
	if err := save(c.top, recordFile, j.Record); err != nil {
		return failed, err
	}
	c.at("disk")
	if err := root.MarkDisk(c.Root, root.DiskState{Image: j.Record.Image.SHA256, Name: j.Record.Image.Name, Complete: true}); err != nil {
		return failed, err
	}
	c.at("end")
	c.discard(j) // what could not come to its place
	if err := c.forget(); err != nil {
		return failed, err
	}
	if c.Told != nil {
		c.Told(j.Record)
	}
	return failed, nil
}

// discard removes what is staged.
func (c *change) discard(j journal) {
	for _, o := range j.Ops {
		if o.Do != put {
			continue
		}
		l, err := look(c.root, o.Staged)
		if err == nil && l != nil {
			if l.st.Mode&unix.S_IFMT == unix.S_IFDIR {
				err = removeAll(c.root, o.Staged)
			} else {
				err = (&committer{root: c.root}).remove(o.Staged)
			}
		}
		if err != nil {
			c.Log.Warn("what was not used stays on the disk", "path", "/"+o.Staged, "error", err)
		}
	}
}

// forget removes the journal, which counts as done from the first moment on.
func (c *change) forget() error {
	if err := c.top.Remove(journalFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := syncDir(c.top, workDir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	c.at("forgotten")
	return c.top.RemoveAll(workDir)
}

// Recover ends a change that was under way when the agent or the machine
// stopped: one that was decided is finished, any other is as if it had never
// begun. To be called before Serve.
func (a *Applier) Recover() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	c, err := a.open()
	if err != nil {
		return err
	}
	defer c.close()
	raw, err := c.top.ReadFile(journalFile)
	if errors.Is(err, fs.ErrNotExist) {
		return c.top.RemoveAll(workDir)
	}
	var j journal
	if err == nil {
		err = json.Unmarshal(raw, &j)
	}
	if err != nil {
		return fmt.Errorf("the journal of a change that was under way, /%s: %w", journalFile, err)
	}
	if _, err := c.top.Lstat(decidedFile); errors.Is(err, fs.ErrNotExist) {
		a.Log.Warn("a change of the root that was under way is taken back", "image", j.Record.Image.Name, "version", j.Record.Image.Version)
		r, err := Load(a.Root)
		if err == nil {
			err = c.undecide(r)
		}
		c.discard(j)
		return errors.Join(err, c.forget())
	} else if err != nil {
		return err
	}
	a.Log.Warn("a change of the root that was under way is finished", "image", j.Record.Image.Name, "version", j.Record.Image.Version)
	return a.hold(func(own *overlay.Held) error {
		failed, err := c.finish(j, own)
		for _, f := range failed {
			a.Log.Warn("a file is not as the version has it", "path", f.Path, "error", f.Note)
		}
		return err
	})
}

// hold keeps the node's own files as they are meanwhile.
func (a *Applier) hold(fn func(*overlay.Held) error) error {
	if a.Own == nil {
		return fn(nil)
	}
	return a.Own.Hold(fn)
}
