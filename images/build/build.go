// Package build makes images from recipes, and changed ones from images: it
// bootstraps a base, which it keeps for the next time, changes it in a sandbox,
// and packs what came of it as package images does.
//
// Nothing outside of the cache, the work directory and the result is changed,
// and when it ends, however it ends, nothing of it runs or is mounted any more.
// It needs root. It knows nothing of the head: what a recipe takes from there
// is handed in.
package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"muster/images"
	"muster/images/recipe"
	"muster/images/sandbox"
)

// Watcher is told how a build goes on, from one goroutine at a time.
type Watcher interface {
	// Step begins something that takes a while.
	Step(name string)
	// Said is a line that a program wrote.
	Said(line string)
	// At is how far a step is, in bytes.
	At(done, total int64)
}

// Options are what a build has to be told.
type Options struct {
	Recipe recipe.Recipe
	Dir    string // where files beside the recipe are
	Distro *Distro
	Cache  string // keeps bases
	Temp   string // for work; on a disk with room for the unpacked image
	Fresh  bool   // bootstrap, though the cache has the base
	// Proxy are further variables of the environment, for those that fetch.
	Proxy   []string
	Watcher Watcher
}

// Distro is what a base's distro is.
type Distro struct {
	Packaging string // deb or rpm
	Release   string
	Sources   string // the file for its package manager
}

// Build makes the squashfs out, which appears when it is complete.
func Build(ctx context.Context, opt Options, out string) (images.Info, error) {
	if err := opt.Recipe.Check(); err != nil {
		return images.Info{}, err
	}
	var info images.Info
	err := inWork(opt.Temp, "muster-build-", func(work string) (err error) {
		b := &build{opt: opt, work: work}
		base, err := b.base(ctx)
		if err != nil {
			return err
		}
		root, err := Open(ctx, base, work, opt.Watcher)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, root.Close()) }()
		b.root = root.Root
		if err := b.change(ctx); err != nil {
			return err
		}
		opt.Watcher.Step("pack the image")
		info, err = images.ImportTree(ctx, b.root, out, opt.Recipe.Exclude, opt.Watcher.At)
		return err
	})
	return info, err
}

// inWork runs fn with a work directory and a mount namespace of its own.
func inWork(temp, prefix string, fn func(work string) error) error {
	if os.Geteuid() != 0 {
		return sandbox.ErrRoot
	}
	work, remove, err := sandbox.Work(temp, prefix)
	if err != nil {
		return err
	}
	return errors.Join(sandbox.Private(func() error { return fn(work) }), remove())
}

// Open makes a writable root of what is in an image or a directory: an overlay
// in work, which keeps what changes. It is for use inside of sandbox.Private.
func Open(ctx context.Context, image, work string, w Watcher) (*Root, error) {
	lower, mounted := image, ""
	st, err := os.Stat(image)
	if err != nil {
		return nil, err
	}
	if !st.IsDir() {
		lower = filepath.Join(work, "lower")
		if err := os.Mkdir(lower, 0o755); err != nil {
			return nil, err
		}
		if err := sandbox.Squashfs(image, lower); errors.Is(err, sandbox.ErrLoop) {
			// Containers often have no loop devices.
			w.Step("unpack the image (" + err.Error() + ")")
			err = images.Unpack(ctx, image, lower, w.At)
			if err != nil {
				return nil, err
			}
		} else if err != nil {
			return nil, err
		} else {
			mounted = lower
		}
	}
	if lower, err = filepath.Abs(lower); err != nil {
		return nil, err
	}
	layer, err := sandbox.Overlay(work, lower)
	if err != nil {
		return nil, errors.Join(err, unmount(mounted))
	}
	return &Root{layer, mounted}, nil
}

// Root is a writable root.
type Root struct {
	*sandbox.Layer
	mounted string // below it, "" for nothing
}

// Close unmounts the root, so that its directory can be removed.
func (r *Root) Close() error { return errors.Join(r.Unmount(), unmount(r.mounted)) }

func unmount(dir string) error {
	if dir == "" {
		return nil
	}
	return unix.Unmount(dir, 0)
}

// build is one run.
type build struct {
	opt  Options
	work string
	root string // writable
}

// change makes of the base what the recipe says.
func (b *build) change(ctx context.Context) error {
	for i := range b.opt.Recipe.Files {
		f := &b.opt.Recipe.Files[i]
		if i == 0 {
			b.opt.Watcher.Step("files")
		}
		if err := b.put(f); err != nil {
			return fmt.Errorf("file %s: %w", f.Path, err)
		}
	}
	for i, s := range b.opt.Recipe.Scripts {
		name := s.Name
		if name == "" {
			name = fmt.Sprint(i + 1)
		}
		b.opt.Watcher.Step("script " + name)
		if err := b.script(ctx, s); err != nil {
			return fmt.Errorf("script %s: %w", name, err)
		}
	}
	if err := clean(b.root, b.opt.Recipe.Credentials); err != nil {
		return err
	}
	return clamp(b.root, b.opt.Recipe.Epoch)
}

// script runs a script of the recipe in the root.
func (b *build) script(ctx context.Context, s recipe.Script) error {
	text := []byte(s.Run)
	if s.File != "" {
		var err error
		if text, err = b.beside(s.File); err != nil {
			return err
		}
	}
	if !strings.HasPrefix(string(text), "#!") {
		text = append([]byte("#!/bin/sh -e\n"), text...)
	}
	f, err := os.CreateTemp(b.root, ".muster-script-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text)
	if err := errors.Join(err, f.Chmod(0o700), f.Close()); err != nil {
		return err
	}
	return b.run(ctx, sandbox.Command{Argv: []string{"/" + filepath.Base(f.Name())}})
}

// maxBeside bounds files beside the recipe, which are held in memory.
const maxBeside = 64 << 20

func (b *build) beside(name string) ([]byte, error) {
	if !filepath.IsAbs(name) {
		name = filepath.Join(b.opt.Dir, name)
	}
	st, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > maxBeside {
		return nil, fmt.Errorf("%s is no regular file of at most %d bytes", name, maxBeside)
	}
	return os.ReadFile(name)
}

// run runs a program in the root, and shows what it says.
func (b *build) run(ctx context.Context, c sandbox.Command) error {
	lines := &lines{to: b.opt.Watcher}
	c.Stdout, c.Stderr = lines, lines
	if c.Env == nil {
		c.Env = b.environment("HOME=/root")
	}
	err := sandbox.Run(ctx, b.root, c)
	lines.end()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return &Failed{exit, lines.kept}
	}
	return err
}

// Failed is the end of a program that did not do what it was run for.
type Failed struct {
	Err  *exec.ExitError
	Said []string // its last lines
}

func (f *Failed) Error() string { return "it ended with " + f.Err.Error() }

func (f *Failed) Unwrap() error { return f.Err }

func (b *build) environment(more ...string) []string {
	env := append([]string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "TERM=dumb", "DEBIAN_FRONTEND=noninteractive",
	}, b.opt.Proxy...)
	if e := b.opt.Recipe.Epoch; e > 0 {
		env = append(env, fmt.Sprintf("SOURCE_DATE_EPOCH=%d", e))
	}
	return append(env, more...)
}
