package monitoring

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"muster/controller/metrics"
)

// exported are the metrics of a node that reports everything, and of its head.
func exported(t *testing.T) string {
	t.Helper()
	m := metrics.New(metrics.Options{
		Nodes: func() []metrics.Node {
			return []metrics.Node{{
				Name: "n0", State: "up", Since: time.Now(), Reported: time.Now(), Hardware: json.RawMessage(`{"ram_total":1,"cpu_count":1}`),
				Status: map[string]json.RawMessage{
					"load_avg": json.RawMessage(`[1,1,1]`), "ram_available": json.RawMessage(`1`), "health": json.RawMessage(`"healthy"`),
					"filesystems": json.RawMessage(`{"/":{"total_kib":1,"free_kib":1}}`), "network": json.RawMessage(`{"e":{"rx_bytes":1,"tx_bytes":1,"rx_errors":1}}`),
				},
			}}
		},
		Counts: func() (uint64, uint64) { return 1, 1 }, Now: time.Now,
	})
	m.Booted(map[string]float64{"image": 1}, 1)
	text := ""
	for _, path := range []string{metrics.Root, metrics.Root + "/nodes"} {
		w := httptest.NewRecorder()
		m.Open().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		text += w.Body.String()
	}
	return text
}

func TestMetricsExist(t *testing.T) {
	text := exported(t)
	for _, file := range []string{"rules.yml", "dashboard.json", "rules_test.yml"} {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		names := regexp.MustCompile(`\bmuster_[a-z0-9_]+`).FindAllString(string(raw), -1)
		if len(names) < 5 {
			t.Errorf("%s names only %v", file, names)
		}
		for _, name := range names {
			if !strings.Contains(text, "\n"+name+"{") && !strings.Contains(text, "\n"+name+" ") {
				t.Errorf("%s: there is no metric %s", file, name)
			}
		}
	}
}

func TestFilesParse(t *testing.T) {
	for _, file := range []string{"rules.yml", "rules_test.yml", "prometheus.yml"} {
		raw, err := os.ReadFile(file)
		if err == nil {
			err = yaml.Unmarshal(raw, new(map[string]any))
		}
		if err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
	raw, err := os.ReadFile("dashboard.json")
	if err == nil {
		err = json.Unmarshal(raw, new(map[string]any))
	}
	if err != nil {
		t.Error(err)
	}
}

// TestRules has Prometheus' own program judge the rules, and fire them.
func TestRules(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Fatal("promtool, which Debian's package prometheus has, is not installed: scripts/deps test")
	}
	for _, args := range [][]string{{"check", "rules", "rules.yml"}, {"test", "rules", "rules_test.yml"}, {"check", "config", "--syntax-only", "prometheus.yml"}} {
		if out, err := exec.Command(promtool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}
