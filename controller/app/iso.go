package app

import (
	"os"
	"path/filepath"
	"strings"

	"muster/controller/bootiso"
	"muster/shared/fault"
	"muster/shared/object"
)

// isoMaker connects what makes ISO files of boot configurations.
func (h *Head) isoMaker(bh bootHead) *bootiso.Maker {
	opt := bootiso.Options{Objects: h.reg, Plan: h.dir.isoPlan, CA: h.ca.Fingerprint(), GRUB: h.cfg.GRUB, Dir: h.work, Log: h.log}
	if bh.Addr.IsValid() {
		opt.HTTP, opt.HTTPS = bh.HTTP(), bh.HTTPS()
	}
	return bootiso.New(opt)
}

// makeWork gives an empty directory for temporary files.
func makeWork(data string) (string, error) {
	dir := filepath.Join(data, "work")
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	return dir, os.MkdirAll(dir, 0o700)
}

// isoPlan gives what of a boot configuration goes on an ISO.
func (d *directory) isoPlan(bc *object.Bootconfig, n *object.Node) (bootiso.Plan, error) {
	refused := func(reason string) (bootiso.Plan, error) {
		return bootiso.Plan{}, fault.New(fault.Conflict, "The boot configuration %s cannot boot: %s.", bc.Name, reason)
	}
	if problems := d.library.Problems(bc); len(problems) > 0 {
		return refused(strings.Join(problems, "; "))
	}
	line, err := d.provision.Cmdline(n, bc)
	if err != nil {
		return refused(err.Error())
	}
	p := bootiso.Plan{Kernel: d.blobs.Path(bc.Kernel.SHA256), Cmdline: line, Foreign: bc.Installs()}
	if bc.Initramfs != nil {
		p.Initrds = append(p.Initrds, d.blobs.Path(bc.Initramfs.SHA256))
	}
	if p.Foreign {
		return p, nil
	}
	agent, err := d.agent.digest()
	if err != nil {
		return refused(err.Error())
	}
	p.Initrds = append(p.Initrds, d.blobs.Path(agent))
	return p, nil
}
