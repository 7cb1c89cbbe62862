package report

import (
	"bytes"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/shirou/gopsutil/v3/host"
	"golang.org/x/sys/unix"

	"muster/shared/wire"
)

// Bounds on what is listed; a node with more is reported without the rest.
const (
	maxFilesystems = 64
	maxInterfaces  = 64
	maxUsers       = 64
	maxModules     = 512
)

// watcher looks at how the node is. What is read at each beat is read from open
// files; what changes seldom only when the kernel or a file's stamp says so.
type watcher struct {
	t   *table
	buf []byte

	uptime, load, memory, network procFile
	mounts                        mountTable
	modules                       uint64 // links of /sys/module
	users, release                stamp
	packages                      packageLists
}

func newWatcher(t *table) *watcher {
	return &watcher{
		t: t, buf: make([]byte, 8<<10),
		uptime: procFile{path: "/proc/uptime"}, load: procFile{path: "/proc/loadavg"},
		memory: procFile{path: "/proc/meminfo"}, network: procFile{path: "/proc/net/dev"},
	}
}

// statusParts are the built-in status plugins, and the keys of each.
func (w *watcher) statusParts() []part {
	return []part{
		{"load", []string{"load_avg"}, w.loads},
		{"memory", []string{"ram_free", "ram_available", "ram_cached", "swap_free", "swap_total"}, w.memories},
		{"system", []string{"os", "os_version", "hostname", "kernel"}, w.system},
		{"modules", []string{"modules"}, w.loaded},
		{"packages", []string{"packages"}, w.installed},
		{"filesystems", []string{"filesystems"}, w.filesystems},
		{"network", []string{"network"}, w.counters},
		{"users", []string{"users"}, w.loggedIn},
	}
}

// forget makes everything be looked at anew: other parts may be chosen.
func (w *watcher) forget() {
	w.modules, w.users, w.release, w.packages = 0, stamp{}, stamp{}, packageLists{}
}

// part is a built-in plugin.
type part struct {
	name    string
	keys    []string
	collect func()
}

// always is what no choice of plugins leaves out. With a clock that is known to
// be wrong the node's time is left out.
func (w *watcher) always(version string, wrong bool) {
	w.t.text("agent_version", version)
	if !w.t.has("boot_id") {
		w.t.text("boot_id", BootID())
	}
	if up, _ := digits(w.uptime.read(&w.buf)); up > 0 {
		w.t.uint("uptime", up)
	}
	if wrong {
		w.t.drop(wire.KeyTime)
		return
	}
	w.t.set(wire.KeyTime, strconv.AppendFloat(nil, float64(time.Now().UnixMilli())/1000, 'f', -1, 64))
}

// BootID is a UUID that the kernel makes at each boot.
func BootID() string { return firstLine("/proc/sys/kernel/random/boot_id") }

// loads copies the three numbers, as the kernel writes them.
func (w *watcher) loads() {
	f := bytes.Fields(w.load.read(&w.buf))
	if len(f) < 3 {
		return
	}
	w.t.set("load_avg", []byte("["+string(f[0])+","+string(f[1])+","+string(f[2])+"]"))
}

func (w *watcher) memories() {
	lines(w.memory.read(&w.buf), func(line []byte) {
		name, value, _ := bytes.Cut(line, []byte{':'})
		key := ""
		switch string(name) {
		case "MemFree":
			key = "ram_free"
		case "MemAvailable":
			key = "ram_available"
		case "Cached":
			key = "ram_cached"
		case "SwapFree":
			key = "swap_free"
		case "SwapTotal":
			key = "swap_total"
		default:
			return
		}
		n, _ := digits(value)
		w.t.uint(key, n)
	})
}

func (w *watcher) system() {
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		w.t.text("kernel", unix.ByteSliceToString(u.Release[:]))
		w.t.text("hostname", unix.ByteSliceToString(u.Nodename[:]))
	}
	if now := stampOf("/etc/os-release"); now != w.release || w.release == (stamp{}) {
		w.release = now
		release := osRelease()
		w.t.text("os", release["PRETTY_NAME"])
		w.t.text("os_version", release["VERSION_ID"])
	}
}

// loaded are the names of the kernel's modules. The kernel counts them in the
// links of their directory.
func (w *watcher) loaded() {
	var st unix.Stat_t
	if unix.Stat("/sys/module", &st) != nil {
		st.Nlink = 0
	}
	now := uint64(st.Nlink)
	if now == w.modules && now != 0 {
		return
	}
	w.modules = now
	names := []string{}
	eachLine("/proc/modules", func(line string) bool {
		name, _, _ := strings.Cut(line, " ")
		names = append(names, name)
		return len(names) < maxModules
	})
	w.t.put("modules", names)
}

func (w *watcher) installed() {
	if list, changed := w.packages.look("/"); changed && (len(list) > 0 || rpmStamp("/") == (stamp{})) {
		w.t.put("packages", list)
	}
}

func (w *watcher) filesystems() { w.t.put("filesystems", w.mounts.usage()) }

// counters are what the interfaces have moved since they came up.
func (w *watcher) counters() {
	out := append(w.buf[:0:0], '{')
	count := 0
	lines(w.network.read(&w.buf), func(line []byte) {
		name, values, ok := bytes.Cut(line, []byte{':'})
		name = bytes.TrimSpace(name)
		if !ok || string(name) == "lo" || count == maxInterfaces || bytes.ContainsAny(name, `"\`) {
			return
		}
		var n [16]uint64
		for i := range n {
			n[i], values = digits(values)
		}
		if count++; count > 1 {
			out = append(out, ',')
		}
		out = append(append(append(out, '"'), name...), `":{`...)
		for i, c := range []struct {
			key    string
			column int
		}{{"rx_bytes", 0}, {"tx_bytes", 8}, {"rx_packets", 1}, {"tx_packets", 9}, {"rx_errors", 2}, {"tx_errors", 10}, {"rx_dropped", 3}, {"tx_dropped", 11}} {
			if i > 0 {
				out = append(out, ',')
			}
			out = append(append(append(out, '"'), c.key...), `":`...)
			out = strconv.AppendUint(out, n[c.column], 10)
		}
		out = append(out, '}')
	})
	w.t.set("network", append(out, '}'))
}

// loggedIn is who is, from utmp where the system has one.
func (w *watcher) loggedIn() {
	now := stampOf("/run/utmp")
	if now == w.users && w.t.has("users") {
		return
	}
	w.users = now
	out := []any{}
	if all, err := host.Users(); err == nil {
		for _, u := range all[:min(len(all), maxUsers)] {
			out = append(out, map[string]any{"user": u.User, "terminal": u.Terminal, "from": u.Host, "since": u.Started})
		}
	}
	w.t.put("users", out)
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
