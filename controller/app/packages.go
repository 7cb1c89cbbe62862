package app

import (
	"net"

	"muster/controller/repo"
)

// repos serves package repositories out of the library's files.
func (h *Head) repos() *repo.Repos {
	return &repo.Repos{Objects: h.reg, Files: h.blobs, HTTPPort: h.httpPort}
}

// httpPort is the port of plain HTTP, "" while it is down. The flag need not
// say it.
func (h *Head) httpPort() string {
	a := h.doors.get("http")
	if a == nil {
		return ""
	}
	_, port, err := net.SplitHostPort(a.String())
	if err != nil {
		return ""
	}
	return port
}
