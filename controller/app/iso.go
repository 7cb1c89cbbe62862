package app

import (
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"muster/controller/bootiso"
	"muster/shared/fault"
	"muster/shared/object"
)

// isoMaker connects what makes ISO files of boot configurations.
func (h *Head) isoMaker(bh bootHead) *bootiso.Maker {
	return bootiso.New(bootiso.Options{
		Objects: h.reg, Plan: h.dir.isoPlan, CA: h.ca.Fingerprint(), GRUB: h.cfg.GRUB, Dir: h.work, Log: h.log,
		URLs: func(local net.Addr) (string, string) {
			if bh.Addr.IsValid() {
				return bh.HTTP(), bh.HTTPS()
			}
			// Without a boot interface there are no keys, and https is for those who have one.
			return "http://" + net.JoinHostPort(h.reachedAt(local).String(), h.portOf("http")), ""
		},
	})
}

// reachedAt is an address of this head for others: the one that a client used,
// or where that was on this host the first one that is not.
func (h *Head) reachedAt(local net.Addr) netip.Addr {
	at := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	if local != nil {
		if ap, err := netip.ParseAddrPort(local.String()); err == nil {
			at = ap.Addr().Unmap()
		}
	}
	if !at.IsLoopback() {
		return at
	}
	for _, a := range h.addresses() {
		if a.IsGlobalUnicast() && a.Is4() {
			return a
		}
	}
	return at
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
func (d *directory) isoPlan(ctx context.Context, bc *object.Bootconfig, n *object.Node) (bootiso.Plan, error) {
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
	agent, err := d.agent.await(ctx)
	if err != nil {
		return refused(err.Error())
	}
	p.Initrds = append(p.Initrds, d.blobs.Path(agent))
	return p, nil
}
