package boot

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"muster/agent/disk"
	"muster/agent/root"
	"muster/shared/wire"
)

// diskTime is how long a disk may take to appear: controllers look for theirs
// one after the other.
const diskTime = 30 * time.Second

// cacheDir is where the file system of _disk_cache is mounted.
const cacheDir = "/cache"

// disked makes the root on a disk. An image that is there already is not even
// asked for.
func (m *machine) disked(ctx context.Context, plan wire.Boot) error {
	m.endStream()
	root.Initramfs.Drop() // of an attempt before
	failed := func(err error) error { return &failure{wire.StepRoot, err} }
	if plan.Disk == nil {
		return failed(errors.New("the head does not say which disk: it is older than this agent"))
	}
	m.rest()
	device, state, err := m.mountRoot(ctx, *plan.Disk)
	if err != nil {
		return failed(err)
	}
	if state != nil && state.Complete && state.Image == plan.Image.SHA256 {
		m.hasImage(*plan.Image, plan.Image.Name+" is on "+device.Path+" already")
		m.stopBefore(ctx, wire.StepRoot)
		return failed(m.enter(ctx, plan, "nothing was written to "+device.Path))
	}
	done, err := m.install(ctx, plan, device, state != nil)
	if err != nil {
		return err
	}
	m.stopBefore(ctx, wire.StepRoot)
	return failed(m.enter(ctx, plan, fmt.Sprintf("%d of %d files written to %s, %d removed", done.Written, done.Files, device.Path, done.Removed)))
}

// mountRoot finds the disk and mounts what muster wrote on it; the state is nil
// where a file system has to be made first.
func (m *machine) mountRoot(ctx context.Context, want wire.Disk) (disk.Device, *root.DiskState, error) {
	device, err := m.findDisk(ctx, want.Root)
	if err != nil {
		return device, nil, err
	}
	wipe := slices.Contains(want.Wipe, want.Root)
	content, err := device.Content()
	if err != nil {
		return device, nil, err
	}
	if device.Whole() && !content.FileSystem() {
		if device, err = m.partition(device, content, wipe); err != nil {
			return device, nil, err
		}
		if content, err = device.Content(); err != nil {
			return device, nil, err
		}
	}
	state, err := m.mountKnown(device, content)
	switch {
	case errors.Is(err, unix.ENODEV):
		return device, nil, fmt.Errorf("this kernel has no %s, and the boot archive no module for it: %w", content.Kind, err)
	case state != nil || content.Kind == "" || err != nil && content.Label == root.DiskLabel:
		return device, state, nil // ours, blank, or ours and beyond use
	case wipe:
		m.log.Warn("what is on the disk will be erased", "device", device.Path, "holds", content.Kind, "label", content.Label)
		return device, nil, nil
	case err == nil: // an empty file system
		return device, &root.DiskState{}, nil
	}
	return device, nil, fmt.Errorf("%s is not used: %w; to have it erased set the attribute _disk_wipe=%s", device.Path, err, want.Root)
}

// mountKnown mounts a file system. Its state is nil, without an error, where it
// is empty.
func (m *machine) mountKnown(device disk.Device, content disk.Content) (*root.DiskState, error) {
	if !content.FileSystem() {
		return nil, fmt.Errorf("it holds %s", content.Kind)
	}
	if err := m.mountDisk(device, content.Kind, root.Initramfs.New); err != nil {
		return nil, err
	}
	state, err := root.ReadState(root.Initramfs.New)
	if state == nil && err != nil {
		root.Initramfs.Drop()
	}
	return state, err
}

func (m *machine) mountDisk(device disk.Device, kind, dir string) error {
	if m.modules != nil {
		if err := m.modules.Load(kind); err != nil {
			return err
		}
	}
	return root.MountDisk(device, kind, dir)
}

