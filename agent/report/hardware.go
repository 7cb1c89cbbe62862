package report

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/jaypipes/ghw"
	"github.com/shirou/gopsutil/v3/cpu"
	"github.com/shirou/gopsutil/v3/host"
	"github.com/shirou/gopsutil/v3/mem"

	"muster/agent/program"
)

const (
	maxDisks = 256
	maxNICs  = 64
)

// inventory looks at what the node is. The mac is that of the interface it
// booted from; when empty the first physical interface's is given. What cannot
// be found out is left out.
type inventory struct {
	t    *table
	root string
	mac  string
	run  program.Runner // for nvidia-smi; nil not to run it
	seen string         // the devices at the last look
}

// look takes the parts that are chosen. What takes long is looked at only when
// there are other devices than before.
func (i *inventory) look(ctx context.Context, takes func(part string) bool) {
	pace := newPace(ctx)
	devices := i.devices(pace)
	same := devices == i.seen
	i.seen = devices
	for _, p := range i.parts(ctx, pace) {
		pace.step()
		switch {
		case !takes(p.name):
			i.t.drop(p.keys...)
		case !same || p.name == "nics" || p.name == "infiniband" || !i.t.has(p.keys[0]):
			p.collect()
		}
	}
}

// devices names what is there, to notice what is new.
func (i *inventory) devices(p *pace) string {
	var names strings.Builder
	for _, dir := range []string{"sys/block", "sys/bus/pci/devices", "sys/devices/system/cpu", "sys/devices/system/node"} {
		p.step()
		d, err := os.Open(filepath.Join(i.root, dir))
		if err != nil {
			continue
		}
		list, _ := d.Readdirnames(4096)
		d.Close()
		slices.Sort(list)
		names.WriteString(strings.Join(list, " ") + "\n")
	}
	return names.String()
}

// parts are the built-in hardware plugins, and the keys of each.
func (i *inventory) parts(ctx context.Context, p *pace) []part {
	return []part{
		{"cpu", []string{"cpu_arch", "cpu_count", "cpu_cores", "cpu_model", "cpu_vendor", "cpu_sockets", "numa_nodes"}, i.with(processors)},
		{"memory", []string{"ram_total"}, i.with(memory)},
		{"machine", []string{"uefi", "vendor", "product", "product_version", "serial", "system_uuid", "bios_vendor", "bios_version", "bios_date",
			"board_vendor", "board_product", "board_serial", "chassis_serial", "asset_tag"}, i.with(machine)},
		{"nics", []string{"nics", "mac"}, func() {
			nics := interfaces(p)
			i.t.put("nics", nics)
			mac := i.mac
			if mac == "" && len(nics) > 0 {
				mac, _ = nics[0]["mac"].(string)
			}
			i.t.put("mac", mac)
		}},
		{"disks", []string{"disks"}, func() { i.t.put("disks", disks()) }},
		{"gpus", []string{"gpus"}, func() { i.t.put("gpus", describe(ctx, i.run, gpus(i.root, p))) }},
		{"infiniband", []string{"infiniband"}, func() { i.t.put("infiniband", ports(i.root, p)) }},
	}
}

// with makes a collector of a function that fills a map.
func (i *inventory) with(fill func(map[string]any)) func() {
	return func() {
		h := map[string]any{}
		fill(h)
		for key, value := range h {
			i.t.put(key, value)
		}
	}
}

func memory(h map[string]any) {
	if m, err := mem.VirtualMemory(); err == nil {
		h["ram_total"] = m.Total / 1024
	}
}

func processors(h map[string]any) {
	if arch, err := host.KernelArch(); err == nil {
		h["cpu_arch"] = arch
	}
	h["numa_nodes"] = count("/sys/devices/system/node/node[0-9]*")
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
	h["uefi"] = count("/sys/firmware/efi") == 1
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
func interfaces(p *pace) []map[string]any {
	out := []map[string]any{}
	all, err := net.Interfaces()
	if err != nil {
		return out
	}
	for _, i := range all {
		p.step()
		dir := "/sys/class/net/" + i.Name
		if _, err := os.Stat(dir + "/device"); err != nil || len(out) == maxNICs {
			continue
		}
		nic := map[string]any{"name": i.Name, "mac": i.HardwareAddr.String(), "mtu": i.MTU, "up": i.Flags&net.FlagRunning != 0}
		if target, err := os.Readlink(dir + "/device/driver"); err == nil {
			nic["driver"] = filepath.Base(target)
		}
		if speed := firstLine(dir + "/speed"); speed != "" && speed != "-1" {
			nic["speed_mbit"], _ = digits([]byte(speed))
		}
		out = append(out, nic)
	}
	return out
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

func count(pattern string) int {
	found, _ := filepath.Glob(pattern)
	return len(found)
}
