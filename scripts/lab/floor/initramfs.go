package floor

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/u-root/u-root/pkg/cpio"
)

// The marks that the initramfs makes at the HTTP server, in this order.
const (
	MarkFirst   = "first"   // an address, and the first HTTP call
	MarkMounted = "mounted" // the image is fetched, mounted and writable
)

// initScript does by hand what the agent does: %s is the URL of the server.
// The card's interface is there before its driver's insmod returns.
const initScript = `#!/bin/busybox sh
bb=/bin/busybox
$bb mount -t proc proc /proc; $bb mount -t sysfs sys /sys; $bb mount -t devtmpfs dev /dev
for m in $($bb cat /modules/net); do $bb insmod /modules/$m; done
for i in /sys/class/net/*; do i=${i##*/}; [ $i = lo ] || dev=$i; done
$bb ip link set $dev up
$bb udhcpc -q -n -t 20 -T 1 -i $dev -s /bin/lease
$bb wget -q -O /dev/null %[1]s/mark/first
$bb mkdir /ram /image /new
$bb mount -t tmpfs -o size=100%% ram /ram && $bb mkdir /ram/upper /ram/work
$bb wget -q -O /ram/image.squashfs %[1]s/image
for m in $($bb cat /modules/root); do $bb insmod /modules/$m; done
$bb mount -t squashfs -o loop,ro /ram/image.squashfs /image &&
$bb mount -t overlay -o lowerdir=/image,upperdir=/ram/upper,workdir=/ram/work overlay /new &&
$bb test -L /new/sbin/init && $bb wget -q -O /dev/null %[1]s/mark/mounted
$bb poweroff -f
`

const leaseScript = `#!/bin/busybox sh
[ "$1" = bound ] && /bin/busybox ip address add $ip/$mask dev $interface
exit 0
`

// Initramfs writes the zstd-compressed archive to file. modules is a
// lib/modules/VERSION directory.
func Initramfs(ctx context.Context, file, busybox, modules, url string) error {
	program, err := os.ReadFile(busybox)
	if err != nil {
		return err
	}
	records := []cpio.Record{
		cpio.Directory("bin", 0o755), cpio.Directory("modules", 0o755), cpio.Directory("proc", 0o755),
		cpio.Directory("sys", 0o755), cpio.Directory("dev", 0o755),
		cpio.CharDev("dev/console", 0o600, 5, 1),
		cpio.StaticFile("bin/busybox", string(program), 0o755),
		cpio.StaticFile("bin/lease", leaseScript, 0o755),
		cpio.StaticFile("init", fmt.Sprintf(initScript, url), 0o755),
	}
	packed := map[string]bool{}
	for list, wanted := range map[string][]string{
		"net":  {"virtio_pci", "virtio_net", "af_packet"},
		"root": {"loop", "squashfs", "overlay"},
	} {
		order, err := loadOrder(ctx, modules, wanted)
		if err != nil {
			return err
		}
		var names []string
		for _, path := range order {
			name := filepath.Base(path)
			names = append(names, name)
			if packed[name] {
				continue
			}
			packed[name] = true
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			records = append(records, cpio.StaticFile("modules/"+name, string(content), 0o644))
		}
		records = append(records, cpio.StaticFile("modules/"+list, strings.Join(names, "\n"), 0o644))
	}
	return writeArchive(file, records)
}

// loadOrder returns the files of modules and of all they depend on, in the
// order in which they can be inserted. What is built in is left out.
func loadOrder(ctx context.Context, modules string, wanted []string) ([]string, error) {
	files := map[string]string{}
	err := filepath.WalkDir(modules, func(path string, d fs.DirEntry, err error) error {
		if name, _, ok := strings.Cut(d.Name(), ".ko"); ok && err == nil {
			files[strings.ReplaceAll(name, "-", "_")] = path
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	var order []string
	seen := map[string]bool{}
	var visit func(name string) error
	visit = func(name string) error {
		name = strings.ReplaceAll(name, "-", "_")
		file, loadable := files[name]
		if seen[name] || !loadable {
			return nil
		}
		seen[name] = true
		out, err := exec.CommandContext(ctx, "modinfo", "-F", "depends", file).Output()
		if err != nil {
			return fmt.Errorf("modinfo %s: %w", file, err)
		}
		for _, dep := range strings.FieldsFunc(strings.TrimSpace(string(out)), func(r rune) bool { return r == ',' }) {
			if err := visit(dep); err != nil {
				return err
			}
		}
		order = append(order, file)
		return nil
	}
	for _, name := range wanted {
		if err := visit(name); err != nil {
			return nil, err
		}
	}
	return order, nil
}

func writeArchive(file string, records []cpio.Record) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	compressed, err := zstd.NewWriter(f, zstd.WithEncoderLevel(zstd.SpeedBestCompression))
	if err != nil {
		return err
	}
	var archive strings.Builder
	w := cpio.Newc.Writer(&archive)
	if err := cpio.WriteRecordsAndDirs(w, records); err != nil {
		return err
	}
	if err := cpio.WriteTrailer(w); err != nil {
		return err
	}
	if _, err := io.WriteString(compressed, archive.String()); err != nil {
		return err
	}
	if err := compressed.Close(); err != nil {
		return err
	}
	return f.Close()
}
