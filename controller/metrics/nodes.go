package metrics

import (
	"bufio"
	"encoding/json"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"muster/shared/fault"
)

// prefix is of the names of the nodes' metrics.
const prefix = "muster_node_"

func (m *Metrics) getNodes(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	return m.writeNodes(w)
}

// writeNodes writes the text format of Prometheus, where all samples of a
// metric follow its type. 10,000 nodes have half a million of them, too many
// for a registry that keeps each as an object.
func (m *Metrics) writeNodes(to io.Writer) error {
	families := map[string]*strings.Builder{}
	family := func(name, kind string) *strings.Builder {
		b := families[name]
		if b == nil {
			b = &strings.Builder{}
			b.WriteString("# TYPE " + prefix + name + " " + kind + "\n")
			families[name] = b
		}
		return b
	}
	now := m.opt.Now()
	for _, n := range m.opt.Nodes() {
		node := escape(n.Name)
		sample := func(r reading) {
			kind := "gauge"
			if r.counts {
				kind = "counter"
			}
			b := family(r.name, kind)
			b.WriteString(prefix + r.name + `{node="` + node)
			if r.label != "" {
				b.WriteString(`",` + r.label + `="` + escape(r.of))
			}
			b.WriteString(`"} ` + strconv.FormatFloat(r.value, 'g', -1, 64) + "\n")
		}
		for _, state := range nodeStates() {
			sample(reading{name: "state", label: "state", of: state, value: truth(n.State == state)})
		}
		sample(reading{name: "linked", value: truth(n.Linked)})
		if !n.Since.IsZero() {
			sample(reading{name: "state_since_seconds", value: float64(n.Since.UnixMilli()) / 1000})
		}
		if !n.Reported.IsZero() {
			sample(reading{name: "report_age_seconds", value: now.Sub(n.Reported).Seconds()})
		}
		if n.State != "up" {
			continue // what it last reported is no longer so
		}
		for _, r := range read(n) {
			sample(r)
		}
	}
	b := bufio.NewWriterSize(to, 64<<10)
	for _, name := range slices.Sorted(maps.Keys(families)) {
		b.WriteString(families[name].String())
	}
	return b.Flush()
}

// escape makes a text the value of a label.
func escape(s string) string {
	if !strings.ContainsAny(s, "\\\"\n") {
		return strings.ToValidUTF8(s, "?")
	}
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(strings.ToValidUTF8(s, "?"))
}

// target is a group of Prometheus' http_sd.
type target struct {
	Targets []string          `json:"targets"`
	Labels  map[string]string `json:"labels"`
}

// usualPort is that of the node exporter.
const usualPort = 9100

func (m *Metrics) getTargets(w http.ResponseWriter, r *http.Request) error {
	port := usualPort
	if text := r.URL.Query().Get("port"); text != "" {
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil || n == 0 {
			return fault.Invalidf("port: %.20q is no port.", text)
		}
		port = int(n)
	}
	out := []target{}
	for _, n := range m.opt.Nodes() {
		if n.IP == "" {
			continue
		}
		labels := map[string]string{"node": n.Name, "__meta_muster_state": n.State, "__meta_muster_uid": n.UID}
		if c := m.opt.Cluster(); c != "" {
			labels["cluster"] = c
		}
		out = append(out, target{[]string{net.JoinHostPort(n.IP, strconv.Itoa(port))}, labels})
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(out)
}
