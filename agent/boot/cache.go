package boot

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"muster/agent/disk"
	"muster/agent/root"
	"muster/shared/wire"
)

// cache keeps images between boots on a disk of the node. It only saves the
// way to the head: whatever is wrong with it, the boot goes on without.
type cache struct {
	dir    string       // "" where there is none
	format *disk.Device // has to be given a file system first
}

const (
	cacheLabel = "muster-cache"
	keptImages = 2 // the present one and the one before
)

// openCache mounts the cache, if the node has one.
func (m *machine) openCache(ctx context.Context, want wire.Disk) *cache {
	if want.Cache == "" {
		return &cache{}
	}
	c, err := m.tryCache(ctx, want)
	if err != nil {
		m.log.Warn("images are not kept on this machine", "_disk_cache", want.Cache, "error", err)
		return &cache{}
	}
	return c
}

func (m *machine) tryCache(ctx context.Context, want wire.Disk) (*cache, error) {
	device, err := m.findDisk(ctx, want.Cache)
	if err != nil {
		return nil, err
	}
	content, err := device.Content()
	if err != nil {
		return nil, err
	}
	if content.FileSystem() {
		err := m.mountDisk(device, content.Kind, cacheDir)
		if err == nil {
			return &cache{dir: filepath.Join(cacheDir, "muster-images")}, nil
		}
		if content.Label != cacheLabel {
			return nil, err
		}
	}
	if content.Kind == "" || content.Label == cacheLabel || slices.Contains(want.Wipe, want.Cache) {
		return &cache{format: &device}, nil
	}
	return nil, fmt.Errorf("%s holds %s; to have it erased set the attribute _disk_wipe=%s", device.Path, content.Kind, want.Cache)
}

func (c *cache) close() {
	if c.dir != "" {
		unix.Unmount(cacheDir, unix.MNT_DETACH)
	}
}

// cachedImage gives the image's file: from the cache where that has it whole,
// else it is fetched.
func (m *machine) cachedImage(ctx context.Context, c *cache, want wire.Image) (*os.File, error) {
	if c.dir != "" {
		if file, err := os.Open(filepath.Join(c.dir, want.SHA256)); err == nil {
			if verified(file, want) {
				m.hasImage(want, want.Name+" is in the cache of this machine")
				return file, nil
			}
			m.log.Warn("the image in the cache is damaged, it is fetched again", "name", want.Name)
			file.Close()
		}
	}
	return m.image(ctx, want)
}

// keep puts an image into the cache.
func (m *machine) keep(c *cache, image wire.Image, file *os.File) {
	err := m.format(c)
	if err == nil && c.dir != "" {
		err = c.store(image, file)
	}
	if err != nil {
		m.log.Warn("the image is not kept on this machine", "error", err)
	}
}

// format makes the cache's file system by the programs of the image, which is
// mounted now.
func (m *machine) format(c *cache) error {
	if c.format == nil {
		return nil
	}
	if err := root.Initramfs.MakeFileSystem(c.format.Path, cacheLabel, m.commands.Run); err != nil {
		return err
	}
	content, err := c.format.Content()
	if err == nil {
		err = m.mountDisk(*c.format, content.Kind, cacheDir)
	}
	if err == nil {
		c.dir = filepath.Join(cacheDir, "muster-images")
	}
	return err
}

func (c *cache) store(image wire.Image, file *os.File) error {
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return err
	}
	name := filepath.Join(c.dir, image.SHA256)
	if file.Name() == name {
		return nil
	}
	c.prune(keptImages - 1)
	tmp := name + ".part"
	out, err := os.Create(tmp)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, io.NewSectionReader(file, 0, image.Size))
	if err == nil {
		err = out.Sync()
	}
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		os.Remove(tmp)
		return err
	}
	return os.Rename(tmp, name)
}

// prune leaves the newest images.
func (c *cache) prune(keep int) {
	entries, _ := os.ReadDir(c.dir)
	type kept struct {
		name string
		at   int64
	}
	var all []kept
	for _, e := range entries {
		if fi, err := e.Info(); err == nil && !strings.HasSuffix(e.Name(), ".part") {
			all = append(all, kept{e.Name(), fi.ModTime().UnixNano()})
		} else {
			os.Remove(filepath.Join(c.dir, e.Name()))
		}
	}
	slices.SortFunc(all, func(a, b kept) int { return int(min(max(b.at-a.at, -1), 1)) })
	for _, k := range all[min(keep, len(all)):] {
		os.Remove(filepath.Join(c.dir, k.name))
	}
}
