package boot

import (
	"context"
	"fmt"
	"os"

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
func (m *machine) streamed(ctx context.Context, image wire.Image) (*os.File, error) {
	if m.flow != nil && m.flow.Image == image.SHA256 {
		if device, err := m.flow.Open(); err == nil {
			return device, nil
		}
	}
	m.endStream()
	file, err := root.Initramfs.ImageFile()
	if err != nil {
		return nil, err
	}
	file.Close()
	m.pulled = "" // what was there is cut off
	task := stream.Task{Head: m.line.Head, Report: m.url(), File: file.Name(), Image: image, Version: m.version}
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
	m.log.Info("image", "name", image.Name, "bytes", image.Size)
	m.stamps.put(m.client, wire.Step{Step: wire.StepImage, Detail: fmt.Sprintf("%s, %d bytes, fetched while it is read", image.Name, image.Size)})
	return m.flow.Open()
}

// endStream gives up an image that is being fetched.
func (m *machine) endStream() {
	if m.flow != nil {
		m.flow.Stop()
		m.flow = nil
	}
}
