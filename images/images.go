// Package images turns what an administrator has, a directory, a tar archive,
// a container image, into the squashfs that nodes boot from.
//
// It runs the squashfs-tools (4.5 or later), which know owners, devices,
// extended attributes and all cores better than anything in Go, and feeds
// them streams: no tree is unpacked to disk. (A compressed `docker save` is
// decompressed beside the output, since its parts are read more than once.)
// The same source gives the same bytes; times of files are kept. The package knows nothing of image objects,
// versions or the head; package squashfs below it judges and reads images.
package images

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"muster/images/squashfs"
	"muster/shared/filesystem"
)

// Form is what kind of source an image was made from.
type Form string

// The forms that Import takes.
const (
	Directory Form = "directory"
	Tar       Form = "tar"
	Squashfs  Form = "squashfs"
	OCI       Form = "oci"
	Docker    Form = "docker"
)

// Info tells of a finished import.
type Info struct {
	Form       Form
	Size       int64 // of the squashfs, in bytes
	Superblock squashfs.Superblock
	// Warnings are what could not be carried over, such as ACLs, which
	// squashfs does not have; at most a hundred.
	Warnings []string
}

// Progress is called now and then, from one goroutine at a time, with the
// bytes read of the source; total is 0 while it is not known.
type Progress func(done, total int64)

// Import makes the squashfs out from source: a directory, a tar archive
// (plain, gzip, zstd or xz, told by its content), a squashfs, which is checked
// and copied as it is, an OCI layout directory, the archive of `docker save`,
// or an image in a registry (see IsReference; who is asked for a password has
// it in ~/.docker/config.json). It takes all cores. out appears when it is complete and has been
// checked, replacing what was there; after an error or when ctx ends nothing
// is left behind. progress may be nil.
//
// Of a directory, file systems mounted below it are part of the image unless
// they are virtual or remote (proc, sysfs, tmpfs, overlay, nfs, …): of these
// only the empty mount point is, so that the root of a running system can be
// imported.
func Import(ctx context.Context, source, out string, progress Progress) (Info, error) {
	return (&job{source: source}).make(ctx, out, progress, (*job).run)
}

// ImportSystem is Import of the archive of a running system that was taken
// without what Identity names: where it has no machine id it gets an empty one.
// Without the file a system takes itself for new, and sets its services to
// their defaults; and a read-only root has no place for the id of a boot.
func ImportSystem(ctx context.Context, source, out string, progress Progress) (Info, error) {
	return (&job{source: source, empty: []string{"etc/machine-id"}}).make(ctx, out, progress, (*job).run)
}

// ImportTree is Import of the directory dir, whatever is in it, without what
// matches the patterns: paths from its root, in which * and ? stay within a name.
func ImportTree(ctx context.Context, dir, out string, exclude []string, progress Progress) (Info, error) {
	j := &job{source: dir, exclude: exclude}
	j.info.Form = Directory
	return j.make(ctx, out, progress, (*job).directory)
}

// make makes out by how, whole or not at all.
func (j *job) make(ctx context.Context, out string, progress Progress, how func(*job, context.Context) error) (Info, error) {
	if progress == nil {
		progress = func(int64, int64) {}
	}
	// Everything happens in a directory of its own beside out: one removal
	// cleans up, and the last step is a rename within one file system.
	work, err := os.MkdirTemp(filepath.Dir(out), ".import-")
	if err != nil {
		return Info{}, fmt.Errorf("import %s: %w", j.source, err)
	}
	defer os.RemoveAll(work)
	j.work, j.out, j.progress = work, filepath.Join(work, "image"), progress
	if err := how(j, ctx); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err() // what the killed tool said would hide the reason
		}
		return Info{}, fmt.Errorf("import %s: %w", j.source, err)
	}
	if err := j.finish(out); err != nil {
		return Info{}, fmt.Errorf("import %s: %w", j.source, err)
	}
	return j.info, nil
}

type job struct {
	source, work, out string
	exclude           []string // of a directory
	empty             []string // files of a stream that are made where they are missing
	progress          Progress
	info              Info
}

// run makes j.out from whatever the source is.
func (j *job) run(ctx context.Context) error {
	if IsReference(j.source) {
		j.info.Form = Registry
		return j.registry(ctx)
	}
	st, err := os.Stat(j.source)
	if err != nil {
		return err
	}
	if st.IsDir() {
		if IsLayout(j.source) {
			j.info.Form = OCI
			return j.layout(ctx)
		}
		j.info.Form = Directory
		return j.directory(ctx)
	}
	if !st.Mode().IsRegular() {
		return errors.New("neither a directory nor a regular file")
	}
	return j.file(ctx)
}

// file tells by the content what a file is: names are often wrong.
func (j *job) file(ctx context.Context) error {
	f, err := openArchive(j.source)
	if err != nil {
		return err
	}
	defer f.Close()
	switch {
	case f.compression == "" && bytes.HasPrefix(f.head, []byte("hsqs")):
		j.info.Form = Squashfs
		return j.copy(ctx, f)
	case !isTar(f.head):
		return errors.New("it is no tar archive (plain, gzip, zstd or xz), no squashfs and no directory")
	case isImageArchive(f.head):
		j.info.Form = Docker
		return j.docker(ctx, f)
	}
	j.info.Form = Tar
	return j.tar(ctx, f)
}

// copy takes a squashfs as it is, once it is known to be sound.
func (j *job) copy(ctx context.Context, f *archive) error {
	if _, err := squashfs.Check(f.file, f.size); err != nil {
		return err
	}
	to, err := os.Create(j.out)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, &progressReader{ctx: ctx, r: io.NewSectionReader(f.file, 0, f.size), total: f.size, report: j.progress})
	return errors.Join(err, to.Close())
}

// finish checks what was made and puts it in place, durably.
func (j *job) finish(out string) error {
	f, err := os.OpenFile(j.out, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	j.info.Size = st.Size()
	if j.info.Superblock, err = squashfs.Check(f, st.Size()); err != nil {
		return err
	}
	if err := errors.Join(f.Chmod(0o644), f.Sync(), os.Rename(j.out, out)); err != nil {
		return err
	}
	return filesystem.SyncDir(filepath.Dir(out))
}

// warn keeps what the tools complained about without failing.
func (j *job) warn(text string) {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && len(j.info.Warnings) < 100 {
			j.info.Warnings = append(j.info.Warnings, line)
		}
	}
}

// progressReader counts what is read, and ends when ctx does.
type progressReader struct {
	ctx         context.Context
	r           io.Reader
	done, total int64
	report      Progress
	last        int64
}

// progressStep is how many bytes pass between two reports.
const progressStep = 1 << 20

func (p *progressReader) Read(b []byte) (int, error) {
	if err := p.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := p.r.Read(b)
	p.done += int64(n)
	if p.done-p.last >= progressStep || (err != nil && p.done > p.last) {
		p.last = p.done
		p.report(p.done, p.total)
	}
	return n, err
}
