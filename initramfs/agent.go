package initramfs

import (
	"debug/elf"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/u-root/u-root/pkg/cpio"
)

// Agent writes the archive that makes binary the first process of a machine.
// The binary lies there once, as /init; /bin/muster-agent and /bin/NAME for
// each applet are links to it, so that it can tell by its own name what it is
// asked to be. Applets are names such as "sh", without a path.
//
// The binary must be a static executable: nothing else is in the archive that
// it could be linked with.
func Agent(w io.Writer, binary string, applets []string) error {
	if err := static(binary); err != nil {
		return err
	}
	data, err := os.ReadFile(binary)
	if err != nil {
		return fmt.Errorf("initramfs: agent: %w", err)
	}
	links, err := appletLinks(applets)
	if err != nil {
		return err
	}
	a, err := newArchive(w)
	if err != nil {
		return err
	}
	if err := a.add(skeleton()...); err != nil {
		return err
	}
	if err := a.add(links...); err != nil {
		return err
	}
	if err := a.file("init", data, 0o755); err != nil {
		return err
	}
	return a.close()
}

// static refuses a binary that the kernel could not start as the only file
// there is: the kernel would stop with "No working init found", which says
// nothing of the reason.
func static(binary string) error {
	f, err := elf.Open(binary)
	if err != nil {
		return fmt.Errorf("initramfs: agent %s is not a Linux executable: %w", binary, err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return fmt.Errorf("initramfs: agent %s is dynamically linked; build it with CGO_ENABLED=0", binary)
		}
	}
	return nil
}

func appletLinks(applets []string) ([]cpio.Record, error) {
	names := append([]string{"muster-agent"}, applets...)
	slices.Sort(names)
	var links []cpio.Record
	for _, name := range slices.Compact(names) {
		if name == "" || name == "." || name == ".." || path.Base(name) != name || strings.ContainsRune(name, 0) {
			return nil, fmt.Errorf("initramfs: %q is not the name of an applet", name)
		}
		links = append(links, cpio.Symlink("bin/"+name, "/init"))
	}
	return links, nil
}

// skeleton is what a first process and the programs that it starts expect to
// find. The device nodes are for the time before devtmpfs is mounted: the
// kernel opens /dev/console for the first process.
func skeleton() []cpio.Record {
	records := []cpio.Record{
		cpio.Directory("bin", 0o755),
		cpio.Directory("dev", 0o755),
		cpio.CharDev("dev/console", 0o600, 5, 1),
		cpio.CharDev("dev/kmsg", 0o644, 1, 11),
		cpio.CharDev("dev/null", 0o666, 1, 3),
		cpio.CharDev("dev/tty", 0o666, 5, 0),
		cpio.Directory("etc", 0o755),
		cpio.StaticFile("etc/group", "root:x:0:\n", 0o644),
		cpio.StaticFile("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n", 0o644),
		cpio.Directory("newroot", 0o755),
		cpio.Directory("proc", 0o555),
		cpio.Directory("root", 0o700),
		cpio.Directory("run", 0o755),
		cpio.Symlink("sbin", "bin"),
		cpio.Directory("sys", 0o555),
		cpio.Directory("tmp", 0o1777),
		cpio.Directory("usr", 0o755),
		cpio.Symlink("usr/bin", "../bin"),
		cpio.Symlink("usr/sbin", "../bin"),
		cpio.Directory("var", 0o755),
		cpio.Symlink("var/run", "../run"),
	}
	return records
}
