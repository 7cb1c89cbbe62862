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
// files into one buffer; what changes seldom only when the kernel or a file's
// stamp says so.
type watcher struct {
	t       *table
	version string // of the agent
	parts   []part
	buf     []byte // for files
	out     []byte // for values
	shown   bool   // what never changes

	load, memory, network procFile
	mounts                mountTable
	names                 unix.Utsname
	modules               uint64 // links of /sys/module
	users, release        stamp
	packages              packageLists
}

// part is a built-in plugin.
type part struct {
	name    string
	keys    []string
	collect func()
}

func newWatcher(t *table, version string) *watcher {
	w := &watcher{
		t: t, version: version, buf: make([]byte, 4<<10),
		load: procFile{path: "/proc/loadavg"}, memory: procFile{path: "/proc/meminfo"}, network: procFile{path: "/proc/net/dev"},
	}
	w.parts = []part{
		{"load", []string{"load_avg"}, w.loads},
		{"memory", []string{"ram_free", "ram_available", "ram_cached", "swap_free", "swap_total"}, w.memories},
		{"system", []string{"os", "os_version", "hostname", "kernel"}, w.system},
		{"modules", []string{"modules"}, w.loaded},
		{"packages", []string{"packages"}, w.installed},
		{"filesystems", []string{"filesystems"}, w.filesystems},
		{"network", []string{"network"}, w.counters},
		{"users", []string{"users"}, w.loggedIn},
	}
	return w
}

// close closes what is kept open.
func (w *watcher) close() {
	for _, f := range []*procFile{&w.load, &w.memory, &w.network, &w.mounts.file} {
		f.close()
	}
}

// forget makes everything be looked at anew: other parts may be chosen.
func (w *watcher) forget() {
	w.names, w.modules, w.users, w.release, w.packages = unix.Utsname{}, 0, stamp{}, stamp{}, packageLists{}
}

// always is what no choice of plugins leaves out. With a clock that is known to
// be wrong the node's time is left out.
func (w *watcher) always(wrong bool) {
	if !w.shown {
		w.shown = w.t.put("agent_version", w.version) && w.t.put("boot_id", BootID())
	}
	var up unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &up) == nil {
		w.t.uint("uptime", uint64(up.Sec))
	}
	if wrong {
		w.t.drop(wire.KeyTime)
		return
	}
	w.out = strconv.AppendFloat(w.out[:0], float64(time.Now().UnixMilli())/1000, 'f', -1, 64)
	w.t.set(wire.KeyTime, w.out)
}

// BootID is a UUID that the kernel makes at each boot.
func BootID() string { return firstLine("/proc/sys/kernel/random/boot_id") }

// loads copies the three numbers, as the kernel writes them.
func (w *watcher) loads() {
	rest := w.load.read(&w.buf)
	w.out = append(w.out[:0], '[')
	for i := range 3 {
		number, after, ok := bytes.Cut(rest, []byte{' '})
		if !ok || len(number) == 0 {
			return
		}
		if i > 0 {
			w.out = append(w.out, ',')
		}
		w.out, rest = append(w.out, number...), after
	}
	w.t.set("load_avg", append(w.out, ']'))
}

func (w *watcher) memories() {
	for line := range bytes.Lines(w.memory.read(&w.buf)) {
		name, value, _ := bytes.Cut(line, []byte{':'})
		key := ""
		switch string(name) {
		case "MemFree":
			key = "ram_free"
		case "MemAvailable":
			key = "ram_available"
		case "Cached":
			key = "ram_cached"
		case "SwapTotal":
			key = "swap_total"
		case "SwapFree":
			key = "swap_free"
		default:
			continue
		}
		n, _ := digits(value)
		w.t.uint(key, n)
		if key == "swap_free" {
			return // the last one
		}
	}
}

func (w *watcher) system() {
	var now unix.Utsname
	if unix.Uname(&now) == nil && now != w.names {
		w.names = now
		w.t.put("kernel", unix.ByteSliceToString(now.Release[:]))
		w.t.put("hostname", unix.ByteSliceToString(now.Nodename[:]))
	}
	if now := stampOf("/etc/os-release"); now != w.release || w.release == (stamp{}) {
		w.release = now
		release := osRelease()
		w.t.put("os", release["PRETTY_NAME"])
		w.t.put("os_version", release["VERSION_ID"])
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

func (w *watcher) filesystems() {
	w.out = w.mounts.appendUsage(w.out[:0])
	w.t.set("filesystems", w.out)
}

// netColumn is a column of /proc/net/dev and what it is called here.
type netColumn struct {
	name string
	at   int
}

func netColumns() [8]netColumn {
	return [...]netColumn{{"rx_bytes", 0}, {"tx_bytes", 8}, {"rx_packets", 1}, {"tx_packets", 9}, {"rx_errors", 2}, {"tx_errors", 10}, {"rx_dropped", 3}, {"tx_dropped", 11}}
}

// odd is what JSON cannot have as it is, nor any sane name.
func odd(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' }

// counters are what the interfaces have moved since they came up.
func (w *watcher) counters() {
	w.out = append(w.out[:0], '{')
	count := 0
	for line := range bytes.Lines(w.network.read(&w.buf)) {
		name, values, ok := bytes.Cut(line, []byte{':'})
		name = bytes.TrimSpace(name)
		if !ok || string(name) == "lo" || count == maxInterfaces || bytes.ContainsFunc(name, odd) {
			continue
		}
		var n [12]uint64
		for i := range n {
			n[i], values = digits(values)
		}
		if count++; count > 1 {
			w.out = append(w.out, ',')
		}
		w.out = append(append(append(w.out, '"'), name...), `":{`...)
		for i, c := range netColumns() {
			if i > 0 {
				w.out = append(w.out, ',')
			}
			w.out = append(append(append(w.out, '"'), c.name...), `":`...)
			w.out = strconv.AppendUint(w.out, n[c.at], 10)
		}
		w.out = append(w.out, '}')
	}
	w.out = append(w.out, '}')
	w.t.set("network", w.out)
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
