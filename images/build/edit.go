package build

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"

	"muster/images"
	"muster/images/sandbox"
)

// Session is one editing of an image.
type Session struct {
	Image    string   // a squashfs
	Temp     string   // for work
	Argv     []string // what changes it; a shell when empty
	Env      []string // beside the usual
	Terminal *os.File // of Argv, nil for none
	Stdin    io.Reader
	Stdout   io.Writer
	Stderr   io.Writer
	// Keep is told how Argv ended, and says whether what it changed is kept.
	Keep    func(ended error) bool
	Watcher Watcher
}

// Edit runs a program in a writable copy of an image and makes the squashfs
// out of what it left. changed is false, and there is no out, where it left
// all as it was or nothing is kept. The error is that of the program only
// where nothing is kept.
func Edit(ctx context.Context, s Session, out string) (info images.Info, changed bool, err error) {
	err = inWork(s.Temp, "muster-edit-", func(work string) (err error) {
		root, err := Open(ctx, s.Image, work, s.Watcher)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, root.Close()) }()
		ended := s.run(ctx, root.Root)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !s.Keep(ended) {
			return ended
		}
		for _, dir := range []string{"tmp", "var/tmp", "run"} {
			if err := root.Forget(dir); err != nil {
				return err
			}
		}
		if changed, err = root.Changed(); err != nil || !changed {
			return err
		}
		s.Watcher.Step("pack the image")
		info, err = images.ImportTree(ctx, root.Root, out, nil, s.Watcher.At)
		return err
	})
	return info, changed && err == nil, err
}

func (s *Session) run(ctx context.Context, root string) error {
	argv := s.Argv
	if len(argv) == 0 {
		argv = []string{"/bin/sh"}
		if _, err := os.Stat(filepath.Join(root, "usr/bin/bash")); err == nil {
			argv = []string{"/usr/bin/bash"}
		}
	}
	env := append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "HISTFILE=/dev/null"}, s.Env...)
	return sandbox.Run(ctx, root, sandbox.Command{Argv: argv, Env: env, Terminal: s.Terminal, Stdin: s.Stdin, Stdout: s.Stdout, Stderr: s.Stderr})
}
