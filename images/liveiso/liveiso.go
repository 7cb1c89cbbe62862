// Package liveiso finds in an ISO the live system that it is made for: the
// kernel and the initrd to start over the network, and by which arguments that
// initrd finds the rest.
//
// Firmware can boot an ISO from the network as if it were a disc, but the
// system on it then looks for a drive that is not there. The live systems that
// are known here can be told a URL instead. The package must not fetch or serve
// anything.
package liveiso

import (
	"path"
	"regexp"

	"muster/images/iso9660"
)

// What Args may hold beside words that are meant as they are.
const (
	Tree = "{tree}" // the URL under which the ISO's files are served, ending in a slash
	ISO  = "{iso}"  // the URL of the ISO itself
)

// Live is a live system. Its paths hold nothing that a URL or iPXE would take
// for anything else.
type Live struct {
	Kernel, Initrd string // paths in the ISO
	Args           []string
}

// family is a kind of live system: the first file that matches each pattern is
// taken, and need must be there.
type family struct {
	kernel, initrd, need string
	args                 []string
}

func families() []family {
	return []family{
		// dracut's dmsquash-live: Fedora, RHEL and their kin
		{"images/pxeboot/vmlinuz", "images/pxeboot/initrd.img", "LiveOS/squashfs.img",
			[]string{"root=live:" + Tree + "LiveOS/squashfs.img", "ip=dhcp", "rd.live.image"}},
		// casper: Ubuntu
		{"casper/vmlinuz*", "casper/initrd*", "casper", []string{"boot=casper", "ip=dhcp", "url=" + ISO}},
		// live-boot: Debian
		{"live/vmlinuz*", "live/initrd*", "live/filesystem.squashfs",
			[]string{"boot=live", "components", "ip=dhcp", "fetch=" + Tree + "live/filesystem.squashfs"}},
		// archiso: Arch, SystemRescue
		{"arch/boot/x86_64/vmlinuz*", "arch/boot/x86_64/initramfs*", "arch",
			[]string{"archisobasedir=arch", "ip=dhcp", "archiso_http_srv=" + Tree}},
		{"sysresccd/boot/x86_64/vmlinuz*", "sysresccd/boot/x86_64/sysresccd.img", "sysresccd",
			[]string{"archisobasedir=sysresccd", "ip=dhcp", "archiso_http_srv=" + Tree}},
	}
}

// Find gives the live system of an ISO, if it is of a known kind.
func Find(img *iso9660.Image) (Live, bool) {
	for _, f := range families() {
		kernel, initrd := first(img, f.kernel), first(img, f.initrd)
		if _, err := img.Lookup(f.need); err == nil && kernel != "" && initrd != "" {
			return Live{kernel, initrd, f.args}, true
		}
	}
	return Live{}, false
}

var plain = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]{0,99}$`)

// first gives the first file whose path matches a pattern in its last element.
func first(img *iso9660.Image, pattern string) string {
	dir, base := path.Split(pattern)
	d, err := img.Lookup(path.Clean(dir))
	if err != nil || !d.Dir {
		return ""
	}
	all, err := img.List(d)
	if err != nil {
		return ""
	}
	for _, e := range all {
		if ok, _ := path.Match(base, e.Name); ok && !e.Dir && plain.MatchString(e.Name) {
			return path.Join(dir, e.Name)
		}
	}
	return ""
}
