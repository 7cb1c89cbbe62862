package report

import (
	"bufio"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/shirou/gopsutil/v3/disk"
	"github.com/shirou/gopsutil/v3/host"
	"github.com/shirou/gopsutil/v3/load"
	"github.com/shirou/gopsutil/v3/mem"
	gonet "github.com/shirou/gopsutil/v3/net"
)

// Bounds on what is listed; a node with more is reported without the rest.
const (
	maxFilesystems = 64
	maxInterfaces  = 64
	maxUsers       = 64
	maxModules     = 512
)

// Status is how the node is at this moment. What cannot be found out is left
// out.
func Status(version string) map[string]any {
	s := map[string]any{
		"agent_version": version,
		"time":          float64(time.Now().UnixMilli()) / 1000,
		"kernel":        firstLine("/proc/sys/kernel/osrelease"),
		"boot_id":       BootID(),
	}
	if up, err := host.Uptime(); err == nil {
		s["uptime"] = up
	}
	if l, err := load.Avg(); err == nil {
		s["load_avg"] = []float64{l.Load1, l.Load5, l.Load15}
	}
	if m, err := mem.VirtualMemory(); err == nil {
		s["ram_free"], s["ram_available"] = m.Free/1024, m.Available/1024
		s["ram_cached"], s["swap_free"], s["swap_total"] = m.Cached/1024, m.SwapFree/1024, m.SwapTotal/1024
	}
	release := osRelease()
	s["os"], s["os_version"] = release["PRETTY_NAME"], release["VERSION_ID"]
	s["hostname"], _ = os.Hostname()
	s["modules"] = modules()
	s["filesystems"] = filesystems()
	s["network"] = counters()
	s["users"] = users()
	return s
}

// BootID is a UUID that the kernel makes at each boot.
func BootID() string { return firstLine("/proc/sys/kernel/random/boot_id") }

// modules are the names of the loaded kernel modules.
func modules() []string {
	names := []string{}
	eachLine("/proc/modules", func(line string) bool {
		name, _, _ := strings.Cut(line, " ")
		names = append(names, name)
		return len(names) < maxModules
	})
	return names
}

// filesystems are the mounted real ones and the root, by mount point. A network
// file system is not asked: a dead server must not hold the report up.
func filesystems() map[string]any {
	out := map[string]any{}
	parts, err := disk.Partitions(false)
	if err != nil {
		return out
	}
	parts = append(parts, disk.PartitionStat{Mountpoint: "/"})
	for _, p := range parts {
		if _, ok := out[p.Mountpoint]; ok || p.Fstype == "squashfs" || len(out) == maxFilesystems {
			continue
		}
		if u, err := disk.Usage(p.Mountpoint); err == nil {
			out[p.Mountpoint] = map[string]any{
				"type": u.Fstype, "device": p.Device,
				"total_kib": u.Total / 1024, "free_kib": u.Free / 1024, "inodes_free": u.InodesFree,
			}
		}
	}
	return out
}

// counters are what the interfaces have moved since they came up.
func counters() map[string]any {
	out := map[string]any{}
	all, err := gonet.IOCounters(true)
	if err != nil {
		return out
	}
	for _, c := range all {
		if c.Name == "lo" || len(out) == maxInterfaces {
			continue
		}
		out[c.Name] = map[string]any{
			"rx_bytes": c.BytesRecv, "tx_bytes": c.BytesSent, "rx_packets": c.PacketsRecv, "tx_packets": c.PacketsSent,
			"rx_errors": c.Errin, "tx_errors": c.Errout, "rx_dropped": c.Dropin, "tx_dropped": c.Dropout,
		}
	}
	return out
}

// users are who is logged in, from utmp where the system has one.
func users() []any {
	out := []any{}
	all, err := host.Users()
	if err != nil {
		return out
	}
	for _, u := range all[:min(len(all), maxUsers)] {
		out = append(out, map[string]any{"user": u.User, "terminal": u.Terminal, "from": u.Host, "since": u.Started})
	}
	return out
}

// osRelease is /etc/os-release.
func osRelease() map[string]string {
	out := map[string]string{}
	eachLine("/etc/os-release", func(line string) bool {
		if key, value, ok := strings.Cut(line, "="); ok {
			out[key] = strings.Trim(value, `"'`)
		}
		return len(out) < 64
	})
	if out["PRETTY_NAME"] == "" {
		out["PRETTY_NAME"] = runtime.GOOS
	}
	return out
}

func firstLine(file string) string {
	line := ""
	eachLine(file, func(s string) bool { line = strings.TrimSpace(s); return false })
	return line
}

// eachLine calls fn for the lines of a file until it says false. A file that
// is not there has none.
func eachLine(file string, fn func(string) bool) {
	f, err := os.Open(file)
	if err != nil {
		return
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if !fn(s.Text()) {
			return
		}
	}
}
