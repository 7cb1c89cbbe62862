package metrics_test

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"muster/controller/api"
	"muster/controller/api/apitest"
	"muster/controller/metrics"
)

var now = time.Unix(1_900_000_000, 0)

func nodes() []metrics.Node {
	return []metrics.Node{
		{
			UID: "u0", Name: "n0", IP: "10.0.0.1", State: "up", Since: now.Add(-time.Hour), Linked: true, Reported: now.Add(-3 * time.Second),
			Hardware: json.RawMessage(`{"ram_total":2048,"cpu_count":"many"}`),
			Status: map[string]json.RawMessage{
				"load_avg": json.RawMessage(`[0.5,1,2]`), "ram_free": json.RawMessage(`1024`), "health": json.RawMessage(`"unhealthy; disk"`), "uptime": json.RawMessage(`77`),
				"filesystems": json.RawMessage(`{"/a \"b\"\n\\":{"total_kib":10,"free_kib":4}}`), "network": json.RawMessage(`{"eth0":{"rx_bytes":5,"tx_bytes":"x"}}`),
				"temperature": json.RawMessage(`41.5`), "huge": json.RawMessage(`1e999`), "text": json.RawMessage(`"x"`), "list": json.RawMessage(`[1]`),
			},
		},
		{UID: "u1", Name: "n1", State: "down", Status: map[string]json.RawMessage{"uptime": json.RawMessage(`5`)}},
	}
}

func newMetrics() *metrics.Metrics {
	return metrics.New(metrics.Options{
		Nodes: nodes, Counts: func() (uint64, uint64) { return 7, 2 }, Cluster: func() string { return "lab" }, Version: "test", Now: func() time.Time { return now },
	})
}

// TestScrape reads the metrics as Prometheus does.
func TestScrape(t *testing.T) {
	m := newMetrics()
	m.Booted(map[string]float64{"image": 3}, 12)
	apitest.Start(t, apitest.Options{Routes: func(*apitest.Head) [][]api.Route { return [][]api.Route{m.Routes()} }})
	open := httptest.NewServer(m.Open())
	defer open.Close()
	get := func(path string) string {
		resp, err := http.Get(open.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		raw, _ := io.ReadAll(resp.Body)
		return string(raw)
	}
	for path, want := range map[string][]string{
		"/metrics": {`muster_nodes{state="up"} 1`, `muster_nodes{state="failed"} 0`, "muster_links 1", "muster_reports_total 7", "muster_reports_refused_total 2",
			"muster_boots_total 1", `muster_boot_step_seconds_bucket{step="image",le="5"} 1`, `muster_boot_step_seconds_sum{step="total"} 12`, "go_goroutines ", "process_resident_memory_bytes "},
		"/metrics/nodes": {`muster_node_state{node="n0",state="up"} 1`, `muster_node_state{node="n1",state="down"} 1`, `muster_node_load15{node="n0"} 2`, `muster_node_memory_free_bytes{node="n0"} 1.048576e+06`,
			`muster_node_memory_total_bytes{node="n0"} 2.097152e+06`, `muster_node_healthy{node="n0"} 0`, `muster_node_filesystem_free_bytes{node="n0",mountpoint="/a \"b\"\n\\"} 4096`,
			`muster_node_network_receive_bytes_total{node="n0",device="eth0"} 5`, `muster_node_value{node="n0",key="temperature"} 41.5`, `muster_node_report_age_seconds{node="n0"} 3`, `muster_node_linked{node="n1"} 0`},
	} {
		text := get(path)
		for _, line := range want {
			if !strings.Contains(text, line) {
				t.Errorf("%s has no %s", path, line)
			}
		}
		parser := expfmt.NewTextParser(model.UTF8Validation)
		if _, err := parser.TextToMetricFamilies(strings.NewReader(text)); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		for _, no := range []string{"huge", `key="text"`, "muster_node_network_transmit_bytes", "muster_node_cpus", `uptime_seconds{node="n1"}`} {
			if strings.Contains(text, no) {
				t.Errorf("%s has %s", path, no)
			}
		}
		promtool(t, "check metrics", text)
	}
	var targets []struct {
		Targets []string
		Labels  map[string]string
	}
	if err := json.Unmarshal([]byte(get("/metrics/targets?port=9300")), &targets); err != nil || len(targets) != 1 || targets[0].Targets[0] != "10.0.0.1:9300" ||
		targets[0].Labels["node"] != "n0" || targets[0].Labels["cluster"] != "lab" || targets[0].Labels["__meta_muster_state"] != "up" {
		t.Errorf("targets %v, %v", targets, err)
	}
	if text := get("/metrics/targets?port=0"); !strings.Contains(text, "no port") {
		t.Errorf("port 0: %s", text)
	}
}

// promtool has Prometheus' own program check a text: it also minds how metrics
// are called.
func promtool(t *testing.T, verb, text string) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		t.Fatal("promtool, which Debian's package prometheus has, is not installed: scripts/deps test")
	}
	cmd := exec.Command(path, strings.Fields(verb)...)
	cmd.Stdin = strings.NewReader(text)
	out, err := cmd.CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "muster_") && !strings.Contains(line, "no help text") {
			t.Errorf("promtool: %s", line)
		}
	}
	if err != nil && !strings.Contains(string(out), "no help text") {
		t.Errorf("promtool: %v: %s", err, out)
	}
}

func TestInflux(t *testing.T) {
	got := make(chan string, 10)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			t.Error(err)
			return
		}
		raw, _ := io.ReadAll(z)
		got <- r.Header.Get("Authorization") + "\n" + string(raw)
		w.WriteHeader(http.StatusNoContent)
	}))
	defer server.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	i := &metrics.Influx{
		Metrics: newMetrics(), URL: server.URL + "/api/v2/write?org=o&bucket=b", Token: func() string { return "secret" }, Every: 20 * time.Millisecond,
		Client: server.Client(), Log: slog.New(slog.DiscardHandler),
	}
	go func() { done <- i.Run(ctx) }()
	text := apitest.Receive(t, got)
	cancel()
	if err := apitest.Receive(t, done); err != nil {
		t.Error(err)
	}
	want := `Token secret
muster_node,node=n0 state="up",up=true,healthy=0,load1=0.5,load5=1,load15=2,memory_free_bytes=1.048576e+06,uptime_seconds=77,memory_total_bytes=2.097152e+06 1900000000000000000
muster_node,node=n0,mountpoint=/a\ "b"__ filesystem_size_bytes=10240,filesystem_free_bytes=4096,filesystem_read_only=0 1900000000000000000
muster_node,node=n0,device=eth0 network_receive_bytes_total=5 1900000000000000000
muster_node,node=n0,key=temperature value=41.5 1900000000000000000
muster_node,node=n1 state="down",up=false 1900000000000000000
`
	if text != want {
		t.Errorf("got\n%s\nwant\n%s", text, want)
	}
}
