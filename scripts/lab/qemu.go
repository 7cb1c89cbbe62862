package lab

import (
	"errors"
	"fmt"
	"strings"
)

// Firmware is what a machine has before it boots anything.
type Firmware int

// BIOS is SeaBIOS on a PC of 1996, UEFI is OVMF on one of 2007.
const (
	BIOS Firmware = iota
	UEFI
)

func (f Firmware) String() string { return [...]string{"BIOS", "UEFI"}[f] }

// Boot is how the firmware boots from the network card.
type Boot int

const (
	// ROM is the card's own iPXE. It asks by DHCP for a script.
	ROM Boot = iota
	// PXE is UEFI's own network boot: a program by TFTP, which is then iPXE.
	PXE
	// HTTPBoot is UEFI's own boot from an HTTP server.
	HTTPBoot
)

// Spec is a machine as it is bought.
type Spec struct {
	Name     string // for its files, unique in the lab
	MAC      string
	Firmware Firmware
	Boot     Boot
	Card     string // QEMU device, by default virtio-net-pci
	Memory   int    // MiB, by default 1024
	CPUs     int    // by default 1
	Disk     int64  // bytes of an empty disk; 0 is no disk
	CDROM    string // an ISO file to boot from, on a machine whose card cannot

	// Kernel is started directly instead of the firmware's network boot, with Initrd and Cmdline.
	Kernel, Initrd, Cmdline string
}

// UUID and Serial are what the machine's firmware and its BMC both say it is.
func (s Spec) UUID() string {
	return "6d757374-6572-4c61-8000-" + strings.ToLower(strings.ReplaceAll(s.MAC, ":", ""))
}

func (s Spec) Serial() string { return "LAB-" + s.Name }

// Where Debian and Ubuntu have OVMF.
const (
	ovmfCode = "/usr/share/OVMF/OVMF_CODE_4M.fd"
	ovmfVars = "/usr/share/OVMF/OVMF_VARS_4M.fd"
)

// files are what QEMU needs beside the specification.
type files struct {
	vars, disk, qmp string
	diskFirst       bool // before the network
	tap             string
	accel           string
}

// qemu is the command line for a machine.
func qemu(s Spec, f files) ([]string, error) {
	if s.Firmware == BIOS && s.Boot != ROM {
		return nil, errors.New("QEMU's BIOS has no network boot but its card's ROM")
	}
	if err := plainValues(s.Name, s.MAC, s.Card, f.vars, f.disk, f.qmp, s.CDROM); err != nil {
		return nil, err
	}
	args := []string{"qemu-system-x86_64", "-name", s.Name, "-nodefaults", "-display", "none", "-serial", "stdio",
		"-m", fmt.Sprint(s.Memory), "-smp", fmt.Sprint(s.CPUs),
		"-device", "virtio-rng-pci", "-qmp", "unix:" + f.qmp + ",server=on,wait=off"}
	if s.MAC != "" {
		args = append(args, "-uuid", s.UUID(), "-smbios", "type=1,serial="+s.Serial())
	}
	args = append(args, accelerator(f.accel)...)
	if s.Firmware == UEFI {
		args = append(args, "-machine", "q35,graphics=off",
			"-drive", "if=pflash,format=raw,unit=0,readonly=on,file="+ovmfCode,
			"-drive", "if=pflash,format=raw,unit=1,file="+f.vars)
	} else {
		args = append(args, "-machine", "pc,graphics=off") // else the firmware's text is not on the serial line
	}
	if s.Kernel != "" {
		args = append(args, "-kernel", s.Kernel, "-append", s.Cmdline)
	}
	if s.Initrd != "" {
		args = append(args, "-initrd", s.Initrd)
	}
	if f.tap != "" {
		args = append(args, networkCard(s, f.tap)...)
	}
	if s.CDROM != "" {
		args = append(args, "-drive", "if=none,id=cd,media=cdrom,readonly=on,format=raw,file="+s.CDROM, "-device", "ide-cd,drive=cd,bootindex=0")
	}
	if f.disk != "" {
		place := "2"
		if f.diskFirst {
			place = "0"
		}
		args = append(args, "-drive", "if=none,id=disk,format=raw,file="+f.disk, "-device", "virtio-blk-pci,drive=disk,bootindex="+place)
	}
	return args, nil
}

func accelerator(accel string) []string {
	if accel == "kvm" {
		return []string{"-accel", "kvm", "-cpu", "host"}
	}
	return []string{"-accel", "tcg,thread=multi", "-cpu", "max"}
}

func networkCard(s Spec, tap string) []string {
	device := s.Card + ",netdev=net,mac=" + s.MAC
	var extra []string
	if s.CDROM == "" {
		device += ",bootindex=1"
	}
	if s.Boot != ROM || s.CDROM != "" {
		device += ",romfile="
	}
	if s.Boot == HTTPBoot { // OVMF tries PXE first
		extra = []string{"-fw_cfg", "name=opt/org.tianocore/IPv4PXESupport,string=n", "-fw_cfg", "name=opt/org.tianocore/IPv6PXESupport,string=n"}
	}
	return append(extra, "-netdev", "tap,id=net,ifname="+tap+",script=no,downscript=no", "-device", device)
}

// plainValues keeps out what QEMU would take for another option.
func plainValues(values ...string) error {
	for _, v := range values {
		if strings.ContainsAny(v, ",\n") {
			return fmt.Errorf("%q cannot be handed to QEMU: it has a comma", v)
		}
	}
	return nil
}
