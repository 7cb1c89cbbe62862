package images

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"muster/images/squashfs"
)

// buildOptions are the same for every source. Without fragments a file's data
// lies in blocks of its own, so that a changed file changes nothing else.
// Level 9 of zstd makes a Debian root of 178 MB in 2.7 s on two cores; the
// tool's default, 15, takes 16.6 s for 5 % less. The index of files stays
// uncompressed: it costs 0.5 %, nodes read it faster, and two versions of an
// image differ in it only where they differ. Exports serve NFS servers only;
// for streams they are off by default.
func buildOptions() []string {
	return []string{
		"-comp", "zstd", "-Xcompression-level", "9", "-b", "128K", "-no-fragments", "-noI", "-noId",
		"-mkfs-time", "0", "-exit-on-error", "-no-progress", "-quiet", "-no-exports", "-noappend", "-no-recovery",
	}
}

// tool prepares mksquashfs.
func (j *job) tool(ctx context.Context, args ...string) (*exec.Cmd, *tail, error) {
	return j.program(ctx, "mksquashfs", args...)
}

// quiet gives a tool an environment that changes nothing of what comes out,
// as SOURCE_DATE_EPOCH and TAR_OPTIONS would, and keeps what it complains about.
func quiet(cmd *exec.Cmd) (*exec.Cmd, *tail) {
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "HOME=/"}
	// A killed importer must not leave a tool behind that goes on writing.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = 10 * time.Second
	said := &tail{}
	cmd.Stderr = said
	return cmd, said
}

// lastLines gives what a tool said at last, on one line.
func lastLines(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-3):], "; ")
}

// result turns a tool's end into an error with what it said, or warnings.
func (j *job) result(err error, said *tail) error {
	if err == nil {
		j.warn(said.String())
		return nil
	}
	text := lastLines(said.String())
	if strings.Contains(text, "No space left on device") {
		err = syscall.ENOSPC // so that a caller can tell; the tool's language is C
	} else if text != "" {
		return fmt.Errorf("mksquashfs: %s", text)
	}
	return fmt.Errorf("mksquashfs: %w", err)
}

// owner is what the root directory of an image made from a stream is like;
// mksquashfs ignores the archive's own entry for it.
type owner struct {
	mode     int64
	uid, gid int
	time     int64
}

func plainRoot() owner { return owner{mode: 0o755} }

// stream makes the image from the tar archive that feed writes.
func (j *job) stream(ctx context.Context, root owner, feed func(*emitter) error) error {
	// sqfstar is the same program, but 4.5 takes a compressor's option for its
	// destination.
	args := append([]string{"-", j.out, "-tar"}, buildOptions()...)
	args = append(args, "-root-mode", fmt.Sprintf("%o", root.mode&0o7777), "-root-uid", fmt.Sprint(root.uid), "-root-gid", fmt.Sprint(root.gid))
	cmd, said, err := j.tool(ctx, args...)
	if err != nil {
		return err
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	e := newEmitter(tar.NewWriter(in), j.warn)
	err = feed(e)
	if err == nil {
		err = e.fill(j.empty)
	}
	if err == nil {
		err = e.finish()
	}
	if err != nil && !errors.Is(err, syscall.EPIPE) {
		// The archive must not look complete to the tool.
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return err
	}
	if err := j.result(errors.Join(ignoreClosed(in.Close()), cmd.Wait()), said); err != nil {
		return err
	}
	return setRootTime(j.out, root.time)
}

// setRootTime sets the time of an image's root directory, for which
// mksquashfs 4.5 takes the current one whatever -root-time says. The index is
// not compressed, so that the field can be written where it lies.
func setRootTime(image string, seconds int64) error {
	f, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	r, err := squashfs.Open(f, st.Size())
	if err != nil {
		return err
	}
	const timeField, header, block = 8, 2, 8192
	sb := r.Superblock()
	for i := range 4 {
		at := int64(sb.RootInode&0xffff) + timeField + int64(i)
		at = int64(sb.InodeTable+sb.RootInode>>16) + at/block*(header+block) + header + at%block
		if _, err := f.WriteAt([]byte{byte(seconds >> (8 * i))}, at); err != nil {
			return err
		}
	}
	root, err := r.Root()
	if err == nil && root.ModTime.Unix() != seconds {
		err = fmt.Errorf("the root directory has the time %s instead of %d", root.ModTime, seconds)
	}
	return err
}

func ignoreClosed(err error) error {
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

// tail keeps the last 16 KiB that a program says.
type tail struct{ b []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if extra := len(t.b) - 16<<10; extra > 0 {
		t.b = t.b[extra:]
	}
	return len(p), nil
}

func (t *tail) String() string { return string(t.b) }
