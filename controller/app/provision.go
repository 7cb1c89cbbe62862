package app

import (
	"net/netip"
	"path/filepath"

	"muster/controller/api"
	"muster/controller/provision"
)

// newProvision connects what answers machines that install themselves.
func (h *Head) newProvision(bh bootHead) *provision.Provision {
	root := ""
	if bh.Addr.IsValid() {
		root = bh.HTTP()
	}
	return provision.New(provision.Options{
		Objects: h.reg, Dir: filepath.Join(h.cfg.Data, "kickstarts"), Log: h.log,
		NodeAt: func(a netip.Addr) (string, bool) { return h.dir.NodeByAddr(a) },
		Status: h.fleet.Status, RootURL: root, Ignition: h.cfg.Ignition,
		Head:    func() map[string]any { return headValues(h.name, bh) },
		GitFile: h.gitFile, Heads: h.dir.taken,
	})
}

// headValues is what templates can say of the head.
func headValues(name string, bh bootHead) map[string]any {
	v := map[string]any{"name": name, "hostname": name}
	if bh.Addr.IsValid() {
		v["ip"], v["http_url"], v["https_url"] = bh.Addr.String(), bh.HTTP(), bh.HTTPS()
		v["api_url"] = bh.HTTP() + api.Root
	}
	return v
}
