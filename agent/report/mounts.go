package report

import (
	"encoding/json"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// mountTable is what is mounted, read anew when the kernel says that it is
// another one.
type mountTable struct {
	file  procFile
	buf   []byte
	poll  [1]unix.PollFd
	known []mount
	wrote map[string]bool // mount points that were writable once
}

// mount is a local file system that has space to tell of.
type mount struct {
	point       string
	readOnly    bool
	name, about string // as JSON: the key of its entry with the colon, and the first fields of it
}

// look reads the table if it changed. poll(2) says so once; reading the file
// makes it quiet again.
func (m *mountTable) look() []mount {
	if m.file.path == "" {
		m.file.path, m.buf, m.wrote = "/proc/self/mounts", make([]byte, 4<<10), map[string]bool{}
	}
	if m.file.fd != 0 && m.known != nil {
		m.poll[0] = unix.PollFd{Fd: int32(m.file.fd), Events: unix.POLLPRI}
		if n, err := unix.Poll(m.poll[:], 0); err == nil && n == 0 {
			return m.known
		}
	}
	m.known = parseMounts(string(m.file.read(&m.buf)))
	for _, k := range m.known {
		if !k.readOnly {
			m.wrote[k.point] = true
		}
	}
	return m.known
}

// parseMounts picks the file systems that are on a device of the node, are its
// memory, or are its root. A network file system is not asked: a dead server
// must not hold the report up.
func parseMounts(text string) []mount {
	out := []mount{}
	seen := map[string]bool{}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 4 {
			continue
		}
		point := unescape(f[1])
		real := strings.HasPrefix(f[0], "/dev/") || f[2] == "zfs" || f[2] == "tmpfs" && (point == "/" || point == "/tmp")
		if point == "/" && !network(f[2]) {
			real = true
		}
		if !real || f[2] == "squashfs" || f[2] == "iso9660" || f[2] == "erofs" || f[2] == "devtmpfs" || seen[point] || len(out) == maxFilesystems {
			continue
		}
		seen[point] = true
		options := strings.Split(f[3], ",")
		out = append(out, newMount(point, f[0], f[2], options[0] == "ro"))
	}
	return out
}

func newMount(point, device, kind string, readOnly bool) mount {
	name, _ := json.Marshal(point) // texts always can be
	about, _ := json.Marshal(struct {
		Type   string `json:"type"`
		Device string `json:"device"`
	}{kind, device})
	return mount{point, readOnly, string(name) + ":", strings.TrimSuffix(string(about), "}")}
}

func network(kind string) bool {
	return strings.HasPrefix(kind, "nfs") || kind == "cifs" || kind == "9p" || kind == "ceph" || kind == "lustre" || strings.HasPrefix(kind, "fuse")
}

// unescape turns the kernel's octal escapes back, such as \040 for a space.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// space is how full a file system is, in KiB and inodes.
type space struct{ total, free, inodes, inodesFree uint64 }

// usage is the space of a mounted file system; false for one that is gone.
func (m *mount) usage() (space, bool) {
	var st unix.Statfs_t
	if unix.Statfs(m.point, &st) != nil {
		return space{}, false
	}
	block := uint64(st.Frsize)
	if block == 0 {
		block = uint64(st.Bsize)
	}
	return space{st.Blocks * block / 1024, st.Bavail * block / 1024, st.Files, st.Ffree}, true
}

// appendUsage writes the space on the mounted file systems, by mount point.
func (m *mountTable) appendUsage(to []byte) []byte {
	to = append(to, '{')
	begin := len(to)
	known := m.look()
	for i := range known {
		u, ok := known[i].usage()
		if !ok {
			continue
		}
		if len(to) > begin {
			to = append(to, ',')
		}
		to = append(append(to, known[i].name...), known[i].about...)
		to = strconv.AppendUint(append(to, `,"total_kib":`...), u.total, 10)
		to = strconv.AppendUint(append(to, `,"free_kib":`...), u.free, 10)
		to = strconv.AppendUint(append(to, `,"inodes":`...), u.inodes, 10)
		to = strconv.AppendUint(append(to, `,"inodes_free":`...), u.inodesFree, 10)
		if known[i].readOnly {
			to = append(to, `,"read_only":true`...)
		}
		to = append(to, '}')
	}
	return append(to, '}')
}
