package app

import (
	"net"
	"path/filepath"

	"muster/controller/install"
	"muster/controller/repo"
)

// repos serves package repositories out of the library's files.
func (h *Head) repos() *repo.Repos {
	return &repo.Repos{Objects: h.reg, Files: h.blobs, HTTPPort: func() string { return h.portOf("http") }}
}

// portOf is the port of http or https, "" while it is down. The flag need not
// say it.
func (h *Head) portOf(door string) string {
	a := h.doors.get(door)
	if a == nil {
		return ""
	}
	_, port, err := net.SplitHostPort(a.String())
	if err != nil {
		return ""
	}
	return port
}

// installs serves what turns machines into nodes and heads.
func (h *Head) installs() (*install.Install, error) {
	var paths []string
	for _, p := range [][2]string{{h.cfg.Packages, "packages"}, {"", "muster"}, {h.cfg.Agent, "muster-agent"}, {h.cfg.PAMHelper, "muster-pam"}} {
		path, err := beside(p[0], p[1])
		if err != nil {
			return nil, err
		}
		paths = append(paths, path)
	}
	return install.New(install.Options{
		Head: h.name, Version: h.version, Dir: paths[0], Made: filepath.Join(h.cfg.Data, "packages"),
		Programs: install.Programs{Head: paths[1], Agent: paths[2], PAM: paths[3]},
		CA:       h.ca.Bundle, Fingerprint: h.ca.Fingerprint(),
		HTTPSPort: func() string { return h.portOf("https") }, Password: h.auth.VerifyClusterPassword,
	}), nil
}
