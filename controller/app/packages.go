package app

import (
	"net"

	"muster/controller/repo"
)

// repos serves package repositories out of the library's files.
func (h *Head) repos() *repo.Repos {
	return &repo.Repos{Objects: h.reg, Files: h.blobs, HTTPPort: func() string { return listenPort(h.http) }}
}

// listenPort is the port that a listener has got, which its flag need not say.
func listenPort(l net.Listener) string {
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return ""
	}
	return port
}
