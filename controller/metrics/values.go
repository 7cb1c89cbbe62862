package metrics

import (
	"cmp"
	"encoding/json"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

// reading is one number of a node.
type reading struct {
	name   string // of the metric, without muster_node_
	label  string // what it is of, "" for the node itself
	of     string // the value of the label
	value  float64
	counts bool // it only grows
}

// read gives the numbers of a node, as far as it reported them: those that are
// known, and any other that a plugin reports, as value{key}. What is no number
// is passed over: nodes may report anything.
func read(n Node) []reading {
	out := make([]reading, 0, 48)
	add := func(name string, raw json.RawMessage, scale float64) {
		if v, ok := number(raw); ok {
			out = append(out, reading{name: name, value: v * scale})
		}
	}
	for _, key := range slices.Sorted(maps.Keys(n.Status)) {
		raw := n.Status[key]
		switch key {
		case "load_avg":
			var load []float64
			if json.Unmarshal(raw, &load) == nil && len(load) == 3 {
				out = append(out, reading{name: "load1", value: load[0]}, reading{name: "load5", value: load[1]}, reading{name: "load15", value: load[2]})
			}
		case "uptime":
			add("uptime_seconds", raw, 1)
		case "time":
			add("time_seconds", raw, 1)
		case "ram_free", "ram_available", "ram_cached":
			add("memory_"+strings.TrimPrefix(key, "ram_")+"_bytes", raw, 1024)
		case "swap_free", "swap_total":
			add(key+"_bytes", raw, 1024)
		case "health":
			var text string
			if json.Unmarshal(raw, &text) == nil && text != "" {
				out = append(out, reading{name: "healthy", value: truth(text == "healthy")})
			}
		case "filesystems":
			out = filesystems(out, raw)
		case "network":
			out = network(out, raw)
		default:
			if v, ok := number(raw); ok {
				out = append(out, reading{name: "value", label: "key", of: key, value: v})
			}
		}
	}
	var hardware struct {
		RAM   json.RawMessage `json:"ram_total"`
		Count json.RawMessage `json:"cpu_count"`
	}
	if n.Hardware != nil && json.Unmarshal(n.Hardware, &hardware) == nil {
		add("memory_total_bytes", hardware.RAM, 1024)
		add("cpus", hardware.Count, 1)
	}
	return out
}

// number reads a number or a truth value.
func number(raw json.RawMessage) (float64, bool) {
	switch string(raw) {
	case "true", "false":
		return truth(string(raw) == "true"), true
	}
	if len(raw) == 0 || raw[0] != '-' && (raw[0] < '0' || raw[0] > '9') {
		return 0, false
	}
	v, err := strconv.ParseFloat(string(raw), 64)
	return v, err == nil && !math.IsInf(v, 0)
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// The most that is told of one node: what a node can invent makes time series.
const maxParts = 64

func filesystems(out []reading, raw json.RawMessage) []reading {
	all := map[string]struct {
		Total      *float64 `json:"total_kib"`
		Free       *float64 `json:"free_kib"`
		Inodes     *float64 `json:"inodes"`
		InodesFree *float64 `json:"inodes_free"`
		ReadOnly   bool     `json:"read_only"`
	}{}
	if json.Unmarshal(raw, &all) != nil {
		return out
	}
	for _, point := range sortedKeys(all) {
		f := all[point]
		add := func(name string, v *float64, scale float64) {
			if v != nil {
				out = append(out, reading{name: "filesystem_" + name, label: "mountpoint", of: point, value: *v * scale})
			}
		}
		readOnly := truth(f.ReadOnly)
		add("size_bytes", f.Total, 1024)
		add("free_bytes", f.Free, 1024)
		add("inodes", f.Inodes, 1)
		add("inodes_free", f.InodesFree, 1)
		add("read_only", &readOnly, 1)
	}
	return out
}

func network(out []reading, raw json.RawMessage) []reading {
	all := map[string]map[string]json.RawMessage{}
	if json.Unmarshal(raw, &all) != nil {
		return out
	}
	for _, device := range sortedKeys(all) {
		for _, c := range []struct{ key, name string }{
			{"rx_bytes", "receive_bytes_total"}, {"tx_bytes", "transmit_bytes_total"}, {"rx_packets", "receive_packets_total"}, {"tx_packets", "transmit_packets_total"},
			{"rx_errors", "receive_errors_total"}, {"tx_errors", "transmit_errors_total"}, {"rx_dropped", "receive_drop_total"}, {"tx_dropped", "transmit_drop_total"},
		} {
			if v, ok := number(all[device][c.key]); ok {
				out = append(out, reading{"network_" + c.name, "device", device, v, true})
			}
		}
	}
	return out
}

// sortedKeys gives the first keys of what a node reported.
func sortedKeys[V any](m map[string]V) []string {
	keys := slices.SortedFunc(maps.Keys(m), cmp.Compare[string])
	return keys[:min(len(keys), maxParts)]
}
