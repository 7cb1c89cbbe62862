package images

import (
	"bufio"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// local says whether mounts of a file system are part of the tree that they
// are mounted in. All others are virtual, remote, or show what lies elsewhere.
func local(fstype string) bool {
	switch fstype {
	case "ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "jfs", "reiserfs", "bcachefs", "zfs", "vfat", "exfat", "ntfs", "ntfs3", "erofs", "squashfs", "iso9660", "udf":
		return true
	}
	return false
}

// directory makes the image from a directory.
func (j *job) directory(ctx context.Context) error {
	source, err := filepath.EvalSymlinks(j.source)
	if err == nil {
		source, err = filepath.Abs(source)
	}
	if err != nil {
		return err
	}
	skip, err := skippedMounts(source)
	if err != nil {
		return err
	}
	args := append([]string{source, j.out}, buildOptions()...)
	args = append(args, exclusions(source, j.work, skip, j.exclude)...)
	cmd, said, err := j.tool(ctx, args...)
	if err != nil {
		return err
	}
	total, err := treeSize(ctx, source, skip)
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	stop := j.watch(cmd.Process.Pid, total, "rchar")
	err = cmd.Wait()
	stop()
	if err == nil {
		j.progress(total, total)
	}
	return j.result(err, said)
}

// exclusions gives the options, which must be the last, that leave out what is
// in the skipped mounts, the working directory if it is below the source, and
// what the caller wants to be without.
func exclusions(source, work string, skip, exclude []string) []string {
	var patterns []string
	for _, name := range skip {
		// The mount point itself stays. Hidden names need their own pattern.
		patterns = append(patterns, escapeGlob(name)+"/*", escapeGlob(name)+"/.*")
	}
	if work, err := filepath.EvalSymlinks(work); err == nil {
		if rel, err := filepath.Rel(source, work); err == nil && filepath.IsLocal(rel) {
			patterns = append(patterns, escapeGlob(rel))
		}
	}
	for _, p := range exclude {
		patterns = append(patterns, strings.Trim(p, "/"))
	}
	if len(patterns) == 0 {
		return nil
	}
	return append([]string{"-wildcards", "-e"}, patterns...)
}

// skippedMounts gives the mounts below dir, relative to it, of which only the
// mount point is imported.
func skippedMounts(dir string) ([]string, error) {
	// Of the thread: it may have a mount namespace of its own.
	f, err := os.Open("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var skip []string
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		// proc_pid_mountinfo(5): the fifth field is the mount point, the
		// file system's type follows the lone dash.
		before, after, _ := strings.Cut(s.Text(), " - ")
		fields, kind := strings.Fields(before), strings.Fields(after)
		if len(fields) < 5 || len(kind) == 0 || local(kind[0]) {
			continue
		}
		rel, err := filepath.Rel(dir, unescapeMount(fields[4]))
		if err == nil && rel != "." && filepath.IsLocal(rel) {
			skip = append(skip, rel)
		}
	}
	return skip, s.Err()
}

// unescapeMount undoes the octal escapes of mountinfo (blank, tab, newline,
// backslash).
func unescapeMount(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func escapeGlob(name string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`, "]", `\]`, "(", `\(`, ")", `\)`, "|", `\|`).Replace(name)
}

// treeSize adds up the files of a tree, each once however many names it has.
func treeSize(ctx context.Context, dir string, skip []string) (int64, error) {
	skipped := map[string]bool{}
	for _, s := range skip {
		skipped[filepath.Join(dir, s)] = true
	}
	type id struct{ dev, ino uint64 }
	seen := map[id]bool{}
	var total int64
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return nil // mksquashfs meets the same and says it better
		}
		if d.IsDir() && skipped[name] {
			return fs.SkipDir
		}
		if !d.Type().IsRegular() {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return nil
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Nlink > 1 {
			key := id{uint64(st.Dev), st.Ino}
			if seen[key] {
				return nil
			}
			seen[key] = true
		}
		total += info.Size()
		return nil
	})
	return total, err
}

// watch reports what a process has read (rchar) or written (wchar) until stop
// is called; the squashfs-tools 4.5 tell their own progress only to a terminal.
func (j *job) watch(pid int, total int64, count string) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				if n, err := bytesMoved(pid, count); err == nil {
					j.progress(min(n, total), total)
				}
			}
		}
	}()
	return func() { close(done); <-ended }
}

func bytesMoved(pid int, count string) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if n, ok := strings.CutPrefix(line, count+": "); ok {
			return strconv.ParseInt(strings.TrimSpace(n), 10, 64)
		}
	}
	return 0, fmt.Errorf("the kernel does not tell %s", count)
}
