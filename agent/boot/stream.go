package boot

import (
	"context"
	"fmt"
	"os"
	"strings"

	"muster/agent/root"
	"muster/agent/stream"
	"muster/shared/wire"
)

// canStream says whether the kernel has what it takes to read an image while
// it is fetched. Not every distribution's has.
func (m *machine) canStream() bool {
	if m.modules != nil {
		if err := m.modules.Load(stream.Modules()...); err != nil {
			m.log.Warn("the image is fetched as a whole before it is used", "error", err)
			return false
		}
	}
	_, err := os.Stat("/sys/class/block/nbd0")
	return err == nil
}

// streamed gives a device from which the image can be read at once. The
// process behind it goes on over attempts, as long as the image is the same.
func (m *machine) streamed(ctx context.Context, image wire.Image, target *wire.Target) (*os.File, error) {
	if m.flow != nil && m.flow.Image == image.SHA256 && m.flow.Remote == (target != nil) {
		if device, err := m.flow.Open(); err == nil {
			return device, nil
		}
	}
	m.endStream()
	task := stream.Task{Head: m.line.Head, Report: m.url(), Image: image, Target: target, Version: m.version}
	how := "fetched while it is read"
	if target == nil {
		file, err := root.Initramfs.ImageFile()
		if err != nil {
			return nil, err
		}
		file.Close()
		m.pulled = "" // what was there is cut off
		task.File = file.Name()
	} else {
		task.Name = "iqn.2026-01.muster:initiator:" + strings.ReplaceAll(m.lease.MAC.String(), ":", "-")
		how = "read over iSCSI from " + target.Address
	}
	if m.id.Cert != nil {
		task.State = root.State
	}
	console := openConsole()
	if console != os.Stderr {
		defer console.Close()
	}
	flow, err := stream.Start(ctx, "/init", task, console, m.commands.Run)
	if err != nil {
		return nil, err
	}
	m.flow = flow
	m.log.Info("image", "name", image.Name, "bytes", image.Size, "way", how)
	m.hasImage(image, fmt.Sprintf("%s, %d bytes, %s", image.Name, image.Size, how))
	return m.flow.Open()
}

// endStream gives up an image that is being fetched.
func (m *machine) endStream() {
	if m.flow != nil {
		m.flow.Stop()
		m.flow = nil
	}
}
