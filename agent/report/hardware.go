package report

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/jaypipes/ghw"
	"github.com/shirou/gopsutil/v3/cpu"
	"github.com/shirou/gopsutil/v3/host"
	"github.com/shirou/gopsutil/v3/mem"
)

const (
	maxDisks = 256
	maxNICs  = 64
	maxGPUs  = 32
)

// Hardware is what the node is. The mac is that of the interface it booted
// from; when empty the first physical interface's is given. What cannot be
// found out is left out.
func Hardware(mac string) map[string]any {
	h := map[string]any{"mac": mac}
	if arch, err := host.KernelArch(); err == nil {
		h["cpu_arch"] = arch
	}
	if m, err := mem.VirtualMemory(); err == nil {
		h["ram_total"] = m.Total / 1024
	}
	processors(h)
	machine(h)
	nics := interfaces()
	h["nics"] = nics
	if mac == "" {
		h["mac"] = firstMAC(nics)
	}
	h["disks"] = disks()
	h["gpus"] = gpus()
	h["numa_nodes"] = count("/sys/devices/system/node/node[0-9]*")
	h["uefi"] = count("/sys/firmware/efi") == 1
	return h
}

func processors(h map[string]any) {
	if n, err := cpu.Counts(true); err == nil {
		h["cpu_count"] = n
	}
	if n, err := cpu.Counts(false); err == nil {
		h["cpu_cores"] = n
	}
	if info, err := cpu.Info(); err == nil && len(info) > 0 {
		h["cpu_model"], h["cpu_vendor"] = info[0].ModelName, info[0].VendorID
	}
	if info, err := ghw.CPU(quiet()...); err == nil && len(info.Processors) > 0 {
		h["cpu_sockets"] = len(info.Processors)
		if h["cpu_model"] == "" {
			h["cpu_model"] = info.Processors[0].Model
		}
	}
}

// machine is what the firmware says of itself. Without DMI, as on most ARM
// boards, ghw asks the device tree.
func machine(h map[string]any) {
	set := func(values map[string]string) {
		for key, v := range values {
			if v != "" && v != "unknown" {
				h[key] = v
			}
		}
	}
	if p, err := ghw.Product(quiet()...); err == nil {
		set(map[string]string{"vendor": p.Vendor, "product": p.Name, "product_version": p.Version, "serial": p.SerialNumber, "system_uuid": p.UUID})
	}
	if b, err := ghw.BIOS(quiet()...); err == nil {
		set(map[string]string{"bios_vendor": b.Vendor, "bios_version": b.Version, "bios_date": b.Date})
	}
	if b, err := ghw.Baseboard(quiet()...); err == nil {
		set(map[string]string{"board_vendor": b.Vendor, "board_product": b.Product, "board_serial": b.SerialNumber})
	}
	if c, err := ghw.Chassis(quiet()...); err == nil {
		set(map[string]string{"chassis_serial": c.SerialNumber, "asset_tag": c.AssetTag})
	}
}

// quiet keeps ghw from printing what it could not read, and from running
// other programs.
func quiet() []any {
	return []any{ghw.WithDisableWarnings(), ghw.WithDisableTools()}
}

// interfaces are the physical ones, from the kernel's view.
func interfaces() []map[string]any {
	out := []map[string]any{}
	all, err := net.Interfaces()
	if err != nil {
		return out
	}
	for _, i := range all {
		dir := "/sys/class/net/" + i.Name
		if _, err := os.Stat(dir + "/device"); err != nil || len(out) == maxNICs {
			continue
		}
		nic := map[string]any{"name": i.Name, "mac": i.HardwareAddr.String(), "mtu": i.MTU, "up": i.Flags&net.FlagRunning != 0}
		if target, err := os.Readlink(dir + "/device/driver"); err == nil {
			nic["driver"] = filepath.Base(target)
		}
		if speed := firstLine(dir + "/speed"); speed != "" && speed != "-1" {
			nic["speed_mbit"] = number(speed)
		}
		out = append(out, nic)
	}
	return out
}

func firstMAC(nics []map[string]any) any {
	if len(nics) == 0 {
		return nil
	}
	return nics[0]["mac"]
}

func disks() []map[string]any {
	out := []map[string]any{}
	info, err := ghw.Block(quiet()...)
	if err != nil {
		return out
	}
	for _, d := range info.Disks {
		if d.SizeBytes == 0 || strings.HasPrefix(d.Name, "loop") || strings.HasPrefix(d.Name, "ram") || len(out) == maxDisks {
			continue
		}
		out = append(out, map[string]any{
			"name": d.Name, "size_kib": d.SizeBytes / 1024, "type": d.DriveType.String(), "controller": d.StorageController.String(),
			"vendor": known(d.Vendor), "model": known(d.Model), "serial": known(d.SerialNumber), "removable": d.IsRemovable,
		})
	}
	return out
}

func known(s string) string {
	if s == "unknown" {
		return ""
	}
	return s
}

// gpus are the PCI display controllers. ghw would name them from the PCI
// database, which takes 20 MB of memory for a moment: more than the agent may
// use, so the numbers are given as they are.
func gpus() []map[string]any {
	out := []map[string]any{}
	dirs, _ := filepath.Glob("/sys/bus/pci/devices/*")
	slices.Sort(dirs)
	for _, dir := range dirs {
		class := firstLine(dir + "/class")
		if !strings.HasPrefix(class, "0x03") && !strings.HasPrefix(class, "0x1200") || len(out) == maxGPUs {
			continue
		}
		gpu := map[string]any{
			"address": filepath.Base(dir), "class": class,
			"vendor": firstLine(dir + "/vendor"), "device": firstLine(dir + "/device"),
		}
		if target, err := os.Readlink(dir + "/driver"); err == nil {
			gpu["driver"] = filepath.Base(target)
		}
		out = append(out, gpu)
	}
	return out
}

func count(pattern string) int {
	found, _ := filepath.Glob(pattern)
	return len(found)
}

func number(s string) int {
	n := 0
	for _, c := range s {
		if c < '0' || c > '9' || n > 1<<30 {
			return 0
		}
		n = n*10 + int(c-'0')
	}
	return n
}
