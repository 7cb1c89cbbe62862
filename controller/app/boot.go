package app

import (
	"net"
	"net/netip"
	"strconv"
	"time"

	"muster/controller/api"
	"muster/controller/boot"
	"muster/controller/boot/dhcp"
	"muster/controller/boot/ipxe"
	"muster/controller/boot/ra"
	"muster/controller/boot/tftp"
	"muster/shared/service"
)

// bootHead is what the boot services are told about this head; its address is
// not valid where no boot interface is configured.
type bootHead = boot.Head

const tftpPort = 69

func (h *Head) bootHead() (bootHead, error) {
	lease, err := time.ParseDuration(h.cfg.Lease)
	if err != nil {
		return bootHead{}, err
	}
	bh := bootHead{Proxy: h.cfg.ProxyDHCP, Lease: lease, Programs: boot.Dir(h.cfg.IPXE)}
	if bh.HTTPPort, err = port(h.cfg.HTTP); err != nil {
		return bh, err
	}
	if bh.HTTPSPort, err = port(h.cfg.HTTPS); err != nil {
		return bh, err
	}
	if h.cfg.BootInterface == "" {
		return bh, nil
	}
	bh.OnLink, bh.MAC, err = boot.AddressesOf(h.cfg.BootInterface)
	if err != nil {
		return bh, err
	}
	bh.Addr = bh.OnLink[0].Addr()
	return bh, nil
}

func port(hostPort string) (uint16, error) {
	_, text, err := net.SplitHostPort(hostPort)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(text, 10, 16)
	return uint16(n), err
}

// bootRoutes are what firmware asks over HTTP.
func (h *Head) bootRoutes(bh bootHead) []api.Route {
	if !bh.Addr.IsValid() {
		return nil
	}
	return ipxe.Routes(ipxe.Config{Head: bh, Directory: h.dir, Journal: h.dir})
}

// bootParts are the services on the boot interface.
func (h *Head) bootParts() []service.Part {
	bh := h.dir.boot
	if !bh.Addr.IsValid() {
		return nil
	}
	return []service.Part{
		dhcp.New(dhcp.Config{Interface: h.cfg.BootInterface, Head: bh, Directory: h.dir, Journal: h.dir, BMC: h.sawBMC, Log: h.log}).Part(),
		tftp.New(tftp.Config{Addr: netip.AddrPortFrom(bh.Addr, tftpPort), Programs: bh.Programs, Log: h.log}).Part(),
		ra.Responder{Interface: h.cfg.BootInterface, Log: h.log}.Part(),
	}
}
