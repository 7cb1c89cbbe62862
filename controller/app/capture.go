package app

import (
	"path/filepath"

	"muster/controller/capture"
)

// newCapture connects what makes images of running nodes.
func (h *Head) newCapture() (*capture.Capture, error) {
	return capture.New(capture.Options{
		Nodes: h.reg, Agents: h.fleet, Library: h.library, Log: h.log,
		Dir: filepath.Join(h.cfg.Data, "captures"), Record: h.recordExec,
	})
}
