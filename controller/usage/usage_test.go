package usage_test

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"muster/controller/api"
	"muster/controller/api/apitest"
	"muster/controller/usage"
)

var now = time.Date(2030, 1, 31, 12, 0, 0, 0, time.UTC)

func start(t *testing.T, days func(from, to time.Time) []usage.Day) *apitest.Head {
	return apitest.Start(t, apitest.Options{Routes: func(h *apitest.Head) [][]api.Route {
		return [][]api.Route{(&usage.Usage{Objects: h.Registry, Days: days, Now: func() time.Time { return now }}).Routes()}
	}})
}

func TestUsageOfAPeriod(t *testing.T) {
	var asked string
	h := start(t, func(from, to time.Time) []usage.Day {
		asked = from.Format(time.DateOnly) + " " + to.Format(time.DateOnly)
		return []usage.Day{{Date: "2030-01-30", Hours: map[string]float64{"up": 40, "down": 8}, Watched: 24}, {Date: "2030-01-31", Hours: map[string]float64{"up": 2.5}, Watched: 12}}
	})
	for query, want := range map[string]string{
		"": "2030-01-02 2030-01-31", "?from=2030-01-30": "2030-01-30 2030-01-31", "?to=2029-12-31": "2029-12-02 2029-12-31",
		"?from=2029-01-01&to=2029-01-01": "2029-01-01 2029-01-01",
	} {
		h.OK("GET", "/cluster/usage"+query, nil)
		if asked != want {
			t.Errorf("%q asks for %s, want %s", query, asked, want)
		}
	}
	for _, query := range []string{"?from=yesterday", "?from=2030-02-01", "?from=2020-01-01", "?from=", "?days=7", "?from=2030-01-01&from=2030-01-02", "?to=2030-1-1"} {
		if query == "?from=" {
			continue
		}
		h.Refused("GET", "/cluster/usage"+query, nil)
	}
	got := string(h.OK("GET", "/cluster/usage", nil))
	if !strings.Contains(got, `"node_hours":{"down":8,"total":50.5,"up":42.5}`) || !strings.Contains(got, `"watched":36`) || strings.Contains(got, "jobs") {
		t.Errorf("usage is %s", got)
	}
}

func TestAccountant(t *testing.T) {
	h := start(t, func(_, _ time.Time) []usage.Day { return nil })
	dir := t.TempDir()
	script := func(name, body string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		os.MkdirAll(filepath.Dir(path), 0o755)
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil { // whatever the umask
			t.Fatal(err)
		}
		return path
	}
	if got := string(h.OK("GET", "/cluster/accountant", nil)); got != `{"type":"head"}` {
		t.Errorf("a new cluster has %s", got)
	}
	good := script("a/sacct", "echo", 0o755)
	for _, bad := range []string{
		`{"type":"pbs"}`, `{"type":"head","sacct":"/usr/bin/sacct"}`, `[]`, ``, `{"type":"slurm","nonsense":1}`,
		`{"type":"slurm","sacct":"sacct"}`, `{"type":"slurm","sacct":"/bin/sh"}`, `{"type":"slurm","sacct":"/nowhere/sacct"}`, `{"type":"slurm","sacct":"` + dir + `/b/../a/sacct"}`,
		`{"type":"slurm","sacct":"` + script("w/sacct", "echo", 0o777) + `"}`, `{"type":"slurm","sacct":"` + script("x/sacct", "echo", 0o644) + `"}`,
		`{"type":"slurm","sacct":"` + good + `","timeout":301}`, `{"type":"slurm","sacct":"` + good + `","timeout":-1}`,
		`{"type":"slurm","sacct":"` + good + `","cluster":"a b"}`, `{"type":"slurm","sacct":"` + good + `","cluster":"-x"}`, `{"type":"slurm","sacct":"` + good + `","cluster":"a,b\n"}`,
	} {
		h.Refused("PUT", "/cluster/accountant", bad)
	}
	h.OK("PUT", "/cluster/accountant", `{"type":"none"}`)
	if reason := h.Refused("GET", "/cluster/usage", nil); !strings.Contains(reason, "accountant") {
		t.Error(reason)
	}
	h.OK("PUT", "/cluster/accountant", `{}`)
	h.OK("GET", "/cluster/usage", nil)
	set := func(path string, timeout int) {
		h.OK("PUT", "/cluster/accountant", apitest.Map{"type": "slurm", "sacct": path, "timeout": timeout, "cluster": "alpha"})
	}

	// What sacct of Slurm 22.05 prints.
	set(script("real/sacct", `printf '%s\n' "$@" >`+dir+`/args; env >`+dir+`/env; cat <<END
JobIDRaw|User|Account|State|AllocNodes|ElapsedRaw|CPUTimeRAW
101|jo|physics|COMPLETED|4|3600|57600
102|jo|physics|CANCELLED by 1000|1|1800|7200
103|ann|chem|RUNNING|2|900|1800
104||chem|FAILED|x|1|1
warning: something else
END
`, 0o755), 0)
	var got struct{ Jobs usage.Jobs }
	if err := json.Unmarshal(h.OK("GET", "/cluster/usage?from=2030-01-01", nil), &got); err != nil {
		t.Fatal(err)
	}
	j := got.Jobs
	if j.Count != 3 || j.Skipped != 2 || math.Abs(j.NodeHours-5) > 1e-9 || math.Abs(j.CPUHours-18.5) > 1e-9 ||
		fmt.Sprint(j.Users) != "[{ann 1 0.5 0.5} {jo 2 4.5 18}]" || fmt.Sprint(j.States) != "[{CANCELLED 1 0.5 2} {COMPLETED 1 4 16} {RUNNING 1 0.5 0.5}]" {
		t.Errorf("jobs are %+v", j)
	}
	args, _ := os.ReadFile(dir + "/args")
	for _, want := range []string{"--starttime=2030-01-01T00:00:00\n", "--endtime=2030-01-31T23:59:59\n", "--parsable2\n", "--clusters=alpha\n"} {
		if !strings.Contains(string(args), want) {
			t.Errorf("sacct got %q", args)
		}
	}
	if env, _ := os.ReadFile(dir + "/env"); !strings.Contains(string(env), "TZ=UTC") || strings.Contains(string(env), "HOME=") {
		t.Errorf("sacct's environment is %s", env)
	}

	for name, c := range map[string]struct {
		body   string
		status int
		reason string
	}{
		"fails":  {"echo 'sacct: error: slurm_persist_conn_open_without_init: connection refused' >&2; exit 1", 502, "connection refused"},
		"silent": {"exit 0", 502, "printed nothing"},
		"other":  {"echo 'JobID|User'", 502, "no column"},
		"hangs":  {"sleep 100 & echo 'JobIDRaw|User|Account|State|AllocNodes|ElapsedRaw|CPUTimeRAW'; sleep 100", 504, "did not finish within 1 s"},
		"floods": {"yes xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx | tr -d '\\n'", 502, "sacct"},
	} {
		set(script(name+"/sacct", c.body, 0o755), 1)
		if a := h.Do("GET", "/cluster/usage", nil); a.Status != c.status || !strings.Contains(a.Reason, c.reason) {
			t.Errorf("%s: %d %s", name, a.Status, a.Raw)
		}
	}
	os.RemoveAll(dir)
	if a := h.Do("GET", "/cluster/usage", nil); a.Status != 409 || !strings.Contains(a.Reason, "there is no") {
		t.Errorf("without the program: %d %s", a.Status, a.Raw)
	}
}
