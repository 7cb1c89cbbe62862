package report

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const maxPorts = 64

// port is one of an InfiniBand (or RoCE, or Omni-Path) adapter.
type port struct {
	Device    string  `json:"device"`
	Port      string  `json:"port"`
	State     string  `json:"state"` // such as ACTIVE, DOWN
	Physical  string  `json:"physical"`
	Gbit      float64 `json:"rate_gbit,omitempty"`
	LinkLayer string  `json:"link_layer,omitempty"`
	LID       string  `json:"lid,omitempty"`
	GUID      string  `json:"guid,omitempty"`
	Board     string  `json:"board,omitempty"`
	Firmware  string  `json:"firmware,omitempty"`
}

func (p port) name() string { return p.Device + "/" + p.Port }

// ports are those below root.
func ports(root string, p *pace) []port {
	out := []port{}
	dirs, _ := filepath.Glob(filepath.Join(root, "sys/class/infiniband/*/ports/*"))
	slices.Sort(dirs)
	for _, dir := range dirs[:min(len(dirs), maxPorts)] {
		p.step()
		device := filepath.Dir(filepath.Dir(dir))
		rate, _, _ := strings.Cut(firstLine(dir+"/rate"), " ") // "100 Gb/sec (4X EDR)"
		gbit, _ := strconv.ParseFloat(rate, 64)
		if !(gbit >= 0 && gbit < 1e6) {
			gbit = 0
		}
		out = append(out, port{
			Device: filepath.Base(device), Port: filepath.Base(dir), Gbit: gbit,
			State: meaning(firstLine(dir + "/state")), Physical: meaning(firstLine(dir + "/phys_state")),
			LinkLayer: firstLine(dir + "/link_layer"), LID: firstLine(dir + "/lid"), GUID: firstLine(device + "/node_guid"),
			Board: firstLine(device + "/board_id"), Firmware: firstLine(device + "/fw_ver"),
		})
	}
	return out
}

// meaning is the word of "4: ACTIVE".
func meaning(s string) string {
	if _, word, ok := strings.Cut(s, ": "); ok {
		return word
	}
	return s
}

// errorCounters are those that stay still on a good cable. What a port drops
// because it was told to is in none of them.
func errorCounters() []string {
	return []string{"symbol_error", "link_error_recovery", "link_downed", "port_rcv_errors", "local_link_integrity_errors", "excessive_buffer_overrun_errors"}
}

// portErrors sums the error counters of each port.
func portErrors(root string, p *pace) map[string]uint64 {
	out := map[string]uint64{}
	for _, one := range ports(root, p) {
		dir := filepath.Join(root, "sys/class/infiniband", one.Device, "ports", one.Port, "counters")
		if _, err := os.Stat(dir); err != nil {
			continue
		}
		p.step()
		var n uint64
		for _, counter := range errorCounters() {
			value, _ := digits([]byte(firstLine(filepath.Join(dir, counter))))
			n += value
		}
		out[one.name()] = n
	}
	return out
}
