package images

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"muster/images/squashfs"
)

// Unpack writes what is in an image, a squashfs, to the directory dir, which
// must not be there or be empty: owners, modes, times, attributes, hard links,
// devices and holes, as far as the user may make them. It takes all cores.
// After an error, or when ctx ends, what was written is left to the caller.
// progress may be nil.
func Unpack(ctx context.Context, image, dir string, progress Progress) error {
	if progress == nil {
		progress = func(int64, int64) {}
	}
	total, err := Unpacked(image)
	if err != nil {
		return err
	}
	if left, err := os.ReadDir(dir); err == nil && len(left) > 0 {
		return fmt.Errorf("%s is not empty", dir)
	}
	// As root nothing may be missing; others cannot make devices.
	strict := "-no-exit-code"
	if os.Geteuid() == 0 {
		strict = "-strict-errors"
	}
	j := &job{source: image, progress: progress}
	cmd, said, err := j.program(ctx, "unsquashfs", "-no-progress", "-quiet", strict, "-force", "-dest", dir, image)
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	stop := j.watch(cmd.Process.Pid, total, "wchar")
	err = cmd.Wait()
	stop()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil && strings.TrimSpace(said.String()) != "":
		return fmt.Errorf("unsquashfs: %s", lastLines(said.String()))
	case err != nil:
		return fmt.Errorf("unsquashfs: %w", err)
	}
	progress(total, total)
	return nil
}

// Unpacked gives the bytes of the files in an image, a squashfs, which is
// refused if it is not sound. A file counts once for each of its names.
func Unpacked(image string) (total int64, err error) {
	f, err := os.Open(image)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if _, err := squashfs.Check(f, st.Size()); err != nil {
		return 0, fmt.Errorf("%s: %w", image, err)
	}
	r, err := squashfs.Open(f, st.Size())
	if err == nil {
		err = r.Walk(func(e squashfs.Entry) error {
			total += e.Size
			return nil
		})
	}
	if err != nil {
		return 0, fmt.Errorf("%s: %w", image, err)
	}
	return total, nil
}

// program prepares a tool of squashfs-tools.
func (j *job) program(ctx context.Context, name string, args ...string) (*exec.Cmd, *tail, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return nil, nil, errors.New("the program " + name + " is missing: install the package squashfs-tools (4.5 or later)")
	}
	cmd, said := quiet(exec.CommandContext(ctx, path, args...))
	return cmd, said, nil
}