// findDisk waits for a disk to appear.
func (m *machine) findDisk(ctx context.Context, name string) (disk.Device, error) {
	deadline := time.Now().Add(diskTime)
	for {
		d, err := disk.Find(name)
		if err == nil {
			err = d.Ready()
		}
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENXIO) || time.Now().After(deadline) {
			return d, err
		}
		select {
		case <-ctx.Done():
			return d, context.Cause(ctx)
		case <-time.After(100 * time.Millisecond): // no udev tells
		}
	}
}

// partition gives the partition of a whole disk that is muster's, and makes it
// on one that is empty or may be erased.
func (m *machine) partition(device disk.Device, content disk.Content, wipe bool) (disk.Device, error) {
	part, err := device.Partition(root.DiskLabel)
	if err == nil {
		return part, nil
	}
	if content.Kind != "" && !wipe {
		return device, fmt.Errorf("%s is not used: it holds %s; name one of its partitions, or to have it erased set the attribute _disk_wipe=%s", device.Path, content.Kind, device.Path)
	}
	m.log.Warn("the disk becomes muster's", "device", device.Path, "held", content.Kind)
	if part, err = device.Claim(root.DiskLabel); err != nil {
		return device, err
	}
	for range 50 { // devtmpfs makes the node on its own time
		if _, err = os.Stat(part.Path); err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	return part, err
}

// install brings the image to the disk.
func (m *machine) install(ctx context.Context, plan wire.Boot, device disk.Device, mounted bool) (root.Changes, error) {
	failed := func(err error) (root.Changes, error) { return root.Changes{}, &failure{wire.StepRoot, err} }
	layout := root.Initramfs
	if m.modules != nil {
		if err := m.modules.Load(root.Needs(root.StyleDisked)...); err != nil {
			return failed(err)
		}
	}
	cache := m.openCache(ctx, *plan.Disk)
	defer cache.close()
	m.stopBefore(ctx, wire.StepImage)
	image, err := m.cachedImage(ctx, cache, *plan.Image)
	if err != nil {
		return root.Changes{}, err
	}
	defer image.Close()
	if err := layout.MountSquash(image); err != nil {
		return failed(err)
	}
	defer layout.UnmountSquash()
	if _, err := root.FindInit(layout.Squash); err != nil { // before anything is lost
		return failed(err)
	}
	if !mounted {
		if err := layout.MakeFileSystem(device.Path, root.DiskLabel, m.commands.Run); err != nil {
			return failed(err)
		}
		content, err := device.Content()
		if err == nil {
			err = m.mountDisk(device, content.Kind, layout.New)
		}
		if err != nil {
			return failed(err)
		}
	}
	m.log.Info("writing the image to the disk", "device", device.Path)
	began := time.Now()
	done, err := layout.Install(root.DiskState{Image: plan.Image.SHA256, Name: plan.Image.Name})
	if err != nil {
		return failed(err)
	}
	m.log.Info("the image is on the disk", "device", device.Path, "files", done.Files, "written", done.Written, "removed", done.Removed, "took", time.Since(began).Round(time.Millisecond).String())
	m.keep(cache, *plan.Image, image)
	return done, nil
}

// enter goes into the root that is mounted.
func (m *machine) enter(ctx context.Context, plan wire.Boot, detail string) error {
	m.awaitModules()
	agent, init, err := m.furnish(ctx, plan, root.Initramfs.New)
	if err != nil {
		root.Initramfs.Drop()
		return err
	}
	// Nothing of the image may stay in RAM.
	unix.Unmount(root.Initramfs.Store, unix.MNT_DETACH)
	m.log.Info("root is ready", "style", root.StyleDisked, "init", init.Path, "disk", detail)
	m.stamps.put(m.client, wire.Step{Step: wire.StepRoot, Detail: root.StyleDisked + ": " + detail})
	m.stamps.flush(stopTime)
	return m.leave(plan, agent, init)
}

// verified says whether a file holds an image.
func verified(file *os.File, image wire.Image) bool {
	sum := sha256.New()
	n, err := io.Copy(sum, file)
	return err == nil && n == image.Size && hex.EncodeToString(sum.Sum(nil)) == image.SHA256
}
